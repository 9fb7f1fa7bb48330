"""Sums over many rows that stay right in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

__all__ = ["inner", "total", "totals_by_group", "weighted_square"]

FOLD = 16
RUN = 1 << 14
"""Terms of one group that may be added one after the other."""


def total(
    x: Float[Array, " n"], *more: Float[Array, " n"], of: Callable[..., Array] = lambda x: x
) -> Float[Array, ""]:
    """Sum of ``of(x, *more)`` over the rows, folded to a sixteenth again and again (pairwise summation by sixteens).

    A running float32 sum over 1e7 terms loses three digits; folded, the error grows with the logarithm of n. The folds
    are elementwise additions of contiguous slices, which XLA vectorises; its own reduction is slower on CPU, and so is
    padding to a multiple of sixteen: what is left over waits for the last sum. ``of`` is applied to the slices, so that
    its values are added up where they are computed and no array of n of them is written.

    Parameters
    ----------
    x, *more : arrays of shape (n,)
        What the terms are made of.
    of : callable
        Terms from these arrays, elementwise; by default x itself.

    Returns
    -------
    scalar

    References
    ----------
    Higham (1993), The accuracy of floating point summation, SIAM J. Sci. Comput. 14.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.sums import total
    >>> float(total(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 2.0]), of=lambda x, y: (x - y) ** 2))
    2.0
    """
    rest = []
    arrays, term = (x, *more), of
    while arrays[0].shape[0] > FOLD**2:  # of few terms, programs are short instead
        size = arrays[0].shape[0] // FOLD
        rest.append(term(*(a[FOLD * size :] for a in arrays)))
        slices = [[a[i * size : (i + 1) * size] for a in arrays] for i in range(FOLD)]
        arrays, term = (reduce(jnp.add, [term(*s) for s in slices]),), lambda x: x
    last = jnp.concatenate([term(*arrays), *rest])
    return jnp.sum(jnp.sum(jnp.pad(last, (0, -last.shape[0] % FOLD)).reshape(FOLD, -1), axis=0))


def weighted_square(weight: Array, y: Array, eta: Array) -> Array:
    """weight (y - eta)^2: the terms of a sum of squares, for :func:`total`."""
    return weight * (y - eta) ** 2


def totals_by_group(
    x: Float[Array, "n *d"], group: Int[Array, " n"], num_groups: int
) -> Float[Array, "G *d"]:
    """Sum over the rows of each group, rows in any order.

    Sixteen streams of rows take turns, each with sums of its own. Where the rows of a group follow one another, a
    single running sum would have to wait for itself in every step, at a third of the speed. For the sake of its digits
    a long stream starts afresh every :data:`RUN` rows. The sums need no more room than the rows; with fewer than
    sixteen rows per group there is one stream.

    Parameters
    ----------
    x : array of shape (n, ...)
        Terms.
    group : array of shape (n,)
        Group of every row, 0, ..., G - 1.
    num_groups : int
        G.

    Returns
    -------
    array of shape (G, ...)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.sums import totals_by_group
    >>> totals_by_group(jnp.array([1.0, 2.0, 3.0]), jnp.array([1, 0, 1]), 2).tolist()
    [2.0, 4.0]
    """
    n = group.shape[0]
    streams = FOLD if n >= FOLD * num_groups else 1
    length = n // streams
    pieces = max(1, min(-(-length // RUN), n // (streams * num_groups)))
    place = lax.broadcasted_iota(group.dtype, (length, streams), 0) // -(-length // pieces) * streams
    place += lax.broadcasted_iota(group.dtype, (length, streams), 1)

    def in_turns(values: Shaped[Array, "n *d"]) -> Shaped[Array, "length streams *d"]:
        return values[: streams * length].reshape(streams, length, *values.shape[1:]).swapaxes(0, 1)

    own = place * num_groups + in_turns(group)
    sums = jax.ops.segment_sum(
        in_turns(x).reshape(-1, *x.shape[1:]), own.ravel(), pieces * streams * num_groups
    )
    rest = jax.ops.segment_sum(x[streams * length :], group[streams * length :], num_groups)
    return jnp.sum(sums.reshape(-1, num_groups, *x.shape[1:]), axis=0) + rest


def inner(a: Float[Array, "..."], b: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """Sum of a * b over a short leading axis, unrolled: XLA's own reduction is many times slower on CPU."""
    a, b = jnp.broadcast_arrays(a, b)

    def at(x: Float[Array, "..."], i: int) -> Float[Array, "..."]:
        return x[(slice(None),) * axis + (i,)]

    zero = jnp.zeros(a.shape[:axis] + a.shape[axis + 1 :], a.dtype)
    return sum((at(a, i) * at(b, i) for i in range(a.shape[axis])), start=zero)
