from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy import sparse

from bayesfm.design.validation import (
    as_canonical_csr,
    as_feature_names,
    as_groups,
    as_index,
    as_rows,
    check_block_name,
)
from tests.design.strategies import coo_arrays

FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]


def is_canonical(X: sparse.csr_array) -> bool:
    inside = all(
        (np.diff(X.indices[lo:hi]) > 0).all() for lo, hi in zip(X.indptr, X.indptr[1:], strict=False)
    )
    return inside and bool(np.all(X.data)) and X.indices.dtype == X.indptr.dtype == np.int32


@given(coo_arrays())
def test_csr_is_canonical_and_equals_the_sum_of_the_entries(X: sparse.coo_array) -> None:
    expected = np.zeros(X.shape)
    for i, j, value in zip(X.row, X.col, X.data, strict=True):
        expected[i, j] += value
    csr = as_canonical_csr(X)
    assert isinstance(csr, sparse.csr_array)
    assert is_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), expected)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("name", FORMATS)
def test_every_sparse_format_is_taken(name: str, kind: type) -> None:
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    csr = as_canonical_csr(kind(dense).asformat(name))
    assert is_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), dense)


@pytest.mark.parametrize("sparse_input", [False, True])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(bool, "f8"), (np.int8, "f8"), (np.int64, "f8"), (np.uint64, "f8"), ("f4", "f4"), ("f8", "f8")],
)
def test_dtypes(dtype: Any, expected: str, sparse_input: bool) -> None:
    X = np.array([[1, 0], [0, 1]], dtype=dtype)
    csr = as_canonical_csr(sparse.csr_array(X) if sparse_input else X)
    assert csr.dtype == np.dtype(expected)
    np.testing.assert_array_equal(csr.toarray(), np.eye(2))


def test_half_and_extended_precision() -> None:
    assert as_canonical_csr(np.ones((1, 1), np.float16)).dtype == np.float32
    assert as_canonical_csr(np.ones((1, 1), np.longdouble)).dtype == np.float64


def test_duplicates_are_summed_as_floats() -> None:
    twice = (np.array([0, 0]), np.array([0, 0]))
    assert as_canonical_csr(sparse.coo_array((np.array([True, True]), twice), shape=(1, 1)))[0, 0] == 2.0
    assert as_canonical_csr(sparse.coo_array((np.array([100, 100], "i1"), twice), shape=(1, 1)))[0, 0] == 200


def test_int64_indices_become_int32() -> None:
    X = sparse.csr_array(np.eye(2))
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert is_canonical(as_canonical_csr(X))
    assert X.indices.dtype == np.int64


def test_input_is_never_changed() -> None:
    data, indices, indptr = np.array([1.0, 0.0, 2.0, 3.0]), np.array([2, 1, 0, 0]), np.array([0, 2, 4])
    X = sparse.csr_array((data.copy(), indices.copy(), indptr.copy()), shape=(2, 3))
    csr = as_canonical_csr(X)
    assert is_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), [[0, 0, 1], [5, 0, 0]])
    for ours, theirs in ((X.data, data), (X.indices, indices), (X.indptr, indptr)):
        np.testing.assert_array_equal(ours, theirs)


