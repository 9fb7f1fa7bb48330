"""Rows in tiles and features in steps: what the updates of all kinds of units are made of."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.design.units import RowGroups, Steps
from bayesfm.inference.conjugate.blocks import AtRows
from bayesfm.inference.conjugate.noise import MaybeKey, at, split
from bayesfm.inference.conjugate.normal import information, sum_by_owner
from bayesfm.predictors import FM
from bayesfm.sums import inner

__all__ = [
    "add_to_rows",
    "information_by_owner",
    "move_residual",
    "over_chunk",
    "row_derivatives",
    "scan_steps",
    "set_features",
    "sums_by_owner",
    "to_rows",
    "with_sentinel",
]


def scan_steps(
    key: MaybeKey, step: Callable, carry: tuple[Array, ...], steps: tuple[Steps, ...]
) -> tuple[Array, ...]:
    """Run the steps of each shape in turn, every step with a key of its own."""
    keys = split(key, len(steps))
    for i, bucket in enumerate(steps):
        carry, _ = lax.scan(step, carry, (split(at(keys, i), bucket.feature.shape[0]), bucket))
    return carry


def over_chunk(x: Float[Array, "... L C"]) -> Float[Array, "... C"]:
    """Sum over the rows of every chunk, unrolled."""
    return sum((x[..., row, :] for row in range(1, x.shape[-2])), start=x[..., 0, :])


def add_to_rows(x: Float[Array, "D m"], now: Steps, change: Float[Array, "D L C"]) -> Float[Array, "D m"]:
    """Add to the rows of a step; every row occurs once, the padding adds zero."""
    if now.slot is None:
        return x.at[:, now.row].add(change)
    D, L, C = change.shape
    return x + with_sentinel(change.reshape(D, L * C))[:, now.slot]


def set_features(theta: Float[Array, "D p"], now: Steps, new: Float[Array, "D J"]) -> Float[Array, "D p"]:
    """Put the features of a step back."""
    if now.place is None:
        return theta.at[:, now.feature].set(new)
    return jnp.where(now.place < new.shape[1], with_sentinel(new)[:, now.place], theta)


def with_sentinel(x: Float[Array, "... m"]) -> Float[Array, "... m+1"]:
    """One more column, which padding reads and writes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])


def row_derivatives(
    predictor: FM, rows: RowGroups, others: AtRows
) -> Callable[[Int[Array, "L C"]], Float[Array, "D L C"]]:
    """h = (1, q_others) of the rows of a tile: computed once where there is one tile, per tile where there are many."""
    compute = lambda row: lax.optimization_barrier(predictor.derivative(others(row)))  # noqa: E731
    if rows.row.shape[0] > 1:
        return compute
    once = compute(rows.row[0])
    return lambda row: once


def sums_by_owner(
    rows: RowGroups,
    terms: Callable[[Int[Array, "L C"], Float[Array, "L C"], Float[Array, "L C"]], Float[Array, "q C"]],
    omega: Float[Array, "T L C"],
    r: Float[Array, "T L C"],
) -> Float[Array, "m q"]:
    """Sum over the rows of every owner, tile by tile; ``terms(row, omega, r)`` adds up the rows of a tile's chunks."""
    m, span = rows.num_owners, rows.span

    def tile(row: Array, owner: Array, omega: Array, r: Array) -> Float[Array, "span q"]:
        return sum_by_owner(terms(row, omega, r), owner, span)

    if rows.row.shape[0] == 1:
        return jnp.pad(tile(rows.row[0], rows.owner[0], omega[0], r[0]), ((0, m - span), (0, 0)))

    def add(acc: Array, xs: tuple[Array, ...]) -> tuple[Array, None]:
        first, *arrays = xs
        now = lax.dynamic_slice_in_dim(acc, first, span)
        return lax.dynamic_update_slice_in_dim(acc, now + tile(*arrays), first, 0), None

    size = jax.eval_shape(terms, rows.row[0], omega[0], r[0]).shape[0]
    acc = jnp.zeros((m + span, size), r.dtype)  # a tile's span may reach past the last owner
    acc, _ = lax.scan(add, acc, (rows.first, rows.row, rows.owner, omega, r))
    return acc[:m]


def information_by_owner(
    rows: RowGroups,
    h: Callable[[Int[Array, "L C"]], Float[Array, "D L C"]],
    omega: Float[Array, "T L C"],
    r: Float[Array, "T L C"],
) -> Float[Array, "m q"]:
    """Packed information of every owner."""
    return sums_by_owner(rows, lambda row, omega, r: information(h(row), omega, r), omega, r)


def move_residual(
    rows: RowGroups,
    h: Callable[[Int[Array, "L C"]], Float[Array, "D L C"]],
    moved: Float[Array, "D m"],
    r: Float[Array, "T L C"],
) -> Float[Array, "T L C"]:
    """r - <h, change of the owner's parameters>."""

    def tile(first: Array, row: Array, owner: Array, r: Array) -> Float[Array, "L C"]:
        return r - inner(h(row), moved[:, None, first + owner])

    if rows.row.shape[0] == 1:
        return tile(rows.first[0], rows.row[0], rows.owner[0], r[0])[None]
    return lax.map(lambda xs: tile(*xs), (rows.first, rows.row, rows.owner, r))


def to_rows(
    rows: RowGroups, r_rows: Float[Array, "T L C"], r: Float[Array, " n_pad"]
) -> Float[Array, " n_pad"]:
    """Residuals back in the order of the data; rows without owner keep theirs."""
    return jnp.where(rows.code < rows.num_owners, r_rows.reshape(-1)[rows.slot], r)
