"""A design on the device: the plain arrays that predictors, models and engines compute with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy import sparse

from bayesfm.design.blocks import Block, Design

__all__ = ["BlockArrays", "DesignArrays", "Parts", "Summaries", "TableArrays", "table_arrays"]

type Parts = list[tuple[Float[Array, "K m"], Int[Array, " n"] | None]]
"""Of every block: summaries of its own rows, and the index of the data rows into them."""

ROWS_AT_ONCE = 1 << 16
"""Rows of a tile."""


class Summaries(Protocol):
    """What a predictor must offer so that blocks can be combined (see ``predictors/fm.py``)."""

    def combine(self, s: Array, t: Array) -> Array:
        """Summary of the union of two disjoint sets of features."""
        ...

    def summarize(self, table: TableArrays, theta: Array) -> Array:
        """Summaries of the rows of a table."""
        ...

    def derivative(self, q: Array) -> Array:
        """Derivative of a row's effect by the parameters of a feature of value one, given the Q of all others."""
        ...

    def step_transpose(self, u: Array, x: Array, g: Array) -> Array:
        """M' g, M being the derivative of a summary by the parameters of a feature."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TableArrays:
    """Non-zero entries of a sparse table, sorted by row."""

    row: Int[Array, " z"]
    feature: Int[Array, " z"]
    value: Float[Array, " z"]
    num_rows: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockArrays:
    """One block: ``table`` None is the identity (a one-hot field), ``index`` None the identity index."""

    table: TableArrays | None
    index: Int[Array, " n"] | None
    start: int = field(metadata={"static": True})
    stop: int = field(metadata={"static": True})
    num_unseen: int = field(metadata={"static": True}, default=0)

    def block_summary(self, predictor: Summaries, theta: Float[Array, "K p"]) -> Float[Array, "K m"]:
        """Summaries of the distinct rows of the block."""
        own = theta[:, self.start : self.stop]
        return own if self.table is None else predictor.summarize(self.table, own)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DesignArrays:
    """All blocks of a design as a pytree of device arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.design.arrays import DesignArrays
    >>> design = Design((Block.field("user", np.array([0, 1, 1]), np.array(["a", "b"])),))
    >>> DesignArrays.from_design(design).num_rows
    3
    """

    blocks: tuple[BlockArrays, ...]
    num_rows: int = field(metadata={"static": True})
    num_features: int = field(metadata={"static": True})
    unseen_group: Int[Array, " u"] | None = None
    """Prior group of every unseen level."""

    @classmethod
    def from_design(cls, design: Design, dtype: np.dtype | type = np.float32) -> DesignArrays:
        """Copy a design to the device.

        Unseen levels of field t of a block come after all known features in ``theta``: the p known columns are
        followed by the unseen levels of the first block, of the second, and so on.
        """
        starts = design.starts
        blocks = [
            _block_arrays(b, int(lo), int(hi), dtype)
            for b, lo, hi in zip(design.blocks, starts, starts[1:], strict=False)
        ]
        group = [
            np.full(len(b.unseen), design.groups[lo]) for b, lo in zip(design.blocks, starts, strict=False)
        ]
        unseen_group = jnp.asarray(np.concatenate(group), jnp.int32)
        return cls(tuple(blocks), design.num_rows, design.num_features, unseen_group)

    def row_summary(self, predictor: Summaries, theta: Float[Array, "K all"]) -> Float[Array, "K n"]:
        """Summary of every row: all blocks gathered and combined.

        ``theta`` has the parameters of the p features, followed by those of the unseen levels; where the latter are
        left out, an unseen level adds nothing, as in training.
        """
        return _at_rows(predictor, self._summaries(predictor, theta))

    def row_effect(self, predictor: Summaries, theta: Float[Array, "K all"]) -> Float[Array, " n"]:
        """E = eta - w0, the first entry of :meth:`row_summary`, by tiles: blocks with an index make no (K, n) array."""
        return self._effect(predictor, self._summaries(predictor, theta))

    def _effect(self, predictor: Summaries, parts: Parts) -> Float[Array, " n"]:
        n = self.num_rows
        if n <= ROWS_AT_ONCE:
            return _at_rows(predictor, parts)[0]
        pad = -n % ROWS_AT_ONCE
        parts = [
            (jnp.pad(s, ((0, 0), (0, pad))), None) if index is None else (s, jnp.pad(index, (0, pad)))
            for s, index in parts
        ]

        def tile(first: Int[Array, ""]) -> Float[Array, " t"]:
            at_rows = [
                lax.dynamic_slice_in_dim(s, first, ROWS_AT_ONCE, 1)
                if index is None
                else s[:, lax.dynamic_slice_in_dim(index, first, ROWS_AT_ONCE)]
                for s, index in parts
            ]
            return reduce(predictor.combine, at_rows)[0]

        return lax.map(tile, jnp.arange(0, n + pad, ROWS_AT_ONCE)).reshape(-1)[:n]

    def _summaries(self, predictor: Summaries, theta: Float[Array, "K all"]) -> Parts:
        """Of every block: summaries of its own rows, unseen levels last, and the index of the rows into them."""
        if theta.shape[1] == self.num_features:
            theta = jnp.pad(theta, ((0, 0), (0, sum(block.num_unseen for block in self.blocks))))
        parts, unseen = [], self.num_features
        for block in self.blocks:
            s = block.block_summary(predictor, theta)
            if block.num_unseen:
                s = jnp.concatenate([s, theta[:, unseen : unseen + block.num_unseen]], axis=1)
                unseen += block.num_unseen
            parts.append((s, block.index))
        return parts


def _at_rows(predictor: Summaries, parts: Parts) -> Float[Array, "K n"]:
    return reduce(predictor.combine, [s if index is None else s[:, index] for s, index in parts])


def table_arrays(X: sparse.csr_array, dtype: np.dtype | type = np.float32) -> TableArrays:
    """Entries of a CSR matrix, in row order."""
    row = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
    return TableArrays(
        jnp.asarray(row), jnp.asarray(X.indices, jnp.int32), jnp.asarray(X.data, dtype), int(X.shape[0])
    )


def _block_arrays(block: Block, start: int, stop: int, dtype: np.dtype | type) -> BlockArrays:
    table = None if block.X is None else table_arrays(block.X, dtype)
    index = None if block.index is None else jnp.asarray(block.index, jnp.int32)
    return BlockArrays(table, index, start, stop, len(block.unseen))
