"""The order of rows that the compiled kernels read, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from bayesfm.design.layout import build_layout
from bayesfm.design.sorted_rows import Columns, SortedRows, rows_by_owner
from bayesfm.design.units import FieldUnit, RowsUnit, TableUnit
from tests import designs
from tests.design.strategies import coo_arrays


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 5))
def test_every_row_stands_with_its_owner_in_order(codes: list[int], num_owners: int) -> None:
    ptr, row = rows_by_owner(np.array(codes, np.int32), num_owners)
    assert (ptr.dtype, row.dtype) == (np.int32, np.int32)
    for j in range(num_owners):
        assert row[ptr[j] : ptr[j + 1]].tolist() == [n for n, code in enumerate(codes) if code == j]
    assert len(row) == sum(code < num_owners for code in codes)


def test_codes_of_other_units_follow_the_rows() -> None:
    code, other = np.array([1, 0, 2, 1, 0]), np.array([5, 6, 7, 8, 9], np.int32)
    rows = SortedRows.of(code, 2, [other, None])
    assert rows.row.tolist() == [1, 4, 0, 3]
    assert rows.codes[0].tolist() == [6, 9, 5, 8]
    assert rows.codes[1].tolist() == rows.row.tolist()


@given(coo_arrays())
def test_columns_are_those_of_the_matrix(X: sparse.coo_array) -> None:
    columns = Columns.of(X.tocsr())
    dense = np.zeros(X.shape)
    for j in range(X.shape[1]):
        for entry in range(columns.ptr[j], columns.ptr[j + 1]):
            dense[columns.row[entry], j] += columns.value[entry]
    np.testing.assert_array_equal(dense, X.toarray())
    assert (columns.ptr.dtype, columns.row.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_a_layout_for_kernels_has_the_codes_of_the_other(kind: str) -> None:
    """Same units, same owner of every row; only the grouping of rows is another."""
    design = designs.make(kind)
    by_xla, by_kernels = (build_layout(design, native=native) for native in (False, True))
    for a, b in zip(by_kernels.units, by_xla.units, strict=True):
        assert type(a) is type(b)
        if isinstance(a, RowsUnit):
            np.testing.assert_array_equal(np.sort(a.features), np.sort(b.features))
            continue
        np.testing.assert_array_equal(a.features, b.features)
        assert isinstance(b, FieldUnit | TableUnit)
        np.testing.assert_array_equal(a.rows.code, b.rows.code)
        assert a.sorted is not None
        for j in range(a.rows.num_owners):
            own = a.sorted.row[a.sorted.ptr[j] : a.sorted.ptr[j + 1]]
            np.testing.assert_array_equal(own, np.flatnonzero(b.rows.code == j))


@pytest.mark.parametrize("kind", ["rows", "many fields", "everything", "relation block", "all zero"])
def test_entries_by_column_and_by_row_are_the_matrix(kind: str) -> None:
    design = designs.make(kind)
    layout = build_layout(design, native=True)
    for unit in layout.units:
        if isinstance(unit, FieldUnit):
            continue
        e = unit.entries
        assert e is not None
        shape = (len(e.row_ptr) - 1, len(unit.features))
        columns = e.columns
        by_column = sparse.csc_array((columns.value, columns.row, columns.ptr), shape=shape).toarray()
        by_row = sparse.csr_array((e.value, e.feature, e.row_ptr), shape=shape).toarray()
        np.testing.assert_array_equal(by_column, by_row)
        if isinstance(unit, RowsUnit):
            whole = design.to_csr().toarray()[:, unit.features].astype(np.float32)
            np.testing.assert_array_equal(by_row[: design.num_rows], whole)
            assert not np.any(by_row[design.num_rows :])
        starts = np.r_[0, e.ends[:-1]]
        for start, end in zip(starts, e.ends, strict=True):
            assert np.all(np.count_nonzero(by_column[:, start:end], axis=1) <= 1)
            assert len(set(unit.group[start:end])) == 1
