"""Colours for the features of a sparse matrix: features of one colour never share a row.

Given all other colours, the features of one colour are conditionally independent, so that a Gibbs sweep draws
them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt64
from scipy import sparse

__all__ = ["check_colouring", "colour_columns"]

_WORD = 64
_MAX_WORDS = 1024
_MAX_PALETTE = 1 << 23
"""Words of used colours kept at a time (64 MiB), for all rows together."""


def colour_columns(X: sparse.csr_array | sparse.csc_array) -> Int32[np.ndarray, " p"]:
    """Greedy colouring of the column co-occurrence graph.

    Columns are taken by number of non-zeros, largest first (ties by index), and get the smallest colour that
    no column sharing a row with them has (Welsh & Powell 1967). Before that, runs of neighbouring columns
    that share no row, such as one-hot fields side by side, are tried as colours: they are taken if there are
    no more runs than the fullest row has entries, since no colouring needs fewer. Columns without non-zeros
    get colour 0.

    Parameters
    ----------
    X : csr_array or csc_array of shape (n, p)

    Returns
    -------
    array of shape (p,)
        Colours 0, 1, ...; the same for the same matrix, always.

    References
    ----------
    Welsh, D. J. A., & Powell, M. B. (1967). An upper bound for the chromatic number of a graph and its
    application to timetabling problems. The Computer Journal 10(1), 85-86.

    Examples
    --------
    >>> from scipy import sparse
    >>> from bayesfm.design import colour_columns
    >>> colour_columns(sparse.csr_array([[1, 0, 1], [0, 1, 1]]))
    array([0, 0, 1], dtype=int32)
    """
    pattern = _pattern(X)
    counts = np.diff(pattern.indptr)
    used = np.flatnonzero(counts)
    colours = np.zeros(X.shape[1], np.int32)
    if not used.size:
        return colours
    fullest = int(np.bincount(pattern.indices).max())
    runs = _disjoint_runs(pattern[:, used])
    if runs[-1] + 1 == fullest:
        colours[used] = runs
        return colours
    order = used[np.argsort(-counts[used], kind="stable")]
    colours[order] = _greedy(pattern[:, order], fullest)
    return colours


def check_colouring(X: sparse.csr_array | sparse.csc_array, colours: Int[np.ndarray, " p"]) -> None:
    """Raise ValueError if two columns of one colour share a row.

    Parameters
    ----------
    X : csr_array or csc_array of shape (n, p)
    colours : array of shape (p,)
        Colour of every column.
    """
    if colours.shape != (X.shape[1],):
        raise ValueError(f"colours must have shape ({X.shape[1]},), one per column, got {colours.shape}")
    entries = _pattern(X).tocoo()
    order = np.lexsort((colours[entries.col], entries.row))
    row, col = entries.row[order], entries.col[order]
    colour = colours[col]
    clash = np.flatnonzero((row[1:] == row[:-1]) & (colour[1:] == colour[:-1]))
    if clash.size:
        i = clash[0]
        raise ValueError(
            f"columns {col[i]} and {col[i + 1]} both have colour {colour[i]} and share row {row[i]}"
        )


def _pattern(X: sparse.csr_array | sparse.csc_array) -> sparse.csc_array:
    """Where X is not zero, by column, without duplicates."""
    pattern = sparse.csc_array(X, copy=True)
    pattern.sum_duplicates()
    pattern.eliminate_zeros()
    pattern.data = np.ones(pattern.nnz, np.bool_)
    return pattern


def _disjoint_runs(pattern: sparse.csc_array) -> Int32[np.ndarray, " q"]:
    """Cut the columns, in order, into maximal runs in which no two share a row; the run of every column."""
    by_row = pattern.tocsr()
    previous = np.full(by_row.nnz, -1, by_row.indices.dtype)
    previous[1:] = by_row.indices[:-1]
    starts = by_row.indptr[:-1]
    previous[starts[starts < by_row.nnz]] = -1
    latest = np.full(pattern.shape[1], -1, by_row.indices.dtype)  # last earlier column that shares a row
    np.maximum.at(latest, by_row.indices, previous)
    runs, run, first = np.empty(pattern.shape[1], np.int32), 0, 0
    for j, neighbour in enumerate(latest.tolist()):
        if neighbour >= first:
            run, first = run + 1, j
        runs[j] = run
    return runs


def _greedy(pattern: sparse.csc_array, fullest: int) -> Int32[np.ndarray, " q"]:
    """Smallest free colour for every column, in order; no column is empty.

    A window of colours is handed out to all columns before the next window is opened: columns that find no
    free colour in it do not touch it, so that the result is that of one pass.
    """
    n, q = pattern.shape
    words = max(1, min(_MAX_WORDS, _MAX_PALETTE // n, -(-fullest // _WORD)))
    colours = np.empty(q, np.int32)
    left, base = np.arange(q), 0
    while left.size:
        found = _fill_window(pattern[:, left], words)
        done = found >= 0
        colours[left[done]] = base + found[done]
        left, base = left[~done], base + _WORD * words
    return colours


def _fill_window(pattern: sparse.csc_array, words: int) -> Int32[np.ndarray, " q"]:
    """Smallest colour below 64 * words that is free for each column, in order, or -1."""
    used = np.zeros((pattern.shape[0], words), np.uint64)  # colours of every row, as bits
    found = np.empty(pattern.shape[1], np.int32)
    indptr, indices = pattern.indptr, pattern.indices
    for lo, hi in _bounds(_disjoint_runs(pattern)):
        rows = indices[indptr[lo] : indptr[hi]]
        starts = indptr[lo:hi] - indptr[lo]
        taken = np.bitwise_or.reduceat(used[rows], starts, axis=0)
        word, bit, free = _lowest_free(taken)
        found[lo:hi] = np.where(free, _WORD * word + np.bitwise_count(bit - np.uint64(1)), -1)
        sizes = np.diff(indptr[lo : hi + 1])
        used[rows, np.repeat(word, sizes)] |= np.repeat(np.where(free, bit, np.uint64(0)), sizes)
    return found


def _bounds(runs: np.ndarray) -> Iterator[tuple[int, int]]:
    cuts = [0, *(np.flatnonzero(np.diff(runs)) + 1).tolist(), len(runs)]
    return pairwise(cuts)


def _lowest_free(
    taken: UInt64[np.ndarray, "q words"],
) -> tuple[Int[np.ndarray, " q"], UInt64[np.ndarray, " q"], Bool[np.ndarray, " q"]]:
    """Word and bit of the lowest zero of every row, and whether there is one."""
    open_words = ~taken
    word = np.argmax(open_words != 0, axis=1)
    lowest = open_words[np.arange(len(taken)), word]
    return word, lowest & (~lowest + np.uint64(1)), lowest != 0
