"""What encoders of text and of fields share: the table of columns, cut-offs, names, look-up."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Shaped
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags

from bayesfm._checks import check_choice, check_count, check_finite
from bayesfm.encoders.collisions import Collisions, count_collisions
from bayesfm.encoders.files import Files
from bayesfm.encoders.hashing import MAX_FEATURES, Chunk, hash_tokens, to_matrix
from bayesfm.encoders.inclusion import Admission, BloomInclusion, PoissonInclusion
from bayesfm.encoders.table import ColumnTable, TokenIndex, positions

__all__ = ["Empty", "HashedEncoder", "Inclusion"]

type Empty = Literal["error", "ignore"]
type Inclusion = PoissonInclusion | BloomInclusion


class HashedEncoder(Files, TransformerMixin, BaseEstimator):
    """Rows of tokens as a sparse matrix of hashed columns; subclasses say what tokens are."""

    n_features: int
    signed: bool
    binary: bool
    min_df: float
    max_df: float
    inclusion: Any
    compact: bool
    keep_tokens: bool
    empty: Empty
    dtype: type
    norm: Literal["l1", "l2"] | None = None
    _TOKENS = "tokens"
    _FLAGS: tuple[str, ...] = ("signed", "binary", "compact", "keep_tokens")

    table_: ColumnTable
    index_: TokenIndex
    columns_: np.ndarray

    def _read(self, X: Any) -> Chunk:
        """The tokens of some rows; options of the subclass are checked first."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn which columns occur, and their tokens.

        Parameters
        ----------
        X : rows
            As described for this class; read once, so that an iterator will do.
        y : ignored

        Returns
        -------
        object
            The encoder itself.

        Raises
        ------
        ValueError, TypeError
            Options that make no sense; no rows; rows without tokens (unless ``empty="ignore"``), which are named.
        """
        self._learn(X, reset=True)
        if self.compact:
            self._check_columns()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from some more rows. Chunks one after the other teach the same as all rows at once.

        Columns keep their place in the output and new ones come behind them, as long as no column falls out of
        ``min_df`` or ``max_df``.

        Parameters
        ----------
        X : rows
            As for :meth:`fit`.
        y : ignored

        Returns
        -------
        object
            The encoder itself.
        """
        self._learn(X, reset=not self._is_fitted())
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> sparse.csr_array:
        """``fit(X).transform(X)``, the rows being read and hashed once.

        Parameters
        ----------
        X : rows
            As for :meth:`fit`.
        y : ignored
        **fit_params
            None are known: any raises.

        Returns
        -------
        csr_array of shape (n, number of columns)
        """
        if fit_params:
            raise TypeError(f"{type(self).__name__} takes no fit parameters, got {', '.join(fit_params)}")
        return self._restrict(self._learn(X, reset=True))[0]

    def transform(self, X: Any) -> sparse.csr_array:
        """Encode rows. Columns that ``fit`` did not meet are left out (see :meth:`transform_with_unseen`).

        Parameters
        ----------
        X : rows
            As for :meth:`fit`.

        Returns
        -------
        csr_array of shape (n, number of columns)
            Of the columns ``columns_``; with ``compact=False`` of all ``n_features``.
        """
        return self.transform_with_unseen(X)[0]

    def transform_with_unseen(self, X: Any) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Encode rows, and show what was left out.

        Parameters
        ----------
        X : rows
            As for :meth:`fit`.

        Returns
        -------
        known : csr_array of shape (n, number of columns)
            What :meth:`transform` returns.
        unseen : csr_array of shape (n, n_features)
            The entries that have no column there, by hashed column: ``unseen.nnz`` counts them,
            ``unseen.count_nonzero(axis=1)`` row by row. Multiplied by the same norm as ``known``.
        """
        self._check_options()
        if self.compact and not self._is_fitted():
            raise NotFittedError(
                f"this {type(self).__name__} is not fitted: call fit first, or let compact=False keep all columns"
            )
        chunk = self._read(X)
        if self._is_fitted():
            self._check_against_fit(chunk)
        return self._restrict(self._encode(chunk)[0])

    def _check_against_fit(self, chunk: Chunk) -> None:
        """Refuse what cannot mean what it meant in ``fit``."""

    def _learn(self, X: Any, reset: bool) -> sparse.csr_array:
        """Take in rows, and return them with all hashed columns."""
        self._check_options()
        chunk = self._read(X)
        if not reset:
            self._check_against_fit(chunk)
        encoded, columns = self._encode(chunk)
        if reset:
            self.table_, self.index_ = ColumnTable(self.n_features), TokenIndex(self.n_features)
            self.admission_: Admission | None = None if self.inclusion is None else self.inclusion.start()
        elif self.table_.n_features != self.n_features:
            raise ValueError(
                f"n_features was {self.table_.n_features} in the first chunk and is {self.n_features} now: columns "
                "would mean something else; call fit to begin anew"
            )
        since = self.table_.update(encoded, self.admission_)
        if self.keep_tokens:
            self.index_.update(chunk.tokens, self._occurrences(chunk, columns, since))
        self.columns_ = self.table_.columns[self.table_.within(*self._cut_offs())]
        return encoded

    def _occurrences(self, chunk: Chunk, columns: np.ndarray, since: np.ndarray) -> np.ndarray:
        """How often every token of a chunk occurs, from the row on in which its column came into the table."""
        if self.admission_ is None:
            return np.bincount(chunk.ids, minlength=len(chunk.tokens))
        place = positions(self.table_.columns, columns, self.n_features)
        begin = np.where(place < 0, chunk.num_rows, np.append(since, 0)[place])
        rows = np.repeat(np.arange(chunk.num_rows), np.diff(chunk.starts))
        return np.bincount(chunk.ids[rows >= begin[chunk.ids]], minlength=len(chunk.tokens))

    def _encode(self, chunk: Chunk) -> tuple[sparse.csr_array, np.ndarray]:
        """All hashed columns of some rows, and the column of every token."""
        self._check_rows(chunk)
        columns, signs = hash_tokens(chunk.tokens, self.n_features)
        signed = signs if self.signed else None
        return to_matrix(chunk, columns, signed, self.n_features, self.binary, self.dtype), columns

    def _check_rows(self, chunk: Chunk) -> None:
        if chunk.num_rows == 0:
            raise ValueError("X has no rows: empty input")
        bare = np.flatnonzero(np.diff(chunk.starts) == 0)
        if len(bare) and self.empty == "error":
            more = f", and so have {len(bare) - 1} more" if len(bare) > 1 else ""
            raise ValueError(
                f"row {bare[0]} of X (counted from 0) has no {self._TOKENS}{more}: drop such rows, or let "
                'empty="ignore" encode them as rows of zeros'
            )

    def _restrict(self, X: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
        """The columns of the output, and the rest."""
        known, unseen = X, sparse.csr_array(X.shape, dtype=X.dtype)
        if self.compact:
            self._check_columns()
            place = positions(self.columns_, X.indices, self.n_features)
            known = _choose(X, place >= 0, place, len(self.columns_))
            unseen = _choose(X, place < 0, X.indices, self.n_features)
        if self.norm is not None:
            rows = np.repeat(np.arange(X.shape[0]), np.diff(known.indptr))
            power = np.abs(known.data) if self.norm == "l1" else known.data**2
            size = np.bincount(rows, power, X.shape[0]) ** (1.0 if self.norm == "l1" else 0.5)
            size = np.where(size > 0, size, 1).astype(X.dtype)
            for part in (known, unseen):
                part.data /= np.repeat(size, np.diff(part.indptr))
        return known, unseen

    def _check_columns(self) -> None:
        if not len(self.columns_):
            raise ValueError(
                f"no column is left of {len(self.table_.columns)} that came in with {self.table_.num_rows} rows: "
                f"min_df={self.min_df!r}, max_df={self.max_df!r}, inclusion={self.inclusion!r}"
            )

    def get_feature_names_out(self, input_features: Any = None) -> Shaped[np.ndarray, " c"]:
        """Names of the columns: the tokens that fall on each, the most frequent first.

        ``keyboard | zebra`` is a column that two tokens share; of more than three, ``+4`` counts the rest. A
        column without a token (``keep_tokens=False``, or one that ``fit`` did not meet) is called by its number,
        ``#4711``.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        array of strings
        """
        names = self._tokens().names(self._output_columns().tolist())
        out = np.empty(len(names), dtype=object)
        out[:] = names
        return out

    def column_of(self, token: str) -> int:
        """The column of the output that a token falls on.

        Parameters
        ----------
        token : str
            For fields ``"field=value"``, or ``"field"`` if it is a number.

        Returns
        -------
        int

        Raises
        ------
        KeyError
            If ``fit`` did not meet the token, or its column was left out.
        """
        if not isinstance(token, str):
            raise TypeError(f"token must be a string, got {token!r}")
        index = self._tokens()
        if self.keep_tokens and self._is_fitted() and token not in index.counts:
            raise KeyError(f"fit did not meet the token {token!r}")
        column, _ = hash_tokens([token], self.n_features)
        if not self.compact:
            return int(column[0])
        place = int(positions(self.columns_, column, self.n_features)[0])
        if place < 0:
            raise KeyError(
                f"the column of {token!r} did not occur, or min_df, max_df or inclusion left it out"
            )
        return place

    def tokens_of(self, column: int) -> list[str]:
        """The tokens that ``fit`` met in a column of the output, the most frequent first.

        Parameters
        ----------
        column : int

        Returns
        -------
        list of str
        """
        index, columns = self._tokens(), self._output_columns()
        if check_count("column", column) >= len(columns):
            raise ValueError(f"column must be below {len(columns)}, the number of columns, got {column}")
        return list(index.of_column().get(int(columns[column]), []))

    def collisions(self) -> Collisions:
        """How many of the tokens that ``fit`` met share a column, cut-offs left aside.

        Returns
        -------
        Collisions
        """
        if not self.keep_tokens:
            raise ValueError("collisions() needs the tokens: set keep_tokens=True before fit")
        if not self._is_fitted():
            raise NotFittedError(f"this {type(self).__name__} has met no tokens yet: call fit first")
        return count_collisions(self._tokens().of_column(), self.n_features)

    def _output_columns(self) -> np.ndarray:
        return self.columns_ if self.compact else np.arange(self.n_features)

    def _tokens(self) -> TokenIndex:
        if self._is_fitted():
            return self.index_
        if self.compact:
            raise NotFittedError(f"this {type(self).__name__} is not fitted: call fit first")
        self._check_options()
        return TokenIndex(self.n_features)

    def _cut_offs(self) -> tuple[float, float]:
        return _limit("min_df", self.min_df), _limit("max_df", self.max_df)

    def _check_options(self) -> None:
        if check_count("n_features", self.n_features, 1) > MAX_FEATURES:
            raise ValueError(f"n_features must be <= {MAX_FEATURES}, got {self.n_features}")
        for name in self._FLAGS:
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        check_choice("empty", self.empty, ("error", "ignore"))
        check_choice("dtype", self.dtype, (np.float32, np.float64))
        if not isinstance(self.inclusion, PoissonInclusion | BloomInclusion | None):
            raise TypeError(
                f"inclusion must be a PoissonInclusion, a BloomInclusion or None, got {self.inclusion!r}"
            )
        chooses = self._cut_offs() != (1, 1.0) or self.inclusion is not None
        if chooses and not self.compact:
            raise ValueError(
                "min_df, max_df and inclusion choose columns, and compact=False keeps all of them: leave out the one "
                "or the others"
            )

    def _is_fitted(self) -> bool:
        return hasattr(self, "table_")

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted() or not self.compact

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = bool(self.compact)
        return tags


def _choose(
    X: sparse.csr_array, chosen: np.ndarray, columns: np.ndarray, num_columns: int
) -> sparse.csr_array:
    """Some of the entries, in columns given entry by entry."""
    before = np.concatenate([[0], np.cumsum(chosen)]).astype(X.indptr.dtype)
    shape = (X.shape[0], num_columns)
    out = sparse.csr_array(
        (X.data[chosen], columns[chosen].astype(X.indices.dtype), before[X.indptr]), shape=shape
    )
    out.sort_indices()
    return out


def _limit(name: str, value: object) -> float:
    """A number of rows (int >= 1) or a share of them (float in [0, 1])."""
    if isinstance(value, Integral):
        return check_count(name, value, 1)
    share = check_finite(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be a number of rows (int) or a share of them in [0, 1], got {value!r}")
    return share