def test_canonical_input_is_not_copied() -> None:
    X = sparse.csr_array(np.eye(3))
    assert np.shares_memory(as_canonical_csr(X).data, X.data)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.array(3.0), ValueError, "scalar array"),
        (np.ones(3), ValueError, r"(?s)1D array.*shape \(3,\).*Reshape your data.*reshape\(-1, 1\)"),
        (sparse.coo_array(np.ones(3)), ValueError, "Reshape your data"),
        (np.ones((1, 2, 3)), ValueError, r"got 3D array.*\(1, 2, 3\)"),
        (np.ones((0, 3)), ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1.*empty input"),
        (
            np.ones((3, 0)),
            ValueError,
            r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required\.",
        ),
        (sparse.csr_array((3, 0)), ValueError, r"0 feature\(s\)"),
        (np.array([[1.0, np.nan]]), ValueError, "U contains NaN: 1 entries.*row 0, column 1"),
        (np.array([[1.0], [0.0], [-np.inf]]), ValueError, "U contains inf.*row 2, column 0"),
        (sparse.csr_array([[np.inf, -np.inf], [0, np.nan]]), ValueError, "NaN: 3 entries.*row 0, column 0"),
        (np.array([[1j]]), ValueError, "Complex data not supported: U"),
        (sparse.csr_array([[1j]]), ValueError, "Complex data not supported"),
        (np.array([["a"]]), TypeError, "U must hold real numbers"),
        (np.array([[1]], dtype=object), TypeError, "U must hold real numbers, got dtype object"),
        (np.array([["2020"]], dtype="M8[D]"), TypeError, "real numbers"),
        (np.ma.masked_equal([[1.0, 2.0]], 2.0), TypeError, "masked"),
    ],
)
def test_bad_matrices(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_canonical_csr(X, "U")


@pytest.mark.parametrize("column", [-1, 3, 100])
def test_broken_sparse_arrays_are_found(column: int) -> None:
    X = sparse.csr_array(np.eye(3))
    X.indices[1] = column
    with pytest.raises(ValueError, match="X is not a valid sparse matrix"):
        as_canonical_csr(X)


def test_sum_that_overflows_is_found() -> None:
    twice = (np.array([0, 0]), np.array([0, 0]))
    X = sparse.coo_array((np.full(2, np.finfo(np.float64).max), twice), shape=(1, 1))
    with pytest.raises(ValueError, match="contains inf"):
        as_canonical_csr(X)


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u8"])
def test_index(dtype: str) -> None:
    index = as_index(np.array([2, 0, 1], dtype=dtype), 3)
    assert index.dtype == np.int32
    assert index.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([[0]], ValueError, r"one-dimensional, got shape \(1, 1\)"),
        ([0.0], TypeError, "integers, got dtype float64"),
        ([True], TypeError, "integers, got dtype bool"),
        ([-1, 0], ValueError, r"\[0, 3\).*got -1 to 0"),
        ([0, 3], ValueError, r"\[0, 3\).*got 0 to 3"),
        ([2**40], ValueError, r"\[0, 3\)"),
    ],
)
def test_bad_index(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_index(index, 3)


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(1, 3), slice(None, None, -2), [2, 0, 2, -1], [], [True, False, False, True]],
)
def test_rows_are_chosen_as_numpy_does(rows: Any) -> None:
    chosen = rows if isinstance(rows, slice) or rows else np.zeros(0, int)
    assert as_rows(rows, 4).tolist() == np.arange(4)[chosen].tolist()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (3, TypeError, "rows must be a slice"),
        ([[0]], TypeError, "rows must be a slice"),
        ([0.5], TypeError, "dtype float64"),
        (None, TypeError, "rows must be a slice"),
        ([4], IndexError, r"\[-4, 4\)"),
        ([-5], IndexError, r"\[-4, 4\)"),
        ([True], IndexError, "mask of length 1 for 4 rows"),
    ],
)
def test_bad_rows(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_rows(rows, 4)


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (3, TypeError), (None, TypeError)])
def test_bad_block_names(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="name of a block must"):
        check_block_name(name)


@pytest.mark.parametrize(
    "names",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object), {"a": 1, "b": 2}],
)
def test_feature_names(names: Any) -> None:
    array = as_feature_names(names, 2)
    assert array.dtype == object
    assert array.tolist() == ["a", "b"]
    assert type(array[0]) is str


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("ab", TypeError, "got the string 'ab'"),
        (["a"], ValueError, "expected 2, got 1"),
        (["a", 1], TypeError, "must be strings, got 1"),
        (["a", "a"], ValueError, "must be unique, 'a' occurs more than once"),
    ],
)
def test_bad_feature_names(names: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_feature_names(names, 2)


@pytest.mark.parametrize(
    ("groups", "numbers", "names"),
    [
        (None, [0, 0, 0], ("X",)),
        ([5, 2, 5], [1, 0, 1], ("X:2", "X:5")),
        (np.array([0, 1, 1], dtype=np.uint8), [0, 1, 1], ("X:0", "X:1")),
        (["b", "a", "b"], [0, 1, 0], ("b", "a")),
        (np.array(["b", "a", "b"]), [0, 1, 0], ("b", "a")),
    ],
)
def test_groups(groups: Any, numbers: list[int], names: tuple[str, ...]) -> None:
    group, group_names = as_groups(groups, 3, "X")
    assert group.dtype == np.int32
    assert group.tolist() == numbers
    assert group_names == names


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ("abc", TypeError, "got the string 'abc'"),
        ([0, 1], ValueError, r"expected shape \(3,\), got \(2,\)"),
        ([0, -1, 0], ValueError, "must be >= 0, got -1"),
        ([0.0, 1.0, 2.0], TypeError, "integers or non-empty strings, got 0.0"),
        ([True, False, True], TypeError, "integers or non-empty strings, got True"),
        (["a", "", "b"], TypeError, "non-empty strings, got ''"),
        (["a", 1, "b"], TypeError, "non-empty strings, got 1"),
    ],
)
def test_bad_groups(groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_groups(groups, 3, "X")
