"""From rows of fields to tokens: dictionaries, pairs, strings, and DataFrames."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import getitem
from typing import Any

import numpy as np

from bayesfm.design.columns import categorical_values, numeric_values
from bayesfm.design.levels import Levels, level_names
from bayesfm.encoders.hashing import Chunk, numbering

__all__ = ["Roles", "read_frame", "read_rows"]


@dataclass(frozen=True)
class Roles:
    """What is a number, what is a level."""

    numeric: frozenset[str]
    categorical: frozenset[str]
    integers_are_numbers: bool
    skip_missing: bool
    allow_numbers: bool

    def takes_integers_as_numbers(self, field: str) -> bool:
        """Whether integers of this field are numbers."""
        return field in self.numeric or (self.integers_are_numbers and field not in self.categorical)

    def is_named(self, field: str) -> bool:
        """Whether the caller said what this field is."""
        return field in self.numeric or field in self.categorical

    def check_number(self, field: str, example: object) -> None:
        """Numbers are no indicators."""
        if not self.allow_numbers:
            raise ValueError(
                f"binary=True is for indicators, but field {field!r} is a number ({example!r}): name it in "
                "categorical, or set binary=False"
            )


def read_rows(rows: Any, roles: Roles) -> Chunk:
    """Tokens of dictionaries, of lists of pairs, or of lists of strings."""
    if (
        isinstance(rows, str | bytes | Mapping)
        or getattr(rows, "ndim", 1) != 1
        or not isinstance(rows, Iterable)
    ):
        raise TypeError(
            "X must be a DataFrame, or a sequence of rows that are dictionaries, lists of (field, value) pairs or "
            f"lists of 'field=value' strings; got {type(rows).__name__}"
        )
    reader = _Reader(roles)
    for row in rows:
        reader.add(row)
    return reader.chunk()


class _Field(dict[str, int]):
    """Number of the token of each value of one field, all of them strings."""

    def __init__(self, name: str, tokens: dict[str, int], numeric: bool) -> None:
        self.name, self.tokens, self.numeric = name, tokens, numeric

    def __missing__(self, value: str) -> int:
        if self.numeric:
            raise TypeError(f"field {self.name!r} is numeric, but has the value {value!r}")
        self[value] = number = self.tokens[f"{self.name}={value}"]
        return number


class _Fields(dict[str, _Field]):
    """All fields that were met."""

    def __init__(self, tokens: dict[str, int], numeric: frozenset[str]) -> None:
        self.tokens, self.numeric = tokens, numeric

    def __missing__(self, name: Any) -> _Field:
        _check_field(name)
        self[name] = field = _Field(name, self.tokens, name in self.numeric)
        return field


class _Reader:
    """Rows, one after the other. Rows of nothing but strings do not pass through Python code entry by entry."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.tokens = numbering()
        self.fields = _Fields(self.tokens, roles.numeric)
        self.ids, self.starts = array("i"), array("q", [0])
        self.places, self.numbers = array("q"), array("d")
        self.number_fields: set[str] = set()
        self.id_fields: set[str] = set()

    def add(self, row: Any) -> None:
        """Read one row."""
        try:
            self._add(row)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"row {len(self.starts) - 1} of X (counted from 0): {error}") from error
        self.starts.append(len(self.ids))

    def _add(self, row: Any) -> None:
        if isinstance(row, Mapping):
            self._entries(row.keys(), row.values())
            return
        if isinstance(row, str | bytes) or not isinstance(row, Iterable):
            raise TypeError(
                f"expected a dictionary or a list, got {row!r}: write [{row!r}] for a row of one string"
            )
        items = row if isinstance(row, list | tuple) else list(row)
        if all(isinstance(item, str) for item in items):
            self.ids.extend(map(self.tokens.__getitem__, map(str, items)))
            return
        wrong = [item for item in items if not isinstance(item, list | tuple) or len(item) != 2]
        if wrong:
            raise TypeError(
                f"expected (field, value) pairs, or 'field=value' strings alone; got {wrong[0]!r}"
            )
        self._entries(*zip(*items, strict=True))

    def _entries(self, fields: Iterable[Any], values: Iterable[Any]) -> None:
        if set(map(type, values)) == {str}:
            self.ids.extend(map(getitem, map(self.fields.__getitem__, fields), values))
        else:
            for field, value in zip(fields, values, strict=True):
                self._entry(field, value)

    def _entry(self, field: Any, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, str):
            self.ids.append(self.fields[field][str(value)])
            return
        _check_field(field)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            if not self.roles.skip_missing:
                raise ValueError(f"field {field!r} is missing ({value}): drop it, or set missing='ignore'")
        elif isinstance(value, bool):
            self._number(field, value) if field in self.roles.numeric else self._level(field, value)
        elif isinstance(value, int):
            if self.roles.takes_integers_as_numbers(field):
                self._number(field, value)
            else:
                self._note(field, value, self.id_fields, self.number_fields)
                self._level(field, value)
        elif isinstance(value, float):
            if field in self.roles.categorical:
                self._level(field, value)
            else:
                self._note(field, value, self.number_fields, self.id_fields)
                self._number(field, value)
        else:
            raise TypeError(
                f"field {field!r} has a value of type {type(value).__name__} ({value!r}): convert it to a string or "
                "a number"
            )

    def _note(self, field: str, value: float, own: set[str], other: set[str]) -> None:
        """A float is a number and an integer an id: a field of both would be two things without a word."""
        if field in own or self.roles.is_named(field):
            return
        if field in other:
            raise TypeError(
                f"field {field!r} has floats, which are numbers, and integers, which are ids (here {value!r}): name it "
                "in numeric or in categorical"
            )
        own.add(field)

    def _level(self, field: str, value: float) -> None:
        _check_finite(field, value)
        (name,) = level_names([value + 0.0 if isinstance(value, float) else value])
        self.ids.append(self.tokens[f"{field}={name}"])

    def _number(self, field: str, value: float) -> None:
        self.roles.check_number(field, value)
        _check_finite(field, value)
        self.places.append(len(self.ids))
        self.numbers.append(float(value))
        self.ids.append(self.tokens[field])

    def chunk(self) -> Chunk:
        """What was read."""
        values = None
        if len(self.places):
            values = np.ones(len(self.ids))
            values[np.array(self.places, np.int64)] = self.numbers
        return Chunk(
            np.array(self.starts, np.int64),
            np.array(self.ids, np.int32),
            values,
            list(self.tokens),
            frozenset(self.number_fields),
            frozenset(self.id_fields),
        )


