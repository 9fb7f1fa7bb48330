"""Whole sweeps leave the joint distribution as it is, whatever the prior families."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bayesfm import native
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    PerGroup,
)
from tests.inference.gibbs import joint
from tests.statistics import assert_no_alarm

HALF_T = HalfT(scale=0.7, df=6.0, beta0=2.0)
HALF_NORMAL = HalfT(scale=0.7, df=math.inf, beta0=2.0, mu0=0.5)
HORSESHOE = Horseshoe(global_scale=0.5, slab_scale=1.0, slab_df=6.0)
MATRIX = NormalWishart(a0=5.0, b0=3.0, beta0=1.5, mu0=0.3)
COLUMNS = MultiplicativeGamma(a1=4.0, a2=3.0, scale=0.8, df=6.0)
MIXED_W = PerGroup(("user", "item"), (HALF_NORMAL, NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5)))
MIXED_V = PerGroup(("user", "item"), (NormalGamma(a0=7.0, b0=4.0, beta0=1.5), HALF_T))
SOME_V = PerGroup(
    ("0", "1", "item"),
    (
        MultiplicativeGamma(a1=4.0, a2=3.0, scale=0.8, df=math.inf),
        Fixed(mean=0.2, precision=2.0),
        HALF_NORMAL,
    ),
)
SOME_W = PerGroup(("0", "1", "item"), (HORSESHOE, NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5), HALF_T))

CASES: dict[str, dict[str, Any]] = {
    "per group, rescaled": {"kind": "fields", "prior_w": MIXED_W, "prior_v": MIXED_V},
    "per group, some without means": {
        **{"kind": "rows", "rank": 3, "factor_block": 2, "prior_w": SOME_W, "prior_v": SOME_V}
    },
    "half-normal w, half-t v, rescaled": {"kind": "fields", "prior_w": HALF_NORMAL, "prior_v": HALF_T},
    "half-t w, fixed v": {"kind": "rows", "prior_w": HALF_T, "prior_v": Fixed(mean=0.2, precision=2.0)},
    "horseshoe w, multiplicative gamma v": {
        **{"kind": "rows", "rank": 3, "factor_block": 2, "prior_w": HORSESHOE, "prior_v": COLUMNS}
    },
    "normal-Wishart v, fields and moves": {"kind": "fields", "rank": 3, "factor_block": 3, "prior_v": MATRIX},
    "normal-Wishart v, rows, overlapping blocks": {
        **{"kind": "rows", "rank": 3, "factor_block": 2, "prior_w": HALF_T, "prior_v": MATRIX}
    },
    "normal-Wishart v, table, factor by factor": {
        **{"kind": "table", "rank": 2, "factor_block": 1, "prior_w": HORSESHOE, "prior_v": MATRIX}
    },
}
if native.available():
    CASES["kernels, per group"] = {**CASES["per group, some without means"], "kind": "table", "native": True}
    CASES["kernels, horseshoe w, multiplicative gamma v"] = {
        **{
            "kind": "table",
            "rank": 3,
            "factor_block": 3,
            "native": True,
            "prior_w": HORSESHOE,
            "prior_v": COLUMNS,
        }
    }


QUICK = (
    "half-normal w, half-t v, rescaled",
    "horseshoe w, multiplicative gamma v",
    "normal-Wishart v, rows, overlapping blocks",
)
"""One of each family; mixtures of families by group, and the kernels, are at full size."""


@pytest.mark.parametrize("name", QUICK)
def test_sweeps_leave_the_joint_distribution(name: str) -> None:
    assert_no_alarm(joint.p_values(joint.problem(**CASES[name]), 10_000, 5, optimization=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_sweeps_leave_the_joint_distribution_at_full_size(name: str) -> None:
    assert_no_alarm(joint.p_values(joint.problem(**CASES[name]), 60_000, 30, seed=1))
