"""Every index and every length of a layout, before the compiled kernels follow them without looking."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesfm.design.arrays import TableArrays
from bayesfm.design.sorted_rows import Columns, Entries, SortedRows
from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit, Unit

__all__ = ["check_layout"]


def check_layout(layout: Layout) -> None:
    """Refuse a layout that would lead a kernel out of its arrays, or to a row twice.

    Linear in rows, features and entries, a few passes over each array. What only XLA reads (``Steps``, the chunks of
    ``RowGroups``) is left out, as XLA bounds its own indices; so is whether a row stands under the right owner.

    Parameters
    ----------
    layout : Layout
        NumPy arrays, as they come from ``build_layout``.

    Raises
    ------
    ValueError
        Naming the array, what it should hold and what it holds.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.design.check_layout import check_layout
    >>> from bayesfm.design.layout import build_layout
    >>> layout = build_layout(Design([Block.field("user", [0, 1, 1], ["a", "b"])]), native=True)
    >>> check_layout(layout)
    >>> check_layout(replace(layout, place=layout.place + 1))
    Traceback (most recent call last):
        ...
    ValueError: place must hold numbers from 0 to 1, got 2; build layouts with build_layout
    """
    if layout.num_rows < 1 or layout.num_padded <= layout.num_rows:
        raise _wrong("num_padded", f"be above num_rows, {layout.num_rows}", layout.num_padded)
    if layout.num_tiles < 1 or layout.num_padded % layout.num_tiles:
        raise _wrong("num_tiles", f"divide num_padded, {layout.num_padded}", layout.num_tiles)
    _check_features(layout)
    for i, unit in enumerate(layout.units):
        _check_unit(f"units[{i}]", unit, layout)


def _check_features(layout: Layout) -> None:
    """The units have every feature once, in groups that rise, and ``place`` leads back."""
    p = len(layout.place)
    _check_indices("place", layout.place, p)
    _check_indices("group", layout.group, layout.num_groups, p)
    start, seen = 0, np.zeros(p, bool)
    for i, unit in enumerate(layout.units):
        name, m = f"units[{i}]", len(unit.features)
        _check_indices(f"{name}.features", unit.features, p)
        _check_indices(f"{name}.group", unit.group, layout.num_groups, m)
        if np.any(unit.group != layout.group[unit.features]):
            raise _wrong(f"{name}.group", "be that of the unit's features", "another")
        if np.any(np.diff(unit.group) < 0):
            raise _wrong(f"{name}.group", "never fall", "numbers that do")
        if not np.array_equal(unit.count, np.bincount(unit.group, minlength=layout.num_groups)):
            raise _wrong(f"{name}.count", "say how many features every group has", unit.count)
        if np.any(layout.place[unit.features] != np.arange(start, start + m)):
            raise _wrong("place", f"say where the features of {name} stand", "something else")
        seen[unit.features] = True
        start += m
    if start != p or not seen.all():
        raise _wrong(
            "units", f"have each of {p} features once", f"{start}, {np.count_nonzero(seen)} distinct"
        )


def _check_unit(name: str, unit: Unit, layout: Layout) -> None:
    p = len(unit.features)
    if isinstance(unit, RowsUnit):
        _check_table(f"{name}.table", unit.table, p, layout.num_padded)
        if layout.native:
            _check_entries(f"{name}.entries", unit.entries, p, layout.num_rows, layout.num_padded)
        return
    m = unit.rows.num_owners
    _check_indices(f"{name}.rows.code", unit.rows.code, m + 1, layout.num_padded)
    if isinstance(unit, TableUnit):
        _check_table(f"{name}.table", unit.table, p, m)
    elif m != p:
        raise _wrong(f"{name}.rows.num_owners", f"be {p}", m)
    if layout.native:
        _check_native(name, unit, layout)


def _check_native(name: str, unit: FieldUnit | TableUnit, layout: Layout) -> None:
    if unit.sorted is None:
        raise _wrong(f"{name}.sorted", "be there in a layout for the kernels", None)
    m = unit.rows.num_owners
    _check_sorted(f"{name}.sorted", unit.sorted, m, unit.rows.code[: layout.num_rows])
    others = [other for other in layout.units if other is not unit]
    codes = unit.sorted.codes
    if len(codes) != len(others):
        raise _wrong(f"{name}.sorted.codes", f"have one array for each of {len(others)} others", len(codes))
    for t, (code, other) in enumerate(zip(codes, others, strict=True)):
        # One more than there are owners: what data rows without an owner gather.
        end = layout.num_rows if isinstance(other, RowsUnit) else other.rows.num_owners + 1
        _check_indices(f"{name}.sorted.codes[{t}]", code, end, len(unit.sorted.row))
    if isinstance(unit, TableUnit):
        _check_entries(f"{name}.entries", unit.entries, len(unit.features), m, m + 1)


def _check_sorted(name: str, rows: SortedRows, m: int, code: np.ndarray) -> None:
    n = len(code)
    _check_pointers(f"{name}.ptr", rows.ptr, m, len(rows.row))
    _check_indices(f"{name}.row", rows.row, n)
    seen = np.zeros(n, bool)
    seen[rows.row] = True
    distinct = np.count_nonzero(seen)
    if distinct != len(rows.row):
        raise _wrong(f"{name}.row", "have a row once at most", f"{len(rows.row)} rows, {distinct} distinct")
    if np.any(seen != (code < m)):
        raise _wrong(f"{name}.row", "have the rows that have an owner", "others")


def _check_entries(name: str, entries: Entries | None, p: int, m: int, num_rows: int) -> None:
    """By column and by row, with as many rows behind the m of the matrix as are missing to ``num_rows``."""
    if entries is None:
        raise _wrong(name, "be there in a layout for the kernels", None)
    z = len(entries.columns.row)
    _check_columns(f"{name}.columns", entries.columns, p, m)
    _check_pointers(f"{name}.row_ptr", entries.row_ptr, num_rows, z)
    _check_indices(f"{name}.feature", entries.feature, p, z)
    _check_values(f"{name}.value", entries.value, z)
    ends = entries.ends
    _check_indices(f"{name}.ends", ends, p + 1)
    if not len(ends) or ends[0] < 1 or ends[-1] != p or np.any(np.diff(ends) <= 0):
        raise _wrong(f"{name}.ends", f"rise from above 0 to {p}", "other numbers")
    run = np.repeat(np.searchsorted(ends, np.arange(p), side="right"), np.diff(entries.columns.ptr))
    together = np.sort(run.astype(np.int64) * m + entries.columns.row)
    if np.any(together[1:] == together[:-1]):
        raise _wrong(f"{name}.ends", "mark runs of features that share no row", "two that do")


def _check_columns(name: str, columns: Columns, p: int, m: int) -> None:
    z = len(columns.row)
    _check_pointers(f"{name}.ptr", columns.ptr, p, z)
    _check_indices(f"{name}.row", columns.row, m)
    _check_values(f"{name}.value", columns.value, z)
    rises = np.diff(columns.row) > 0
    starts = columns.ptr[(columns.ptr > 0) & (columns.ptr < z)]
    rises[starts - 1] = True
    if not rises.all():
        raise _wrong(f"{name}.row", "rise within each feature", "rows out of order, or one twice")


def _check_table(name: str, table: TableArrays, p: int, num_rows: int) -> None:
    if table.num_rows != num_rows:
        raise _wrong(f"{name}.num_rows", f"be {num_rows}", table.num_rows)
    row, feature, value = (np.asarray(x) for x in (table.row, table.feature, table.value))
    _check_indices(f"{name}.row", row, num_rows)
    _check_indices(f"{name}.feature", feature, p, len(row))
    _check_values(f"{name}.value", value, len(row))
    if np.any(np.diff(row) < 0):
        raise _wrong(f"{name}.row", "never fall", "rows that do")


def _check_pointers(name: str, ptr: np.ndarray, owners: int, end: int) -> None:
    _check_kind(name, ptr, np.integer, owners + 1)
    if ptr[0] != 0 or ptr[-1] != end:
        raise _wrong(name, f"begin with 0 and end with {end}", f"{ptr[0]} and {ptr[-1]}")
    if np.any(ptr[1:] < ptr[:-1]):
        raise _wrong(name, "never fall", "numbers that do")


def _check_indices(name: str, x: np.ndarray, bound: int, length: int | None = None) -> None:
    """Integers from 0 to ``bound`` - 1, as many as ``length``."""
    _check_kind(name, x, np.integer, length)
    if not x.size:
        return
    # A negative number is a large one without its sign: one pass instead of two.
    unsigned = x.view(f"u{x.dtype.itemsize}")
    if int(unsigned.max()) >= bound:
        got = x.min() if x.min() < 0 else x.max()
        raise _wrong(name, f"hold numbers from 0 to {bound - 1}", got)


def _check_values(name: str, x: np.ndarray, length: int) -> None:
    _check_kind(name, x, np.floating, length)
    if not np.isfinite(x).all():
        raise _wrong(name, f"hold finite numbers ({x.dtype}: rescale what is larger)", x[~np.isfinite(x)][0])


def _check_kind(name: str, x: np.ndarray, kind: type, length: int | None) -> None:
    if not np.issubdtype(x.dtype, kind):
        raise _wrong(name, f"hold {'integers' if kind is np.integer else 'floats'}", x.dtype)
    if x.ndim != 1 or (length is not None and len(x) != length):
        raise _wrong(name, f"have shape ({'any' if length is None else length},)", x.shape)


def _wrong(name: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"{name} must {expected}, got {got}; build layouts with build_layout")
