"""The updates of ``units.py`` by the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm import native
from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit, Unit
from bayesfm.inference.conjugate.blocks import FactorBlocks, GroupPrior
from bayesfm.inference.conjugate.collapsed import FieldPrior
from bayesfm.inference.conjugate.elimination import Corner
from bayesfm.inference.conjugate.noise import MaybeKey, at, split, standard_normal, three
from bayesfm.inference.conjugate.prior_terms import prior_of_groups
from bayesfm.inference.conjugate.state import Hypers, ModelState, Swept
from bayesfm.model import ModelSpec

__all__ = ["group_moments", "linear_predictor", "sweep_units"]


class Summary(NamedTuple):
    """Summaries (E, Q) of a unit's own rows, Q as a table; the last row is that of a data row without owner: zero."""

    E: Float[Array, " rows"]
    Q: Float[Array, "rows stride"]


class Data(NamedTuple):
    """What a draw of theta reads of the data rows, and of the other units: their factors as tables."""

    omega: Float[Array, " n_pad"]
    tables: list[Float[Array, "_ stride"]]

    def block(self, blocks: FactorBlocks, s: Int[Array, ""]) -> list[Float[Array, "_ stride"]]:
        """Tables of the factors from s on; of zeros where there is no other unit."""
        if not self.tables:
            return [jnp.zeros((1, native.table_stride(blocks.size, self.omega.dtype)), self.omega.dtype)]
        return [_block_of_table(table, blocks, s) for table in self.tables]


def linear_predictor(
    layout: Layout, w0: Float[Array, ""], theta: Sequence[Float[Array, "K m"]]
) -> Float[Array, " n_pad"]:
    """eta of all rows."""
    summaries = [_summary(unit, own) for unit, own in zip(layout.units, theta, strict=True)]
    if len(summaries) == 1 and isinstance(layout.units[0], RowsUnit):
        return w0 + summaries[0].E
    every_row = jnp.arange(layout.num_padded, dtype=jnp.int32)
    codes = [every_row if isinstance(unit, RowsUnit) else unit.rows.code for unit in layout.units]
    return native.linear_predictor(w0, [s.E for s in summaries], [s.Q for s in summaries], codes)


def sweep_units(
    key: MaybeKey,
    state: ModelState,
    spec: ModelSpec,
    layout: Layout,
    blocks: FactorBlocks,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> Swept:
    """As ``sweep_units.sweep_units``."""
    thetas, units, hyper = list(state.theta), layout.units, Hypers(state.hyper_w, state.hyper_v)
    tables = [_summary(unit, own).Q for unit, own in zip(units, thetas, strict=True)]
    keys = split(key, len(units))
    for i, unit in enumerate(units):
        now = state._replace(hyper_w=hyper.w, hyper_v=hyper.v)
        sub, prior = at(keys, i), prior_of_groups(spec, now, layout, unit)
        rest = [j for j in range(len(units)) if j != i]
        data = Data(omega, [tables[j] for j in rest])
        if isinstance(unit, FieldUnit):
            own = FieldPrior.of(spec, layout, thetas, i)
            thetas[i], r, hyper = update_field(sub, unit, blocks, thetas[i], prior, data, r, own, hyper)
        elif isinstance(unit, TableUnit):
            thetas[i], r = update_table(sub, unit, blocks, thetas[i], prior, data, r)
        else:
            Q = sum((tables[j][_codes(units[j])] for j in rest), start=tables[i])
            thetas[i], r = update_rows(sub, unit, blocks, thetas[i], prior, omega, Q, r)
        tables[i] = _summary(unit, thetas[i]).Q
    return Swept(tuple(thetas), hyper, r)


def update_field(
    key: MaybeKey,
    unit: FieldUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K m"],
    prior: GroupPrior,
    data: Data,
    r: Float[Array, " n_pad"],
    field_prior: FieldPrior,
    hyper: Hypers,
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"], Hypers]:
    """As ``units.update_field``, from the same normals."""
    rows = unit.sorted
    assert rows is not None
    near, codes = (rows.ptr, rows.row), _all_codes(rows.codes, rows.row)

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Hypers]
    ) -> tuple[Array, Array, Hypers]:
        theta, r, hyper = carry
        own, block, tables = blocks.take(theta, s), prior.block(blocks, s), data.block(blocks, s)
        key_last, key_scales, key_noise = three(key)
        last = field_prior.last(key_last, blocks.size)
        systems, corner = native.eliminate_field(
            *near, data.omega, r, block.group, *block.arrays, own, last, tables, codes
        )
        hyper, ends = field_prior.drawn(key_scales, hyper, Corner(*corner), s + last)
        noise = standard_normal(key_noise, own, use_native=True)
        new, r = native.substitute_field(*near, r, systems, jnp.stack(ends), last, noise, own, tables, codes)
        return blocks.put(theta, s, new), r, hyper

    return blocks.run(key, body, (theta, r, hyper))


