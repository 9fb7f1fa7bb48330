"""Batches of rows that hold only the features they touch, in stacks of equal shape.

All of this is host work of a few passes over the rows of a batch: nothing is sorted, nothing costs what the model has
in features. Room for features, entries and block rows grows in steps of a quarter and never shrinks, so that the
number of shapes, and of compilations, does not depend on the number of batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bayesfm.design import Block, Design
from bayesfm.design.arrays import BlockArrays, DesignArrays, TableArrays
from bayesfm.likelihoods.base import Observed
from bayesfm.pieces import bucket, padded

__all__ = ["Batch", "Batcher", "Layout", "Part", "Rows", "Totals", "entries_per_feature"]

HEADROOM = 1.1
"""Batches of the same data differ by a few per cent in what they touch."""


class Rows(NamedTuple):
    """Rows on the host: a design with response, weights and row data, as the device will have them."""

    design: Design
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    rows: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, design: Design, y: np.ndarray, weight: np.ndarray, rows: Mapping[str, np.ndarray], dtype: Any
    ) -> Rows:
        """Converted to the dtype of the device."""
        own = {name: np.asarray(x, dtype) for name, x in rows.items()}
        return cls(design, np.asarray(y, dtype), np.asarray(weight, dtype), own)


type Layout = tuple[tuple[int, int, int | None], ...]
"""Of every block of a batch: places ``start`` to ``stop`` of its features, and the rows of its table if it has one."""


class Batch(NamedTuple):
    """B rows and the U features that they touch; as a stack with a leading axis.

    Attributes
    ----------
    blocks : tuple of (index, entries)
        The arrays of every block; see :meth:`design`.
    touched : (U,)
        Numbers of the features; padding is feature p, whose parameters count as zero.
    share : (U,)
        The part of the feature's prior that these rows carry: their share in its entries.
    observed : Observed
        Of every row; padding has weight 0.
    row_share : ()
        The part of the data that these rows are, which is the part of all other priors that they carry.
    rate : ()
        Learning rate.
    active : ()
        False for batches without rows, which fill a stack up.
    """

    blocks: tuple[tuple[Any, tuple[Any, Any, Any] | None], ...]
    touched: Int[Any, "*S U"]
    share: Float[Any, "*S U"]
    observed: Observed
    row_share: Float[Any, "*S"]
    rate: Float[Any, "*S"]
    active: Any

    def design(self, layout: Layout) -> DesignArrays:
        """The rows as a design whose columns are the places of ``touched``."""
        blocks = []
        for (start, stop, num_rows), (index, entries) in zip(layout, self.blocks, strict=True):
            table = None if num_rows is None or entries is None else TableArrays(*entries, num_rows)
            blocks.append(BlockArrays(table, index, start, stop))
        return DesignArrays(tuple(blocks), self.observed.y.shape[0], self.touched.shape[0])


class Part(NamedTuple):
    """What one batch has of one block: the features it keeps, how often each occurs, and the arrays."""

    kept: np.ndarray
    occurrences: np.ndarray
    code: np.ndarray | None
    entries: tuple[np.ndarray, np.ndarray, np.ndarray] | None


@dataclass
class Batcher:
    """Cuts stacks of batches out of designs of one schema.

    Parameters
    ----------
    batch_size : int
        Rows B of a batch.
    stack_size : int
        Batches in a stack.
    """

    batch_size: int
    stack_size: int
    _rooms: dict[tuple[int, str], int] = field(default_factory=dict)
    _scratch: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))

    def stack(
        self,
        source: Rows,
        rows: Sequence[Int[np.ndarray, " b"]],
        totals: Totals,
        rates: Iterable[float] = (),
    ) -> tuple[Batch, Layout]:
        """Batches of these rows side by side, as NumPy arrays; ``totals`` is told of them."""
        blocks, starts = source.design.blocks, source.design.starts
        parts = [[self._part(block, r) for block in blocks] for r in rows]
        p, fill, dtype = source.design.num_features, self.stack_size - len(rows), source.y.dtype
        arrays, layout, touched, place = [], [], [], 0
        for t, block in enumerate(blocks):
            own = [of_batch[t] for of_batch in parts]
            room = self._room(t, "features", max(len(x.kept) for x in own))
            kept = [np.where(x.kept < block.num_features, starts[t] + x.kept, p) for x in own]
            touched.append(_stacked(kept, room, fill, p, np.int32))
            own_arrays, num_rows = self._arrays(t, own, dtype)
            arrays.append(own_arrays)
            layout.append((place, place + room, num_rows))
            place += room
        shares, row_share = totals.shares(source.design, parts, [len(r) for r in rows])
        share = [
            _stacked([of_batch[t] for of_batch in shares], x.shape[1], fill, 0, dtype)
            for t, x in enumerate(touched)
        ]
        batch = Batch(
            tuple(arrays),
            np.concatenate(touched, axis=1),
            np.concatenate(share, axis=1),
            self._observed(source, rows),
            padded(np.asarray(row_share, dtype), self.stack_size),
            padded(np.asarray([*rates] or [0.0] * len(rows), dtype), self.stack_size),
            np.arange(self.stack_size) < len(rows),
        )
        return batch, tuple(layout)

    def _observed(self, source: Rows, rows: Sequence[np.ndarray]) -> Observed:
        """Padding repeats a row, with weight 0: whatever its density is, it is finite where that of data is."""
        at = np.full((self.stack_size, self.batch_size), rows[0][0])
        real = np.zeros(at.shape, bool)
        for b, r in enumerate(rows):
            at[b, : len(r)], real[b, : len(r)] = r, True
        weight = np.where(real, source.weight[at], 0).astype(source.weight.dtype)
        own: Any = (source.y[at], weight, {name: x[at] for name, x in source.rows.items()})
        return Observed(*own)

    def _room(self, block: int, what: str, needed: int) -> int:
        """Room for so many features (``what``), entries or block rows of a block."""
        if needed > self._rooms.get((block, what), -1):
            self._rooms[block, what] = bucket(int(HEADROOM * needed))
        return self._rooms[block, what]

    def _arrays(self, block: int, parts: list[Part], dtype: Any) -> tuple[tuple[Any, Any], int | None]:
        """Index and entries of all batches of a stack, and the rows of the block's table if it has one."""
        fill = self.stack_size - len(parts)
        indices = [x.code for x in parts if x.code is not None]
        index = _stacked(indices, self.batch_size, fill, 0, np.int32) if indices else None
        entries = [x.entries for x in parts if x.entries is not None]
        if not entries:
            return (index, None), None
        room = self._room(block, "entries", max(len(row) for row, _, _ in entries))
        num_rows = self.batch_size
        if indices:
            num_rows = self._room(block, "rows", max(int(x.max()) + 1 for x in indices))
        row = _stacked([row for row, _, _ in entries], room, fill, num_rows - 1, np.int32)
        column = _stacked([column for _, column, _ in entries], room, fill, 0, np.int32)
        value = _stacked([value for _, _, value in entries], room, fill, 0, dtype)
        return (index, (row, column, value)), num_rows

    def _part(self, block: Block, rows: Int[np.ndarray, " b"]) -> Part:
        if block.X is None:
            level = rows if block.index is None else block.index[rows]
            # a level that has no feature is feature p of the block
            kept, index = self._compact(np.minimum(level, block.num_features), block.num_features + 1)
            occurrences = np.bincount(index, minlength=len(kept))
            return Part(kept, occurrences, index, None)
        X, code, times = block.X, None, np.ones(len(rows), np.int64)
        used = rows
        if block.index is not None:
            used, code = self._compact(block.index[rows], block.num_block_rows)
            times = np.bincount(code, minlength=len(used))
        X = X[used]
        kept, column = self._compact(X.indices, block.num_features)
        row = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
        occurrences = np.bincount(column, times[row], minlength=len(kept)).astype(np.int64)
        return Part(kept, occurrences, code, (row, column, X.data))

    def _compact(self, index: Int[np.ndarray, " b"], size: int) -> tuple[np.ndarray, np.ndarray]:
        """The distinct entries of an index, in any order, and the place of each entry among them: no sort.

        Every entry leaves its number at its place in an array of ``size``, the last one stays and stands for all equal.
        """
        if len(self._scratch) < size:
            self._scratch = np.empty(size, np.int32)
        number = np.arange(len(index), dtype=np.int32)
        self._scratch[index] = number
        last = self._scratch[index]
        stands = last == number
        return index[stands], (np.cumsum(stands, dtype=np.int32) - 1)[last]


