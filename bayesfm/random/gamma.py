"""Gamma variables, many at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesfm import native as kernels
from bayesfm.random.keys import is_compiled
from bayesfm.random.rejection import by_rejection
from bayesfm.random.tails import uniform_pair

__all__ = ["ONE_IN", "attempt", "gamma"]


ONE_IN = 16
"""At most one in twenty proposals is rejected."""


def gamma(key: Key[Array, ""], shape: Float[Array, "*n"], *, native: bool = False) -> Float[Array, "*n"]:
    """Draw from Gamma(shape, rate 1), elementwise, all elements side by side.

    ``jax.random.gamma`` runs a loop of its own for every element, many times slower on a CPU. Here all elements are
    tried at once, and those that were refused (at most one in twenty) gathered and tried again; for a shape below one a
    draw of shape + 1 is multiplied by U^(1/shape).

    Parameters
    ----------
    key : typed JAX key
    shape : array
        Above zero.
    native : bool
        Draw by the compiled kernel for the CPU: in float32 and with threefry keys, other cases take the usual way. Keys
        of :func:`bayesfm.random.compiled` ask for it by themselves. But for what is rejected, the draws are the same up
        to rounding.

    Returns
    -------
    array of the same shape

    Raises
    ------
    RuntimeError
        If ``native`` is true and bayesfm was built without its kernels.

    References
    ----------
    Marsaglia & Tsang (2000), A simple method for generating gamma variables, ACM Trans. Math. Software 26.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from bayesfm.random import gamma
    >>> round(float(gamma(jax.random.key(0), jnp.full(100_000, 2.5)).mean()), 1)
    2.5
    """
    if (native or is_compiled(key)) and kernels.can_draw(key, shape.dtype):
        return kernels.gamma(key, shape)
    key_tries, key_boost = jax.random.split(key)
    small = shape < 1
    value = by_rejection(key_tries, attempt, [jnp.where(small, shape + 1, shape)], ONE_IN)
    u, _ = uniform_pair(key_boost, shape.shape, shape.dtype)
    return jnp.where(small, value * u ** (1 / jnp.where(small, shape, 1)), value)


def attempt(key: Key[Array, ""], shape: Float[Array, "*n"]) -> tuple[Array, Array]:
    """Proposals of Gamma(shape) for shape >= 1, and whether they are rejected."""
    key_normal, key_accept = jax.random.split(key)
    d = shape - 1 / 3
    normal = jax.random.normal(key_normal, d.shape, d.dtype)
    u, _ = uniform_pair(key_accept, d.shape, d.dtype)
    w = jnp.maximum(normal / jnp.sqrt(9 * d), -0.9999)  # log u is never small enough beyond
    growth = w * (3 + w * (3 + w))  # (1 + w)^3 - 1
    rejected = jnp.log(u) > normal * normal / 2 + d * (3 * jnp.log1p(w) - growth)
    return d * (1 + growth), rejected
