"""From tokens to columns: scikit-learn's MurmurHash3, once per distinct token of a chunk of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64
from scipy import sparse
from sklearn.feature_extraction import FeatureHasher

__all__ = ["MAX_FEATURES", "Chunk", "hash_tokens", "numbering", "to_matrix"]

MAX_FEATURES = (1 << 31) - 1
"""The hash has 31 bits beside its sign."""


class Chunk(NamedTuple):
    """Tokens of n rows, z of them, not hashed yet: what encoders make of their input.

    ``starts[i]:starts[i + 1]`` are the occurrences of row i, ``ids`` says which of the distinct ``tokens`` each is,
    ``values`` its value; None where all are 1. ``number_fields`` and ``id_fields`` are those that had floats, and
    integers that were taken as ids, without having been named as either.
    """

    starts: Int64[np.ndarray, " n+1"]
    ids: Int32[np.ndarray, " z"]
    values: Float64[np.ndarray, " z"] | None
    tokens: Sequence[str]
    number_fields: frozenset[str] = frozenset()
    id_fields: frozenset[str] = frozenset()

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def row_of(self, token: int) -> int:
        """The first row in which a token occurs."""
        first = int(np.flatnonzero(self.ids == token)[0])
        return int(np.searchsorted(self.starts, first, side="right")) - 1


def numbering() -> defaultdict[str, int]:
    """A dictionary that numbers its keys in the order in which they are asked for."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return numbers


def hash_tokens(
    tokens: Sequence[str], n_features: int
) -> tuple[Int32[np.ndarray, " t"], Int8[np.ndarray, " t"]]:
    """Column and sign of every token, those of :class:`sklearn.feature_extraction.FeatureHasher`."""
    if not tokens:
        return np.zeros(0, np.int32), np.zeros(0, np.int8)
    hasher = FeatureHasher(n_features, input_type="pair", dtype=np.int8, alternate_sign=True)
    try:
        hashed = hasher.transform(zip(zip(tokens, repeat(1))))
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the token {error.object!r} is no valid Unicode (a lone surrogate): decode the text with errors='replace'"
        ) from error
    return hashed.indices.astype(np.int32), hashed.data


def to_matrix(
    chunk: Chunk,
    columns: Int32[np.ndarray, " t"],
    signs: Int8[np.ndarray, " t"] | None,
    n_features: int,
    binary: bool,
    dtype: type,
) -> sparse.csr_array:
    """The rows of a chunk with all hashed columns, of which only those that occur are stored.

    Tokens of one column are summed. ``binary`` keeps the sign of the sum alone; a sum of zero is not stored.
    """
    data: np.ndarray = np.ones(len(chunk.ids), dtype) if signs is None else signs.astype(dtype)[chunk.ids]
    if chunk.values is not None:
        data *= chunk.values
    shape = (chunk.num_rows, n_features)
    narrow = len(data) <= MAX_FEATURES  # row pointers of 64 bits would widen the columns, too
    starts = chunk.starts.astype(np.int32 if narrow else np.int64, copy=True)
    X = sparse.csr_array((data, columns[chunk.ids], starts), shape=shape)
    X.sum_duplicates()
    if signs is not None or chunk.values is not None:
        X.eliminate_zeros()
    if binary:
        np.sign(X.data, out=X.data)
    return X