class Totals:
    """What makes up the whole of the data: rows, and entries of every feature.

    Of known data they are given. Of a stream they are what has been seen so far, the batch at hand included, and the
    objective is that of all rows so far.

    Parameters
    ----------
    num_features : int
        p.
    num_rows : int, optional
        Rows of the data, where they are known.
    entries : array of shape (p,), optional
        Entries of every feature, :func:`entries_per_feature`.
    """

    def __init__(
        self, num_features: int, num_rows: int | None = None, entries: np.ndarray | None = None
    ) -> None:
        self.known = num_rows is not None
        self.num_rows = num_rows or 0
        self.entries = np.zeros(num_features, np.int64) if entries is None else np.asarray(entries, np.int64)

    @classmethod
    def of(cls, design: Design) -> Totals:
        """Those of all rows of a design."""
        return cls(design.num_features, design.num_rows, entries_per_feature(design))

    def shares(
        self, design: Design, parts: Sequence[Sequence[Part]], num_rows: Sequence[int]
    ) -> tuple[list[list[np.ndarray]], list[float]]:
        """Of every batch: its share in the entries of every feature, block by block; its share in the rows."""
        shares, row_share = [], []
        for of_batch, n in zip(parts, num_rows, strict=True):
            own = [
                self._share(start, block.num_features, part)
                for start, block, part in zip(design.starts, design.blocks, of_batch, strict=False)
            ]
            if not self.known:
                self.num_rows += n
            shares.append(own)
            row_share.append(n / self.num_rows)
        return shares, row_share

    def _share(self, start: int, p: int, part: Part) -> np.ndarray:
        """Levels without a feature have none."""
        has = part.kept < p
        features, occurrences = start + part.kept[has], part.occurrences[has]
        if not self.known:
            self.entries[features] += occurrences
        share = np.zeros(len(has))
        share[has] = occurrences / self.entries[features]
        return share


def entries_per_feature(design: Design) -> Int[np.ndarray, " p"]:
    """How many entries every feature has, over all data rows."""
    parts = []
    for block in design.blocks:
        m = block.num_block_rows
        index = np.arange(m) if block.index is None else block.index
        times = np.bincount(index, minlength=m)[:m]
        if block.X is None:
            parts.append(times)
            continue
        row = np.repeat(np.arange(m), np.diff(block.X.indptr))
        parts.append(np.bincount(block.X.indices, times[row], minlength=block.num_features).astype(np.int64))
    return np.concatenate(parts)


def _stacked(arrays: Sequence[Any], room: int, fill: int, value: float, dtype: Any) -> Any:
    """Arrays side by side, each padded to ``room``, and ``fill`` more that are nothing but padding."""
    out = np.full((len(arrays) + fill, room), value, dtype)
    for b, x in enumerate(arrays):
        out[b, : len(x)] = x
    return out
