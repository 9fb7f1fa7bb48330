"""A design on the device for engines that follow gradients.

The gradient of eta gathers where eta sums and sums where eta gathers; left to automatic differentiation these sums are
unsorted scatters, on a CPU many times slower than eta itself. Here every sum runs over places that were sorted by their
owner on the host: rows by level or block row, entries of a table by feature. See docs/math.md, "The gradient".
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
        """Sum over the places of every owner of ``terms(*tile of arrays)``, each (K, L, C) from arrays (T, L, C)."""

        def tile(xs: tuple[Array, ...]) -> Float[Array, "K C"]:
            x = terms(*xs)
            return reduce(jnp.add, [x[:, i] for i in range(x.shape[1])])

        by_chunk = jnp.swapaxes(lax.map(tile, arrays), 0, 1)  # (K, T, C)
        by_chunk = by_chunk.reshape(by_chunk.shape[0], -1)
        # Rows of the transposed array lie side by side in memory, and so do the numbers that are added.
        return jax.ops.segment_sum(by_chunk.T, self.owner, self.num_owners, indices_are_sorted=True).T


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SortedTable(TableArrays):
    """A table whose entries are known by row and by feature."""

    by_feature: Chunks | None = None

    def at_entries(self, theta: Float[Array, "K p"]) -> Float[Array, "K z"]:
        """Parameters of the feature of every entry."""
        return _at_entries(theta, self.feature, self.by_feature)


@jax.custom_vjp
def _at_entries(theta: Array, feature: Array, by_feature: Chunks) -> Array:
    return theta[:, feature]


def _at_entries_forward(theta: Array, feature: Array, by_feature: Chunks) -> tuple[Array, Chunks]:
    return theta[:, feature], by_feature


def _at_entries_backward(by_feature: Chunks, cotangent: Float[Array, "K z"]) -> tuple[Array, None, None]:
    padded = lax.optimization_barrier(
        jnp.pad(cotangent, ((0, 0), (0, 1))).T
    )  # one entry's numbers side by side

    def terms(place: Int[Array, "L C"]) -> Float[Array, "K L C"]:
        return jnp.moveaxis(padded[place], -1, 0)

    return by_feature.sums(terms, by_feature.place), None, None


_at_entries.defvjp(_at_entries_forward, _at_entries_backward)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowsOfBlock:
    """The data rows by block row of one block, and the block rows of the other blocks there.

    ``others`` has None for the block itself; where another block has no index, its block rows are the data rows.
    """

    chunks: Chunks
    others: tuple[Int[Array, "T L C"] | None, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientArrays(DesignArrays):
    """A design whose ``row_effect`` has a gradient made of sorted sums.

    Values are those of :class:`~bayesfm.design.arrays.DesignArrays`, and gradients up to rounding. A block that is
    gathered costs one gather of every other block's summaries, from arrays that fit in a cache.

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
        blocks = tuple(_sorted_block(b) for b in plain.blocks)
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
    """Cotangent of block b's summaries: over the rows of each of its own rows, that of one summary given the others."""
    own, rows = summaries[b], design.rows[b]
    if rows is None:
        index = [block.index for block in design.blocks]
        return _of_one(
            predictor, own, [s if i is None else s[:, i] for s, i in _without(b, summaries, index)], g
        )
    padded = jnp.append(g, jnp.zeros_like(g, shape=1))

    def terms(place: Array, *codes: Array) -> Float[Array, "K L C"]:
        others = [s[:, code] for (s, _), code in zip(_without(b, summaries, summaries), codes, strict=True)]
        # Affine in the block's own summary, whose value therefore does not matter.
        here = jnp.zeros_like(own, shape=(own.shape[0], *place.shape))
        return _of_one(predictor, here, others, padded[place])

    codes = [code for code in rows.others if code is not None]
    return rows.chunks.sums(terms, rows.chunks.place, *codes)


def _without(b: int, *lists: Any) -> list[tuple[Any, ...]]:
    """The lists side by side, entry b left out."""
    return [xs for i, xs in enumerate(zip(*lists, strict=True)) if i != b]


def _of_one(predictor: Summaries, own: Array, others: list[Array], g: Array) -> Array:
    """g times the derivative of the effect of a row by the summary of one block."""
    _, pull = jax.vjp(lambda s: reduce(predictor.combine, [s, *others])[0], own)
    return pull(g)[0]


def _sorted_block(block: BlockArrays) -> BlockArrays:
    table = block.table
    if table is None:
        return block
    by_feature = Chunks.of(np.asarray(table.feature), block.stop - block.start)
    sorted_table = SortedTable(table.row, table.feature, table.value, table.num_rows, by_feature)
    return BlockArrays(sorted_table, block.index, block.start, block.stop, block.num_unseen)


def _rows_of_block(design: Design, b: int) -> RowsOfBlock | None:
    block = design.blocks[b]
    if block.index is None:
        return None
    chunks = Chunks.of(block.index, block.num_block_rows + len(block.unseen))
    place = np.minimum(np.asarray(chunks.place), design.num_rows - 1)  # padding reads a row and adds nothing
    others = [
        None if i == b else place if o.index is None else o.index[place] for i, o in enumerate(design.blocks)
    ]
    return RowsOfBlock(chunks, tuple(None if o is None else jnp.asarray(o, jnp.int32) for o in others))
