"""Whole sweeps leave the joint distribution of parameters and data as it is; ``test_mutations.py`` shows the power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bayesfm import native
from tests.inference.gibbs import joint
from tests.statistics import assert_no_alarm, ks_exact

CASES = {
    "two fields, joint": {"kind": "fields", "rank": 3, "factor_block": 3, "mu0_v": 0.0},
    "two fields, overlapping blocks": {"kind": "fields", "rank": 3, "factor_block": 2, "weighted": True},
    "two fields, factor by factor, many tiles": {"kind": "fields", "rank": 3, "factor_block": 1, "tile": 8},
    "three fields": {"kind": "three fields", "rank": 2, "factor_block": 2, "mu0_v": 0.0},
    # A group of w and v has its features in two units.
    "one group of two fields": {"kind": "one group", "rank": 2, "factor_block": 2, "mu0_v": 0.0},
    "relation block, joint": {"kind": "table", "rank": 3, "factor_block": 3},
    "relation block, overlapping blocks": {"kind": "table", "rank": 3, "factor_block": 2, "weighted": True},
    "relation block, factor by factor": {"kind": "table", "rank": 3, "factor_block": 1},
    "rows, joint": {"kind": "rows", "rank": 3, "factor_block": 3, "weighted": True},
    "rows, overlapping blocks": {"kind": "rows", "rank": 3, "factor_block": 2},
    "rows, factor by factor": {"kind": "rows", "rank": 3, "factor_block": 1},
}
WITH_KERNELS = {
    f"kernels, {name}": {**case, "native": True} for name, case in CASES.items() if "tile" not in case
} | {
    "kernels, two fields, factor by factor": {"kind": "fields", "rank": 3, "factor_block": 1, "native": True},
    # Features with two to ten rows, and systems of ten parameters: by their rows, and by sums over them.
    "kernels, three fields, higher rank": {
        "kind": "three fields",
        "rank": 9,
        "factor_block": 9,
        "weighted": True,
        "native": True,
    },
    # Fewer rows than parameters in a column.
    "kernels, rows, higher rank": {
        "kind": "rows",
        "rank": 6,
        "factor_block": 6,
        "weighted": True,
        "native": True,
    },
}
if native.available():
    CASES |= WITH_KERNELS
QUICK = {
    "relation block, joint",
    "kernels, two fields, joint",
    "one group of two fields",
    "kernels, three fields, higher rank",
    "kernels, relation block, overlapping blocks",
    "kernels, rows, higher rank",
}
"""Every kind of unit, by XLA and by kernels (fields and rows by XLA: in ``test_mutations.py``); the others are at full
size, with these."""


def p_values_of_seeds(name: str, seeds: range, num_chains: int, num_sweeps: int) -> dict[str, float]:
    problem = joint.problem(**CASES[name])
    return {
        f"{quantity}, seed {seed}": p
        for seed in seeds
        for quantity, p in joint.p_values(problem, num_chains, num_sweeps, seed=seed).items()
    }


@pytest.mark.parametrize("name", [name for name in CASES if name in QUICK])
def test_sweeps_leave_the_joint_distribution(name: str) -> None:
    assert_no_alarm(p_values_of_seeds(name, range(2), 10_000, 10))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_sweeps_leave_the_joint_distribution_at_full_size(name: str) -> None:
    assert_no_alarm(p_values_of_seeds(name, range(10, 14), 60_000, 30))


@pytest.mark.parametrize("name", ["two fields, joint", "two fields, overlapping blocks"])
def test_draws_from_the_model_are_what_they_claim(name: str) -> None:
    """What the chains start from, against distributions in closed form."""
    problem = joint.problem(**CASES[name])
    spec, weight = problem.spec, problem.weight
    sites, y = joint.draw_from_model(problem, np.random.default_rng(0), 20_000)
    values = joint.quantities(problem, sites, y)
    prior = spec.prior_w
    surplus = (weight[weight > 0] - 1).sum()
    alpha = stats.gamma((spec.likelihood.a0 + surplus) / 2, scale=2 / spec.likelihood.b0)
    p_values = {
        "alpha": ks_exact(values["alpha"], alpha),
        "w0": ks_exact(values["w0"], stats.norm(spec.intercept.mean, spec.intercept.precision**-0.5)),
        "lambda_w": ks_exact(values["lambda_w [0]"], stats.gamma(prior.a0 / 2, scale=2 / prior.b0)),
        "w": ks_exact(values["precision (w - mean)^2 [0]"], stats.chi2(1)),
        "v": ks_exact(values["precision (v - mean)^2 [0]"], stats.chi2(1)),
        "chi-square": ks_exact(values["alpha sum e^2"], stats.chi2((weight > 0).sum())),
        "mu_w": ks_exact(
            (sites["mu_w"][:, 0] - prior.mu0) * np.sqrt(prior.beta0 * sites["lambda_w"][:, 0]), stats.norm
        ),
    }
    assert_no_alarm(p_values)
