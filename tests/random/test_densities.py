"""Densities of scales: SciPy's values, NumPyro's gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from bayesfm.random.densities import Gamma, StudentT, log_gamma

X = np.concatenate([[1e-30, 1e-3, 0.5, 1.0, 2.0, 7.999, 8.0, 8.001], np.geomspace(1e-6, 1e12, 200)])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_log_gamma(precision: Any) -> None:
    with jax.enable_x64(precision == "float64"):
        x = X.astype(precision)
        got = np.asarray(jax.jit(log_gamma)(x))
        assert got.dtype == precision
        wide = x.astype(float)
        size = 1 + np.abs(np.log(wide)) * (1 + wide) + wide  # of the terms
        tolerance = 8 * np.finfo(precision).eps * (size + special.gammaln(np.minimum(wide, 8) + 8))
        assert np.all(np.abs(got - special.gammaln(wide)) <= tolerance)


def test_slope_of_log_gamma() -> None:
    with jax.enable_x64():
        x = X[X > 1e-7]
        np.testing.assert_allclose(
            jax.vmap(jax.grad(log_gamma))(x), special.digamma(x), rtol=1e-12, atol=1e-12
        )


PAIRS = {
    "gamma": (Gamma(2.5, 3.0), stats.gamma(2.5, scale=1 / 3)),
    "gammas": (Gamma(jnp.array([0.5, 40.0]), 0.5), stats.gamma([0.5, 40.0], scale=2)),
    "half-Cauchy's": (StudentT(1.0, 0.0, 2.0), stats.cauchy(0, 2)),
    "student-t": (StudentT(jnp.array([3.0, 70.0]), -1.0, 0.5), stats.t([3.0, 70.0], -1.0, 0.5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_log_densities(name: str) -> None:
    ours, expected = PAIRS[name]
    value = np.array([[0.01], [0.7], [3.0], [50.0]], np.float32)
    np.testing.assert_allclose(jax.jit(ours.log_prob)(value), expected.logpdf(value), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(Gamma, dist.Gamma), (StudentT, dist.StudentT)])
def test_the_rest_is_that_of_numpyro(ours: Any, theirs: Any) -> None:
    key = jax.random.key(0)
    np.testing.assert_array_equal(ours(3.0, 2.0).sample(key, (5,)), theirs(3.0, 2.0).sample(key, (5,)))
    assert ours(3.0, 2.0).support is theirs(3.0, 2.0).support
    many, same = (family(3.0, 2.0).expand((2, 3)).to_event(2) for family in (ours, theirs))
    np.testing.assert_allclose(many.log_prob(jnp.ones((2, 3))), same.log_prob(jnp.ones((2, 3))), rtol=1e-5)
    with pytest.warns(UserWarning, match="Out-of-support"):
        Gamma(3.0, 2.0, validate_args=True).log_prob(-1.0)
