"""What an encoder has met: columns and how often they occur, tokens and the columns they fall on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import sparse

from bayesfm.encoders.hashing import hash_tokens
from bayesfm.encoders.inclusion import Admission

__all__ = ["ColumnTable", "TokenIndex", "positions"]

_DENSE = 8
"""Up to so many hashed columns per entry a lookup table is made for a chunk; beyond, columns are searched for."""

_INTEGER = re.compile(r"-?[0-9]+")

_SHOWN = 3
"""Tokens of one column that its name spells out."""


def positions(
    wanted: Int32[np.ndarray, " c"], columns: Int32[np.ndarray, " z"], n_features: int
) -> Int64[np.ndarray, " z"]:
    """Where in ``wanted``, which are distinct, each of some columns stands; -1 where it does not."""
    if not len(wanted):
        return np.full(len(columns), -1)
    if n_features <= _DENSE * len(columns):
        place = np.full(n_features, -1)
        place[wanted] = np.arange(len(wanted))
        return place[columns]
    order = np.argsort(wanted)
    ordered = wanted[order]
    found = np.minimum(np.searchsorted(ordered, columns), len(wanted) - 1)
    return np.where(ordered[found] == columns, order[found], -1)


def _first_occurrences(
    columns: np.ndarray, entries: np.ndarray, n_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns of some entries, given in increasing order, and the first entry of each: by entry."""
    if n_features <= _DENSE * len(entries):
        first = np.full(n_features, -1)
        first[columns[entries[::-1]]] = entries[::-1]  # the last one written stays
        first = np.sort(first[first >= 0])
    else:
        _, where = np.unique(columns[entries], return_index=True)
        first = np.sort(entries[where])
    return columns[first], first


class ColumnTable:
    """Columns in the order in which they came in, and in how many rows each has occurred since.

    Rows come one after the other, the columns of a row in increasing order: neither the order of tokens in a row nor
    the way in which rows are cut into chunks makes a difference.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.num_rows = 0
        self.columns = np.zeros(0, np.int32)
        self.row_counts = np.zeros(0, np.int64)

    def update(self, X: sparse.csr_array, admission: Admission | None = None) -> Int64[np.ndarray, " c"]:
        """Take in some rows; return for every column the first of these rows from which on it is counted."""
        place = positions(self.columns, X.indices, self.n_features)
        new = np.flatnonzero(place < 0)
        admitting = new if admission is None else new[admission.admits(X.indices, new)]
        columns, first = _first_occurrences(X.indices, admitting, self.n_features)

        self.columns = np.concatenate([self.columns, columns.astype(np.int32)])
        place[new] = positions(self.columns, X.indices[new], self.n_features)
        since = np.zeros(len(self.columns), np.int64)
        since[len(since) - len(first) :] = first
        counted = place >= 0
        counted[counted] = np.flatnonzero(counted) >= since[place[counted]]
        counts = np.bincount(place[counted], minlength=len(self.columns))
        counts[: len(self.row_counts)] += self.row_counts
        self.row_counts = counts
        self.num_rows += X.shape[0]
        rows = np.searchsorted(X.indptr, since, side="right") - 1
        return np.where(since > 0, rows, 0)

    def within(self, min_df: float, max_df: float) -> Bool[np.ndarray, " c"]:
        """Columns that occur in a number of rows (int) or share of rows (float) between the two."""
        low, high = (x if isinstance(x, int) else x * self.num_rows for x in (min_df, max_df))
        return (self.row_counts >= low) & (self.row_counts <= high)


class TokenIndex:
    """The reverse index: every token that occurred and how often, and from columns back to tokens."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.counts: Counter[str] = Counter()
        self._of_column: dict[int, list[str]] | None = None
        self._integer_fields: frozenset[str] | None = None

    def update(self, tokens: Iterable[str], counts: Int64[np.ndarray, " t"]) -> None:
        """Count occurrences; tokens without any are left out."""
        new = dict(zip(tokens, counts.tolist(), strict=True))
        self.counts.update(new if counts.all() else {token: count for token, count in new.items() if count})
        self._of_column = self._integer_fields = None

    def integer_fields(self) -> frozenset[str]:
        """Fields with a token such as ``user=17``."""
        if self._integer_fields is None:
            pairs = (token.partition("=") for token in self.counts)
            self._integer_fields = frozenset(field for field, _, value in pairs if _INTEGER.fullmatch(value))
        return self._integer_fields

    def of_column(self) -> dict[int, list[str]]:
        """Tokens of every column that has any, the most frequent first."""
        if self._of_column is None:
            order = sorted(zip((-count for count in self.counts.values()), self.counts, strict=True))
            tokens = [token for _, token in order]
            out: dict[int, list[str]] = {}
            for column, token in zip(hash_tokens(tokens, self.n_features)[0].tolist(), tokens, strict=True):
                out.setdefault(column, []).append(token)
            self._of_column = out
        return self._of_column

    def names(self, columns: Sequence[int]) -> list[str]:
        """A name for every column: its token, or its tokens side by side; ``#7`` where column 7 has none.

        Names are unique: where two columns would have the same one, the second gets its number added.
        """
        tokens = self.of_column()
        taken: set[str] = set()
        names = []
        for column in columns:
            name = _name(column, tokens.get(column, []))
            if name in taken:
                name = f"{name} #{column}"
            taken.add(name)
            names.append(name)
        return names


def _name(column: int, tokens: list[str]) -> str:
    if not tokens:
        return f"#{column}"
    more = [f"+{len(tokens) - _SHOWN}"] if len(tokens) > _SHOWN else []
    return " | ".join([*tokens[:_SHOWN], *more])
