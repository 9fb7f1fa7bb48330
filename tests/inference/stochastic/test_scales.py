"""Hyperparameters for an approximation: against quadrature, and against SciPy's optimiser."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from bayesfm.inference.stochastic import scales as scales_module
from bayesfm.inference.stochastic.objective import expected_log_prior
from bayesfm.inference.stochastic.scales import given_scales, updated_scales
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    NormalGamma,
    Prior,
    Sizes,
)
from tests.inference.stochastic.problems import PROBLEMS, learner_of, with_priors

GROUP = np.array([0, 0, 0, 1, 1, 0])
RNG = np.random.default_rng(0)
MEAN, VARIANCE = RNG.normal(0.5, 1.0, (6, 2)), RNG.uniform(0.1, 0.5, (6, 2))


def updated(prior: Prior, num_groups: int = 3, hyper: Any = None) -> dict[str, np.ndarray]:
    """In float64; group 2 is empty."""
    with jax.enable_x64():
        start = prior.initial(Sizes(num_groups, 6, (2,))) if hyper is None else hyper
        start = {name: jnp.asarray(x, jnp.float64) for name, x in start.items()}
        found = updated_scales(
            prior, start, jnp.asarray(GROUP), jnp.asarray(MEAN), jnp.asarray(VARIANCE), num_groups
        )
        return {name: np.asarray(x) for name, x in found.items()}


def test_normal_gamma_is_the_mean_of_its_own_conditional() -> None:
    """exp(E log p(x, mu, lambda)), normalised by summation over a grid: its means of lambda and of mu given lambda."""
    prior = NormalGamma(a0=3.0, b0=2.0, beta0=1.5, mu0=0.3)
    found = updated(prior)
    mu, lam = np.linspace(-5, 6, 1501)[:, None], np.linspace(1e-4, 25, 1500)[None]
    np.testing.assert_allclose(found["lambda"][2], 1.5)  # an empty group has its prior
    np.testing.assert_allclose(found["mu"][2], 0.3)
    for g in range(2):
        for f in range(2):
            lp = stats.gamma.logpdf(lam, 1.5, scale=1.0) + stats.norm.logpdf(mu, 0.3, (1.5 * lam) ** -0.5)
            for j in np.flatnonzero(g == GROUP):
                lp = lp + 0.5 * np.log(lam) - 0.5 * lam * ((MEAN[j, f] - mu) ** 2 + VARIANCE[j, f])
            p = np.exp(lp - lp.max())
            p /= p.sum()
            np.testing.assert_allclose(found["lambda"][g, f], np.sum(p * lam), rtol=1e-3)
            of_lambda = np.sum(p * lam * mu) / np.sum(p * lam)  # the mean of mu, free of lambda
            np.testing.assert_allclose(found["mu"][g, f], of_lambda, rtol=1e-3, atol=1e-4)


def test_half_t_is_at_the_mode() -> None:
    prior = HalfT(scale=0.8, df=3.0, beta0=1.5, mu0=0.3)
    found = updated(prior)
    for g in range(2):
        for f in range(2):
            own = g == GROUP

            def loss(u: np.ndarray, m: np.ndarray = MEAN[own, f], s: np.ndarray = VARIANCE[own, f]) -> float:
                mu, sigma = u[0], np.exp(u[1])
                lp = stats.t.logpdf(sigma, 3.0, 0, 0.8) + stats.norm.logpdf(mu, 0.3, sigma / 1.5**0.5)
                return -lp - float(np.sum(stats.norm.logpdf(m, mu, sigma) - 0.5 * s / sigma**2))

            best = optimize.minimize(loss, [0.0, 0.0], tol=1e-10).x
            np.testing.assert_allclose(found["mu"][g, f], best[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["sigma"][g, f], np.exp(best[1]), rtol=1e-4)
    np.testing.assert_array_equal(found["sigma"][2], 0.8)  # nobody is there


@pytest.mark.parametrize("prior", [Horseshoe()], ids=["horseshoe"])
def test_the_bound_rises_for_every_family(prior: Prior) -> None:
    """And once it has settled, moving any coordinate of a positive hyperparameter lowers it."""

    def of_hyper(own: Any) -> jax.Array:
        lp = expected_log_prior(prior, own, jnp.asarray(GROUP), jnp.asarray(MEAN), jnp.asarray(VARIANCE), 2)
        return jnp.sum(lp) + prior.log_hyper(own)

    compiled = jax.jit(of_hyper)

    def bound(hyper: dict[str, np.ndarray]) -> float:
        with jax.enable_x64():
            return float(compiled({name: jnp.asarray(x) for name, x in hyper.items()}))

    start = {name: np.asarray(x, np.float64) for name, x in prior.initial(Sizes(2, 6, (2,))).items()}
    first = updated(prior, 2, start)
    assert bound(first) > bound(start)
    settled = first
    for _ in range(5):
        settled = updated(prior, 2, settled)
    at_mode = bound(settled)
    assert at_mode >= bound(first)
    for name, x in settled.items():
        for factor in (0.98, 1.02):
            assert bound({**settled, name: x * factor}) < at_mode


def test_families_without_hyperparameters_have_none() -> None:
    assert updated(Fixed()) == {}


def test_scales_of_several_linear_predictors_are_updated_one_by_one() -> None:
    learner = learner_of(PROBLEMS["categorical"](), "samples")
    before = {name: x.shape for name, x in learner.hyper_v.items()}
    features = learner.features()
    learner.update_scales()
    assert {name: x.shape for name, x in learner.hyper_v.items()} == before
    for output in range(2):
        mean, variance = features.mean[:, output, 1:], features.sd[:, output, 1:] ** 2
        expected = scales_module.updated_scales(
            learner.spec.prior_v, {}, learner.model.groups[:-1], mean, variance, learner.num_groups
        )
        np.testing.assert_allclose(learner.hyper_v["lambda"][output], expected["lambda"], rtol=1e-5)


def test_given_scales_take_the_shape_of_their_sites() -> None:
    case = PROBLEMS["gaussian"]()
    given = {"lambda_w": 4.0, "lambda_v": [[1.0], [2.0]], "mu_v": [0.5, -0.5]}
    w, v = given_scales(case.spec, given, 2, 7, np.float32)
    np.testing.assert_array_equal(w["lambda"], [4.0, 4.0])
    np.testing.assert_allclose(w["mu"], [0.2, 0.2])
    np.testing.assert_array_equal(v["lambda"], [[1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(v["mu"], [[0.5, -0.5], [0.5, -0.5]])


@pytest.mark.parametrize(
    ("scales", "error", "message"),
    [
        (
            {"alpha": 1.0},
            ValueError,
            "'alpha', which is no hyperparameter; known: mu_w, lambda_w, mu_v, lambda_v",
        ),
        (
            {"lambda_w": [1.0, 2.0, 3.0]},
            ValueError,
            r"scales\['lambda_w'\] must have shape \(2,\); got \(3,\)",
        ),
        ({"lambda_v": -1.0}, ValueError, r"scales\['lambda_v'\] must be positive; got -1"),
        ({"mu_v": np.inf}, ValueError, r"scales\['mu_v'\] must be finite"),
        (4.0, TypeError, "scales must be a mapping"),
    ],
)
def test_bad_scales(scales: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learner_of(PROBLEMS["gaussian"](), scales=scales)
    assert with_priors(Fixed(), NormalGamma()).spec.prior_w == Fixed()
