"""Simulation-based calibration: ranks of the truth among posterior draws are uniform.

Only quantities that the data identify are ranked: others mix slowly, and ranks among dependent draws are not uniform.

References
----------
Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv:1804.06788.
Modrák et al. (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities
shapes sensitivity, Bayesian Analysis (the log-likelihood as a quantity).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesfm.inference.gibbs.state import GibbsData
from tests.inference.gibbs import joint
from tests.inference.gibbs.chains import draw_chain
from tests.statistics import alarms, assert_no_alarm, uniform_ranks_test

NUM_DRAWS = 31
"""Ranks are 0, ..., 31."""

THIN = 20
WARMUP = 200

CASES = {"two fields": {"kind": "fields"}, "relation block, weighted": {"kind": "table", "weighted": True}}


def quantities(
    problem: joint.Problem, eta: np.ndarray, alpha: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Identified quantities; eta of shape (..., n), alpha (...), y (..., n)."""
    e = np.where(problem.weight > 0, y - eta, 0.0)
    rows = stats.norm.logpdf(e, 0, np.asarray(alpha)[..., None] ** -0.5)
    out = {f"eta {i}": eta[..., i] for i in np.flatnonzero(problem.weight > 0)[:4]}
    return out | {
        "alpha": alpha,
        "log likelihood": (problem.weight * rows).sum(axis=-1),
        "sum e^2": (e**2).sum(axis=-1),
    }


@partial(jax.jit, static_argnames="factor_block", compiler_options={"xla_backend_optimization_level": 1})
def draws_of(
    keys: jax.Array, y: jax.Array, spec: Any, data: GibbsData, factor_block: int
) -> dict[str, jax.Array]:
    def chain(key: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        own = data._replace(y=jnp.pad(y, (0, data.y.shape[0] - y.shape[0])))
        out = draw_chain(key, spec, own, factor_block, WARMUP, NUM_DRAWS, THIN)
        return {"eta": out["eta"], "alpha": out["alpha"]}

    return jax.vmap(chain)(keys, y)


def calibrate(
    problem: joint.Problem, num_data_sets: int, data: GibbsData | None = None, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Ranks of every quantity, one per data set, and autocorrelations of successive draws."""
    sites, y = joint.draw_from_model(problem, np.random.default_rng([2018, seed]), num_data_sets)
    keys = jax.random.split(jax.random.key(seed), num_data_sets)
    y_device = jnp.asarray(y, jnp.float32)
    out = draws_of(keys, y_device, problem.spec, problem.data if data is None else data, problem.factor_block)
    eta, alpha = (np.asarray(out[name], np.float64) for name in ("eta", "alpha"))
    draws = quantities(problem, eta, alpha, y[:, None])
    truth = quantities(problem, joint.eta_of(problem, sites), sites["alpha"], y)
    ranks = {name: (draws[name] < truth[name][:, None]).sum(axis=1) for name in draws}
    return ranks, {name: autocorrelation(x) for name, x in draws.items()}


def autocorrelation(x: np.ndarray) -> float:
    """Of successive draws, over all data sets."""
    x = x - x.mean(axis=1, keepdims=True)
    # The mean of 31 draws stands for the true one: biased by about -1/31.
    return float((x[:, 1:] * x[:, :-1]).mean() / (x**2).mean() + 1 / x.shape[1])


def p_values(ranks: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: uniform_ranks_test(r, NUM_DRAWS + 1, 16) for name, r in ranks.items()}


def check(name: str, num_data_sets: int) -> None:
    ranks, dependence = calibrate(joint.problem(**CASES[name]), num_data_sets)
    assert_no_alarm(p_values(ranks))
    assert max(dependence.values()) < 0.1, dependence


@pytest.mark.parametrize("name", CASES)
def test_ranks_are_uniform(name: str) -> None:
    check(name, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_are_uniform_in_many_data_sets(name: str) -> None:
    check(name, 10_000)


def test_ignoring_a_row_is_found() -> None:
    problem = joint.problem(**CASES["two fields"])
    data = problem.data._replace(weight=problem.data.weight.at[:4].set(0))
    ranks, _ = calibrate(problem, 1000, data)
    assert alarms(p_values(ranks))
