"""Draws of all features of one unit given everything else: fields, relation blocks, plain rows.

Each update walks through *factor blocks*: the parameters (w_j, v_jf for f in the block) of every feature are drawn
jointly, one block of factors after the other. One block of all factors is the joint draw; blocks of one factor are the
classic factor-by-factor order. All are exact; they differ in cost and mixing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm import native
from bayesfm.design.layout import FieldUnit, RowGroups, RowsUnit, SortedRows, Steps, TableUnit
from bayesfm.inference.gibbs.normal import draw, information, pack, sum_by_owner, unpack
from bayesfm.predictors import FM
from bayesfm.sums import inner

__all__ = ["FactorBlocks", "OtherFactors", "UnitPrior", "update_field", "update_rows", "update_table"]

AtRows = Callable[[Int[Array, "..."]], Float[Array, "B ..."]]
"""rows -> some factors of those rows."""


class OtherFactors(NamedTuple):
    """Q of all other units, and which of its own rows every data row has (None: the data rows themselves)."""

    Q: list[Float[Array, "k m"]]
    code: list[Int[Array, " n_pad"] | None]
    like: Float[Array, " n_pad"]

    def block(self, s: Int[Array, ""], size: int) -> list[Float[Array, "B m"]]:
        """Factors s to s + size of every unit."""
        return [lax.dynamic_slice_in_dim(Q, s, size) for Q in self.Q]

    def at_rows(self, s: Int[Array, ""], size: int) -> AtRows:
        """Sum over units of factors s to s + size, as a function of rows."""
        block = self.block(s, size)

        def sum_at(row: Int[Array, "..."]) -> Float[Array, "B ..."]:
            q = jnp.zeros((size, *row.shape), self.like.dtype)
            for Q, code in zip(block, self.code, strict=True):
                # The barrier keeps XLA from looking the code up again for every factor.
                q = q + Q[:, row if code is None else lax.optimization_barrier(code[row])]
            return q

        return sum_at


class FactorBlocks(NamedTuple):
    """Blocks of ``size`` factors; the last one reaches back when the rank is no multiple of the size."""

    rank: int
    size: int

    @property
    def number(self) -> int:
        """How many blocks there are; one, empty, for rank 0."""
        return max(1, -(-self.rank // max(1, self.size)))

    def start(self, i: Int[Array, ""] | int) -> Int[Array, ""]:
        """First factor of block i."""
        return jnp.minimum(jnp.asarray(i * self.size), self.rank - self.size)

    def take(self, x: Float[Array, "K m"], s: Int[Array, ""]) -> Float[Array, "D m"]:
        """Rows w and v_s, ..., v_{s + size - 1}."""
        return jnp.concatenate([x[:1], lax.dynamic_slice_in_dim(x, s + 1, self.size)])

    def put(
        self, x: Float[Array, "K m"], s: Int[Array, ""], block: Float[Array, "D m"]
    ) -> Float[Array, "K m"]:
        """Inverse of :meth:`take`."""
        return lax.dynamic_update_slice_in_dim(x.at[0].set(block[0]), block[1:], s + 1, 0)

    def run[S](
        self, key: Key[Array, ""], body: Callable[[Key[Array, ""], Int[Array, ""], S], S], carry: S
    ) -> S:
        """Fold ``body`` over the blocks, each with a key of its own."""
        keys = jax.random.split(key, self.number)
        if self.number == 1:
            return body(keys[0], jnp.asarray(0), carry)
        return lax.fori_loop(0, self.number, lambda i, c: body(keys[i], self.start(i), c), carry)


class UnitPrior(NamedTuple):
    """Gaussian prior of a unit's features, given the hyperparameters."""

    precision: Float[Array, "K m"]
    mean: Float[Array, "K m"]


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
    if unit.sorted is not None:
        return _update_field_native(key, unit.sorted, blocks, theta, prior, others, omega, r)
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
        new = draw(packed, own, blocks.take(prior.precision, s), blocks.take(prior.mean, s), noise)
        return blocks.put(theta, s, new), _move_residual(rows, h, new - own, r_rows)

    theta, r_rows = blocks.run(key, body, (theta, r[rows.row]))
    return theta, _to_rows(rows, r_rows, r)


