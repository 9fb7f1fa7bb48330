from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design import Block, Design, check_colouring
from bayesfm.design import layout as module
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, Layout, RowGroups, RowsUnit, Steps, TableUnit, Unit
from tests import designs
from tests.design.strategies import designs as any_designs
from tests.design.strategies import naive_rows

TILES = [1, 3, 5, 1 << 17]


def check_row_groups(rows: RowGroups, code: np.ndarray, num_padded: int) -> None:
    """Every row with an owner is in exactly one slot, under its owner; everything else is padding."""
    n, m = len(code), rows.num_owners
    T, L, C = rows.row.shape
    assert rows.code.shape == rows.slot.shape == (num_padded,)
    np.testing.assert_array_equal(rows.code[:n], np.minimum(code, m))
    assert np.all(rows.code[n:] == m)
    owned = np.flatnonzero(code < m)
    assert sorted(rows.row[rows.row != n].tolist()) == owned.tolist()
    assert rows.row.max(initial=n) == n
    for t in range(T):
        assert np.all(np.diff(rows.owner[t]) >= 0)
        assert rows.owner[t].min() >= 0
        assert rows.owner[t].max() < rows.span
        for chunk in range(C):
            owner = rows.first[t] + rows.owner[t, chunk]
            assert owner < m
            for place in range(L):
                row = rows.row[t, place, chunk]
                assert row == n or code[row] == owner
    assert np.all(np.diff(rows.first) >= 0)
    for row in owned:
        assert rows.row.reshape(-1)[rows.slot[row]] == row
    assert np.all((rows.slot >= 0) & (rows.slot < max(1, rows.row.size)))


def check_steps(steps: tuple[Steps, ...], X: np.ndarray, num_rows: int) -> None:
    """Every feature is drawn once; a step holds all its entries, under their feature, and no two share a row."""
    p = X.shape[1]
    drawn: list[int] = []
    for bucket in steps:
        S, L, C = bucket.row.shape
        for s in range(S):
            features = bucket.feature[s]
            own = features[features < p]
            drawn += own.tolist()
            assert np.all(features[len(own) :] == p)
            assert np.all(np.diff(bucket.owner[s]) >= 0)
            entries = np.zeros_like(X)
            for place in range(L):
                for chunk in range(C):
                    row, feature = bucket.row[s, place, chunk], features[bucket.owner[s, chunk]]
                    if row < num_rows:
                        assert entries[row, feature] == 0
                        entries[row, feature] = bucket.value[s, place, chunk]
                    else:
                        assert row == num_rows
                        assert bucket.value[s, place, chunk] == 0
            expected = np.zeros_like(X)
            expected[:, own] = X[:, own]
            np.testing.assert_array_equal(entries, expected)
            assert np.all((entries != 0).sum(axis=1) <= 1)
        if bucket.slot is not None:
            check_way_back(bucket.slot, bucket.row.reshape(S, -1), num_rows)
        if bucket.place is not None:
            check_way_back(bucket.place, bucket.feature, p)
    assert sorted(drawn) == list(range(p))


def check_way_back(back: np.ndarray, target: np.ndarray, size: int) -> None:
    """``back`` names the only place in ``target`` of every number below ``size``, or none."""
    for there, here in zip(back, target, strict=True):
        for number in range(size):
            places = np.flatnonzero(here == number).tolist()
            assert len(places) <= 1
            assert there[number] == (places[0] if places else len(here))


def table_of(unit: TableUnit | RowsUnit) -> np.ndarray:
    X = np.zeros((unit.table.num_rows, len(unit.features)), unit.table.value.dtype)
    for row, feature, value in zip(unit.table.row, unit.table.feature, unit.table.value, strict=True):
        X[row, feature] += value
    assert np.all(np.diff(unit.table.row) >= 0)
    return X


def rows_of_unit(unit: Unit, layout: Layout) -> np.ndarray:
    """Check a unit; the features that it says every data row has."""
    n = layout.num_rows
    if isinstance(unit, RowsUnit):
        X = table_of(unit)
        assert X.shape[0] == layout.num_padded
        assert not X[n:].any()
        check_steps(unit.steps, X[:n], n)
        return X[:n]
    code = unit.rows.code[:n]
    check_row_groups(unit.rows, code, layout.num_padded)
    if isinstance(unit, FieldUnit):
        check_own_group(unit, code, layout)
        one_hot = np.zeros((n, len(unit.features) + 1))
        one_hot[np.arange(n), code] = 1
        return one_hot[:, :-1]
    X = table_of(unit)
    assert unit.rows.num_owners == len(X)
    check_steps(unit.steps, X, len(X))
    return X[code]


def check_own_group(unit: FieldUnit, code: np.ndarray, layout: Layout) -> None:
    """Named if and only if every row has a level, and these levels are the members of one group."""
    members = [np.flatnonzero(layout.group == g).tolist() for g in range(layout.num_groups)]
    own = sorted(unit.features.tolist())
    whole = max(code) < len(own) and own in members
    assert unit.own_group == (members.index(own) if whole else None)


