"""Compact pieces of a design: some rows with only the features that they touch, padded to few sizes.

Requests of similar size then share one compiled program, and a few rows of a model with millions of features
cost what a few rows should.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from bayesfm.design import Block, Design
from bayesfm.design.arrays import BlockArrays, DesignArrays, TableArrays

__all__ = ["Piece", "bucket", "compact_rows", "padded"]


class Piece(NamedTuple):
    """Some rows of a design, compact.

    ``features`` are the kept columns (None: all, in order); ``unseen`` describes the kept unseen levels by
    ``hash``, number of the ``block`` and prior ``group``. What lies behind ``num_rows`` is padding.
    """

    rows: slice
    num_rows: int
    design: DesignArrays
    features: Int[np.ndarray, " q"] | None
    unseen: dict[str, np.ndarray]


def compact_rows(design: Design, rows: slice) -> Piece:
    """Arrays of the rows, with the features and unseen levels that they touch."""
    num_rows = rows.stop - rows.start
    room, place = bucket(num_rows), 0
    blocks, features, unseen = [], [], []
    for number, (block, first) in enumerate(zip(design.blocks, design.starts, strict=False)):
        index = np.arange(rows.start, rows.stop) if block.index is None else block.index[rows]
        arrays, kept, hashes = (_field if block.is_field else _table)(block, index, place, room)
        features.append(first + padded(kept, arrays.stop - place))
        group = np.full(len(hashes), design.groups[first], np.int32)
        unseen.append({"hash": hashes, "group": group, "block": np.full_like(hashes, number)})
        blocks.append(arrays)
        place = arrays.stop
    columns = np.concatenate(features)
    everything = np.array_equal(columns, np.arange(design.num_features))
    levels = {name: np.concatenate([u[name] for u in unseen]) for name in unseen[0]}
    return Piece(
        rows, num_rows, DesignArrays(tuple(blocks), room, place), None if everything else columns, levels
    )


def _field(
    block: Block, index: np.ndarray, start: int, room: int
) -> tuple[BlockArrays, np.ndarray, np.ndarray]:
    """A one-hot block from column ``start`` on, the features it keeps, the hashes of its unseen levels."""
    known = index < block.num_features
    kept, size, known_index = _compact_features(index[known], block.num_features)
    new, hashes = np.empty(len(index), np.int32), np.zeros(0, np.uint32)
    new[known] = known_index
    if not known.all():
        late, late_index = _compact(index[~known] - block.num_features, len(block.unseen))
        new[~known] = size + late_index
        hashes = padded(block.unseen[late], bucket(len(late)))
    return BlockArrays(None, jnp.asarray(padded(new, room)), start, start + size, len(hashes)), kept, hashes


def _table(
    block: Block, index: np.ndarray, start: int, room: int
) -> tuple[BlockArrays, np.ndarray, np.ndarray]:
    """The same for a block with a matrix, which is padded by zero entries in the last row."""
    assert block.X is not None
    if block.index is None:
        X, num_rows, rows = block.X[index[0] : index[-1] + 1], room, None
    else:
        used, new = _compact(index, block.num_block_rows)
        X, num_rows, rows = block.X[used], bucket(len(used)), jnp.asarray(padded(new, room), jnp.int32)
    kept, size, column = _compact_features(X.indices, block.num_features)
    entries = bucket(X.nnz)
    row = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
    table = TableArrays(
        jnp.asarray(padded(row, entries, num_rows - 1)),
        jnp.asarray(padded(column, entries), jnp.int32),
        jnp.asarray(padded(X.data, entries), jnp.zeros(()).dtype),
        num_rows,
    )
    return BlockArrays(table, rows, start, start + size), kept, np.zeros(0, np.uint32)


def _compact_features(index: Int[np.ndarray, " z"], p: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Number the features in an index anew: (features that are kept, room for them, new index).

    All p are kept where that takes no more room: nothing has to be gathered then.
    """
    kept, new = _compact(index, p)
    room = bucket(len(kept))
    return (np.arange(p), p, index) if room >= p else (kept, room, new)


def _compact(index: Int[np.ndarray, " z"], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct entries of an index, sorted, and the place of each entry among them."""
    present = np.zeros(size, bool)
    present[index] = True
    return np.flatnonzero(present), (np.cumsum(present, dtype=np.int32) - 1)[index]


def bucket(count: int) -> int:
    """Round up to one of four sizes per doubling, at least 64: at most a quarter is wasted."""
    step = 1 << max(4, count.bit_length() - 3)
    return max(64, -(-count // step) * step)


def padded(x: np.ndarray, size: int, value: int = 0) -> np.ndarray:
    """The array with its first axis filled up to a size."""
    return np.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=value)
