"""Sums over many rows that stay right in float32."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["inner", "total"]

FOLD = 16


def total(x: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum of a vector, folded to a sixteenth of its length again and again (pairwise summation, sixteen at a time).

    A running float32 sum over 1e7 terms loses three digits; folded, the error grows with the logarithm of n. The folds
    are elementwise additions of contiguous slices, which XLA vectorises; its own reduction is slower on CPU, and so is
    padding to a multiple of sixteen: what is left over waits for the last sum.

    References
    ----------
    Higham (1993), The accuracy of floating point summation, SIAM J. Sci. Comput. 14.
    """
    rest = []
    while x.shape[0] > FOLD:
        size = x.shape[0] // FOLD
        rest.append(x[FOLD * size :])
        rows = x[: FOLD * size].reshape(FOLD, size)
        x = reduce(jnp.add, [rows[i] for i in range(FOLD)])
    return jnp.sum(jnp.concatenate([x, *rest]))


def inner(a: Float[Array, "..."], b: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """Sum of a * b over a short leading axis, unrolled: XLA's own reduction is many times slower on CPU."""
    a, b = jnp.broadcast_arrays(a, b)

    def at(x: Float[Array, "..."], i: int) -> Float[Array, "..."]:
        return x[(slice(None),) * axis + (i,)]

    zero = jnp.zeros(a.shape[:axis] + a.shape[axis + 1 :], a.dtype)
    return sum((at(a, i) * at(b, i) for i in range(a.shape[axis])), start=zero)