def _check_field(field: Any) -> None:
    if not isinstance(field, str):
        raise TypeError(f"fields must be strings, got {field!r} ({type(field).__name__})")


def _check_finite(field: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"field {field!r} is not finite ({value}): drop or clip it")


def read_frame(frame: Any, roles: Roles) -> Chunk:
    """Tokens of the rows of a narwhals DataFrame, column by column."""
    for role, fields in (("numeric", roles.numeric), ("categorical", roles.categorical)):
        unknown = sorted(fields - set(frame.columns))
        if unknown:
            raise ValueError(f"{role} names columns that X does not have: {unknown}; X has {frame.columns}")
    tokens: list[str] = []
    rows, ids, values = [], [], []
    for name in frame.columns:
        present, series = _present(frame[name], roles.skip_missing)
        if not len(present):
            continue
        if _is_number(series, roles):
            roles.check_number(name, series[0])
            levels, codes, numbers = [name], np.zeros(len(present), np.int32), numeric_values(series)
        else:
            kind, column = categorical_values(series, name in roles.categorical)
            found = Levels.of(kind, column)
            levels = [f"{name}={x}" for x in level_names(found.values)]
            codes, numbers = found.encode(column)[0], np.ones(len(present))
        rows.append(present)
        ids.append(codes + len(tokens))
        values.append(numbers)
        tokens += levels
    unnamed = [frame[name] for name in frame.columns if not roles.is_named(name)]
    return _assemble(len(frame), rows, ids, values, tokens)._replace(
        number_fields=frozenset(x.name for x in unnamed if x.dtype.is_float()),
        id_fields=frozenset(
            x.name for x in unnamed if x.dtype.is_integer() and not roles.integers_are_numbers
        ),
    )


def _present(series: Any, skip_missing: bool) -> tuple[np.ndarray, Any]:
    """Rows in which a column has a value, and those values."""
    everything = np.arange(len(series))
    if not skip_missing:
        return everything, series
    there = ~series.is_null().to_numpy()
    if series.dtype.is_float():
        there &= ~series.fill_null(float("nan")).is_nan().fill_null(True).to_numpy()
    return everything[there], series.filter(there.tolist())


def _is_number(series: Any, roles: Roles) -> bool:
    if series.name in roles.numeric:
        return True
    if series.dtype.is_integer():
        return roles.takes_integers_as_numbers(series.name)
    return series.dtype.is_float() and series.name not in roles.categorical


def _assemble(
    num_rows: int, rows: list[np.ndarray], ids: list[np.ndarray], values: list[np.ndarray], tokens: list[str]
) -> Chunk:
    """Columns one below the other, sorted by rows."""
    row = np.concatenate([*rows, np.zeros(0, np.int64)])
    order = np.argsort(row, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_rows))])
    data = np.concatenate([*values, np.zeros(0)])[order]
    return Chunk(
        starts.astype(np.int64),
        np.concatenate([*ids, np.zeros(0, np.int32)])[order].astype(np.int32),
        None if (data == 1).all() else data,
        tokens,
    )