def check_layout(layout: Layout, design: Design) -> None:
    """The units hold every feature once, and all rows come back."""
    n, p = design.num_rows, design.num_features
    assert (layout.num_rows, layout.num_groups) == (n, len(design.group_names))
    assert layout.num_padded > n  # row n is the one that padding may read and write
    assert layout.num_padded % layout.num_tiles == 0
    features = np.concatenate([unit.features for unit in layout.units])
    assert sorted(features.tolist()) == list(range(p))
    np.testing.assert_array_equal(features[layout.place], np.arange(p))
    np.testing.assert_array_equal(layout.group, design.groups)
    X = np.zeros((n, p))
    for unit in layout.units:
        np.testing.assert_array_equal(unit.group, design.groups[unit.features])
        assert np.all(np.diff(unit.group) >= 0)
        X[:, unit.features] = rows_of_unit(unit, layout)
    np.testing.assert_array_equal(X, naive_rows(design).astype(np.float32))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_layout_of_every_kind(kind: str, tile: int) -> None:
    design = designs.make(kind)
    check_layout(build_layout(design, tile=tile), design)


@given(any_designs(), st.integers(0, 4), st.integers(1, 20))
def test_layout_of_any_design(design: Design, max_fields: int, tile: int) -> None:
    check_layout(build_layout(design, max_fields=max_fields, tile=tile), design)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 200), st.integers(1, 64))
def test_layout_of_long_skewed_designs(seed: int, m: int, n: int, tile: int) -> None:
    """Some owners with many rows, some with none: several chunks each, several tiles, owners across tiles."""
    rng = np.random.default_rng(seed)
    index = np.minimum(rng.geometric(0.2, n) - 1, m - 1)
    X = designs.sparse_values(rng, m, 3)
    blocks = [Block.field("f", index, list(range(m))), Block.create("t", X, rng.permutation(index))]
    check_layout(build_layout(Design(blocks), tile=tile), Design(blocks))


@pytest.mark.parametrize("lengths", [(1,), (4,), (32,)])
def test_layout_for_any_chunk_length(lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LENGTHS", lengths)
    design = designs.make("everything")
    for tile in TILES:
        check_layout(build_layout(design, tile=tile), design)


def kinds_of_units(design: Design, **options: int) -> list[type]:
    return [type(unit) for unit in build_layout(design, **options).units]


def test_which_unit_a_block_becomes() -> None:
    assert kinds_of_units(designs.make("two fields")) == [FieldUnit, FieldUnit]
    assert kinds_of_units(designs.make("relation block")) == [FieldUnit, TableUnit]
    assert kinds_of_units(designs.make("rows")) == [RowsUnit]
    assert kinds_of_units(designs.make("everything")) == [FieldUnit, TableUnit, TableUnit, RowsUnit]
    assert kinds_of_units(designs.make("two fields"), max_fields=1) == [RowsUnit]
    assert kinds_of_units(designs.make("many fields"), max_fields=5) == [RowsUnit]
    assert kinds_of_units(designs.make("many fields")) == [FieldUnit] * 6


def test_one_hot_columns_of_a_matrix_are_fields() -> None:
    rows = np.arange(designs.N)
    X = np.zeros((designs.N, 7))
    X[rows, rows % 4] = X[rows, 4 + rows % 3] = 1
    layout = build_layout(Design([Block.create("x", X)]))
    assert [type(unit) for unit in layout.units] == [FieldUnit, FieldUnit]
    assert sorted(sorted(unit.features.tolist()) for unit in layout.units) == [[0, 1, 2, 3], [4, 5, 6]]
    assert kinds_of_units(designs.make("one-hot matrix")) == [FieldUnit, FieldUnit]  # with a level nobody has


def test_columns_that_are_not_all_ones_are_no_field() -> None:
    X = np.zeros((10, 3))
    X[np.arange(10), np.arange(10) % 2] = 1  # a field
    X[:, 2] = 2.0
    assert kinds_of_units(Design([Block.create("x", X)])) == [FieldUnit, RowsUnit]


def test_a_block_whose_rows_hardly_repeat_is_expanded() -> None:
    X = np.random.default_rng(0).normal(size=(6, 2))
    repeats = Design([Block.create("x", X, np.arange(12) % 6)])
    hardly = Design([Block.create("x", X, np.arange(11) % 6)])
    assert kinds_of_units(repeats) == [TableUnit]
    assert kinds_of_units(hardly) == [RowsUnit]


def test_steps_are_colours() -> None:
    rng = np.random.default_rng(1)
    X = rng.random((30, 40)) < 0.1
    (unit,) = build_layout(Design([Block.create("x", X * 2.0)])).units
    assert isinstance(unit, RowsUnit)
    colours = np.full(40, -1)
    number = 0
    for bucket in unit.steps:
        for features in bucket.feature:
            colours[unit.features[features[features < 40]]] = number
            number += 1
    check_colouring(designs.sparse.csr_array(X), colours)
    assert number < 20  # and not one feature at a time


def test_dtype() -> None:
    for dtype in (np.float32, np.float64):
        layout = build_layout(designs.make("everything"), dtype=dtype)
        tables = [unit for unit in layout.units if not isinstance(unit, FieldUnit)]
        assert {unit.table.value.dtype for unit in tables} == {np.dtype(dtype)}
        assert {bucket.value.dtype for unit in tables for bucket in unit.steps} == {np.dtype(dtype)}
