"""Random numbers that NumPyro and JAX lack, and a slice step for densities known up to a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from bayesfm.random import gamma

__all__ = [
    "Look",
    "generalized_inverse_gaussian",
    "inverse_gamma",
    "newton_step",
    "slice_step",
    "truncated_exponential",
]

MAX_SHRINKS = 100
"""Of a slice: it halves each time on average, so that the point is the old one in the end."""

LEAST_CURVATURE = 1.0
"""Of :func:`newton_step`: of a density that is flat, the proposal has a standard deviation of one."""

MAX_TRIES = 1000
"""Of a rejection sampler that accepts every second time at least."""


def inverse_gamma(key: Key[Array, ""], shape: Float[Array, "*s"], rate: Float[Array, "*s"]) -> Array:
    """Density proportional to x^(-shape - 1) exp(-rate/x)."""
    return rate / gamma(key, jnp.broadcast_to(jnp.asarray(shape, rate.dtype), rate.shape))


def truncated_exponential(key: Key[Array, ""], rate: Float[Array, "*s"], end: Float[Array, "*s"]) -> Array:
    """Density proportional to exp(-rate x) on (0, end), by inversion; uniform for rate zero."""
    u = jax.random.uniform(key, rate.shape, rate.dtype, jnp.finfo(rate.dtype).tiny)
    reach = rate * end
    flat = reach < jnp.finfo(rate.dtype).eps
    x = -jnp.log1p(u * jnp.expm1(-reach)) / jnp.where(flat, 1.0, rate)
    return jnp.where(flat, u * end, jnp.minimum(x, end))


type Shrinking = tuple[Array, Array, Array, Array, Array, Array]
"""Key, new point, low, high, done, number of tries."""


class _Hat(NamedTuple):
    """Constant between -left and right, exponential beyond: above exp(psi)."""

    s: Array
    t: Array
    left: Array
    right: Array
    p: Array
    r: Array
    at_s: Array
    at_t: Array


def generalized_inverse_gaussian(
    key: Key[Array, ""],
    order: Float[Array, "*s"],
    chi: Float[Array, "*s"],
    psi: Float[Array, "..."],
) -> Float[Array, "*s"]:
    """Density proportional to x^(order - 1) exp(-(chi/x + psi x)/2), by rejection from a three-part hat.

    References
    ----------
    Devroye (2014), Random variate generation for the generalized inverse Gaussian distribution, Statistics and
    Computing 24.
    """
    lam = jnp.abs(order)
    # Order 0 has no limit as chi goes to 0. A square that small is less likely than 1e-12.
    omega = jnp.maximum(jnp.sqrt(chi * psi), 1e-12)
    root = jnp.sqrt(omega**2 + lam**2)
    alpha = omega**2 / (root + lam)
    hat = _hat(alpha, lam)

    def propose(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        key, x, done, tries = carry
        key, key_u, key_v, key_w = jax.random.split(key, 4)
        u, v, w = (
            jax.random.uniform(k, x.shape, x.dtype, jnp.finfo(x.dtype).tiny) for k in (key_u, key_v, key_w)
        )
        q = hat.left + hat.right
        place = u * (hat.p + q + hat.r)
        new = jnp.where(
            place < q,
            -hat.left + q * v,
            jnp.where(place < q + hat.r, hat.right - hat.r * jnp.log(v), -hat.left + hat.p * jnp.log(v)),
        )
        above = jnp.where(
            new > hat.right,
            hat.at_t - (new - hat.t) / hat.r,
            jnp.where(new < -hat.left, hat.at_s + (new + hat.s) / hat.p, 0.0),
        )
        accept = jnp.log(w) + above <= _psi(alpha, lam, new)
        return key, jnp.where(done, x, new), done | accept, tries + 1

    start = (key, jnp.zeros_like(lam), jnp.zeros_like(lam, bool), jnp.asarray(0))
    more = lambda c: ~jnp.all(c[2]) & (c[3] < MAX_TRIES)  # noqa: E731  a NaN is never accepted
    t = lax.while_loop(more, propose, start)[1]
    mode = lam + root
    return jnp.where(order < 0, chi / mode * jnp.exp(-t), mode / psi * jnp.exp(t))


def _psi(alpha: Array, lam: Array, x: Array) -> Array:
    """Log density of log X - log of its mode, relative to the mode."""
    return -2 * alpha * jnp.sinh(0.5 * x) ** 2 - lam * (jnp.expm1(x) - x)


def _hat(alpha: Array, lam: Array) -> _Hat:
    def slope(x: Array) -> Array:
        return -alpha * jnp.sinh(x) - lam * jnp.expm1(x)

    one = jnp.ones_like(alpha)
    height = -_psi(alpha, lam, one)
    t = jnp.where(height > 2, jnp.sqrt(2 / (alpha + lam)), one)
    t = jnp.where(height < 0.5, jnp.log(4 / (alpha + 2 * lam)), t)
    height = -_psi(alpha, lam, -one)
    s = jnp.where(height > 2, jnp.sqrt(4 / (alpha * jnp.cosh(1.0) + lam)), one)
    wide = jnp.minimum(1 / lam, jnp.log(1 + 1 / alpha + jnp.sqrt(1 / alpha**2 + 2 / alpha)))
    s = jnp.where(height < 0.5, wide, s)
    at_t, at_s = _psi(alpha, lam, t), _psi(alpha, lam, -s)
    r, p = -1 / slope(t), 1 / slope(-s)
    return _Hat(s, t, s + p * at_s, t + r * at_t, p, r, at_s, at_t)


def slice_step(
    key: Key[Array, ""],
    log_density: Callable[[Float[Array, "*s"]], Float[Array, "*s"]],
    x: Float[Array, "*s"],
    width: float = 1.0,
    max_steps: int = 32,
) -> Float[Array, "*s"]:
    """One step of slice sampling for every entry of x, whose densities do not depend on one another.

    Leaves the density as it is, whatever the width: the slice is bracketed by stepping out, at most ``max_steps``
    widths, and the bracket shrinks towards the old point until a point of the slice is found.

    References
    ----------
    Neal (2003), Slice sampling, Annals of Statistics 31, figures 3 and 5.
    """
    key_height, key_place, key_split, key_shrink = jax.random.split(key, 4)
    height = log_density(x) - jax.random.exponential(key_height, x.shape, x.dtype)
    left = x - width * jax.random.uniform(key_place, x.shape, x.dtype)
    steps = jnp.floor(max_steps * jax.random.uniform(key_split, x.shape, x.dtype))

    def step_out(end: Array, direction: float, steps: Array) -> Array:
        def wanted(end: Array, steps: Array) -> Bool[Array, "*s"]:
            return (steps > 0) & (log_density(end) > height)

        def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            end, steps, going = carry
            end, steps = jnp.where(going, end + direction * width, end), steps - going
            return end, steps, going & wanted(end, steps)

        return lax.while_loop(lambda c: jnp.any(c[2]), step, (end, steps, wanted(end, steps)))[0]

    low, high = step_out(left, -1.0, steps), step_out(left + width, 1.0, max_steps - 1 - steps)

    def shrink(carry: Shrinking) -> Shrinking:
        key, new, low, high, done, tries = carry
        key, sub = jax.random.split(key)
        at = low + (high - low) * jax.random.uniform(sub, x.shape, x.dtype)
        inside = log_density(at) >= height
        low, high = jnp.where(at < x, at, low), jnp.where(at < x, high, at)
        return key, jnp.where(~done & inside, at, new), low, high, done | inside, tries + 1

    start = (key_shrink, x, low, high, jnp.zeros_like(x, bool), jnp.asarray(0))
    more = lambda c: ~jnp.all(c[4]) & (c[5] < MAX_SHRINKS)  # noqa: E731
    return lax.while_loop(more, shrink, start)[1]


LONGEST_STEP = 1.0
"""Of :func:`newton_step`, in units of x."""


class Look(NamedTuple):
    """A log density at a point, elementwise.

    ``rise`` is that of sums over many terms from another point, added up as differences, which keep their digits;
    ``rest`` is the value of all else. And the first two derivatives of the whole.
    """

    rise: Float[Array, "*s"]
    rest: Float[Array, "*s"]
    gradient: Float[Array, "*s"]
    curvature: Float[Array, "*s"]


def newton_step(
    key: Key[Array, ""],
    look: Callable[[Float[Array, "*s"], Float[Array, "*s"]], Look],
    x: Float[Array, "*s"],
) -> Float[Array, "*s"]:
    """One Metropolis-Hastings step for every entry of x, whose densities do not depend on one another.

    Proposed from the normal distribution that agrees with the density at x: near a mode that is an independent draw.
    From afar, and where the density is not log-concave, the mean moves by :data:`LONGEST_STEP` at most, and the
    curvature is bounded from below. The acceptance probability has the way back.

    Parameters
    ----------
    key : typed key
    look : callable
        (x, x') -> the density at x', sums as their rise from x: called at x and at the proposal.
    x : array
        Present value.

    References
    ----------
    Qi & Minka (2002), Hessian-based Markov chain Monte Carlo algorithms.
    """
    key_noise, key_accept = jax.random.split(key)

    def normal(at: Array, seen: Look) -> tuple[Array, Array]:
        """Mean and standard deviation of the proposal from there."""
        least = jnp.maximum(0.1 * jnp.abs(seen.curvature), LEAST_CURVATURE)
        precision = jnp.maximum(-seen.curvature, least)
        return at + jnp.clip(seen.gradient / precision, -LONGEST_STEP, LONGEST_STEP), lax.rsqrt(precision)

    def log_density(y: Array, mean: Array, sd: Array) -> Array:
        return -jnp.log(sd) - 0.5 * ((y - mean) / sd) ** 2

    here = look(x, x)
    there = normal(x, here)
    new = there[0] + there[1] * jax.random.normal(key_noise, x.shape, x.dtype)
    seen = look(x, new)
    log_accept = (
        seen.rise + seen.rest - here.rest + log_density(x, *normal(new, seen)) - log_density(new, *there)
    )
    accept = jnp.log(jax.random.uniform(key_accept, x.shape, x.dtype)) < log_accept  # False for NaN
    return jnp.where(accept, new, x)
