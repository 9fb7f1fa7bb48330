"""Metropolis-Hastings for a few parameters whose density costs a pass over all rows: proposals by Newton's method."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = ["newton_metropolis", "second_order"]

SMALL_STEP, SMALL_STEPS = 0.1, 0.2
"""One step in five is short, so that a chain leaves the places from which Newton's method overshoots."""


def newton_metropolis(
    key: Key[Array, ""],
    u: Float[Array, " d"],
    derivatives: Callable[[Float[Array, " d"]], tuple[Float[Array, " d"], Float[Array, "d d"]]],
    log_ratio: Callable[[Float[Array, " d"], Float[Array, " d"]], Float[Array, ""]],
) -> Float[Array, " d"]:
    """One Metropolis-Hastings step from u, proposed from the Gaussian that agrees with the density at u.

    With gradient g and H the negative Hessian (its eigenvalues made positive), the proposal is
    N(u + s H^-1 g, (2 s - s^2) H^-1): for s = 1 an independent draw from the Gaussian approximation, for s < 1 a step
    of the autoregression that leaves it invariant. The acceptance probability has the way back, with the derivatives
    at the proposal.

    Parameters
    ----------
    key : typed key
    u : array of shape (d,)
        Present value, unconstrained.
    derivatives : callable
        u -> gradient (d,) and Hessian (d, d) of the log density; how exactly does not matter, as long as it is a
        function of u alone.
    log_ratio : callable
        (u, u') -> log density at u' minus log density at u. The difference is what is asked for, because sums over many
        rows have lost it.

    Returns
    -------
    array of shape (d,)

    References
    ----------
    Qi & Minka (2002), Hessian-based Markov chain Monte Carlo algorithms.
    """
    key_step, key_noise, key_accept = jax.random.split(key, 3)
    s = jnp.where(jax.random.uniform(key_step) < SMALL_STEPS, SMALL_STEP, 1.0)
    spread = 2 * s - s * s

    def gaussian(u: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"], Float[Array, " d"]]:
        gradient, hessian = derivatives(u)
        values, vectors = jnp.linalg.eigh(-hessian)
        values = jnp.maximum(jnp.abs(values), 1e-4 * jnp.max(jnp.abs(values)) + 1e-6)
        return u + s * (vectors @ ((vectors.T @ gradient) / values)), vectors, values

    def log_proposal(x: Float[Array, " d"], mean: Array, vectors: Array, values: Array) -> Float[Array, ""]:
        away = vectors.T @ (x - mean)
        return 0.5 * jnp.sum(jnp.log(values)) - 0.5 * jnp.sum(values * away**2) / spread

    there = gaussian(u)
    noise = jax.random.normal(key_noise, u.shape, u.dtype)
    proposal = there[0] + there[1] @ (noise * jnp.sqrt(spread / there[2]))
    back = gaussian(proposal)
    log_accept = log_ratio(u, proposal) + log_proposal(u, *back) - log_proposal(proposal, *there)
    accept = jnp.log(jax.random.uniform(key_accept, dtype=u.dtype)) < log_accept  # False for NaN
    return jnp.where(accept, proposal, u)


def second_order(
    at: Float[Array, " d"], gradient: Float[Array, " d"], hessian: Float[Array, "d d"]
) -> Callable[[Float[Array, " d"]], Float[Array, ""]]:
    """A function with the given derivatives at a point, to be differentiated there together with other terms."""

    def taylor(x: Float[Array, " d"]) -> Float[Array, ""]:
        step = x - jax.lax.stop_gradient(at)
        return gradient @ step + 0.5 * step @ hessian @ step

    return taylor
