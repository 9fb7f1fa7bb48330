"""Metropolis-Hastings for a few parameters whose density costs a pass over all rows: proposals by Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm import native as kernels
from bayesfm.sums import total

__all__ = [
    "NewtonParts",
    "RowSums",
    "by_differences",
    "newton_ascent",
    "newton_metropolis",
    "row_sums",
    "second_order",
]

SMALL_STEP, SMALL_STEPS = 0.1, 0.2
"""One step in five is short: accepted where the density is no Gaussian, too."""

DIFFERENCE = 0.01
"""Of log scales, for second derivatives."""

FAR_STEP = 0.3
"""Share of the way to the mode that is gone from afar. In a Gaussian any share below one is accepted, and this one with
the largest margin for what is no Gaussian; full Newton steps from the start of a chain were refused for 200 sweeps."""


class RowSums(NamedTuple):
    """What one pass over the rows says of a function at a point: terms that add up to it, its gradient and Hessian.

    Terms are those of the rows, or two numbers, the second one what rounding took from the first. Two sums are compared
    term by term: as single numbers they have lost their difference.
    """

    terms: Float[Array, " m"]
    gradient: Float[Array, " c"]
    hessian: Float[Array, "c c"]

    def rise_to(self, other: RowSums) -> Float[Array, ""]:
        """Value there minus value here."""
        return total(other.terms, self.terms, of=jnp.subtract)


def row_sums(
    terms: str,
    reference: Callable[[Array, Array, Array, Array], RowSums],
    y: Float[Array, " n"],
    weight: Float[Array, " n"],
    eta: Float[Array, " n"],
    at: Float[Array, " c"],
    *,
    native: bool,
) -> RowSums:
    """``reference(y, weight, eta, at)``, in float32 by the compiled kernel of that name where ``native`` allows it."""
    if native and at.dtype == jnp.float32:
        return RowSums(*kernels.row_sums(terms, y, weight, eta, at))
    return reference(y, weight, eta, at)


def newton_metropolis[S](
    key: Key[Array, ""],
    u: Float[Array, " d"],
    sums: Callable[[Float[Array, " d"]], S],
    derivatives: Callable[[Float[Array, " d"], S], tuple[Float[Array, " d"], Float[Array, "d d"]]],
    log_ratio: Callable[[Float[Array, " d"], S, Float[Array, " d"], S], Float[Array, ""]],
) -> Float[Array, " d"]:
    """One Metropolis-Hastings step from u, proposed from the Gaussian that agrees with the density at u.

    With gradient g and H the negative Hessian (its eigenvalues made positive), the proposal is
    N(u + s H^-1 g, (2 s - s^2) H^-1): for s = 1 an independent draw from the Gaussian approximation, for s < 1 a step
    of the autoregression that leaves it invariant. More than 3 + sqrt(d) standard deviations from the mode, as the
    Gaussian has it, the mean is only moved by a part of the way. The acceptance probability has the way back, with the
    derivatives at the proposal.

    Parameters
    ----------
    key : typed key
    u : array of shape (d,)
        Present value, unconstrained.
    sums : callable
        u -> S, what the rows say at u: called at u and at the proposal. None where they say the same everywhere.
    derivatives : callable
        (u, S) -> gradient (d,) and Hessian (d, d) of the log density; how exactly does not matter, as long as it is a
        function of u alone.
    log_ratio : callable
        (u, S, u', S') -> log density at u' minus log density at u. The difference is what is asked for, because sums
        over many rows have lost it.

    Returns
    -------
    array of shape (d,)

    References
    ----------
    Qi & Minka (2002), Hessian-based Markov chain Monte Carlo algorithms.
    """
    key_step, key_noise, key_accept = jax.random.split(key, 3)
    s = jnp.where(jax.random.uniform(key_step) < SMALL_STEPS, SMALL_STEP, 1.0)

    def gaussian(
        u: Float[Array, " d"], at_u: S
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"], Float[Array, " d"]]:
        """Mean, axes, and precisions along these, of the proposal from u."""
        gradient, hessian = derivatives(u, at_u)
        values, vectors = jnp.linalg.eigh(-hessian)
        values = jnp.maximum(jnp.abs(values), 1e-4 * jnp.max(jnp.abs(values)) + 1e-6)
        along = vectors.T @ gradient
        far = jnp.sum(along**2 / values) > (3 + u.shape[0] ** 0.5) ** 2
        mean = u + jnp.where(far, FAR_STEP, s) * (vectors @ (along / values))
        return mean, vectors, values / jnp.where(far, 1.0, 2 * s - s * s)

    def log_proposal(x: Float[Array, " d"], mean: Array, vectors: Array, values: Array) -> Float[Array, ""]:
        away = vectors.T @ (x - mean)
        return 0.5 * jnp.sum(jnp.log(values)) - 0.5 * jnp.sum(values * away**2)

    at_u = sums(u)
    there = gaussian(u, at_u)
    noise = jax.random.normal(key_noise, u.shape, u.dtype)
    proposal = there[0] + there[1] @ (noise / jnp.sqrt(there[2]))
    at_proposal = sums(proposal)
    back = gaussian(proposal, at_proposal)
    log_accept = (
        log_ratio(u, at_u, proposal, at_proposal) + log_proposal(u, *back) - log_proposal(proposal, *there)
    )
    accept = jnp.log(jax.random.uniform(key_accept, dtype=u.dtype)) < log_accept  # False for NaN
    return jnp.where(accept, proposal, u)


class NewtonParts[S](NamedTuple):
    """A density of a few parameters that costs a pass over all rows: what :func:`newton_metropolis` asks for."""

    sums: Callable[[Float[Array, " d"]], S]
    derivatives: Callable[[Float[Array, " d"], S], tuple[Float[Array, " d"], Float[Array, "d d"]]]
    log_ratio: Callable[[Float[Array, " d"], S, Float[Array, " d"], S], Float[Array, ""]]


def newton_ascent[S](u: Float[Array, " d"], parts: NewtonParts[S]) -> Float[Array, " d"]:
    """One step uphill from u: Newton's direction, curvatures made negative, and the best of five lengths.

    One of the five is 0, so that the density never falls.
    """
    at_u = parts.sums(u)
    gradient, hessian = parts.derivatives(u, at_u)
    values, vectors = jnp.linalg.eigh(-hessian)
    values = jnp.maximum(jnp.abs(values), 1e-4 * jnp.max(jnp.abs(values)) + 1e-6)
    direction = vectors @ ((vectors.T @ gradient) / values)

    def rise(step: Float[Array, ""]) -> Float[Array, ""]:
        new = u + step * direction
        return parts.log_ratio(u, at_u, new, parts.sums(new))

    steps = jnp.asarray([0.01, 0.1, 0.5, 1.0], u.dtype)
    rises = lax.map(rise, steps)
    best = jnp.argmax(jnp.where(jnp.isnan(rises), -jnp.inf, rises))
    return u + jnp.where(rises[best] > 0, steps[best], 0.0) * direction


def by_differences(height: Callable[[Float[Array, " d"]], Float[Array, ""]]) -> NewtonParts[Array]:
    """Parts of a function of which nothing else is known.

    Second derivatives are differences of gradients: a program for second derivatives of all rows takes far longer to
    compile than to run, and a direction need not be exact.
    """

    def derivatives(u: Float[Array, " d"], _: Array) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        d = u.shape[0]
        shifts = DIFFERENCE * jnp.eye(d, dtype=u.dtype)
        points = u + jnp.concatenate([shifts, -shifts, jnp.zeros_like(u)[None]])
        gradients = lax.map(jax.grad(height), points)
        hessian = (gradients[:d] - gradients[d : 2 * d]) / (2 * DIFFERENCE)
        return gradients[-1], 0.5 * (hessian + hessian.T)

    return NewtonParts(height, derivatives, lambda u, at_u, new, at_new: at_new - at_u)


def second_order(
    at: Float[Array, " d"], gradient: Float[Array, " d"], hessian: Float[Array, "d d"]
) -> Callable[[Float[Array, " d"]], Float[Array, ""]]:
    """A function with the given derivatives at a point, to be differentiated there together with other terms."""

    def taylor(x: Float[Array, " d"]) -> Float[Array, ""]:
        step = x - jax.lax.stop_gradient(at)
        return gradient @ step + 0.5 * step @ hessian @ step

    return taylor
