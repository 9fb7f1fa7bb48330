"""Bounds of expected log densities: exact for a point, else below the expectation, with the weights that Gibbs has."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.conjugate.expectation import curvature, expected_augmentation, local_quadratic
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Gaussian, Likelihood, Poisson, StudentT
from bayesfm.likelihoods.base import Observed
from bayesfm.likelihoods.bounds import log_two_cosh
from tests.likelihoods.test_likelihoods import LIKELIHOODS, N, drawn, first, on_device, quickly, rows_of

BOUNDED = {name: x for name, x in LIKELIHOODS.items() if x.has_bound} | {"gaussian": Gaussian(3.0, 2.0)}


@pytest.fixture(params=BOUNDED, name="likelihood")
def fixture_likelihood(request: pytest.FixtureRequest) -> Likelihood:
    return BOUNDED[request.param]


def problem(likelihood: Likelihood) -> tuple[Observed, np.ndarray, dict[str, Any]]:
    if isinstance(likelihood, Gaussian):
        rng = np.random.default_rng(0)
        params, eta, y = {"alpha": np.array([1.7])}, rng.normal(size=(1, N)), rng.normal(size=(1, N))
    else:
        params, eta, y = drawn(likelihood)
    weight = np.resize([1.0, 0.0, 1.0], N)
    return Observed(*on_device((y[0], weight, rows_of(likelihood)))), eta[0], on_device(first(params))


def test_every_augmentation_has_a_bound() -> None:
    """Whatever Gibbs sweeps of one linear predictor take, coordinate ascent takes."""
    for likelihood in LIKELIHOODS.values():
        assert likelihood.has_bound == likelihood.conjugate
        if not likelihood.has_bound:
            with pytest.raises(NotImplementedError, match="no bound"):
                likelihood.expected_log_density(*[None] * 4)


def test_exact_without_variance(likelihood: Likelihood) -> None:
    with jax.enable_x64():
        observed, eta, params = problem(likelihood)
        got = quickly(likelihood.expected_log_density)(observed, jnp.asarray(eta), jnp.zeros(N), params)
        expected = quickly(likelihood.log_density)(observed, jnp.asarray(eta), params)
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_below_the_expectation(likelihood: Likelihood) -> None:
    """By Gauss-Hermite quadrature; and for narrow beliefs not by much."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    with jax.enable_x64():
        observed, eta, params = problem(likelihood)
        over_nodes = jax.jit(jax.vmap(lambda x: likelihood.log_density(observed, x, params)))
        for variance in (0.01, 0.5, 3.0):
            expected = weights @ np.asarray(over_nodes(jnp.asarray(eta + np.sqrt(variance) * nodes[:, None])))
            args = observed, jnp.asarray(eta), jnp.full(N, variance), params
            gap = expected - np.asarray(jax.jit(likelihood.expected_log_density)(*args))
            assert np.all(gap >= -1e-8)
            if isinstance(likelihood, Gaussian):
                np.testing.assert_allclose(gap, 0.0, atol=1e-9)


def test_weights_are_means_of_what_gibbs_draws(likelihood: Likelihood) -> None:
    """omega and omega z at a point, against the mean of 4,000 augmentations."""
    with jax.enable_x64():
        observed, eta, params = problem(likelihood)
        eta = jnp.asarray(eta)
        augmentation = quickly(partial(expected_augmentation, likelihood))
        omega, z = augmentation(observed, eta, jnp.zeros(N), params)
        draw = quickly(jax.vmap(lambda key: likelihood.augment(key, observed, eta, params)))
        omegas, zs = draw(jax.random.split(jax.random.key(0), 4000))
    for got, draws in ((omega, omegas), (omega * z, omegas * zs)):
        draws = np.where(np.asarray(observed.weight) > 0, np.asarray(draws), 0.0)
        error = draws.std(axis=0) / np.sqrt(len(draws))
        assert np.all(np.abs(np.asarray(got) - draws.mean(axis=0)) <= 5 * error + 1e-9)


def test_fits_end_where_there_is_no_slope(likelihood: Likelihood) -> None:
    """By the parameters on unconstrained scales; and no step goes down."""
    if not likelihood.dims:
        return
    with jax.enable_x64():
        observed, eta, params = problem(likelihood)
        mean, variance = jnp.asarray(eta), jnp.full(N, 0.3)
        fit, height_of = quickly(likelihood.fit), quickly(likelihood.height)
        heights = [float(height_of(observed, mean, variance, params))]
        for _ in range(25):
            params = fit(observed, mean, variance, params)
            heights.append(float(height_of(observed, mean, variance, params)))
        assert np.all(np.diff(heights) >= -1e-9)
        positive = {name for name in params if name not in ("cutpoints", "tau")}

        def height(log: dict[str, jax.Array]) -> jax.Array:
            own = {**params, **{name: jnp.exp(x) for name, x in log.items()}}
            return likelihood.height(observed, mean, variance, own)

        slopes = quickly(jax.grad(height))({name: jnp.log(params[name]) for name in positive})
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, 0.0, atol=1e-3, err_msg=name)


def test_logistic_weights() -> None:
    """tanh(c/2)/(2c), 1/4 at 0, in float32 too; z = (y - 1/2)/omega."""
    mean, y = jnp.asarray([0.0, 1e-4, 0.49, 0.51, 3.0, -40.0]), jnp.asarray([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    observed = Observed(y, jnp.ones(6), {})
    omega, z = expected_augmentation(BernoulliLogit(), observed, mean, jnp.zeros(6), {})
    c = np.maximum(np.abs(np.asarray(mean, np.float64)), 1e-9)
    np.testing.assert_allclose(omega, np.tanh(c / 2) / (2 * c), rtol=3e-6)
    np.testing.assert_allclose(omega * z, np.asarray(y) - 0.5, rtol=1e-5)
    np.testing.assert_allclose(log_two_cosh(mean**2), np.log(2 * np.cosh(c / 2)), rtol=3e-7)


def test_curvature_of_what_has_no_bound() -> None:
    """Poisson: both derivatives; rows without curvature keep a finite working response."""
    eta = jnp.asarray([0.0, 1.0, -60.0])
    observed = Observed(jnp.asarray([2.0, 0.0, 3.0]), jnp.asarray([1.0, 2.0, 1.0]), {"exposure": jnp.ones(3)})
    slope, omega = curvature(Poisson(), observed, eta, {})
    np.testing.assert_allclose(slope, [1.0, -2 * np.e, 3.0], rtol=1e-5)
    np.testing.assert_allclose(omega, [1.0, 2 * np.e, 0.0], rtol=1e-5, atol=1e-20)
    omega, z = local_quadratic(Poisson(), observed, eta, {})
    assert np.all(np.isfinite(z))
    np.testing.assert_allclose(omega * (z - eta), slope, rtol=1e-3)


def test_probit_and_t_curvature_is_never_negative() -> None:
    """The log density of t is convex far out: there a row has none."""
    eta = jnp.asarray([0.0, 30.0])
    observed = Observed(jnp.zeros(2), jnp.ones(2), {})
    _, omega = curvature(StudentT(df=4.0), observed, eta, {"alpha": jnp.asarray(1.0)})
    assert omega[0] > 0
    assert omega[1] == 0
    _, omega = curvature(BernoulliProbit(), observed, eta, {})
    np.testing.assert_allclose(omega[0], 2 / np.pi, rtol=1e-5)
