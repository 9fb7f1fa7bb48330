"""The updates of ``units.py`` by the compiled kernels: fields and relation blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm import native
from bayesfm.design.layout import TableUnit
from bayesfm.design.sorted_rows import SortedRows
from bayesfm.inference.gibbs.blocks import FactorBlocks, OtherFactors, UnitPrior
from bayesfm.predictors import FM

__all__ = ["update_field", "update_table"]


def update_field(
    key: Key[Array, ""],
    rows: SortedRows,
    blocks: FactorBlocks,
    theta: Float[Array, "K m"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
    """As ``units.update_field``, from the same normals."""

    def body(
        key: Key[Array, ""], s: Int[Array, ""], carry: tuple[Array, Array]
    ) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
        theta, r = carry
        own = blocks.take(theta, s)
        noise = jax.random.normal(key, own.shape, own.dtype)
        block, tables = prior.block(blocks, s), _tables(rows, others, s, blocks.size)
        new, r = native.update_field(rows.ptr, rows.row, omega, r, *block, noise, own, *tables)
        return blocks.put(theta, s, new), r

    return blocks.run(key, body, (theta, r))


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
    """As ``units.update_table``, feature after feature in the order of the columns."""
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
        own, block = blocks.take(theta, s), prior.block(blocks, s)
        noise = jax.random.normal(key, own.shape, own.dtype)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size)
        new, moved = native.update_table(
            columns.ptr, columns.row, columns.value, information, q, *block, noise, own
        )
        Q = lax.dynamic_update_slice_in_dim(Q, q + moved[1:], s, 0)
        return blocks.put(theta, s, new), Q, native.move_residual(*near, r, moved, *tables)

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r


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
