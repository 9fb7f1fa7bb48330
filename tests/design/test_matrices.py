from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy import sparse

from bayesfm.design import design_from_matrix
from tests.design.strategies import coo_arrays


@given(coo_arrays())
def test_one_block_with_the_rows_of_the_matrix(X: sparse.coo_array) -> None:
    for form in (X, X.toarray(), X.toarray().tolist(), X.tocsc()):
        design = design_from_matrix(form)
        np.testing.assert_array_equal(design.to_csr().toarray(), X.toarray())
        (block,) = design.blocks
        assert block.index is None
        assert block.X is not None
        assert block.X.nnz == np.count_nonzero(X.toarray())


def test_names_and_groups() -> None:
    design = design_from_matrix(np.eye(2))
    assert design.feature_names.tolist() == ["x0", "x1"]
    assert design.group_names == ("X",)
    design = design_from_matrix(np.eye(2), feature_names=["a", "b"], groups=["g", "h"], name="words")
    assert design.blocks[0].name == "words"
    assert design.feature_names.tolist() == ["a", "b"]
    assert design.group_names == ("g", "h")
    assert design_from_matrix(np.eye(2), groups=[3, 1]).group_names == ("X:1", "X:3")


def test_float32_stays() -> None:
    block = design_from_matrix(np.eye(2, dtype=np.float32)).blocks[0]
    assert block.X is not None
    assert block.X.dtype == np.float32


def test_numbers_kept_as_objects() -> None:
    X = np.array([[1, 2.5], [True, 0]], dtype=object)
    np.testing.assert_array_equal(design_from_matrix(X).to_csr().toarray(), [[1, 2.5], [1, 0]])


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([1.0, 2.0], ValueError, "Reshape your data"),
        ([[1.0], [1.0, 2.0]], ValueError, "rows of equal length"),
        ([[1.0, {"foo": "bar"}]], TypeError, "argument must be .* string.* number"),
        ([[1.0, None]], ValueError, "X contains NaN"),
        ([["a"]], TypeError, "X must hold real numbers"),
        ([[1j]], ValueError, "Complex data not supported"),
        ([[np.nan]], ValueError, "X contains NaN"),
        ([[np.inf]], ValueError, "X contains inf"),
        ([], ValueError, "1D array"),
        ([[]], ValueError, r"0 feature\(s\) \(shape=\(1, 0\)\) while a minimum of 1 is required\."),
        (np.ones((0, 3)), ValueError, r"0 sample\(s\)"),
        (None, ValueError, "scalar array"),
        (np.ma.masked_equal([[1.0]], 1.0), TypeError, "masked"),
    ],
)
def test_bad_matrices(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        design_from_matrix(X)
