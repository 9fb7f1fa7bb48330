"""A design on the device for engines that follow gradients.

The gradient of eta gathers where eta sums and sums where eta gathers; left to automatic differentiation these sums are
unsorted scatters, on a CPU many times slower than eta itself. Here every sum runs over places that were sorted by their
owner on the host: rows by level or block row, entries of a table by feature. See docs/math.md, section 22.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.design.arrays import BlockArrays, DesignArrays, Parts, Summaries, TableArrays
from bayesfm.design.blocks import Design
from bayesfm.design.sorted_rows import rows_by_owner

__all__ = ["Chunks", "GradientArrays"]

LENGTHS = (1, 2, 4, 8)
"""Of chunks. Longer ones were measured to be slower: XLA no longer fuses gathers into their sum."""
CHUNK_COST = 6
"""Fixed cost of a chunk, in places; as in ``design/layout.py``."""
TILE = 1 << 16
"""Places in a tile, about: bounds the temporaries of a gradient."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chunks:
    """Places 0, ..., n - 1 sorted by owner and cut into chunks of L, C of which stand side by side in a tile.

    Attributes
    ----------
    place : (T, L, C)
        Padding is place n.
    owner : (T * C,)
        Of every chunk; never decreases.
    num_owners : int
        Owners, some of which may have no chunk.
    """

    place: Int[Array, "T L C"]
    owner: Int[Array, " chunks"]
    num_owners: int = field(metadata={"static": True})

    @classmethod
    def of(cls, owner: Int[np.ndarray, " n"], num_owners: int) -> Chunks:
        """From the owner of every place."""
        ptr, places = rows_by_owner(owner, num_owners)
        count = np.diff(ptr)
        L = LENGTHS[int(np.argmin([np.sum(-(-count // L)) * (L + CHUNK_COST) for L in LENGTHS]))]
        per_owner = -(-count // L)
        chunks = int(per_owner.sum())
        T = max(1, -(-chunks * L // TILE))
        C = max(1, -(-chunks // T))
        within = np.arange(len(places)) - np.repeat(ptr[:-1], count)
        chunk = np.repeat(np.cumsum(per_owner) - per_owner, count) + within // L
        place = np.full((T, L, C), len(owner), np.int32)
        place[chunk // C, within % L, chunk % C] = places
        owners = np.full(T * C, num_owners - 1, np.int32)
        owners[:chunks] = np.repeat(np.arange(num_owners), per_owner)
        return cls(jnp.asarray(place), jnp.asarray(owners), num_owners)

    def sums(self, terms: Any, *arrays: Array) -> Float[Array, "K m"]:
        """Sum over the places of every owner of ``terms(*tile of arrays)``, each (K, L, C)."""

        def tile(xs: tuple[Array, ...]) -> Float[Array, "K C"]:
            x = terms(*xs)
            return reduce(jnp.add, [x[:, i] for i in range(x.shape[1])])

        by_chunk = jnp.swapaxes(lax.map(tile, arrays), 0, 1)  # (K, T, C)
        by_chunk = by_chunk.reshape(by_chunk.shape[0], -1)
        # Rows of the transposed array lie side by side in memory, and so do the numbers that are added.
        return jax.ops.segment_sum(by_chunk.T, self.owner, self.num_owners, indices_are_sorted=True).T


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
    """Entries of a table by feature: chunks of them, with row and value of each; padding has value 0."""

    chunks: Chunks
    row: Int[Array, "T L C"]
    value: Float[Array, "T L C"]

    @classmethod
    def of(cls, table: TableArrays, num_features: int) -> Columns:
        """From the entries by row."""
        chunks = Chunks.of(np.asarray(table.feature), num_features)
        place = np.asarray(chunks.place)
        row, value = (np.append(np.asarray(x), np.zeros(1, x.dtype))[place] for x in (table.row, table.value))
        return cls(chunks, jnp.asarray(row), jnp.asarray(value))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SortedBlock(BlockArrays):
    """A block whose table, if it has one, is known by feature, too."""

    columns: Columns | None = None

    @classmethod
    def of(cls, block: BlockArrays) -> SortedBlock:
        """With the columns sorted."""
        columns = None if block.table is None else Columns.of(block.table, block.stop - block.start)
        return cls(block.table, block.index, block.start, block.stop, block.num_unseen, columns)

    def block_summary(self, predictor: Summaries, theta: Float[Array, "K p"]) -> Float[Array, "K m"]:
        """Summaries of the distinct rows of the block."""
        own = theta[:, self.start : self.stop]
        return own if self.table is None else _summarize(own, predictor, self.table, self.columns)


@jax.custom_vjp
def _summarize(
    theta: Float[Array, "K p"], predictor: Summaries, table: TableArrays, columns: Columns
) -> Float[Array, "K m"]:
    return predictor.summarize(table, theta)


def _summarize_forward(
    theta: Float[Array, "K p"], predictor: Summaries, table: TableArrays, columns: Columns
) -> tuple[Array, Any]:
    s = predictor.summarize(table, theta)
    return s, (theta, predictor, columns, s)


def _summarize_backward(
    saved: tuple[Array, Summaries, Columns, Array], c: Float[Array, "K m"]
) -> tuple[Array, None, None, None]:
    """Sum over the entries of every feature of M' c, M the matrix of ``predictor.step``."""
    theta, predictor, columns, s = saved

    def terms(row: Array, value: Array, owner: Array) -> Float[Array, "K L C"]:
        rest = s[1:, row] - value * theta[1:, None, owner]
        return predictor.step_transpose(rest, value, c[:, row])

    chunks = columns.chunks
    owner = chunks.owner.reshape(columns.row.shape[0], -1)
    return chunks.sums(terms, columns.row, columns.value, owner), None, None, None


_summarize.defvjp(_summarize_forward, _summarize_backward)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowsOfBlock:
    """The data rows by block row of one block, and the block rows of the other blocks there.

    Where another block has no index, its block rows are the data rows.
    """

    chunks: Chunks
    others: tuple[Int[Array, "T L C"], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientArrays(DesignArrays):
    """A design whose ``row_effect`` has a gradient made of sorted sums.

    Values are those of :class:`~bayesfm.design.arrays.DesignArrays`, and gradients up to rounding. A block that is
    gathered costs one gather of every other block's summaries, from arrays that fit in a cache. Reverse mode only: JAX
    takes no ``jvp`` of functions with a derivative of their own.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.design.gradient import GradientArrays
    >>> design = Design((Block.field("user", np.array([0, 1, 1]), np.array(["a", "b"])),))
    >>> GradientArrays.from_design(design).num_rows
    3
    """

    rows: tuple[RowsOfBlock | None, ...] = ()
    """None for blocks without an index."""

    @classmethod
    def from_design(cls, design: Design, dtype: np.dtype | type = np.float32) -> GradientArrays:
        """Copy a design to the device, with everything sorted that a gradient needs sorted."""
        plain = DesignArrays.from_design(design, dtype)
        blocks = tuple(SortedBlock.of(b) for b in plain.blocks)
        rows = tuple(_rows_of_block(design, b) for b in range(len(blocks)))
        return cls(blocks, plain.num_rows, plain.num_features, plain.unseen_group, rows)

    def _effect(self, predictor: Summaries, parts: Parts) -> Float[Array, " n"]:
        return _row_effect(tuple(s for s, _ in parts), predictor, self)

    def plain_effect(self, predictor: Summaries, summaries: tuple[Array, ...]) -> Float[Array, " n"]:
        """The value, by the way of all designs."""
        parts = [(s, block.index) for s, block in zip(summaries, self.blocks, strict=True)]
        return super()._effect(predictor, parts)


@jax.custom_vjp
def _row_effect(
    summaries: tuple[Array, ...], predictor: Summaries, design: GradientArrays
) -> Float[Array, " n"]:
    return design.plain_effect(predictor, summaries)


def _row_effect_forward(
    summaries: tuple[Array, ...], predictor: Summaries, design: GradientArrays
) -> tuple[Array, Any]:
    return design.plain_effect(predictor, summaries), (summaries, predictor, design)


def _row_effect_backward(
    saved: tuple[tuple[Array, ...], Summaries, GradientArrays], g: Float[Array, " n"]
) -> tuple[tuple[Array, ...], None, None]:
    summaries, predictor, design = saved
    return tuple(_pull_back(b, summaries, predictor, design, g) for b in range(len(summaries))), None, None


_row_effect.defvjp(_row_effect_forward, _row_effect_backward)


def _pull_back(
    b: int, summaries: tuple[Array, ...], predictor: Summaries, design: GradientArrays, g: Float[Array, " n"]
) -> Float[Array, "K m"]:
    """Cotangent of block b's summaries: sums over data rows of g times the derivative by the summary there."""
    rows, others = design.rows[b], [s for i, s in enumerate(summaries) if i != b]
    if rows is None:
        index = [block.index for i, block in enumerate(design.blocks) if i != b]
        at_rows = [s if i is None else s[:, i] for s, i in zip(others, index, strict=True)]
        return g * _derivative(predictor, summaries[b], at_rows)
    padded = jnp.append(g, jnp.zeros_like(g, shape=1))

    def terms(place: Array, *codes: Array) -> Float[Array, "K L C"]:
        at_places = [s[:, code] for s, code in zip(others, codes, strict=True)]
        here = jnp.zeros_like(g, shape=(summaries[b].shape[0], *place.shape))
        return padded[place] * _derivative(predictor, here, at_places)

    return rows.chunks.sums(terms, rows.chunks.place, *rows.others)


def _derivative(predictor: Summaries, own: Array, others: list[Array]) -> Array:
    """Of the effect of a row by the summary of one block: that by a feature of value one, given the other blocks."""
    rest = reduce(predictor.combine, others) if others else jnp.zeros_like(own)
    return predictor.derivative(rest[1:])


def _rows_of_block(design: Design, b: int) -> RowsOfBlock | None:
    block = design.blocks[b]
    if block.index is None:
        return None
    chunks = Chunks.of(block.index, block.num_block_rows + len(block.unseen))
    place = np.minimum(np.asarray(chunks.place), design.num_rows - 1)  # padding reads a row and adds nothing
    others = [place if o.index is None else o.index[place] for i, o in enumerate(design.blocks) if i != b]
    return RowsOfBlock(chunks, tuple(jnp.asarray(codes, jnp.int32) for codes in others))
