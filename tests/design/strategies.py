"""Random designs: empty rows, all-zero columns, duplicate entries, one row, one feature."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import sparse

from bayesfm.design import Block, Design

SIZES = st.integers(1, 8)
# Halves and quarters: sums of a few are exact in float32 too.
VALUES = st.integers(-8, 8).map(lambda q: q / 4)


@st.composite
def coo_arrays(draw: st.DrawFn, num_rows: int | None = None) -> sparse.coo_array:
    """A sparse array in which entries repeat, cancel and are stored as zeros."""
    m = draw(SIZES) if num_rows is None else num_rows
    p = draw(SIZES)
    entry = st.tuples(st.integers(0, m - 1), st.integers(0, p - 1), VALUES)
    entries = draw(st.lists(entry, max_size=20))
    row = np.array([e[0] for e in entries], dtype=np.int32)
    col = np.array([e[1] for e in entries], dtype=np.int32)
    value = np.array([e[2] for e in entries], dtype=np.float64)
    return sparse.coo_array((value, (row, col)), shape=(m, p))


@st.composite
def blocks(draw: st.DrawFn, num_rows: int, name: str) -> Block:
    """A matrix with or without index, or a field with or without unseen levels."""
    if draw(st.booleans()):
        levels = [f"level {j}" for j in range(draw(SIZES))]
        unseen = [f"unseen {j}" for j in range(draw(st.integers(0, 2)))]
        index = draw(
            st.lists(st.integers(0, len(levels) + len(unseen) - 1), min_size=num_rows, max_size=num_rows)
        )
        return Block.field(name, index, levels, unseen=unseen)
    if draw(st.booleans()):
        return Block.create(name, draw(coo_arrays(num_rows)))
    X = draw(coo_arrays())
    index = draw(st.lists(st.integers(0, X.shape[0] - 1), min_size=num_rows, max_size=num_rows))
    groups = draw(st.lists(st.sampled_from(["shared", "own"]), min_size=X.shape[1], max_size=X.shape[1]))
    return Block.create(name, X, index, groups=groups)


@st.composite
def designs(draw: st.DrawFn) -> Design:
    """One to three blocks of equally many rows."""
    n = draw(SIZES)
    names = draw(
        st.lists(st.sampled_from(["user", "item", "X", "genre"]), min_size=1, max_size=3, unique=True)
    )
    return Design([draw(blocks(n, name)) for name in names])


def naive_block(block: Block) -> np.ndarray:
    """The rows of a block, one entry at a time."""
    rows = np.zeros((block.num_rows, block.num_features))
    for n in range(block.num_rows):
        b = n if block.index is None else block.index[n]
        for j in range(block.num_features):
            if block.X is None:
                rows[n, j] = float(b == j)
            else:
                rows[n, j] = block.X[b, j]
    return rows


def naive_rows(design: Design) -> np.ndarray:
    """All features of all rows, one entry at a time."""
    return np.hstack([naive_block(b) for b in design.blocks])
