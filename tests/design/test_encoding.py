from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from scipy import sparse

from bayesfm.design import Block, Design, DesignEncoder, TableEncoder, design_from_matrix
from tests.design.strategies import coo_arrays, designs

FRAME = pl.DataFrame({"user": [1, 2, 2], "age": [0.5, 1.5, 2.5]})


def through_json(encoder: DesignEncoder) -> DesignEncoder:
    return DesignEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))


class ArrayLike:
    """Something that is an array only when asked."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.eye(2)


@given(coo_arrays())
def test_matrices(X: sparse.coo_array) -> None:
    encoder = DesignEncoder(groups=["g"] * X.shape[1])
    for form in (X, X.toarray(), X.tocsc(), X.toarray().tolist()):
        design = encoder.fit_transform(form)
        np.testing.assert_array_equal(design.to_csr().toarray(), X.toarray())
        assert design.group_names == ("g",)
    for again in (encoder, through_json(encoder)):
        one = again.transform(X.toarray()[:1])
        one.check_matches(design.schema)
        np.testing.assert_array_equal(one.to_csr().toarray(), X.toarray()[:1])
        assert again.n_features_in_ == X.shape[1]
        assert again.feature_names_in_ is None


def test_things_that_become_arrays() -> None:
    design = DesignEncoder().fit_transform(ArrayLike())
    np.testing.assert_array_equal(design.to_csr().toarray(), np.eye(2))


@pytest.mark.parametrize("library", [pd, pl])
def test_tables(library: Any) -> None:
    frame = library.DataFrame({"user": [1, 2, 2], "age": [0.5, 1.5, 2.5], "stars": [1.0, 2.0, 1.0]})
    encoder = DesignEncoder(categorical=["stars"], numeric=["user"]).fit(frame)
    expected = TableEncoder(["stars"], ["user"]).fit_transform(frame)
    for again in (encoder, through_json(encoder)):
        design = again.transform(frame)
        design.check_matches(expected.schema)
        np.testing.assert_array_equal(design.to_csr().toarray(), expected.to_csr().toarray())
        assert again.feature_names_in_ is not None
        assert again.feature_names_in_.dtype == object
        assert again.feature_names_in_.tolist() == ["user", "age", "stars"]
        assert again.n_features_in_ == 3
        assert (again.categorical, again.numeric) == (("stars",), ("user",))


@given(designs())
def test_designs_and_lists_of_blocks(design: Design) -> None:
    known = Design(
        [b for b in design.blocks if not len(b.unseen)] or [Block.create("a", np.eye(design.num_rows))]
    )
    encoder = DesignEncoder()
    assert encoder.fit_transform(known) is known
    for again in (encoder, through_json(encoder)):
        assert again.transform(known) is known
        for blocks in (list(known.blocks), known.blocks):
            assert again.transform(blocks).blocks == known.blocks
        assert again.n_features_in_ == known.num_features
        assert again.feature_names_in_ is None


def test_unseen_levels_cannot_be_fitted_but_can_be_transformed() -> None:
    known = Block.field("user", [0, 1], ["ann", "bob"])
    late = Block.field("user", [0, 2], ["ann", "bob"], unseen=["cy"])
    with pytest.raises(ValueError, match=r"unseen levels cannot be fitted: \['user'\]"):
        DesignEncoder().fit([late])
    assert DesignEncoder().fit([known]).transform([late]).blocks[0] is late


def test_blocks_must_match() -> None:
    encoder = DesignEncoder().fit([Block.create("a", [[1.0, 2.0]])])
    with pytest.raises(ValueError, match="block 'a' has 1 features, the fitted one 2"):
        encoder.transform([Block.create("a", [[1.0]])])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (np.eye(2), FRAME, r"X is a DataFrame \(DataFrame\), but was a matrix when fitted"),
        (FRAME, np.eye(2), r"X is a matrix \(ndarray\), but was a DataFrame when fitted"),
        (FRAME, design_from_matrix(np.eye(2)), r"X is a design \(Design\), but was a DataFrame"),
        (
            list(design_from_matrix(np.eye(2)).blocks),
            np.eye(2),
            r"X is a matrix \(ndarray\), but was a design",
        ),
        (np.eye(2), list(design_from_matrix(np.eye(2)).blocks), r"X is a design \(list\), but was a matrix"),
    ],
)
def test_the_kind_must_not_change(old: Any, new: Any, message: str) -> None:
    encoder = DesignEncoder().fit(old)
    for again in (encoder, through_json(encoder)):
        with pytest.raises(TypeError, match=message):
            again.transform(new)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_number_of_columns_must_not_change(columns: int) -> None:
    encoder = DesignEncoder().fit(np.eye(2))
    message = f"X has {columns} features, but DesignEncoder is expecting 2 features as input"
    with pytest.raises(ValueError, match=message):
        encoder.transform(np.ones((2, columns)))


def test_fitting_again_forgets_the_old_kind() -> None:
    encoder = DesignEncoder().fit(FRAME).fit(np.eye(2))
    assert encoder.feature_names_in_ is None
    assert encoder.transform(np.eye(2)).num_features == 2
    assert encoder.fit(np.eye(4)).transform(np.eye(4)).num_features == 4
    assert encoder.fit(FRAME).n_features_in_ == 2
    assert encoder.transform(FRAME).num_features == 3


@pytest.mark.parametrize(
    ("options", "X", "error", "message"),
    [
        (
            {"categorical": ["a"]},
            np.eye(2),
            ValueError,
            "categorical name columns of a DataFrame, but X is a matrix",
        ),
        ({"numeric": ["a"]}, [Block.create("a", [[1]])], ValueError, "numeric name .* but X is a design"),
        (
            {"groups": [0, 1]},
            FRAME,
            ValueError,
            "groups are for the columns of a matrix, but X is a DataFrame",
        ),
        ({"groups": [0, 1]}, design_from_matrix(np.eye(2)), ValueError, "but X is a design"),
        ({"groups": [0]}, np.eye(2), ValueError, "groups must have one entry per feature"),
        ({"categorical": "a"}, FRAME, TypeError, "categorical must be a list"),
        ({}, Block.create("a", [[1]]), TypeError, r"single Block: pass a list, \[block\]"),
        ({}, [Block.create("a", [[1]]), np.eye(2)], TypeError, "element of type ndarray"),
        ({}, np.ones(3), ValueError, "Reshape your data"),
        ({}, pd.Series([1.0, 2.0]), ValueError, "Reshape your data"),
        ({}, pl.LazyFrame({"a": [1]}), TypeError, "collect it first"),
        ({}, np.array([[np.nan]]), ValueError, "NaN"),
    ],
)
def test_bad_input(options: dict[str, Any], X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DesignEncoder(**options).fit(X)


def test_not_fitted() -> None:
    encoder = DesignEncoder()
    assert encoder.feature_names_in_ is None
    assert encoder.n_features_in_ is None
    for call in (lambda: encoder.transform(np.eye(2)), encoder.to_dict):
        with pytest.raises(RuntimeError, match="DesignEncoder is not fitted: call fit first"):
            call()


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="one of table, matrix, blocks; got 'pickle'"):
        DesignEncoder.from_dict({"kind": "pickle"})
