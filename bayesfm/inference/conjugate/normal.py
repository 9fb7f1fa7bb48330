"""The innermost operation of a sweep: from rows to normal equations to draws, many features side by side.

Features (or chunks of their rows) stand in the last axis, the vector lanes, throughout. What is known of one feature's
D parameters is *packed* into q = D (D + 1)/2 + D numbers: the lower triangle of sum omega h h', then sum omega r h.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.sums import inner

__all__ = ["diagonal", "draw", "in_batches", "information", "pack", "pivot_floor", "sum_by_owner", "unpack"]

UNROLLED = 17
"""Up to this D the factorisation is unrolled over lanes; above, LAPACK (or cuSOLVER) takes one system at a time."""

BATCH = 8192
"""Systems factored at once: bounds the temporaries of wide fields, and keeps them in cache."""


def information(
    h: Float[Array, "D L C"], omega: Float[Array, "L C"], r: Float[Array, "L C"]
) -> Float[Array, "q C"]:
    """Packed sums over the L rows of each chunk: of omega h h' and of omega r h."""
    D, L, _ = h.shape
    weighted = omega * h
    rhs = _over(L, lambda row: weighted[:, row] * r[row])
    if D > UNROLLED:
        full = _over(L, lambda row: weighted[:, None, row] * h[None, :, row])
        return pack(full, rhs)
    # One fusion per row of the triangle; sums over rows are unrolled so that the lanes stay the inner loop.

    def triangle_row(i: int) -> Float[Array, "_ C"]:
        return _over(L, lambda row: weighted[: i + 1, row] * h[i, row])

    return jnp.concatenate([*map(triangle_row, range(D)), rhs])


def _over(L: int, term: Callable[[int], Array]) -> Array:
    """Sum of ``term(row)`` over the rows of a chunk, unrolled."""
    return reduce(jnp.add, [term(row) for row in range(L)])


def pack(G: Float[Array, "D D *J"], g: Float[Array, "D *J"]) -> Float[Array, "q *J"]:
    """Lower triangle of G by rows, then g."""
    i, j = np.tril_indices(G.shape[0])
    return jnp.concatenate([G[i, j], g])


def unpack(packed: Float[Array, "q *J"], D: int) -> tuple[Float[Array, "D D *J"], Float[Array, "D *J"]]:
    """Inverse of :func:`pack`, G made symmetric."""
    place = np.zeros((D, D), np.int32)
    place[np.tril_indices(D)] = np.arange(D * (D + 1) // 2)
    place = np.maximum(place, place.T)
    return packed[place], packed[D * (D + 1) // 2 :]


def sum_by_owner(
    packed: Float[Array, "q C"], owner: Int[Array, " C"], num_owners: int
) -> Float[Array, "J q"]:
    """Add the chunks of each owner; ``owner`` never decreases."""
    return jax.ops.segment_sum(packed.T, owner, num_owners, indices_are_sorted=True)


def draw(
    packed: Float[Array, "J q"],
    theta: Float[Array, "D J"],
    precision: Float[Array, "D *E J"],
    mean: Float[Array, "D J"],
    noise: Float[Array, "D J"],
) -> Float[Array, "D J"]:
    """Draw theta_j ~ N(P_j^-1 b_j, P_j^-1) for all j.

    P = Lambda + G and b = Lambda mu + G theta + g, where (G, g) is the packed information with g taken at the residual
    of the present ``theta``.

    Parameters
    ----------
    packed : array of shape (J, q)
        Information of every feature.
    theta, mean : arrays of shape (D, J)
        Present value; prior mean.
    precision : array of shape (D, J) or (D, D, J)
        Prior precision: its diagonal, or the matrix.
    noise : array of shape (D, J)
        Standard normals.

    Returns
    -------
    array of shape (D, J)

    References
    ----------
    Rue & Held (2005), Gaussian Markov random fields, algorithm 2.5 (a draw from the canonical form).
    """
    solve = _draw_unrolled if theta.shape[0] <= UNROLLED else _draw_lapack
    return in_batches(solve, (packed.T, theta, precision, mean, noise), fills=(0.0, 0.0, 1.0, 0.0, 0.0))


def in_batches(solve: Callable, arrays: tuple[Array, ...], fills: tuple[float, ...]) -> Any:
    """``solve(*arrays)``, :data:`BATCH` systems at a time; systems stand in the last axis of all arrays and results.

    ``fills`` are what systems beyond the last consist of.
    """
    J = arrays[0].shape[-1]
    if J <= BATCH:
        return solve(*arrays)
    pad = -J % BATCH

    def tiles(x: Array, fill: float) -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)], constant_values=fill)
        return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, BATCH), -2, 0)

    out = lax.map(lambda a: solve(*a), tuple(tiles(x, fill) for x, fill in zip(arrays, fills, strict=True)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)[..., :J], out)