def _update_field_native(
    key: Key[Array, ""],
    rows: SortedRows,
    blocks: FactorBlocks,
    theta: Float[Array, "K m"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
    """The same draw, from the same normals, by the compiled kernel."""

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array]
    ) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
        theta, r = carry
        own = blocks.take(theta, s)
        noise = jax.random.normal(key, own.shape, own.dtype)
        Q, codes = others.block(s, blocks.size), list(rows.codes)
        if not Q:  # a design of one field
            Q, codes = [jnp.zeros((blocks.size, 1), own.dtype)], [jnp.zeros_like(rows.row)]
        tables = [
            native.as_table(jnp.pad(x, ((1, 0), (0, 0)), constant_values=t == 0)) for t, x in enumerate(Q)
        ]
        precision, mean = blocks.take(prior.precision, s), blocks.take(prior.mean, s)
        new, r = native.update_field(rows.ptr, rows.row, omega, r, precision, mean, noise, own, tables, codes)
        return blocks.put(theta, s, new), r

    return blocks.run(key, body, (theta, r))


def _tables(
    rows: SortedRows, others: OtherFactors, s: Int[Array, ""], size: int
) -> tuple[list[Float[Array, "_ stride"]], list[Int[Array, " rows"]]]:
    """What the kernels gather h = (1, q) from: (1, Q) of the first other unit, (0, Q) of the others."""
    Q, codes = others.block(s, size), list(rows.codes)
    if not Q:  # a design of one unit
        Q, codes = [jnp.zeros((size, 1), others.like.dtype)], [jnp.zeros_like(rows.row)]
    return [
        native.as_table(jnp.pad(x, ((1, 0), (0, 0)), constant_values=t == 0)) for t, x in enumerate(Q)
    ], codes


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
    if unit.sorted is not None:
        return _update_table_native(key, predictor, unit, blocks, theta, prior, others, omega, r)
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
            key, predictor, unit.steps, blocks.take(theta, s), _prior_block(blocks, prior, s), q, G, g
        )
        return (
            blocks.put(theta, s, new),
            lax.dynamic_update_slice_in_dim(Q, q, s, 0),
            _move_residual(rows, h, moved, r_rows),
        )

    theta, _, r_rows = blocks.run(key, body, (theta, Q, r[rows.row]))
    return theta, _to_rows(rows, r_rows, r)


def _update_table_native(
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
    """The same by the compiled kernels, feature after feature in the order of the columns."""
    rows, columns = unit.sorted, unit.columns
    assert rows is not None
    assert columns is not None
    Q = predictor.summarize(unit.table, theta)[1:]

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r = carry
        near = rows.ptr, rows.row
        tables = _tables(rows, others, s, blocks.size)
        information = native.row_information(*near, omega, r, blocks.size + 1, *tables)
        own, block = blocks.take(theta, s), _prior_block(blocks, prior, s)
        noise = jax.random.normal(key, own.shape, own.dtype)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size)
        new, moved = native.update_table(
            columns.ptr, columns.row, columns.value, information, q, block.precision, block.mean, noise, own
        )
        Q = lax.dynamic_update_slice_in_dim(Q, q + moved[1:], s, 0)
        return blocks.put(theta, s, new), Q, native.move_residual(*near, r, moved, *tables)

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r


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
    theta, precision, mean = (
        _with_sentinel(theta),
        _with_sentinel(prior.precision, 1.0),
        _with_sentinel(prior.mean),
    )
    q = _with_sentinel(q)

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
        new = draw(packed, own, precision[:, now.feature], mean[:, now.feature], noise)
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
        block_prior = _prior_block(blocks, prior, s)
        precision, mean = _with_sentinel(block_prior.precision, 1.0), _with_sentinel(block_prior.mean)

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
            new = draw(packed, own, precision[:, now.feature], mean[:, now.feature], noise)
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


def _prior_block(blocks: FactorBlocks, prior: UnitPrior, s: Int[Array, ""]) -> UnitPrior:
    return UnitPrior(blocks.take(prior.precision, s), blocks.take(prior.mean, s))


def _with_sentinel(x: Float[Array, "... m"], fill: float = 0.0) -> Float[Array, "... m+1"]:
    """One more column, which padding reads and writes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)], constant_values=fill)


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
