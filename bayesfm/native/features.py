"""Draws of all features of a unit, and what rows make of features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bayesfm.native.library import call, check_pointers

__all__ = [
    "as_table",
    "eliminate_field",
    "linear_predictor",
    "move_residual",
    "row_information",
    "substitute_field",
    "summarize",
    "table_stride",
    "update_columns",
    "update_table",
]

SIDE_BY_SIDE = 16
"""Features whose systems stand side by side: kSideBySide of ``src/field.h``."""


def as_table(Q: Float[Array, "k m"]) -> Float[Array, "m stride"]:
    """Factors in rows, padded with zeros to :func:`table_stride`: what the kernels gather."""
    k = Q.shape[0]
    return jnp.pad(Q.T, ((0, 0), (0, table_stride(k, Q.dtype) - k)))


def linear_predictor(
    w0: Float[Array, ""],
    E: list[Float[Array, " _"]],
    Q: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " n"]],
) -> Float[Array, " n"]:
    """Eta of every row from the summaries (E, Q) of its units, Q as tables; see ``src/rows.cc``.

    ``codes`` lead there from every data row.
    """
    shape = jax.ShapeDtypeStruct(codes[0].shape, w0.dtype)
    units = [x for unit in zip(E, Q, codes, strict=True) for x in unit]
    return call("rows", w0.dtype, shape)(w0, *units)


def move_residual(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    r: Float[Array, " n_pad"],
    moved: Float[Array, "K m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, " n_pad"]:
    """r - <h, moved> for the data rows of every block row. Arguments as in :func:`update_field`."""
    check_pointers(ptr)
    kernel = call("move", r.dtype, jax.ShapeDtypeStruct(r.shape, r.dtype))
    return kernel(ptr, row, r, moved, *_alternating(tables, codes))


def row_information(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    K: int,
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, "m q"]:
    """For every row of a relation block: sum of omega h h' over its data rows (triangle by rows), then of omega r h.

    Arguments as in :func:`update_field`; h = (1, q) has K entries.
    """
    check_pointers(ptr)
    shape = jax.ShapeDtypeStruct((ptr.shape[0] - 1, K * (K + 3) // 2), r.dtype)
    return call("information", r.dtype, shape)(ptr, row, omega, r, *_alternating(tables, codes))


def summarize(
    ptr: Int[Array, " _"],
    feature: Int[Array, " z"],
    value: Float[Array, " z"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, " m"], Float[Array, "m stride"]]:
    """Summaries (E, Q) of the rows of a sparse matrix, Q as a table; row n has the entries ``ptr[n]:ptr[n + 1]``."""
    check_pointers(ptr)
    v, m = as_table(theta[1:]), ptr.shape[0] - 1
    shapes = (jax.ShapeDtypeStruct((m,), theta.dtype), jax.ShapeDtypeStruct((m, v.shape[1]), theta.dtype))
    E, Q = call("summaries", theta.dtype, shapes)(ptr, feature, value, theta[0], v)
    return E, Q


def table_stride(rank: int, dtype: np.dtype | type) -> int:
    """Numbers in a row of a table: 16, 32 or a multiple of 64 bytes, so that rows fill vectors or fit into one."""
    size = np.dtype(dtype).itemsize
    full = 64 // size
    if rank > full:
        return -(-rank // full) * full
    return max(16 // size, 1 << max(0, rank - 1).bit_length())


def update_columns(
    ptr: Int[Array, " _"],
    row: Int[Array, " z"],
    value: Float[Array, " z"],
    ends: Int[Array, " runs"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    Q: Float[Array, "n_pad stride"],
    group: Int[Array, " p"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    noise: Float[Array, "K p"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"], Float[Array, "n_pad stride"]]:
    """Draw the columns of a general sparse matrix, run by run, with Q and r brought up to date; see ``src/columns.cc``.

    Column j has the entries ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``; columns of one run, which ends before
    column ``ends[i]``, share no row. ``Q`` holds the factors of everything in a row.
    """
    check_pointers(ptr)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (theta, r, Q))
    kernel = call("columns", theta.dtype, shapes)
    new, r, Q = kernel(ptr, row, value, ends, omega, r, Q, group, precision, mean, noise, theta)
    return new, r, Q


def eliminate_field(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    group: Int[Array, " m"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    theta: Float[Array, "K m"],
    last: Int[Array, ""],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> tuple[Float[Array, "blocks kept side"], Float[Array, "5 m"]]:
    """Eliminate the factors of all features of a one-hot field but for the last one: their systems, and what is left.

    Feature j owns the data rows ``row[ptr[j]:ptr[j + 1]]`` and has the prior of ``group[j]`` (never decreasing); those
    of w and of factor number ``last`` (0 of none) are not read. ``tables`` and ``codes`` lead from there to the factors
    of the other units (:func:`as_table`). What is left is a ``Corner`` (``inference/conjugate/elimination.py``); see
    ``src/field.cc``.
    """
    check_pointers(ptr)
    (K, m), dtype = theta.shape, theta.dtype
    kept = max(0, (K - 1) * K // 2 + 2 * (K - 1))
    shapes = (
        jax.ShapeDtypeStruct((-(-m // SIDE_BY_SIDE), kept, SIDE_BY_SIDE), dtype),
        jax.ShapeDtypeStruct((5, m), dtype),
    )
    systems, corner = call("eliminate", dtype, shapes)(
        ptr, row, omega, r, group, precision, mean, theta, last, *_alternating(tables, codes)
    )
    return systems, corner


def substitute_field(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    r: Float[Array, " n_pad"],
    systems: Float[Array, "blocks kept side"],
    ends: Float[Array, "5 m"],
    last: Int[Array, ""],
    noise: Float[Array, "K m"],
    theta: Float[Array, "K m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
    """Draw w and v of all features from what :func:`eliminate_field` left, and move the residual.

    ``ends``: ``Ends`` of ``inference/conjugate/elimination.py``.
    """
    check_pointers(ptr)
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), jax.ShapeDtypeStruct(r.shape, r.dtype))
    new, moved = call("substitute", theta.dtype, shapes)(
        ptr, row, theta, systems, ends, last, noise, r, *_alternating(tables, codes)
    )
    return new, moved


def update_table(
    ptr: Int[Array, " _"],
    row: Int[Array, " z"],
    value: Float[Array, " z"],
    information: Float[Array, "m q"],
    Q: Float[Array, "B m"],
    group: Int[Array, " p"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    noise: Float[Array, "K p"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, "K p"], Float[Array, "K m"]]:
    """Draw the features of a relation block in turn; return them and the movement of the rows' summaries (E, Q).

    Feature j has the entries ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``; ``information`` is that of
    :func:`row_information`, ``Q`` that of the block's own rows. See ``src/table.cc``.
    """
    check_pointers(ptr)
    moved = jax.ShapeDtypeStruct((theta.shape[0], information.shape[0]), theta.dtype)
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), moved)
    kernel = call("table", theta.dtype, shapes)
    new, change = kernel(ptr, row, value, information, Q, group, precision, mean, noise, theta)
    return new, change


def _alternating(tables: list[Array], codes: list[Array]) -> list[Array]:
    return [x for pair in zip(tables, codes, strict=True) for x in pair]
