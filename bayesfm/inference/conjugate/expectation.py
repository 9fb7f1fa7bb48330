"""Weights and working responses without random numbers: what coordinate ascent sees of a likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.likelihoods.base import Likelihood, Observed, Params

__all__ = ["curvature", "expected_augmentation", "local_quadratic"]


def expected_augmentation(
    likelihood: Likelihood,
    observed: Observed,
    mean: Float[Array, " n"],
    variance: Float[Array, " n"],
    params: Params,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """(omega, z) of the quadratic in eta that touches the expected log density at this mean and variance from below.

    Rows of weight zero have omega zero, and any finite z.
    """

    def height(mean: Array, variance: Array) -> Float[Array, ""]:
        return jnp.sum(likelihood.expected_log_density(observed, mean, variance, params))

    slope, by_variance = jax.grad(height, (0, 1))(mean, variance)
    omega = jnp.maximum(-2 * by_variance, 0.0)
    return omega, mean + jnp.where(omega > 0, slope / jnp.where(omega > 0, omega, 1.0), 0.0)


def local_quadratic(
    likelihood: Likelihood, observed: Observed, eta: Float[Array, "*L n"], params: Params
) -> tuple[Float[Array, "*L n"], Float[Array, "*L n"]]:
    """(omega, z) of the quadratic that has the value and both derivatives of every row's log density at eta.

    It is no bound: for likelihoods that have none. Rows without curvature keep a millionth, so that z stays finite.
    """
    slope, omega = curvature(likelihood, observed, eta, params)
    omega = jnp.where(slope == 0, omega, jnp.maximum(omega, 1e-6))
    return omega, eta + jnp.where(omega > 0, slope / jnp.where(omega > 0, omega, 1.0), 0.0)


def curvature(
    likelihood: Likelihood, observed: Observed, eta: Float[Array, "*L n"], params: Params
) -> tuple[Float[Array, "*L n"], Float[Array, "*L n"]]:
    """First derivative of every row's log density by eta, and minus the second; where that is negative, zero.

    Of several linear predictors each has the second derivative by itself alone.
    """

    def slope(eta: Array) -> Array:
        return jax.grad(lambda eta: jnp.sum(likelihood.log_density(observed, eta, params)))(eta)

    if not likelihood.outputs:
        first, second = jax.jvp(slope, (eta,), (jnp.ones_like(eta),))
        return first, jnp.maximum(-second, 0.0)
    ones = jnp.eye(eta.shape[0], dtype=eta.dtype)[:, :, None] * jnp.ones_like(eta)
    second = jax.vmap(lambda one: jax.jvp(slope, (eta,), (one,))[1])(ones)
    return slope(eta), jnp.maximum(-jnp.einsum("iin->in", second), 0.0)