def _equations(
    packed: Float[Array, "q J"], theta: Array, precision: Array, mean: Array
) -> tuple[Float[Array, "D D J"], Float[Array, "D J"]]:
    G, g = unpack(packed, theta.shape[0])
    b = inner(G, theta[None], axis=1) + g
    if precision.ndim == 3:
        return G + precision, b + inner(precision, mean[None], axis=1)
    return G + jnp.eye(theta.shape[0], dtype=G.dtype)[:, :, None] * precision[:, None], b + precision * mean


def diagonal(P: Float[Array, "D D J"]) -> Float[Array, "D J"]:
    """Diagonals of matrices side by side."""
    i = np.arange(P.shape[0])
    return P[i, i]


def pivot_floor(P: Float[Array, "D D J"], precision: Float[Array, "D *E J"]) -> Float[Array, "D J"]:
    """A lower bound of the pivots, which rounding alone can cross.

    P - Lambda is positive semidefinite, so no pivot (a Schur complement of P) is below its prior precision. Where the
    data's part is so large that a pivot of that size is lost in the rounding of P (columns of X in the ten thousands,
    two features always together), the rounding of the diagonal stands for it, which keeps the solve backward stable.

    References
    ----------
    Higham (2002), Accuracy and stability of numerical algorithms, 2nd ed., section 10.1.
    """
    rounding = 4 * jnp.finfo(P.dtype).eps * diagonal(P)
    return rounding if precision.ndim == 3 else jnp.maximum(precision, rounding)


def _draw_unrolled(packed: Array, theta: Array, precision: Array, mean: Array, noise: Array) -> Array:
    """Cholesky over lanes, one column at a time, right-hand side carried along as a last row.

    The barriers keep XLA from merging the steps into one fusion that would compute every entry again and again.
    """
    D = theta.shape[0]
    P, b = _equations(packed, theta, precision, mean)
    floor = pivot_floor(P, precision)
    M = jnp.concatenate([P, b[None]])  # (D + 1, D, J): rows 0..D-1 of P, then b'
    columns = []
    for i in range(D):
        pivot = jnp.maximum(M[0, 0], floor[i])
        c = jnp.concatenate([pivot[None], M[1:, 0]]) * lax.rsqrt(pivot)
        columns.append(c)
        M = lax.optimization_barrier(M[1:, 1:] - c[1:, None] * c[None, 1:-1])
    solution: list[Array] = [b[0]] * D
    for i in reversed(range(D)):
        c = columns[i]  # L_ii, L_{i+1,i}, ..., and (L^-1 b)_i at its end
        s = c[-1] + noise[i]
        for j in range(i + 1, D):
            s = s - c[j - i] * solution[j]
        solution[i] = lax.optimization_barrier(s / c[0])
    return jnp.stack(solution)


def _draw_lapack(packed: Array, theta: Array, precision: Array, mean: Array, noise: Array) -> Array:
    P, b = _equations(packed, theta, precision, mean)
    # LAPACK's pivots cannot be bounded from within; raising the diagonal by its own rounding does the same.
    P = P + jnp.eye(P.shape[0], dtype=P.dtype)[:, :, None] * (
        P.shape[0] * jnp.finfo(P.dtype).eps * diagonal(P)
    )
    L = lax.linalg.cholesky(jnp.transpose(P, (2, 0, 1)), symmetrize_input=False)
    y = lax.linalg.triangular_solve(L, b.T[..., None], left_side=True, lower=True)
    x = lax.linalg.triangular_solve(L, y + noise.T[..., None], left_side=True, lower=True, transpose_a=True)
    return x[..., 0].T
