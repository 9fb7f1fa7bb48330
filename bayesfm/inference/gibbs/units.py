"""Draws of all features of one unit given everything else: fields, relation blocks, plain rows.

Each update walks through *factor blocks*: the parameters (w_j, v_jf for f in the block) of every feature are drawn
jointly, one block of factors after the other. One block of all factors is the joint draw; blocks of one factor are the
classic factor-by-factor order. All are exact; they differ in cost and mixing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm.design.units import FieldUnit, RowGroups, RowsUnit, Steps, TableUnit
from bayesfm.inference.gibbs.blocks import AtRows, FactorBlocks, OtherFactors, UnitPrior
from bayesfm.inference.gibbs.normal import draw, information, pack, sum_by_owner, unpack
from bayesfm.predictors import FM
from bayesfm.sums import inner

__all__ = ["update_field", "update_rows", "update_table"]


def update_field(
    key: Key[Array, ""],
    predictor: FM,
    unit: FieldUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K m"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
    """Draw theta of a one-hot field; return it with the residual z - eta brought up to date."""
    rows = unit.rows
    omega_rows = omega[rows.row]

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array]
    ) -> tuple[Float[Array, "K m"], Float[Array, "T L C"]]:
        theta, r_rows = carry
        own = blocks.take(theta, s)
        noise = jax.random.normal(key, own.shape, own.dtype)
        h = _row_derivatives(predictor, rows, others.at_rows(s, blocks.size))
        packed = _information_by_owner(rows, h, omega_rows, r_rows)
        new = draw(packed, own, *prior.block(blocks, s, theta), noise)
        return blocks.put(theta, s, new), _move_residual(rows, h, new - own, r_rows)

    theta, r_rows = blocks.run(key, body, (theta, r[rows.row]))
    return theta, _to_rows(rows, r_rows, r)


def update_table(
    key: Key[Array, ""],
    predictor: FM,
    unit: TableUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """Draw theta of a relation block from sufficient statistics per block row (Rendle, PVLDB 2013).

    The likelihood of a block row's data, as a function of the change of its summary s_b = (E_b, Q_b), is Gaussian with
    information G_b = sum omega (1, q)(1, q)' and g_b = sum omega r (1, q), q being the Q of the other blocks. One pass
    over the n data rows gathers it; the colours of the block then only touch its distinct rows.
    """
    rows = unit.rows
    omega_rows = omega[rows.row]
    Q = predictor.summarize(unit.table, theta)[1:]

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r_rows = carry
        h = _row_derivatives(predictor, rows, others.at_rows(s, blocks.size))
        packed = _information_by_owner(rows, h, omega_rows, r_rows)
        G, g = unpack(_with_sentinel(packed.T), blocks.size + 1)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size)
        new, q, moved = _colours_of_table(
            key, predictor, unit.steps, blocks.take(theta, s), prior.block(blocks, s, theta), q, G, g
        )
        return (
            blocks.put(theta, s, new),
            lax.dynamic_update_slice_in_dim(Q, q, s, 0),
            _move_residual(rows, h, moved, r_rows),
        )

    theta, _, r_rows = blocks.run(key, body, (theta, Q, r[rows.row]))
    return theta, _to_rows(rows, r_rows, r)


def _colours_of_table(
    key: Key[Array, ""],
    predictor: FM,
    steps: tuple[Steps, ...],
    theta: Float[Array, "D p"],
    prior: UnitPrior,
    q: Float[Array, "B m"],
    G: Float[Array, "D D m+1"],
    g: Float[Array, "D m+1"],
) -> tuple[Float[Array, "D p"], Float[Array, "B m"], Float[Array, "D m"]]:
    """Colour after colour on the block rows; also return how far each block row's summary moved."""
    theta, q, (precision, mean) = _with_sentinel(theta), _with_sentinel(q), prior.with_sentinel()

    def step(
        carry: tuple[Array, Array], xs: tuple[Key[Array, ""], Steps]
    ) -> tuple[tuple[Array, Array], None]:
        theta, moved = carry
        key, now = xs
        own, moved_row, G_row = theta[:, now.feature], moved[:, now.row], G[:, :, now.row]
        # q and g of a row have moved with its summary; only the movement is stored.
        u = q[:, now.row] + moved_row[1:] - now.value * own[1:, None, now.owner]
        g_row = g[:, now.row] - inner(G_row, moved_row[None], axis=1)
        P, b = predictor.pull_back(u, now.value, G_row, g_row)
        packed = sum_by_owner(pack(_over_chunk(P), _over_chunk(b)), now.owner, now.feature.shape[0])
        noise = jax.random.normal(key, own.shape, own.dtype)
        new = draw(packed, own, precision[..., now.feature], mean[:, now.feature], noise)
        ds = predictor.step(u, now.value, (new - own)[:, None, now.owner])
        return (_set_features(theta, now, new), _add_to_rows(moved, now, ds)), None

    theta, moved = _scan_steps(key, step, (theta, jnp.zeros_like(g)), steps)
    return theta[:, :-1], (q + moved[1:])[:, :-1], moved[:, :-1]


