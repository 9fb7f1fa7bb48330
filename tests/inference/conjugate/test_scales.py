"""Hyperparameters from beliefs: modes in closed form have no slope left, the others rise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.conjugate.scales import Beliefs, expected_log_prior, fit_hyper
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    PerGroup,
    Prior,
)

CLOSED: dict[str, Prior] = {
    "normal-gamma": NormalGamma(a0=2.0, b0=0.7, beta0=0.5, mu0=0.3),
    "half-t": HalfT(scale=0.4, df=3.0, beta0=0.5, mu0=-0.2),
    "half-Cauchy, wide": HalfT(scale=5.0, df=1.0),
    "half-normal": HalfT(scale=0.4, df=math.inf),
    "normal-Wishart": NormalWishart(a0=2.0, b0=0.7, beta0=0.5, mu0=0.3),
}
CLOSED["per group"] = PerGroup(
    ("a", "b", "c"), (CLOSED["normal-gamma"], Fixed(mean=0.2, precision=3.0), CLOSED["half-normal"])
)
CLIMBED: dict[str, Prior] = {
    "multiplicative gamma": MultiplicativeGamma(),
    "per group": PerGroup(("a", "b", "c"), (CLOSED["half-t"], Fixed(), MultiplicativeGamma(df=math.inf))),
    "horseshoe": Horseshoe(),
}
P, G, RANK = 7, 3, 2
QUICK = {"xla_backend_optimization_level": 0}


def beliefs(rank: int | None) -> Beliefs:
    """Of 7 features in 3 groups, one of them empty."""
    rng = np.random.default_rng(0)
    group = jnp.asarray([0, 0, 0, 2, 2, 0, 2])
    if rank is None:
        return Beliefs(jnp.asarray(rng.normal(size=P)), jnp.asarray(rng.gamma(1.0, 1.0, P)), group, G)
    A = rng.normal(size=(P, rank, rank))
    return Beliefs(jnp.asarray(rng.normal(size=(P, rank))), jnp.asarray(A @ A.transpose(0, 2, 1)), group, G)


def _moved(name: str, x: jax.Array, by: jax.Array) -> jax.Array:
    """A mean by as much, a scale by that on the log scale, a matrix between the roots of its factor."""
    if name.startswith("mu"):
        return x + by
    if name != "precision":
        return x * jnp.exp(by)
    root = jnp.linalg.cholesky(x)
    return root @ (jnp.eye(x.shape[-1]) + 0.5 * (by + by.mT)) @ root.mT


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("rank", [None, RANK])
def test_modes_in_closed_form_have_no_slope(name: str, rank: int | None) -> None:
    """By log precision (or log scale) and by the mean; without the variance of the beliefs there would be one."""
    prior = CLOSED[name]
    if prior.full and rank is None:
        return
    with jax.enable_x64():
        own = beliefs(rank)
        mode = fit_hyper(prior, prior.initial(own.sizes), own)
        unmoved = {x: jnp.zeros_like(v) for x, v in mode.items()}

        def height(moved: dict[str, jax.Array], cov: jax.Array) -> jax.Array:
            hyper = {x: _moved(x, v, moved[x]) for x, v in mode.items()}
            return expected_log_prior(prior, hyper, own._replace(cov=cov))

        slopes_of = jax.jit(jax.grad(height), compiler_options=QUICK)
        for slope in jax.tree.leaves(slopes_of(unmoved, own.cov)):
            np.testing.assert_allclose(slope, 0.0, atol=1e-8)
        slopes = jax.tree.leaves(slopes_of(unmoved, jnp.zeros_like(own.cov)))
        assert max(float(jnp.max(jnp.abs(x))) for x in slopes) > 0.1


@pytest.mark.parametrize("name", CLIMBED)
def test_other_families_climb(name: str) -> None:
    prior, rank = CLIMBED[name], None if name == "horseshoe" else RANK
    with jax.enable_x64():
        own = beliefs(rank)
        hyper = prior.initial(own.sizes)
        height = jax.jit(lambda hyper: expected_log_prior(prior, hyper, own), compiler_options=QUICK)
        heights = [float(height(hyper))]
        fit = jax.jit(lambda hyper: fit_hyper(prior, hyper, own), compiler_options=QUICK)
        for _ in range(3):
            hyper = fit(hyper)
            heights.append(float(height(hyper)))
    assert heights[1] > heights[0] + 0.1
    assert np.all(np.diff(heights) >= -1e-9)


def test_nothing_to_fit() -> None:
    assert fit_hyper(Fixed(), {}, beliefs(RANK)) == {}


def test_expected_log_prior_is_an_expectation() -> None:
    """Of the log density over draws of x, and the log density of unconstrained hyperparameters."""
    prior, rng = CLOSED["normal-gamma"], np.random.default_rng(1)
    with jax.enable_x64():
        own = beliefs(RANK)
        hyper = {
            "mu": jnp.asarray(rng.normal(size=(G, RANK))),
            "lambda": jnp.asarray(rng.gamma(2.0, 1.0, (G, RANK))),
        }
        x = own.mean + jnp.einsum(
            "pij,npj->npi", jnp.linalg.cholesky(own.cov), rng.normal(size=(20_000, P, RANK))
        )
        log_density = prior.distribution(prior.of_features(hyper, own.group, (RANK,))).log_prob(x).sum((1, 2))
        constant = prior.log_hyper(hyper) + jnp.sum(jnp.log(hyper["lambda"]))
        got, drawn = float(expected_log_prior(prior, hyper, own) - constant), np.asarray(log_density)
    assert abs(got - drawn.mean()) < 5 * drawn.std() / np.sqrt(len(drawn))
