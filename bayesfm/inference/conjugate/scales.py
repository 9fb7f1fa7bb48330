"""Hyperparameters from beliefs about w and v: the M-step of empirical Bayes and of mean-field inference.

The joint mode of hierarchical scales and what they scale lies where both vanish. Given *beliefs* about what they
scale, with their uncertainty, the expected log density

    E[log p(x | hyper)] + log p(hyper)

has a mode that does not; precisions and scales are taken on the log scale. See docs/math.md, section 31.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int
from numpyro.distributions import biject_to

from bayesfm.priors import Features, Hyper, Prior, Sizes

__all__ = ["Beliefs", "expected_log_prior", "fit_hyper"]

STEPS, FIRST_STEP = 20, 0.1
"""Iterations on hyperparameters that have no mode in closed form; size of the first step, on log scales."""


class Beliefs(NamedTuple):
    """Mean and covariance of x of every feature, in the order of the design: of w (p,), (p,) or v (p, k), (p, k, k).

    Where the prior precision of v is diagonal, the variances (p, k) alone may stand for the covariance.
    """

    mean: Float[Array, "p *k"]
    cov: Float[Array, "p *kk"]
    group: Int[Array, " p"]
    num_groups: int

    @property
    def variance(self) -> Float[Array, "p *k"]:
        """The diagonal of the covariance."""
        return self.cov if self.cov.ndim == self.mean.ndim else jnp.diagonal(self.cov, axis1=1, axis2=2)

    @property
    def sizes(self) -> Sizes:
        """Numbers of groups, features and columns."""
        return Sizes(self.num_groups, self.mean.shape[0], self.mean.shape[1:])

    def features(self) -> Features:
        """Moments of every group, the sum of squares around the mean being the expected one."""
        sums = partial(jax.ops.segment_sum, segment_ids=self.group, num_segments=self.num_groups)
        number = sums(jnp.ones_like(self.mean, shape=self.group.shape))
        mean = sums(self.mean) / jnp.maximum(number, 1).reshape(-1, *[1] * (self.mean.ndim - 1))
        scatter = sums((self.mean - mean[self.group]) ** 2 + self.variance)
        return Features(self.mean, self.group, number, mean, scatter)


def expected_log_prior(prior: Prior, hyper: Hyper, beliefs: Beliefs) -> Float[Array, ""]:
    """E[log p(x | hyper)] + log p(hyper), with the Jacobian to unconstrained coordinates of the hyperparameters."""
    own = prior.of_features(hyper, beliefs.group, beliefs.mean.shape[1:])
    log_density = prior.distribution(own).log_prob(beliefs.mean)
    precision, _ = prior.precision_and_mean(own, beliefs.mean.shape)
    spread = precision * (beliefs.cov if prior.full else beliefs.variance)
    out = jnp.sum(log_density) - 0.5 * jnp.sum(spread) + prior.log_hyper(hyper)
    for name, bijection in _bijections(prior, beliefs.sizes).items():
        x = hyper[name]
        if bijection.domain.event_dim < bijection.codomain.event_dim:
            # The log scale of matrices: the measure that no change of basis changes, |x|^(-(k + 1)/2) dx.
            out += 0.5 * (x.shape[-1] + 1) * jnp.sum(jnp.linalg.slogdet(x)[1])
        else:
            out += jnp.sum(bijection.log_abs_det_jacobian(bijection.inv(x), x))
    return out


def fit_hyper(prior: Prior, hyper: Hyper, beliefs: Beliefs) -> Hyper:
    """Hyperparameters of larger :func:`expected_log_prior`: its mode where the family knows it, else steps uphill."""
    if not hyper or not beliefs.mean.size:
        return hyper
    covariance = jax.ops.segment_sum(beliefs.cov, beliefs.group, beliefs.num_groups)
    mode = prior.mode(beliefs.features(), covariance)
    return _ascend(prior, hyper, beliefs) if mode is None else mode


def _ascend(prior: Prior, hyper: Hyper, beliefs: Beliefs) -> Hyper:
    bijections = _bijections(prior, beliefs.sizes)
    free, of_vector = ravel_pytree({name: b.inv(hyper[name]) for name, b in bijections.items()})

    def constrained(u: Float[Array, " d"]) -> Hyper:
        return {name: bijections[name](x) for name, x in of_vector(u).items()}

    def depth(u: Float[Array, " d"]) -> Float[Array, ""]:
        return -expected_log_prior(prior, constrained(u), beliefs)

    # Steps of their own for every coordinate, by the signs of slopes; a line search takes ten times as long to compile.
    optimiser = optax.rprop(FIRST_STEP)

    def step(_: Any, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        u, state = carry
        change, state = optimiser.update(jax.grad(depth)(u), state, u)
        return optax.apply_updates(u, change), state

    best, _ = lax.fori_loop(0, STEPS, step, (free, optimiser.init(free)))
    better = depth(best) <= depth(free)  # False for NaN
    return constrained(jnp.where(better, best, free))


def _bijections(prior: Prior, sizes: Sizes) -> dict[str, Any]:
    """From the real line to each hyperparameter, by the supports of its sites."""

    def sites() -> dict[str, Any]:
        seeded = numpyro.handlers.seed(prior.sample_hyper, jax.random.key(0))
        return numpyro.handlers.trace(seeded).get_trace("", sizes)

    found: dict[str, Any] = {}

    def look() -> None:
        for name, site in sites().items():
            found[name] = biject_to(site["fn"].support)

    jax.eval_shape(look)
    return {name: found[name] for name in prior.hyper_names()}