def update_rows(
    key: Key[Array, ""],
    predictor: FM,
    unit: RowsUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """Draw theta of features that live on the data rows, with q of all units and the residual cached per row."""
    every_row = jnp.arange(r.shape[0])
    Q = predictor.summarize(unit.table, theta)[1:]

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r = carry
        q_others = others.at_rows(s, blocks.size)(every_row)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size) + q_others
        precision, mean = prior.block(blocks, s, theta).with_sentinel()

        def step(
            carry: tuple[Array, ...], xs: tuple[Key[Array, ""], Steps]
        ) -> tuple[tuple[Array, ...], None]:
            theta, q, r = carry
            key, now = xs
            own = theta[:, now.feature]
            u = q[:, now.row] - now.value * own[1:, None, now.owner]
            h = predictor.derivative(u, now.value)
            packed = sum_by_owner(information(h, omega[now.row], r[now.row]), now.owner, now.feature.shape[0])
            noise = jax.random.normal(key, own.shape, own.dtype)
            new = draw(packed, own, precision[..., now.feature], mean[:, now.feature], noise)
            delta = (new - own)[:, None, now.owner]
            q = _add_to_rows(q, now, now.value * delta[1:])
            r = _add_to_rows(r[None], now, -inner(h, delta)[None])[0]
            return (_set_features(theta, now, new), q, r), None

        own, q, r = _scan_steps(key, step, (_with_sentinel(blocks.take(theta, s)), q, r), unit.steps)
        Q = lax.dynamic_update_slice_in_dim(
            Q, q - q_others, s, 0
        )  # the next block may share factors with this one
        return blocks.put(theta, s, own[:, :-1]), Q, r

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r


def _scan_steps(
    key: Key[Array, ""], step: Callable, carry: tuple[Array, ...], steps: tuple[Steps, ...]
) -> tuple[Array, ...]:
    """Run the steps of each shape in turn, every step with a key of its own."""
    for sub, bucket in zip(jax.random.split(key, len(steps)), steps, strict=True):
        keys = jax.random.split(sub, bucket.feature.shape[0])
        carry, _ = lax.scan(step, carry, (keys, bucket))
    return carry


def _over_chunk(x: Float[Array, "... L C"]) -> Float[Array, "... C"]:
    """Sum over the rows of every chunk, unrolled."""
    return sum((x[..., row, :] for row in range(1, x.shape[-2])), start=x[..., 0, :])


def _add_to_rows(x: Float[Array, "D m"], now: Steps, change: Float[Array, "D L C"]) -> Float[Array, "D m"]:
    """Add to the rows of a step; every row occurs once, the padding adds zero."""
    if now.slot is None:
        return x.at[:, now.row].add(change)
    D, L, C = change.shape
    return x + _with_sentinel(change.reshape(D, L * C))[:, now.slot]


def _set_features(theta: Float[Array, "D p"], now: Steps, new: Float[Array, "D J"]) -> Float[Array, "D p"]:
    """Put the features of a step back."""
    if now.place is None:
        return theta.at[:, now.feature].set(new)
    return jnp.where(now.place < new.shape[1], _with_sentinel(new)[:, now.place], theta)


def _with_sentinel(x: Float[Array, "... m"]) -> Float[Array, "... m+1"]:
    """One more column, which padding reads and writes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])


def _row_derivatives(
    predictor: FM, rows: RowGroups, others: AtRows
) -> Callable[[Int[Array, "L C"]], Float[Array, "D L C"]]:
    """h = (1, q_others) of the rows of a tile: computed once where there is one tile, per tile where there are many."""
    compute = lambda row: lax.optimization_barrier(predictor.derivative(others(row)))  # noqa: E731
    if rows.row.shape[0] > 1:
        return compute
    once = compute(rows.row[0])
    return lambda row: once


def _information_by_owner(
    rows: RowGroups,
    h: Callable[[Int[Array, "L C"]], Float[Array, "D L C"]],
    omega: Float[Array, "T L C"],
    r: Float[Array, "T L C"],
) -> Float[Array, "m q"]:
    """Packed information of every owner, tile by tile."""
    m, span = rows.num_owners, rows.span

    def tile(row: Array, owner: Array, omega: Array, r: Array) -> Float[Array, "span q"]:
        return sum_by_owner(information(h(row), omega, r), owner, span)

    if rows.row.shape[0] == 1:
        return jnp.pad(tile(rows.row[0], rows.owner[0], omega[0], r[0]), ((0, m - span), (0, 0)))

    def add(acc: Array, xs: tuple[Array, ...]) -> tuple[Array, None]:
        first, *arrays = xs
        now = lax.dynamic_slice_in_dim(acc, first, span)
        return lax.dynamic_update_slice_in_dim(acc, now + tile(*arrays), first, 0), None

    D = jax.eval_shape(h, rows.row[0]).shape[0]
    acc = jnp.zeros((m + span, D * (D + 1) // 2 + D), r.dtype)  # a tile's span may reach past the last owner
    acc, _ = lax.scan(add, acc, (rows.first, rows.row, rows.owner, omega, r))
    return acc[:m]


def _move_residual(
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


def _to_rows(
    rows: RowGroups, r_rows: Float[Array, "T L C"], r: Float[Array, " n_pad"]
) -> Float[Array, " n_pad"]:
    """Residuals back in the order of the data; rows without owner keep theirs."""
    return jnp.where(rows.code < rows.num_owners, r_rows.reshape(-1)[rows.slot], r)
