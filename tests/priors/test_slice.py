"""Slice sampling of a scalar: from draws of a density to draws of it, and an end in every case."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from bayesfm.priors.draws import slice_step
from tests.statistics import alarms, assert_no_alarm

NUMBER, STEPS = 20_000, 5
DENSITIES: dict[str, tuple[Callable, stats.rv_continuous]] = {
    "normal": (lambda x: -0.5 * x**2, stats.norm()),
    "gumbel": (lambda x: -x - jnp.exp(-x), stats.gumbel_r()),
    "two peaks": (
        lambda x: jnp.logaddexp(-0.5 * (x - 3) ** 2, -0.5 * (x + 3) ** 2),
        None,
    ),
}


def start(name: str, rng: np.random.Generator) -> np.ndarray:
    if name == "two peaks":
        return rng.normal(size=NUMBER) + rng.choice([-3.0, 3.0], NUMBER)
    return DENSITIES[name][1].rvs(size=NUMBER, random_state=rng)


def stepped(log_density: Callable, x: np.ndarray, width: float) -> np.ndarray:
    def run(key: jax.Array, x: jax.Array) -> jax.Array:
        keys = jax.random.split(key, STEPS)
        return lax.scan(lambda x, k: (slice_step(k, log_density, x, width), None), x, keys)[0]

    keys = jax.random.split(jax.random.key(1), len(x))
    return np.asarray(jax.jit(jax.vmap(run))(keys, jnp.asarray(x, jnp.float32)), np.float64)


@pytest.mark.parametrize("width", [0.3, 3.0])
@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_stays(name: str, width: float) -> None:
    rng = np.random.default_rng(2)
    after = stepped(DENSITIES[name][0], start(name, rng), width)
    assert_no_alarm({name: float(stats.ks_2samp(after, start(name, rng)).pvalue)})


def test_another_density_is_noticed() -> None:
    rng = np.random.default_rng(2)
    after = stepped(lambda x: -0.6 * x**2, start("normal", rng), 1.0)
    assert alarms({"sd": float(stats.ks_2samp(after, start("normal", rng)).pvalue)})


def test_it_gets_from_peak_to_peak() -> None:
    x = np.full(2_000, 3.0)
    assert 0.02 < np.mean(stepped(DENSITIES["two peaks"][0], x, 8.0) < 0) < 0.98


@pytest.mark.parametrize("x", [0.0, 1.5])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_density_that_is_nowhere_finite_comes_to_an_end(value: float, x: float) -> None:
    keys = jax.random.split(jax.random.key(0), 100)
    after = jax.vmap(lambda key: slice_step(key, lambda x: jnp.full_like(x, value), jnp.float32(x), 1.0))(
        keys
    )
    assert np.isfinite(after).all()


def test_nan_counts_as_outside() -> None:
    x = stepped(lambda x: jnp.where(x > 0, -x, jnp.nan), np.ones(2_000), 1.0)
    assert (x > 0).all()
    assert len(np.unique(x)) > 1_990
