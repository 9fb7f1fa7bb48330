"""The draw of a field's features in two halves: all factors but one eliminated, then all parameters put in.

Of the normal equations of a feature, w and one factor v_f are eliminated last. What is left of the two is what the
data say of them with the other factors integrated out, the *corner*; it depends neither on the prior of w nor on that
of v_f. Their hyperparameters may be drawn between the halves (``collapsed.py``), with all parameters of the field's
features integrated out, and cost no factorisation of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.inference.conjugate.normal import UNROLLED, diagonal, in_batches, pivot_floor, unpack
from bayesfm.sums import inner

__all__ = ["Corner", "Eliminated", "Ends", "eliminate", "ends", "known_of", "substitute"]


class Corner(NamedTuple):
    """What is left of v_f and w of every feature, without their priors.

    exp(-(C_ff v^2 + 2 C_fw v w + C_ww w^2)/2 + D_f v + D_w w).
    """

    C_ff: Float[Array, " J"]
    C_fw: Float[Array, " J"]
    C_ww: Float[Array, " J"]
    D_f: Float[Array, " J"]
    D_w: Float[Array, " J"]


class Ends(NamedTuple):
    """What w and v_f are drawn from.

    ``P`` and ``b``: precision and linear term of w with v integrated out. The others are the column of v_f in the
    Cholesky factor, 1/L_ff and L_wf, and its right-hand side, solved forward.
    """

    P: Float[Array, " J"]
    b: Float[Array, " J"]
    inverse: Float[Array, " J"]
    of_w: Float[Array, " J"]
    right: Float[Array, " J"]


class Eliminated(NamedTuple):
    """Systems of equations whose factors are eliminated but for one.

    ``L`` has a row for each of the factors that were eliminated: the entries of its column of the Cholesky factor in
    the rows of all factors and in that of w, and the right-hand side. Factors stand in :func:`swapped` order.
    """

    L: Float[Array, "done entries J"]
    corner: Corner


type PriorOf = tuple[Float[Array, " J"], Float[Array, " J"]]
"""Precision and mean of one parameter of every feature."""


def known_of(corner: Corner, of_w: PriorOf | None, of_f: PriorOf | None) -> tuple[Array, Array]:
    """c and d: what the data say of v_f with w integrated out (given ``of_w``), or of w with v_f integrated out."""
    if of_w is not None:
        C, D, own, other = corner.C_ff, corner.D_f, corner.D_w, corner.C_ww
        precision, mean = of_w
    else:
        assert of_f is not None
        C, D, own, other = corner.C_ww, corner.D_w, corner.D_f, corner.C_ff
        precision, mean = of_f
    share = corner.C_fw / (precision + other)
    return no_less(C - share * corner.C_fw, C), D - share * (own + precision * mean)


def ends(corner: Corner, of_w: PriorOf, of_f: PriorOf) -> Ends:
    """What the second half reads, the priors of w and v_f being known."""
    (precision_w, mean_w), (precision_f, mean_f) = of_w, of_f
    c, d = known_of(corner, None, of_f)
    inverse = lax.rsqrt(precision_f + corner.C_ff)
    return Ends(
        precision_w + c,
        precision_w * mean_w + d,
        inverse,
        corner.C_fw * inverse,
        (corner.D_f + precision_f * mean_f) * inverse,
    )


def no_less(x: Float[Array, " J"], of: Float[Array, " J"]) -> Float[Array, " J"]:
    """X, but no less than the rounding of what it is a difference of."""
    return jnp.maximum(x, 4 * jnp.finfo(of.dtype).eps * of)


def swapped(k: int, last: Int[Array, ""]) -> Int[Array, " k"]:
    """Factors in the order of their elimination: the last one and factor ``last`` have changed places."""
    order = jnp.arange(k)
    return order.at[last].set(k - 1).at[k - 1].set(last)


def eliminate(
    packed: Float[Array, "J q"],
    theta: Float[Array, "D J"],
    precision: Float[Array, "k *E J"],
    mean: Float[Array, "k J"],
    last: Int[Array, ""],
) -> Eliminated:
    """Eliminate all factors but number ``last``, of every feature.

    Parameters
    ----------
    packed : array of shape (J, q)
        Information of every feature, see ``normal.information``.
    theta : array of shape (D, J)
        Present value, at which the packed residual was taken.
    precision : array of shape (k, J) or (k, k, J)
        Prior precision of v: its diagonal, or the matrix, in which case the corner contains the prior of v_f.
    mean : array of shape (k, J)
        Prior mean of v.
    last : integer
        The factor that is left; not read where there is none.
    """
    k = mean.shape[0]
    if k == 0:
        G, g = packed[:, 0], packed[:, 1]
        zero = jnp.zeros_like(G)
        corner = Corner(zero, zero, G, zero, G * theta[0] + g)
        return Eliminated(jnp.zeros_like(theta, shape=(0, 2, theta.shape[1])), corner)
    order = swapped(k, last)
    own = jnp.concatenate([order + 1, jnp.zeros(1, order.dtype)])  # w is the last
    precision = precision[order] if precision.ndim == 2 else precision[order][:, order]

    def solve(packed: Array, theta: Array, precision: Array, mean: Array) -> tuple[Array, Corner]:
        G, g = unpack(packed, k + 1)
        b = (inner(G, theta[None], axis=1) + g)[own]
        P = G[own][:, own]
        if precision.ndim == 3:  # of all factors: v_f is not independent of the others
            P = P.at[:k, :k].add(precision)
            b = b.at[:k].add(inner(precision, mean[None], axis=1))
        half = _unrolled if k < UNROLLED else _lapack
        return half(P, b, precision, mean)

    return Eliminated(
        *in_batches(solve, (packed.T, theta, precision, mean[order]), fills=(0.0, 0.0, 1.0, 0.0))
    )


def substitute(
    L: Float[Array, "done entries J"], ends: Ends, last: Int[Array, ""], noise: Float[Array, "D J"]
) -> Float[Array, "D J"]:
    """(w, v) of every feature from standard normals."""
    w = (ends.b * lax.rsqrt(ends.P) + noise[0]) * lax.rsqrt(ends.P)
    k = noise.shape[0] - 1
    if k == 0:
        return w[None]
    order = swapped(k, last)
    own = noise[1:][order]
    v_f = (ends.right + own[k - 1] - ends.of_w * w) * ends.inverse
    right = L[:, k + 1] + own[: k - 1] - L[:, k] * w - L[:, k - 1] * v_f
    if k < UNROLLED:
        v: list[Array] = [v_f] * k
        for i in reversed(range(k - 1)):
            x = right[i]
            for j in range(i + 1, k - 1):
                x = x - L[i, j] * v[j]
            v[i] = lax.optimization_barrier(x / L[i, i])
        solved = jnp.stack(v)
    else:
        upper = jnp.moveaxis(L[:, : k - 1], -1, 0)
        x = lax.linalg.triangular_solve(upper, right.T[..., None], left_side=True, lower=False)
        solved = jnp.concatenate([x[..., 0].T, v_f[None]])
    return jnp.concatenate([w[None], solved[order]])  # the swap is its own inverse


def _with_prior(
    P: Array, b: Array, precision: Array, mean: Array
) -> tuple[Float[Array, "done done J"], Float[Array, "done J"]]:
    """Equations of the factors that are eliminated."""
    n = mean.shape[0] - 1
    if precision.ndim == 3:
        return P[:n, :n], b[:n]
    eye = jnp.eye(n, dtype=P.dtype)[:, :, None]
    return P[:n, :n] + eye * precision[:n, None], b[:n] + precision[:n] * mean[:n]


def _unrolled(P: Array, b: Array, precision: Array, mean: Array) -> tuple[Array, Corner]:
    """Over lanes, one column at a time, the rows of v_f and w and the right-hand side carried along."""
    n = mean.shape[0] - 1
    V, b_v = _with_prior(P, b, precision, mean)
    floor = pivot_floor(V, precision[:n] if precision.ndim == 2 else precision[:n, :n])
    M = jnp.concatenate([V, P[n:, :n], b_v[None]])  # (n + 3, n, J)
    rest, right, rows = P[n:, n:], b[n:], []
    for i in range(n):
        pivot = jnp.maximum(M[0, 0], floor[i])
        column = jnp.concatenate([pivot[None], M[1:, 0]]) * lax.rsqrt(pivot)
        rows.append(jnp.concatenate([jnp.zeros_like(column, shape=(i, *column.shape[1:])), column]))
        two = column[-3:-1]
        rest, right = rest - two[:, None] * two[None], right - two * column[-1]
        M = lax.optimization_barrier(M[1:, 1:] - column[1:, None] * column[None, 1:-3])
    L = jnp.stack(rows) if rows else jnp.zeros_like(P, shape=(0, n + 3, P.shape[-1]))
    return L, _corner(P[n:, n:], rest, right)


def _corner(before: Float[Array, "2 2 J"], rest: Float[Array, "2 2 J"], right: Float[Array, "2 J"]) -> Corner:
    return Corner(
        no_less(rest[0, 0], before[0, 0]),
        rest[1, 0],
        no_less(rest[1, 1], before[1, 1]),
        right[0],
        right[1],
    )


def _lapack(P: Array, b: Array, precision: Array, mean: Array) -> tuple[Array, Corner]:
    n = mean.shape[0] - 1
    V, b_v = _with_prior(P, b, precision, mean)
    # LAPACK's pivots cannot be bounded from within; raising the diagonal by its own rounding does the same.
    V = V + jnp.eye(n, dtype=V.dtype)[:, :, None] * (n * jnp.finfo(V.dtype).eps * diagonal(V))
    L = lax.linalg.cholesky(jnp.moveaxis(V, -1, 0), symmetrize_input=False)
    right = jnp.moveaxis(jnp.concatenate([P[n:, :n], b_v[None]]), -1, 0).swapaxes(1, 2)  # (J, n, 3)
    solved = jnp.moveaxis(lax.linalg.triangular_solve(L, right, left_side=True, lower=True), 0, -1)
    two, y = solved[:, :2], solved[:, 2]
    rest = P[n:, n:] - jnp.sum(two[:, :, None] * two[:, None], axis=0)
    left = b[n:] - jnp.sum(two * y[:, None], axis=0)
    columns = jnp.moveaxis(L, 0, -1).swapaxes(0, 1)  # row i: column i of L
    return jnp.concatenate([columns, two, y[:, None]], axis=1), _corner(P[n:, n:], rest, left)
