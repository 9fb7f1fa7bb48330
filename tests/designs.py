"""Small random designs of every kind that the engine tells apart, with their awkward corners in each.

Empty rows, columns of zeros, equal rows and columns, levels that no row has, rows without a level, one row or feature.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from bayesfm.design import Block, Design

N = 17
"""Data rows of most designs: no multiple of a chunk or a tile."""


def sparse_values(rng: np.random.Generator, m: int, p: int) -> np.ndarray:
    """Values of which two fifths are zero, with an empty row, a column of zeros and two equal columns."""
    X = rng.normal(size=(m, p)) * (rng.random((m, p)) < 0.6)
    if m > 2:
        X[m // 2] = 0.0
    if p > 3:
        X[:, p // 2] = 0.0
        X[:, 0] = X[:, -1]
    return X


def field(rng: np.random.Generator, name: str, m: int, n: int = N, unseen: int = 0) -> Block:
    """A field; its second level is one that no row has."""
    index = rng.integers(0, m + unseen, n)
    if m > 2:
        index[index == 1] = 0
    return Block.field(name, index, list(range(m)), unseen=[f"new {u}" for u in range(unseen)])


def table(rng: np.random.Generator, name: str, m: int, p: int, n: int = N) -> Block:
    """A relation block in two interleaved prior groups; no data row points to its first block row."""
    groups = [f"{name} {'even' if j % 2 == 0 else 'odd'}" for j in range(p)]
    return Block.create(name, sparse_values(rng, m, p), rng.integers(min(1, m - 1), m, n), groups=groups)


def rows(rng: np.random.Generator, name: str, p: int, n: int = N) -> Block:
    """A sparse matrix of data rows, entries stored twice, in two interleaved prior groups."""
    X = sparse.coo_array(sparse_values(rng, n, p))
    halves = sparse.coo_array((np.tile(X.data / 2, 2), (np.tile(X.row, 2), np.tile(X.col, 2))), shape=X.shape)
    return Block.create(name, halves, groups=[f"{name} {j % 2}" for j in range(p)])


def _two_fields(rng: np.random.Generator) -> Design:
    return Design([field(rng, "user", 4), field(rng, "item", 3)])


def _field_with_gaps(rng: np.random.Generator) -> Design:
    return Design([field(rng, "user", 3, unseen=2), field(rng, "item", 3)])


def _relation_block(rng: np.random.Generator) -> Design:
    return Design([table(rng, "genre", 5, 4), field(rng, "user", 3)])


def _rows(rng: np.random.Generator) -> Design:
    return Design([rows(rng, "x", 5)])


def _everything(rng: np.random.Generator) -> Design:
    blocks = [rows(rng, "x", 4), field(rng, "user", 3), table(rng, "genre", 5, 4), table(rng, "age", 2, 1)]
    return Design(blocks)


def _many_fields(rng: np.random.Generator) -> Design:
    return Design([field(rng, f"field{i}", 2 + i % 2) for i in range(6)])


def _one_hot_matrix(rng: np.random.Generator) -> Design:
    X = sparse.hstack([field(rng, name, m).expand() for name, m in (("a", 4), ("b", 3))])
    return Design([Block.create("X", X)])


def _one_feature(rng: np.random.Generator) -> Design:
    return Design([Block.create("x", rng.normal(size=(N, 1)))])


def _one_row(rng: np.random.Generator) -> Design:
    return Design([field(rng, "user", 2, n=1), rows(rng, "x", 3, n=1)])


def _all_zero(rng: np.random.Generator) -> Design:
    return Design([Block.create("x", sparse.csr_array((N, 2)))])


DESIGNS: dict[str, Callable[[np.random.Generator], Design]] = {
    "two fields": _two_fields,
    "field with gaps": _field_with_gaps,
    "relation block": _relation_block,
    "rows": _rows,
    "everything": _everything,
    "many fields": _many_fields,
    "one-hot matrix": _one_hot_matrix,
    "one feature": _one_feature,
    "one row": _one_row,
    "all zero": _all_zero,
}


def make(kind: str, seed: int = 0) -> Design:
    """The design of that name; the same for the same seed."""
    return DESIGNS[kind](np.random.default_rng(seed))


def random_parameters(
    rng: np.random.Generator, p: int, rank: int, scale: float = 1.0
) -> tuple[float, np.ndarray, np.ndarray]:
    """(w0, w, v), standard normal times ``scale``."""
    return float(rng.normal()), scale * rng.normal(size=p), scale * rng.normal(size=(p, rank))
