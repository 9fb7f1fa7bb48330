"""Levels of a categorical column: their names, their stable hashes, and the number of each value's level."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import narwhals.stable.v2 as nw
import numpy as np
from jaxtyping import Int32, Shaped, UInt32

__all__ = ["Kind", "Levels", "level_hashes", "level_names"]

Kind = Literal["str", "int", "float", "bool"]

_DTYPES: dict[str, type] = {"str": object, "int": np.int64, "float": np.float64, "bool": np.bool_}


def level_names(levels: Iterable[Any]) -> list[str]:
    """The canonical string of every level: strings as they are, numbers in their shortest exact form.

    Examples
    --------
    >>> from bayesfm.design.levels import level_names
    >>> level_names(["ann", 17, 0.5, True])
    ['ann', '17', '0.5', 'True']
    """
    if isinstance(levels, str):
        raise TypeError(f"levels must be a sequence of levels, got the string {levels!r}")
    plain = levels.tolist() if isinstance(levels, np.ndarray) else [_plain(x) for x in levels]
    wrong = [x for x in plain if not isinstance(x, str | int | float)]
    if wrong:
        raise TypeError(f"levels must be strings, integers, floats or booleans, got {wrong[0]!r}")
    return [str(x) if isinstance(x, str) else repr(x) for x in plain]


def _plain(level: Any) -> Any:
    return level.item() if isinstance(level, np.generic) else level


def level_hashes(levels: Iterable[Any]) -> UInt32[np.ndarray, " u"]:
    """CRC-32 of the UTF-8 bytes of every level's canonical string: the same in all processes and versions.

    Examples
    --------
    >>> from bayesfm.design.levels import level_hashes
    >>> level_hashes(["ann", 17]).tolist()
    [3877663347, 1060745282]
    """
    names = level_names(levels)
    return np.array([zlib.crc32(x.encode("utf-8", "surrogatepass")) for x in names], dtype=np.uint32)


@dataclass(frozen=True, eq=False)
class Levels:
    """The sorted distinct values of a categorical column.

    Parameters
    ----------
    kind : {"str", "int", "float", "bool"}
        Type of the values; all have the same.
    values : array of shape (m,)
        Sorted, distinct: Python strings (by code point), int64 (uint64 beyond its range), float64 or bool.
    bits : int, default=64
        Of floats: width of the column that they come from.
    """

    kind: Kind
    values: Shaped[np.ndarray, " m"]
    bits: int = 64

    @classmethod
    def of(cls, kind: Kind, column: np.ndarray | nw.Series) -> Levels:
        """Levels of a column without missing values: a narwhals Series of strings, or an array."""
        if isinstance(column, nw.Series):
            return cls(kind, _object_array(sorted(column.unique().to_list())))
        bits = 8 * column.dtype.itemsize if kind == "float" else 64
        return cls(kind, _sorted_unique(_narrow(column)), bits)

    def __len__(self) -> int:
        return len(self.values)

    def joined(self, more: Levels, column: str) -> Levels:
        """With more levels of the same column.

        Raises
        ------
        TypeError
            If those are of another type.
        """
        if (more.kind, more.bits) != (self.kind, self.bits):
            raise TypeError(
                f"levels of column {column!r} are of kind {more.kind!r}, and it holds {self.kind!r}: convert them"
            )
        if self.kind == "str":
            return Levels("str", _object_array(sorted({*self.values.tolist(), *more.values.tolist()})))
        return Levels(self.kind, _sorted_unique(np.concatenate([self.values, more.values])), self.bits)

    def encode(self, column: np.ndarray | nw.Series) -> tuple[Int32[np.ndarray, " n"], list[Any]]:
        """Number of every value's level, and the values that are no level.

        Parameters
        ----------
        column : array or narwhals Series of shape (n,)
            Of this kind, without missing values.

        Returns
        -------
        index : array of shape (n,)
            Level j has number j, the t-th unseen value ``len(self) + t``.
        unseen : list
            Distinct values that are no level, sorted.
        """
        if isinstance(column, nw.Series):
            return self._encode_strings(column)
        return self._encode_numbers(_narrow(column))

    def _encode_strings(self, column: nw.Series) -> tuple[np.ndarray, list[Any]]:
        number = dict(zip(self.values.tolist(), range(len(self)), strict=True))
        present = column.unique().to_list()
        unseen = sorted(x for x in present if x not in number)
        number.update(zip(unseen, range(len(self), len(self) + len(unseen)), strict=True))
        codes = [number[x] for x in present]
        index = column.replace_strict(present, codes, return_dtype=nw.Int32).to_numpy()
        return index.astype(np.int32), unseen

    def _encode_numbers(self, values: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        levels = self.values
        if levels.dtype != values.dtype:  # int64 against uint64: only Python integers compare exactly
            levels, values = levels.astype(object), values.astype(object)
        index = np.searchsorted(levels, values).astype(np.int32)
        hit = levels[np.minimum(index, len(self) - 1)] == values
        if hit.all():
            return index, []
        missed = values[~hit]
        unseen = np.unique(missed)
        index[~hit] = len(self) + np.searchsorted(unseen, missed)
        return index, unseen.tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON; the kind keeps the type of the values."""
        return {"kind": self.kind, "values": self.values.tolist(), "bits": self.bits}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Levels:
        """Inverse of :meth:`to_dict`."""
        kind, values = state["kind"], list(state["values"])
        if kind not in _DTYPES:
            raise ValueError(f"kind of levels must be one of {', '.join(get_args(Kind))}; got {kind!r}")
        if kind == "str":
            return cls(kind, _object_array(values))
        large = kind == "int" and bool(values) and max(values) > np.iinfo(np.int64).max
        return cls(kind, np.array(values, dtype=np.uint64 if large else _DTYPES[kind]), state.get("bits", 64))


def _object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _narrow(values: np.ndarray) -> np.ndarray:
    """Integers as int64 where they fit, floats as float64 without negative zero."""
    if (
        values.dtype.kind == "u"
        and values.dtype.itemsize == 8
        and values.max(initial=0) > np.iinfo(np.int64).max
    ):
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64, copy=False)
    return values.astype(np.float64) + 0.0 if values.dtype.kind == "f" else values


def _sorted_unique(values: np.ndarray) -> np.ndarray:
    """``np.unique``, which hashes and is ten times slower than a vectorized sort of integers."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
