from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

from bayesfm.likelihoods import Gaussian, Likelihood
from bayesfm.likelihoods.base import Observed
from tests.implied import gamma_shape_and_rate
from tests.statistics import assert_no_alarm, ks_exact

LIKELIHOOD = Gaussian(a0=3.0, b0=2.0)


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    """Responses and eta of 9 rows; weights with zeros, fractions, and whole numbers."""
    rng = np.random.default_rng(0)
    weight = np.array([1.0, 2.0, 0.0, 0.5, 1.0, 3.0, 0.0, 1.5, 1.0])
    return {"y": rng.normal(size=9), "eta": rng.normal(size=9), "weight": weight}


def update(data: dict[str, np.ndarray], key: jax.Array | None = None) -> jax.Array:
    observed, eta = on_device(data)
    return LIKELIHOOD.update(jax.random.key(0) if key is None else key, observed, eta, {})["alpha"]


def on_device(data: dict[str, np.ndarray]) -> tuple[Observed, jax.Array]:
    return Observed(jnp.asarray(data["y"]), jnp.asarray(data["weight"]), {}), jnp.asarray(data["eta"])


def test_alpha_has_the_gamma_conditional(data: dict[str, np.ndarray]) -> None:
    """Differences of the log density along alpha, each row's density raised to its weight."""
    with jax.enable_x64():
        shape, rate = gamma_shape_and_rate(lambda: update(data))
    grid = np.array([0.2, 0.7, 1.3, 5.0])
    lp = stats.gamma.logpdf(grid, 1.5, scale=1.0)
    for y, eta, weight in zip(data["y"], data["eta"], data["weight"], strict=True):
        lp = lp + weight * stats.norm.logpdf(y, eta, grid**-0.5)
    np.testing.assert_allclose(
        np.diff(lp), np.diff(stats.gamma.logpdf(grid, shape, scale=1 / rate)), rtol=1e-10
    )


def test_a_weight_counts_rows(data: dict[str, np.ndarray]) -> None:
    whole = data | {"weight": np.array([1.0, 2.0, 0.0, 0.0, 1.0, 3.0, 0.0, 2.0, 1.0])}
    repeated = {name: np.repeat(x, whole["weight"].astype(int)) for name, x in data.items()}
    repeated["weight"] = np.ones(10)
    for ours, theirs in zip(
        gamma_shape_and_rate(lambda: update(whole)),
        gamma_shape_and_rate(lambda: update(repeated)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_log_likelihood_is_the_weighted_sum_of_log_densities(data: dict[str, np.ndarray]) -> None:
    y = np.where(data["weight"] > 0, data["y"], 1e6)  # a row of weight zero counts for nothing
    density = stats.norm.logpdf(data["y"], data["eta"], 1.7**-0.5)
    with jax.enable_x64():
        observed, eta = on_device(data | {"y": y})
        params = {"alpha": jnp.asarray(1.7)}
        got = LIKELIHOOD.log_likelihood(observed, eta, params)
        by_rows = LIKELIHOOD.distribution(eta, params, {}).log_prob(data["y"])
    np.testing.assert_allclose(got, (data["weight"] * density).sum(), rtol=1e-12)
    np.testing.assert_allclose(got, (data["weight"] * np.asarray(by_rows)).sum(), rtol=1e-12)


def test_random_draws(data: dict[str, np.ndarray]) -> None:
    shape, rate = gamma_shape_and_rate(lambda: update(data))
    alpha = jax.vmap(lambda key: update(data, key))(jax.random.split(jax.random.key(0), 20_000))
    assert_no_alarm({"alpha": ks_exact(alpha, stats.gamma(shape, scale=1 / rate))})


def test_augmentation_is_the_weighted_response(data: dict[str, np.ndarray]) -> None:
    observed, eta = on_device(data)
    omega, z = LIKELIHOOD.augment(jax.random.key(0), observed, eta, {"alpha": jnp.asarray(4.0)})
    np.testing.assert_array_equal(omega, 4.0 * observed.weight)
    np.testing.assert_array_equal(z, observed.y)


def test_distribution_and_prior() -> None:
    with jax.enable_x64():
        y = LIKELIHOOD.distribution(jnp.array([1.0, 2.0]), {"alpha": jnp.asarray(4.0)}, {})
        np.testing.assert_allclose(
            y.log_prob(jnp.array([0.5, 3.0])), stats.norm.logpdf([0.5, 3.0], [1, 2], 0.5)
        )
        expected = stats.gamma.logpdf(0.7, 1.5, scale=1.0)
        np.testing.assert_allclose(LIKELIHOOD.log_prior({"alpha": jnp.asarray(0.7)}), expected)
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
            params = LIKELIHOOD.sample()
        assert list(trace) == list(params) == list(LIKELIHOOD.dims) == ["alpha"]
        np.testing.assert_allclose(trace["alpha"]["fn"].log_prob(0.7), expected)


def test_initial_is_near_the_variance_of_y(data: dict[str, np.ndarray]) -> None:
    y, weight = data["y"], data["weight"]
    mean = np.average(y, weights=weight)
    expected = (3 + weight.sum()) / (2 + np.sum(weight * (y - mean) ** 2))
    alpha = LIKELIHOOD.initial(Observed(jnp.asarray(y), jnp.asarray(weight), {}))["alpha"]
    np.testing.assert_allclose(alpha, expected, rtol=1e-5)


def test_centre_is_the_weighted_mean(data: dict[str, np.ndarray]) -> None:
    assert LIKELIHOOD.centre(np.array([1.0, 4.0]), None) == 2.5
    assert LIKELIHOOD.centre(np.array([1.0, 4.0]), np.array([2.0, 1.0])) == 2.0


@pytest.mark.parametrize("name", ["a0", "b0"])
def test_bad_numbers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Gaussian\({name}=\) must be > 0"):
        Gaussian(**{name: 0.0})


def test_is_a_likelihood() -> None:
    assert isinstance(LIKELIHOOD, Likelihood)
    assert jax.tree.leaves(LIKELIHOOD) == [3.0, 2.0]


def test_responses_beyond_float32_are_refused() -> None:
    y = np.array([1e17, -1e17])
    assert Gaussian().validate(y) is y
    with pytest.raises(ValueError, match=r"y must lie within \+-1e\+18, got 1e\+300: divide y"):
        Gaussian().validate(np.array([0.0, -1e300]))
