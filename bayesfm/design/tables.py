"""From a DataFrame to a design, column by column, and the same way again at predict time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bayesfm.design.blocks import Block, Design
from bayesfm.design.columns import (
    as_frame,
    categorical_values,
    column_like,
    is_numeric_by_default,
    numeric_values,
)
from bayesfm.design.levels import Levels, level_hashes, level_names
from bayesfm.design.validation import as_feature_names

__all__ = ["TableEncoder", "as_column_list"]

_NUMERIC_BLOCK = "numeric"


class TableEncoder:
    """Encode the columns of a DataFrame (pandas, polars, pyarrow, ...) as a design.

    **Integer columns are taken as ids.** Strings, categories, booleans *and integers* become one-hot fields,
    one block per column, named like the column, with one feature ``"column=level"`` per level seen in ``fit``
    and one prior group per column. Floats go together into one block named "numeric", in one prior group.
    ``numeric=["age"]`` takes an integer column as a number, ``categorical=["stars"]`` a float column as
    levels.

    Levels that ``fit`` did not see have no feature; they are listed in ``Block.unseen`` by a stable hash.

    Parameters
    ----------
    categorical : sequence of str, optional
        Columns to take as categories: floats, and dates or times without a zone; strings, categories, booleans
        and integers are categories anyway. Other types (durations, decimals, lists) have to become strings.
    numeric : sequence of str, optional
        Columns to take as numbers; integers, booleans or floats.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesfm.design import TableEncoder
    >>> ratings = pd.DataFrame({"user": [7, 7, 9], "film": ["Alien", "Brazil", "Alien"]})
    >>> ratings["age"] = [0.5, 2.0, 1.0]
    >>> encoder = TableEncoder().fit(ratings)
    >>> encoder.transform(ratings).feature_names.tolist()
    ['user=7', 'user=9', 'film=Alien', 'film=Brazil', 'age']
    >>> encoder.transform(ratings.assign(user=[7, 8, 9])).blocks[0]
    Block('user': 3 rows, 2 levels, 1 unseen)
    """

    def __init__(
        self, categorical: Iterable[str] | None = None, numeric: Iterable[str] | None = None
    ) -> None:
        self.categorical = as_column_list(categorical, "categorical")
        self.numeric = as_column_list(numeric, "numeric")
        both = sorted(set(self.categorical) & set(self.numeric))
        if both:
            raise ValueError(f"columns cannot be categorical and numeric at once: {both}")
        self._columns: dict[str, _Field | None] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns seen in ``fit``, in their order; empty before."""
        return tuple(self._columns)

    def fit(self, frame: Any, levels: Mapping[str, Iterable[Any]] | None = None) -> Self:
        """Learn the levels of every categorical column.

        Parameters
        ----------
        frame : DataFrame of n rows
        levels : mapping of str to sequence, optional
            More levels of categorical columns, which rows to come may have.

        Returns
        -------
        TableEncoder
            This object.

        Raises
        ------
        ValueError
            Missing or infinite values, no rows, declared columns that do not exist.
        TypeError
            Columns of other types, such as durations, and dates that are not declared categorical.
        """
        frame = _require_frame(frame)
        for role in ("categorical", "numeric"):
            unknown = [c for c in getattr(self, role) if c not in frame.columns]
            if unknown:
                raise ValueError(
                    f"{role} names columns that X does not have: {unknown}; X has {frame.columns}"
                )
        more = _check_levels(levels, frame.columns)
        columns = {c: self._fit_column(frame[c], more.get(c)) for c in frame.columns}
        if columns.get(_NUMERIC_BLOCK) is not None and None in columns.values():
            raise ValueError(
                f"the categorical column {_NUMERIC_BLOCK!r} has the name of the block of numeric columns: "
                "rename it"
            )
        self._columns = columns
        return self

    def _fit_column(self, series: Any, more: list[Any] | None) -> _Field | None:
        if series.name in self.numeric or (
            series.name not in self.categorical and is_numeric_by_default(series)
        ):
            if more is not None:
                raise ValueError(f"levels names the column {series.name!r}, which is taken as a number")
            numeric_values(series)
            return None
        declared = series.name in self.categorical
        levels = Levels.of(*categorical_values(series, declared))
        if more:
            own = Levels.of(*categorical_values(column_like(series, more), declared))
            levels = levels.joined(own, series.name)
        return _Field.create(series.name, levels)

    def transform(self, frame: Any) -> Design:
        """The design of a frame with the columns seen in ``fit``, in any order.

        Parameters
        ----------
        frame : DataFrame of n rows

        Returns
        -------
        Design
            The fields in the order of ``columns``, then the block of the numeric columns.

        Raises
        ------
        ValueError
            Columns missing or unknown, missing or infinite values.
        TypeError
            A column whose type has changed so that no level can match.
        """
        if not self._columns:
            raise RuntimeError("this TableEncoder is not fitted: call fit first")
        frame = _require_frame(frame)
        _check_columns(self.columns, frame.columns)
        blocks = [
            encoded.block(frame[c], c in self.categorical)
            for c, encoded in self._columns.items()
            if encoded is not None
        ]
        numeric = [c for c, encoded in self._columns.items() if encoded is None]
        if numeric:
            values = np.column_stack([numeric_values(frame[c]) for c in numeric])
            blocks.append(Block.create(_NUMERIC_BLOCK, values, feature_names=numeric))
        return Design(blocks)

    def fit_transform(self, frame: Any, levels: Mapping[str, Iterable[Any]] | None = None) -> Design:
        """``fit(frame, levels).transform(frame)``."""
        return self.fit(frame, levels).transform(frame)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        levels = {
            c: None if encoded is None else encoded.levels.to_dict() for c, encoded in self._columns.items()
        }
        return {
            "categorical": list(self.categorical),
            "numeric": list(self.numeric),
            "columns": [{"name": c, "levels": state} for c, state in levels.items()],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        encoder = cls(state["categorical"], state["numeric"])
        for column in state["columns"]:
            name, levels = column["name"], column["levels"]
            encoder._columns[name] = None if levels is None else _Field.create(name, Levels.from_dict(levels))
        return encoder


@dataclass(frozen=True, eq=False)
class _Field:
    """A fitted categorical column."""

    name: str
    levels: Levels
    feature_names: np.ndarray

    @classmethod
    def create(cls, name: str, levels: Levels) -> _Field:
        names = [f"{name}={x}" for x in level_names(levels.values)]
        return cls(name, levels, as_feature_names(names, len(levels), f"levels of column {name!r}"))

    def block(self, series: Any, declared: bool) -> Block:
        kind, values = categorical_values(series, declared)
        if kind != self.levels.kind:
            values = self._convert(kind, values)
        elif isinstance(values, np.ndarray) and kind == "float":
            self._check_width(values)
        index, unseen = self.levels.encode(values)
        group = np.zeros(len(self.levels), np.int32)
        return Block(self.name, None, index, self.feature_names, group, (self.name,), level_hashes(unseen))

    def _convert(self, kind: str, values: Any) -> np.ndarray:
        """Integers as floats and whole floats as integers; no other kinds can match."""
        fitted = self.levels.kind
        if {kind, fitted} == {"int", "float"}:
            with np.errstate(invalid="ignore"):  # out of range: caught by the way back
                converted = values.astype(np.int64 if fitted == "int" else np.float64)
                if np.array_equal(converted.astype(values.dtype), values):
                    return converted
        raise TypeError(
            f"column {self.name!r} holds values of kind {kind!r}, but {fitted!r} when fitted, so that no "
            "level can match: convert the column to what it was"
        )

    def _check_width(self, values: np.ndarray) -> None:
        """The same decimal number is one float32 and another float64, unless it is exact in both."""
        new, fitted = 8 * values.dtype.itemsize, self.levels.bits
        wide, narrow = (values, fitted) if new > fitted else (self.levels.values, new)
        if new == fitted or np.array_equal(wide.astype(f"f{narrow // 8}"), wide):
            return
        raise TypeError(
            f"column {self.name!r} holds float{new}, but float{fitted} when fitted, and a number such as 0.1 "
            f"differs between the two, so that levels would not match: convert the column to float{fitted} where "
            "it is read or computed, or let it be strings in fit and predict alike"
        )


def as_column_list(columns: Iterable[str] | None, argument: str) -> tuple[str, ...]:
    """Column names as a tuple; none where ``columns`` is None."""
    if isinstance(columns, str):
        raise TypeError(
            f"{argument} must be a list of column names, got the string {columns!r}: write [{columns!r}]"
        )
    columns = () if columns is None else tuple(columns)
    wrong = [c for c in columns if not isinstance(c, str)]
    if wrong:
        raise TypeError(f"{argument} must be a list of column names (strings), got {wrong[0]!r}")
    return columns


def _check_levels(levels: Mapping[str, Iterable[Any]] | None, columns: Sequence[str]) -> dict[str, list[Any]]:
    levels = {} if levels is None else levels
    if not isinstance(levels, Mapping) or any(isinstance(x, str) for x in levels.values()):
        raise TypeError(
            "levels must map names of columns to sequences of levels, for instance {'user': [1, 2, 3]}"
        )
    unknown = [c for c in levels if c not in columns]
    if unknown:
        raise ValueError(f"levels names columns that X does not have: {unknown}; X has {list(columns)}")
    return {c: list(x) for c, x in levels.items()}


def _require_frame(X: Any) -> Any:
    frame = as_frame(X)
    if frame is None:
        raise TypeError(f"X must be a DataFrame (pandas, polars, pyarrow, ...), got {type(X).__name__}")
    return frame


def _check_columns(fitted: Sequence[str], columns: Sequence[str]) -> None:
    unseen = sorted(set(columns) - set(fitted))
    missing = sorted(set(fitted) - set(columns))
    if unseen or missing:
        message = "The feature names should match those that were passed during fit.\n"
        for title, names in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
            if names:
                message += f"Feature names {title}:\n" + "".join(f"- {name}\n" for name in names)
        raise ValueError(message + "Drop columns that are no features before fit and predict alike.")
