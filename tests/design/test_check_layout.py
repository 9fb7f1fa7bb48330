"""Layouts that would lead a kernel astray are refused: valid ones are damaged in every way, array by array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design import Design, sorted_rows
from bayesfm.design import layout as layout_module
from bayesfm.design.check_layout import check_layout
from bayesfm.design.layout import build_layout
from bayesfm.design.units import Layout, RowsUnit, TableUnit
from tests import designs
from tests.design.strategies import designs as any_designs

type Path = tuple[str | int, ...]

KINDS = pytest.mark.parametrize("kind", designs.DESIGNS)


def look(layout: Layout, path: Path) -> Any:
    x: Any = layout
    for step in path:
        x = x[step] if isinstance(step, int) else getattr(x, step)
    return x


def put(x: Any, path: Path, new: Any) -> Any:
    """``x`` with another thing at the end of ``path``."""
    if not path:
        return new
    step, *rest = path
    if isinstance(step, int):
        return (*x[:step], put(x[step], tuple(rest), new), *x[step + 1 :])
    return replace(x, **{step: put(getattr(x, step), tuple(rest), new)})


def index_arrays(layout: Layout) -> Iterator[tuple[Path, int]]:
    """Every array of indices, and the first number that is too large for it."""
    p, n = len(layout.place), layout.num_rows
    yield ("place",), p
    yield ("group",), layout.num_groups
    sizes = [n if isinstance(u, RowsUnit) else u.rows.num_owners + 1 for u in layout.units]
    for i, unit in enumerate(layout.units):
        at: Path = ("units", i)
        yield (*at, "features"), p
        yield (*at, "group"), layout.num_groups
        if isinstance(unit, RowsUnit | TableUnit):
            yield (*at, "table", "row"), unit.table.num_rows
            yield (*at, "table", "feature"), len(unit.features)
            entries = unit.entries
            yield (
                (*at, "entries", "columns", "row"),
                n if isinstance(unit, RowsUnit) else unit.rows.num_owners,
            )
            yield (*at, "entries", "columns", "ptr"), len(entries.columns.row) + 1
            yield (*at, "entries", "row_ptr"), len(entries.columns.row) + 1
            yield (*at, "entries", "feature"), len(unit.features)
            yield (*at, "entries", "ends"), len(unit.features) + 1
        if isinstance(unit, RowsUnit):
            continue
        yield (*at, "rows", "code"), sizes[i]
        yield (*at, "sorted", "row"), n
        yield (*at, "sorted", "ptr"), len(unit.sorted.row) + 1
        for t, size in enumerate(sizes[:i] + sizes[i + 1 :]):
            yield (*at, "sorted", "codes", t), size


def value_arrays(layout: Layout) -> Iterator[Path]:
    for i, unit in enumerate(layout.units):
        if isinstance(unit, RowsUnit | TableUnit):
            yield "units", i, "table", "value"
            yield "units", i, "entries", "value"
            yield "units", i, "entries", "columns", "value"


def refused(layout: Layout, path: Path, new: Any) -> None:
    with pytest.raises(ValueError, match="build layouts with build_layout"):
        check_layout(put(layout, path, new))


def damaged(x: np.ndarray, number: Any, rng: np.random.Generator) -> np.ndarray:
    """``x`` with ``number`` somewhere."""
    x = x.copy()
    x[rng.integers(len(x))] = number
    return x


def native_layout(design: Design, max_fields: int = 4) -> Layout:
    return build_layout(design, max_fields=max_fields, native=True)


@given(any_designs(), st.integers(0, 4), st.booleans())
def test_layouts_of_designs_pass(design: Design, max_fields: int, native: bool) -> None:
    check_layout(build_layout(design, max_fields=max_fields, native=native))


@given(any_designs(), st.integers(0, 2**32 - 1))
def test_every_array_of_any_design_is_looked_at(design: Design, seed: int) -> None:
    rng, layout = np.random.default_rng(seed), native_layout(design)
    for path, bound in index_arrays(layout):
        x = look(layout, path)
        refused(layout, path, np.append(x, x[-1:] if len(x) else np.int32(0)))  # one too many
        refused(layout, path, x.astype(np.float32))
        refused(layout, path, x[:, None])
        if len(x):
            refused(layout, path, x[:-1])
            for number in (-1, -(2**31), bound, 2**31 - 1):
                refused(layout, path, damaged(x, number, rng))
    for path in value_arrays(layout):
        x = look(layout, path)
        refused(layout, path, np.append(x, np.float32(0)))
        refused(layout, path, x.astype(np.int32))
        if len(x):
            refused(layout, path, x[:-1])
            for number in (np.nan, np.inf, -np.inf):
                refused(layout, path, damaged(x, number, rng))


@given(any_designs(), st.integers(0, 2**32 - 1))
def test_pointers_of_any_design_must_rise_from_end_to_end(design: Design, seed: int) -> None:
    rng, layout = np.random.default_rng(seed), native_layout(design)
    for path, bound in index_arrays(layout):
        x = look(layout, path)
        if path[-1] not in ("ptr", "row_ptr") or bound == 1:
            continue
        refused(layout, path, np.r_[np.int32(1), x[1:]])
        refused(layout, path, np.r_[x[:-1], np.int32(bound - 2)])
        if len(x) > 2:
            j = rng.integers(1, len(x) - 1)
            falls = x.copy()
            falls[j], falls[j + 1 :] = bound - 1, bound - 1
            falls[j + 1 : -1] = 0
            if np.any(np.diff(falls) < 0):
                refused(layout, path, falls)


@given(any_designs(), st.integers(0, 2**32 - 1))
def test_no_row_and_no_feature_twice(design: Design, seed: int) -> None:
    rng, layout = np.random.default_rng(seed), native_layout(design)
    for path, _ in index_arrays(layout):
        x = look(layout, path)
        if (path[-2:] == ("sorted", "row") or path[-1] in ("features", "place")) and len(x) > 1:
            a, b = rng.choice(len(x), 2, replace=False)
            refused(layout, path, damaged_at(x, a, x[b]))


def damaged_at(x: np.ndarray, place: int, number: Any) -> np.ndarray:
    x = x.copy()
    x[place] = number
    return x


def test_entries_of_a_block_must_be_in_order() -> None:
    layout = native_layout(designs.make("relation block"))
    (i,) = (i for i, unit in enumerate(layout.units) if isinstance(unit, TableUnit))
    columns = layout.units[i].entries.columns
    row = columns.row
    j = int(np.flatnonzero(np.diff(columns.ptr) > 1)[0])
    first, end = columns.ptr[j], columns.ptr[j + 1]
    path: Path = ("units", i, "entries", "columns", "row")
    refused(layout, path, np.r_[row[:first], row[first:end][::-1], row[end:]])
    refused(layout, path, damaged_at(row, first + 1, row[first]))
    table: Path = ("units", i, "table", "row")
    refused(layout, table, look(layout, table)[::-1].copy())


@pytest.mark.parametrize("kind", ["rows", "relation block"])
def test_features_of_a_run_share_no_row(kind: str) -> None:
    layout = native_layout(designs.make(kind))
    (i,) = (i for i, unit in enumerate(layout.units) if isinstance(unit, RowsUnit | TableUnit))
    ends = layout.units[i].entries.ends
    assert len(ends) > 1
    refused(layout, ("units", i, "entries", "ends"), ends[-1:])
    refused(layout, ("units", i, "entries", "ends"), ends[::-1].copy())
    refused(layout, ("units", i, "entries", "ends"), np.append(ends, ends[-1:]))
    refused(layout, ("units", i, "count"), layout.units[i].count + 1)


def test_a_row_must_stand_with_an_owner_if_it_has_one() -> None:
    layout = native_layout(designs.make("field with gaps"))
    unit = layout.units[0]
    without = np.flatnonzero(unit.rows.code[: layout.num_rows] == unit.rows.num_owners)
    assert len(without)
    refused(layout, ("units", 0, "sorted", "row"), damaged_at(unit.sorted.row, 0, without[0]))


def test_rows_without_owner_lead_to_the_row_behind_the_last() -> None:
    """One more than there are owners is right for codes, and two more is not."""
    layout = native_layout(designs.make("two fields"))
    path: Path = ("units", 0, "sorted", "codes", 0)
    owners = layout.units[1].rows.num_owners
    check_layout(put(layout, path, damaged_at(look(layout, path), 0, owners)))
    refused(layout, path, damaged_at(look(layout, path), 0, owners + 1))


@KINDS
def test_groups_must_be_sorted_and_those_of_the_features(kind: str) -> None:
    layout = native_layout(designs.make(kind))
    for i, unit in enumerate(layout.units):
        if unit.group[0] != unit.group[-1]:
            refused(layout, ("units", i, "group"), unit.group[::-1].copy())
            swapped = put(layout, ("units", i, "features"), unit.features[::-1].copy())
            place = np.argsort(np.concatenate([u.features for u in swapped.units])).astype(np.int32)
            swapped = put(swapped, ("units", i, "group"), unit.group[::-1].copy())
            refused(swapped, ("place",), place)  # right in all but the order


@KINDS
def test_parts_that_are_missing_or_of_another_size(kind: str) -> None:
    layout = native_layout(designs.make(kind))
    refused(layout, ("units",), ())
    refused(layout, ("units",), layout.units + layout.units[:1])
    refused(layout, ("num_padded",), layout.num_rows)
    refused(layout, ("num_padded",), layout.num_padded + 1)
    refused(layout, ("num_tiles",), layout.num_padded + 1)
    for i, unit in enumerate(layout.units):
        at: Path = ("units", i)
        if isinstance(unit, RowsUnit):
            refused(layout, (*at, "table", "num_rows"), unit.table.num_rows + 1)
            refused(layout, (*at, "entries"), None)
            continue
        refused(layout, (*at, "sorted"), None)
        refused(layout, (*at, "rows", "num_owners"), unit.rows.num_owners + 1)
        refused(layout, (*at, "sorted", "codes"), (*unit.sorted.codes, unit.sorted.row))
        if isinstance(unit, TableUnit):
            refused(layout, (*at, "entries"), None)
            refused(layout, (*at, "table", "num_rows"), unit.table.num_rows + 1)


def test_what_fits_together_and_is_wrong_all_the_same() -> None:
    """Damage to several arrays at once, each of which would pass beside the others."""
    layout = native_layout(designs.make("two fields"))
    rows = layout.units[0].sorted
    longer = replace(
        rows,
        ptr=damaged_at(rows.ptr, -1, rows.ptr[-1] + 1),
        row=np.append(rows.row, rows.row[:1]),
        codes=tuple(np.append(code, code[:1]) for code in rows.codes),
    )
    refused(layout, ("units", 0, "sorted"), longer)

    group = layout.units[0].group
    refused(layout, ("units", 0, "group"), np.full_like(group, 1 - group[0]))

    without_padding = layout
    for i, unit in enumerate(layout.units):
        code = unit.rows.code[: layout.num_rows]
        without_padding = put(without_padding, ("units", i, "rows", "code"), code)
    refused(without_padding, ("num_padded",), layout.num_rows)

    for_xla = build_layout(designs.make("two fields"))
    refused(for_xla, ("units", 0, "rows", "num_owners"), for_xla.units[0].rows.num_owners + 1)


def test_what_the_message_says() -> None:
    layout = native_layout(designs.make("two fields"))
    wrong = put(layout, ("units", 1, "sorted", "row"), damaged_at(layout.units[1].sorted.row, 3, -5))
    with pytest.raises(
        ValueError, match=r"units\[1\].sorted.row must hold numbers from 0 to 16, got -5; build layouts"
    ):
        check_layout(wrong)


def test_a_layout_for_the_kernels_is_checked_when_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(sorted_rows.SortedRows):
        @classmethod
        def of(cls, code: np.ndarray, num_owners: int, others: Any) -> sorted_rows.SortedRows:
            right = sorted_rows.SortedRows.of(code, num_owners, others)
            return replace(right, row=right.row + 1)

    monkeypatch.setattr(layout_module, "SortedRows", Wrong)
    with pytest.raises(ValueError, match=r"units\[0\].sorted.row must hold numbers from 0 to 16, got 17"):
        native_layout(designs.make("two fields"))