def update_table(
    key: MaybeKey,
    unit: TableUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: GroupPrior,
    data: Data,
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """As ``units.update_table``, feature after feature in the order of the columns."""
    rows, entries = unit.sorted, unit.entries
    assert rows is not None
    assert entries is not None
    near, columns = (rows.ptr, rows.row), entries.columns
    Q = _summary(unit, theta).Q[:-1, : theta.shape[0] - 1].T

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r = carry
        tables, codes = data.block(blocks, s), _all_codes(rows.codes, rows.row)
        information = native.row_information(*near, data.omega, r, blocks.size + 1, tables, codes)
        own, block = blocks.take(theta, s), prior.block(blocks, s)
        noise = standard_normal(key, own, use_native=True)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size)
        new, moved = native.update_table(
            columns.ptr, columns.row, columns.value, information, q, block.group, *block.arrays, noise, own
        )
        Q = lax.dynamic_update_slice_in_dim(Q, q + moved[1:], s, 0)
        return blocks.put(theta, s, new), Q, native.move_residual(*near, r, moved, tables, codes)

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r


def update_rows(
    key: MaybeKey,
    unit: RowsUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: GroupPrior,
    omega: Float[Array, " n_pad"],
    Q: Float[Array, "n_pad stride"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """As ``units.update_rows``, in the order of the columns; Q holds the factors of everything in a row."""
    entries = unit.entries
    assert entries is not None
    columns = entries.columns

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r = carry
        own, block, q = blocks.take(theta, s), prior.block(blocks, s), _block_of_table(Q, blocks, s)
        noise = standard_normal(key, own, use_native=True)
        matrix = columns.ptr, columns.row, columns.value, entries.ends
        new, r, q = native.update_columns(*matrix, omega, r, q, block.group, *block.arrays, noise, own)
        if blocks.number == 1:
            return new, q, r
        Q = lax.dynamic_update_slice_in_dim(Q, q[:, : blocks.size], s, 1)
        return blocks.put(theta, s, new), Q, r

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r


def group_moments(
    layout: Layout, theta: Sequence[Float[Array, "K m"]]
) -> tuple[Float[Array, " G"], Float[Array, "K G"], Float[Array, "K G"]]:
    """Count of every group, its mean and its sum of squares around it (Chan, Golub & LeVeque 1983 across units)."""
    count = sum((unit.count for unit in layout.units[1:]), start=layout.units[0].count)
    parts = [
        native.group_moments(own, unit.group, layout.num_groups)
        for own, unit in zip(theta, layout.units, strict=True)
    ]
    if len(parts) == 1:
        return count, *parts[0]
    weighted = [unit.count * mean for unit, (mean, _) in zip(layout.units, parts, strict=True)]
    mean = sum(weighted[1:], start=weighted[0]) / jnp.maximum(count, 1)
    scatters = [s + unit.count * (m - mean) ** 2 for unit, (m, s) in zip(layout.units, parts, strict=True)]
    return count, mean, sum(scatters[1:], start=scatters[0])


def _summary(unit: Unit, theta: Float[Array, "K m"]) -> Summary:
    if isinstance(unit, FieldUnit):
        padded = jnp.pad(theta, ((0, 0), (0, 1)))
        return Summary(padded[0], native.as_table(padded[1:]))
    entries = unit.entries
    assert entries is not None
    return Summary(*native.summarize(entries.row_ptr, entries.feature, entries.value, theta))


def _codes(unit: Unit) -> Int[Array, " n_pad"]:
    assert not isinstance(unit, RowsUnit), "a design has one unit of plain rows at most"
    return unit.rows.code


def _all_codes(codes: Sequence[Int[Array, " rows"]], row: Int[Array, " rows"]) -> list[Int[Array, " rows"]]:
    return list(codes) or [jnp.zeros_like(row)]


def _block_of_table(
    table: Float[Array, "_ stride"], blocks: FactorBlocks, s: Int[Array, ""]
) -> Float[Array, "_ stride_of_block"]:
    if blocks.number == 1:
        return table
    part = lax.dynamic_slice_in_dim(table, s, blocks.size, 1)
    return jnp.pad(part, ((0, 0), (0, native.table_stride(blocks.size, table.dtype) - blocks.size)))
