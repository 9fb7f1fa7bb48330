"""One step of slice sampling for a scalar."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

__all__ = ["slice_step"]

MAX_STEPS = 32
"""Widths that the interval may grow by in all; part of the transition, which is exact for any number (Neal 2003)."""

type Shrinking = tuple[Array, Array, Array, Array, Array]
"""Key, left and right end of the interval, place, whether it is in the slice."""


def slice_step(
    key: Key[Array, ""],
    log_density: Callable[[Float[Array, ""]], Float[Array, ""]],
    x: Float[Array, ""],
    width: float,
) -> Float[Array, ""]:
    """Leave a density on the real line as it is: slice sampling with stepping out and shrinkage.

    Parameters
    ----------
    key : typed key
        Random key.
    log_density : callable
        Log density up to a constant; a NaN counts as outside of the support.
    x : Array, shape ()
        Where the chain is.
    width : float
        By how much the interval grows at a time: the width of the density, roughly.

    Returns
    -------
    Array, shape ()
        The next point.

    References
    ----------
    Neal (2003), Slice sampling, Annals of Statistics 31, figures 3 and 5.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from bayesfm.random import slice_step
    >>> slice_step(jax.random.key(0), lambda x: -0.5 * x**2, jnp.float32(0.3), 2.0).shape
    ()
    """
    key_height, key_place, key_steps, key_shrink = jax.random.split(key, 4)
    eps = float(jnp.finfo(x.dtype).eps)
    height = log_density(x) - jax.random.exponential(key_height, (), x.dtype)
    start = x - width * jax.random.uniform(key_place, (), x.dtype)
    # The steps are dealt out to the two sides at random before it is known where they are needed.
    to_left = jax.random.randint(key_steps, (), 0, MAX_STEPS + 1)
    left = _step_out(log_density, height, start, -width, to_left)
    right = _step_out(log_density, height, start + width, width, MAX_STEPS - to_left)

    def shrink(carry: Shrinking) -> Shrinking:
        key, left, right, _, _ = carry
        key, sub = jax.random.split(key)
        place = left + (right - left) * jax.random.uniform(sub, (), x.dtype)
        # An interval that has closed on x ends there, also where the density at x is not finite.
        closed = ~(right - left > eps * jnp.maximum(jnp.abs(x), eps * width))
        return (
            key,
            jnp.where(place < x, place, left),
            jnp.where(place < x, right, place),
            jnp.where(closed, x, place),
            closed | (log_density(place) >= height),
        )

    return lax.while_loop(lambda c: ~c[-1], shrink, (key_shrink, left, right, x, jnp.asarray(False)))[3]


def _step_out(
    log_density: Callable[[Array], Array], height: Array, end: Array, by: float, steps: Array
) -> Array:
    def outside(carry: tuple[Array, Array]) -> Array:
        end, left = carry
        return (left > 0) & (log_density(end) > height)

    return lax.while_loop(outside, lambda c: (c[0] + by, c[1] - 1), (end, steps))[0]
