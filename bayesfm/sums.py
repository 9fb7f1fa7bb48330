"""Sums over many rows that stay right in float32."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["inner", "total"]

LANES = 256


def total(x: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum of a vector by blocks of 256, then by blocks of blocks (pairwise summation).

    A running float32 sum over 1e7 terms loses three digits; with blocks the error grows with the logarithm of n.

    References
    ----------
    Higham (1993), The accuracy of floating point summation, SIAM J. Sci. Comput. 14.
    """
    while x.shape[0] > LANES:
        x = jnp.sum(jnp.pad(x, (0, -x.shape[0] % LANES)).reshape(-1, LANES), axis=1)
    return jnp.sum(x)


def inner(a: Float[Array, "..."], b: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """Sum of a * b over a short leading axis, unrolled: XLA's own reduction is many times slower on CPU."""
    a, b = jnp.broadcast_arrays(a, b)

    def at(x: Float[Array, "..."], i: int) -> Float[Array, "..."]:
        return x[(slice(None),) * axis + (i,)]

    zero = jnp.zeros(a.shape[:axis] + a.shape[axis + 1 :], a.dtype)
    return sum((at(a, i) * at(b, i) for i in range(a.shape[axis])), start=zero)
