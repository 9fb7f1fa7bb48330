"""Simulation-based calibration, small; ``make sbc`` runs every case large. See ``sbc.py``."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.gibbs import sbc
from tests.inference.gibbs.sbc_cases import CASES
from tests.statistics import alarms, assert_no_alarm

QUICK = ("Gaussian, two fields", "probit")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CASES]
)
def test_ranks_are_uniform(name: str) -> None:
    result = sbc.calibrate(CASES[name], 1000)
    assert_no_alarm(result.p_values)
    assert max(result.autocorrelation.values()) < sbc.LARGEST_AUTOCORRELATION, result.autocorrelation


def test_ignoring_a_row_is_found() -> None:
    case = CASES["Gaussian, two fields"]
    data = case.problem.data
    result = sbc.calibrate(case, 1000, data._replace(weight=data.weight.at[:4].set(0)))
    assert alarms(result.p_values)


def test_a_row_of_the_table_says_whether_a_case_failed() -> None:
    rng = np.random.default_rng(0)
    ranks = {"a": rng.integers(0, sbc.NUM_DRAWS + 1, 1000), "b": rng.integers(0, sbc.NUM_DRAWS + 1, 1000)}
    good = sbc.Result(ranks, {"a": 0.01, "b": 0.02})
    assert not sbc.failed(good)
    assert sbc.line("case", 1000, good, 5.0).startswith("| case | 1,000 | 2 | ")
    assert sbc.failed(good._replace(ranks=ranks | {"b": ranks["b"] // 2}))
    assert sbc.failed(good._replace(autocorrelation={"a": 0.01, "b": 0.2}))
    assert sbc.failed(good._replace(autocorrelation={"a": 0.01, "b": float("nan")}))


def test_autocorrelation_is_that_of_an_autoregression() -> None:
    rng, rho = np.random.default_rng(0), 0.2
    x = rng.normal(size=(4000, sbc.NUM_DRAWS))
    for t in range(1, x.shape[1]):
        x[:, t] = rho * x[:, t - 1] + (1 - rho**2) ** 0.5 * x[:, t]
    # Of ranks: (6 / pi) arcsin(rho / 2), with a bias of the size of rho over the number of draws.
    expected = 6 / np.pi * np.arcsin(rho / 2)
    assert abs(sbc.autocorrelation(np.exp(5 * x)) - expected) < 1 / sbc.NUM_DRAWS
