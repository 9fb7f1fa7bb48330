from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher

from bayesfm.encoders import HashedFields
from tests.encoders.rows import Row, as_tokens, entries, frames, full_rows, rows_with_gaps, sizes


def same(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert (ours != theirs).nnz == 0


@given(rows_with_gaps, sizes, st.booleans())
def test_hashes_are_those_of_scikit_learn(rows: list[Row], n_features: int, signed: bool) -> None:
    hasher = FeatureHasher(n_features, alternate_sign=signed)
    expected = hasher.transform([as_tokens(row) for row in rows])
    everything = HashedFields(n_features, signed=signed, compact=False).transform(rows)
    assert everything.shape == expected.shape
    assert entries(everything) == entries(expected)
    if not everything.nnz:
        return
    encoder = HashedFields(n_features, signed=signed)
    X = encoder.fit_transform(rows)
    assert entries(X, encoder.columns_) == entries(expected)
    assert X.shape == (len(rows), len(encoder.columns_))
    assert set(encoder.columns_.tolist()) == {column for _, column in entries(expected)}


def test_integers_as_numbers_are_scikit_learns_rows() -> None:
    rows = [{"dog": 1, "cat": 2, "kind": "x"}, {"dog": 2, "run": -5}, {"dog": 0.5, "cat": 0}]
    expected = FeatureHasher(64, alternate_sign=False).transform(rows)
    same(HashedFields(64, integers="numbers", compact=False).transform(rows), expected)


@settings(max_examples=25)  # data frames take their time
@given(full_rows, st.sampled_from([16, 1 << 20]))
def test_all_ways_to_give_rows_agree(rows: list[Row], n_features: int) -> None:
    encoder = HashedFields(n_features)
    X = encoder.fit_transform(rows)
    pairs = [list(row.items()) for row in rows]
    for other in (pairs, [[list(pair) for pair in row] for row in pairs], *frames(rows), iter(rows)):
        again = HashedFields(n_features)
        same(again.fit_transform(other), X)
        assert again.columns_.tolist() == encoder.columns_.tolist()
        assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    levels = [{field: x for field, x in row.items() if field != "age"} for row in rows]
    strings = [list(as_tokens(row)) for row in levels]
    same(HashedFields(n_features).fit_transform(strings), HashedFields(n_features).fit_transform(levels))


@given(rows_with_gaps, st.randoms(use_true_random=False))
def test_order_within_a_row_makes_no_difference(rows: list[Row], random: Any) -> None:
    shuffled = [dict(random.sample(list(row.items()), len(row))) for row in rows]
    first, second = HashedFields(64), HashedFields(64)
    same(first.fit_transform(rows), second.fit_transform(shuffled))
    assert first.columns_.tolist() == second.columns_.tolist()
    assert first.get_feature_names_out().tolist() == second.get_feature_names_out().tolist()


@pytest.mark.parametrize("library", [pd, pl])
def test_kinds_of_columns_of_a_data_frame(library: Any) -> None:
    rows = [
        {"a": "x", "b": 7, "c": True, "d": 0.5, "e": 2.5},
        {"a": "y", "b": 8, "c": False, "d": 2.0, "e": 2.5},
    ]
    frame = library.DataFrame(rows)
    options: dict[str, Any] = {"numeric": ["b", "c"], "categorical": ["e"]}
    encoder = HashedFields(**options)
    X = encoder.fit_transform(frame)
    # In the order of their hashed columns within the first row.
    assert set(encoder.get_feature_names_out()) == {"a=x", "a=y", "b", "c", "d", "e=2.5"}
    order = [encoder.column_of(name) for name in ("a=x", "a=y", "b", "c", "d", "e=2.5")]
    assert X[:, order].toarray().tolist() == [[1, 0, 7, 1, 0.5, 1], [0, 1, 8, 0, 2, 1]]
    same(HashedFields(**options).fit_transform(rows), X)


def test_categories_and_float32() -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"]), "b": np.array([0.1, 2], np.float32)})
    rows = [{"a": "x", "b": np.float32(0.1)}, {"a": "y", "b": np.float32(2)}]
    for options in ({}, {"categorical": ["b"]}):
        encoder = HashedFields(**options)  # type: ignore[arg-type]
        same(encoder.fit_transform(frame), HashedFields(**options).fit_transform(rows))  # type: ignore[arg-type]


def test_missing_values() -> None:
    rows = [{"a": "x", "b": 0.5}, {"a": None, "b": 1.5}, {"a": "y", "b": float("nan")}]
    for given_as in (rows, pd.DataFrame(rows), pl.DataFrame(rows)):
        with pytest.raises(ValueError, match=r"missing"):
            HashedFields().fit(given_as)
        encoder = HashedFields(missing="ignore")
        X = encoder.fit_transform(given_as)
        order = [encoder.column_of(name) for name in ("a=x", "a=y", "b")]
        assert X[:, order].toarray().tolist() == [[1, 0, 0.5], [0, 0, 1.5], [0, 1, 0]]
    with pytest.raises(ValueError, match=r"row 1 of X \(counted from 0\): field 'a' is missing"):
        HashedFields().fit(rows)


def test_a_frame_of_missing_values_alone_has_empty_rows() -> None:
    frame = pl.DataFrame({"a": pl.Series([None, None], dtype=pl.String)})
    with pytest.raises(
        ValueError, match=r"row 0 of X .* has no fields, and so have 1 more.*empty=\"ignore\""
    ):
        HashedFields(missing="ignore").fit(frame)


def test_fields_of_columns_are_groups() -> None:
    rows = [{"os": "Linux", "age": 0.5}, {"os": "Plan 9"}]
    encoder = HashedFields().fit(rows)
    expected = [name.partition("=")[0] for name in encoder.get_feature_names_out()]
    assert encoder.get_fields_out().tolist() == expected
    assert HashedFields(3, compact=False).get_fields_out().tolist() == ["#"] * 3


def test_binary_counts_nothing_twice() -> None:
    rows = [["os=Linux", "os=Linux", "a=1"]]
    encoder = HashedFields()
    X = encoder.fit_transform(rows)
    assert X[0, encoder.column_of("os=Linux")] == 2
    assert HashedFields(binary=True).fit_transform(rows).toarray().tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="binary=True is for indicators, but field 'age' is a number"):
        HashedFields(binary=True).fit([{"age": 0.5}])
    with pytest.raises(ValueError, match="binary=True is for indicators, but field 'age' is a number"):
        HashedFields(binary=True).fit(pd.DataFrame({"age": [0.5]}))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"a": "x"}, {1: "x"}], TypeError, r"row 1 of X .*: fields must be strings, got 1 \(int\)"),
        ([{1: 2.0}], TypeError, r"row 0 of X .*: fields must be strings, got 1"),
        ([[("a", "x"), (b"a", "x")]], TypeError, r"fields must be strings, got b'a'"),
        (
            [["a=x", 3]],
            TypeError,
            r"row 0 .* expected \(field, value\) pairs, or 'field=value' strings alone; got",
        ),
        ([[("a", "x", "y")]], TypeError, r"got \('a', 'x', 'y'\)"),
        (["a=x"], TypeError, r"row 0 .* expected a dictionary or a list, got 'a=x': write \['a=x'\]"),
        ([3], TypeError, r"row 0 .* expected a dictionary or a list, got 3"),
        ("a=x", TypeError, r"a sequence of rows .* got str"),
        ({"a": "x"}, TypeError, r"a sequence of rows .* got dict"),
        (np.eye(2), TypeError, r"a sequence of rows .* got ndarray"),
        (3, TypeError, r"a sequence of rows .* got int"),
        ([{"a": datetime.date(2020, 1, 1)}], TypeError, r"field 'a' has a value of type date .*convert it"),
        ([{"a": 1j}], TypeError, r"field 'a' has a value of type complex"),
        ([{"a": float("inf")}], ValueError, r"row 0 .*field 'a' is not finite \(inf\)"),
        ([{"a": "x"}, {}], ValueError, r'row 1 of X .* has no fields: drop .*empty="ignore"'),
        ([], ValueError, "X has no rows"),
        ([{"a": "\ud800"}], ValueError, "no valid Unicode"),
    ],
)
def test_rows_that_are_none(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HashedFields().fit(rows)
    with pytest.raises(error, match=message):
        HashedFields(compact=False).transform(rows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"integers": "levels"}, ValueError, "integers must be one of 'ids', 'numbers'"),
        ({"missing": "skip"}, ValueError, "missing must be one of"),
        ({"numeric": "age"}, TypeError, "numeric must be a list of column names"),
        ({"numeric": ["a"], "categorical": ["a"]}, ValueError, "categorical and numeric at once"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HashedFields(**options).fit([{"a": "x"}])


def test_numeric_fields_take_no_strings() -> None:
    for row in ({"age": "ten"}, {"age": "ten", "b": 1}):
        with pytest.raises(TypeError, match=r"row 0 .*field 'age' is numeric, but has the value 'ten'"):
            HashedFields(numeric=["age"]).fit([row])
    with pytest.raises(ValueError, match=r"numeric names columns that X does not have: \['age'\]"):
        HashedFields(numeric=["age"]).fit(pd.DataFrame({"a": ["x"]}))


@pytest.mark.parametrize("rows", [[{"age": 30.5}, {"age": 31}], [[("age", 31)], [("age", np.float32(30.5))]]])
def test_a_field_is_not_a_number_here_and_an_id_there(rows: list[Any]) -> None:
    with pytest.raises(
        TypeError, match=r"row 1 .*'age' has floats, which are numbers, and integers, which are ids"
    ):
        HashedFields(compact=False).transform(rows)
    assert HashedFields(numeric=["age"]).fit(rows).get_feature_names_out().tolist() == ["age"]
    assert HashedFields(integers="numbers").fit(rows).get_feature_names_out().tolist() == ["age"]
    names = HashedFields(categorical=["age"]).fit(rows).get_feature_names_out()
    assert set(names) == {"age=30.5", "age=31"}


@pytest.mark.parametrize("as_given", [list, pd.DataFrame, pl.DataFrame])
def test_a_field_stays_what_it_was_in_fit(as_given: Any) -> None:
    floats, integers = as_given([{"a": "x", "age": 30.5}]), as_given([{"a": "x", "age": 31}])
    was_number = r"field 'age' was a number in fit, and now has integers"
    was_id = r"field 'age' had integers in fit, which are ids, and now has floats"
    for first, second, message in ((floats, integers, was_number), (integers, floats, was_id)):
        encoder = HashedFields().fit(first)
        for call in (encoder.transform, encoder.transform_with_unseen, encoder.partial_fit):
            with pytest.raises(TypeError, match=message):
                call(second)
        assert encoder.transform(first).shape == (1, 2)
        assert encoder.fit_transform(second).shape == (1, 2), "fit begins anew"
        assert HashedFields(numeric=["age"]).fit(first).transform(second).nnz == 2
    # A field that is new, or has words and numbers by turns, is neither.
    encoder = HashedFields().fit(as_given([{"a": "x"}]))
    assert encoder.partial_fit(as_given([{"a": 0.5, "b": 1.5}])).transform(as_given([{"b": 2.5}])).nnz == 1


def test_a_row_without_fields_may_be_a_row_of_zeros() -> None:
    X = HashedFields(empty="ignore").fit_transform([{"a": "x"}, {}, {"b": 0.0}])
    assert X.toarray().tolist() == [[1], [0], [0]]
