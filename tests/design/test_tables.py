from __future__ import annotations

import datetime
import decimal
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design import Design, TableEncoder
from bayesfm.design.levels import level_hashes

LIBRARIES = [pd.DataFrame, pl.DataFrame, pa.table]
TABLE: dict[str, list[Any]] = {
    "user": [7, 10, 9, 7],
    "film": ["Brazil", "Alien", "Brazil", "Ülo"],
    "seen": [True, False, True, True],
    "age": [0.5, 0.0, 2.0, -1.0],
    "height": [1.0, 2.0, 3.0, 4.0],
}


def same(a: Design, b: Design) -> None:
    """The same blocks, entry by entry."""
    a.check_matches(b.schema)
    for x, y in zip(a.blocks, b.blocks, strict=True):
        np.testing.assert_array_equal(x.unseen, y.unseen)
        np.testing.assert_array_equal(x.expand().toarray(), y.expand().toarray())
        assert (x.index is None) == (y.index is None)
        if x.index is not None:
            np.testing.assert_array_equal(x.index, y.index)


@pytest.mark.parametrize("frame", LIBRARIES)
def test_default_roles(frame: Any) -> None:
    design = TableEncoder().fit_transform(frame(TABLE))
    assert [b.name for b in design.blocks] == ["user", "film", "seen", "numeric"]
    assert [b.is_field for b in design.blocks] == [True, True, True, False]
    assert design.group_names == ("user", "film", "seen", "numeric")
    names = [
        "user=7",
        "user=9",
        "user=10",
        "film=Alien",
        "film=Brazil",
        "film=Ülo",
        "seen=False",
        "seen=True",
    ]
    assert design.feature_names.tolist() == [*names, "age", "height"]
    expected = [
        [1, 0, 0, 0, 1, 0, 0, 1, 0.5, 1],
        [0, 0, 1, 1, 0, 0, 1, 0, 0.0, 2],
        [0, 1, 0, 0, 1, 0, 0, 1, 2.0, 3],
        [1, 0, 0, 0, 0, 1, 0, 1, -1.0, 4],
    ]
    np.testing.assert_array_equal(design.to_csr().toarray(), expected)


@pytest.mark.parametrize("frame", LIBRARIES)
def test_roles_can_be_declared(frame: Any) -> None:
    encoder = TableEncoder(categorical=["height"], numeric=["user", "seen"])
    design = encoder.fit_transform(frame(TABLE))
    assert [b.name for b in design.blocks] == ["film", "height", "numeric"]
    assert design.blocks[1].feature_names.tolist() == ["height=1.0", "height=2.0", "height=3.0", "height=4.0"]
    assert design.blocks[2].feature_names.tolist() == ["user", "seen", "age"]
    expected = [[7, 1, 0.5], [10, 0, 0], [9, 1, 2], [7, 1, -1]]
    np.testing.assert_array_equal(design.blocks[2].expand().toarray(), expected)


ROWS = st.lists(
    st.tuples(
        st.integers(-5, 5), st.sampled_from(["a", "b", "", "ß", "A"]), st.floats(-1e9, 1e9), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


@given(ROWS, ROWS)
def test_all_libraries_give_the_same_design_also_after_json(train: list[Any], test: list[Any]) -> None:
    names = ["id", "s", "x", "b"]
    old, new = (
        {c: list(v) for c, v in zip(names, zip(*rows, strict=True), strict=True)} for rows in (train, test)
    )
    first = TableEncoder().fit(pd.DataFrame(old))
    expected = first.transform(pd.DataFrame(new))
    for k, block in enumerate(expected.blocks[:3]):
        levels = sorted(set(old[name := ["id", "s", "b"][k]]))
        values = levels + sorted(set(new[name]) - set(levels))
        assert block.index is not None
        assert [values[i] for i in block.index] == new[name]
        assert block.unseen.tolist() == level_hashes(values[len(levels) :]).tolist()
    for frame in LIBRARIES:
        encoder = TableEncoder().fit(frame(old))
        same(encoder.transform(frame(new)), expected)
        again = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
        assert again.columns == encoder.columns
        same(again.transform(frame(new)), expected)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["b", "a", "b"], dtype=object),
        pd.Series(["b", "a", "b"], dtype="string"),
        pd.Series(["b", "a", "b"], dtype="category"),
        pd.Series(pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"], ordered=True)),
        pl.Series(["b", "a", "b"], dtype=pl.Categorical),
        pl.Series(["b", "a", "b"], dtype=pl.Enum(["c", "b", "a"])),
    ],
)
def test_every_kind_of_string_column(values: Any) -> None:
    frame = (pd if isinstance(values, pd.Series) else pl).DataFrame({"c": values})
    (block,) = TableEncoder().fit_transform(frame).blocks
    assert block.feature_names.tolist() == ["c=a", "c=b"]
    assert block.index is not None
    assert block.index.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([3, 2, 3], dtype="int8"),
        pd.Series([3, 2, 3], dtype="Int64"),
        pd.Series([3, 2, 3], dtype="category"),
        pd.Series([3, 2, 3], dtype="int64[pyarrow]"),
        pl.Series([3, 2, 3], dtype=pl.UInt16),
    ],
)
def test_every_kind_of_integer_column(values: Any) -> None:
    frame = (pd if isinstance(values, pd.Series) else pl).DataFrame({"c": values})
    encoder = TableEncoder().fit(frame)
    (block,) = encoder.transform(pd.DataFrame({"c": [2, 3, 4]})).blocks
    assert block.feature_names.tolist() == ["c=2", "c=3"]
    assert block.index is not None
    assert block.index.tolist() == [0, 1, 2]


def test_other_categories_and_booleans() -> None:
    frame = pd.DataFrame({"f": pd.Categorical([0.5, 1.5]), "b": pd.array([True, False], dtype="boolean")})
    design = TableEncoder().fit_transform(frame)
    assert design.feature_names.tolist() == ["f=0.5", "f=1.5", "b=False", "b=True"]


def test_half_precision_floats_are_numeric() -> None:
    design = TableEncoder().fit_transform(pd.DataFrame({"x": np.array([0.5, 1.0], np.float16)}))
    assert design.blocks[0].name == "numeric"


def test_one_row_and_one_column() -> None:
    design = TableEncoder().fit_transform(pl.DataFrame({"user": ["ann"]}))
    assert design.to_csr().toarray().tolist() == [[1.0]]
    design = TableEncoder().fit_transform(pl.DataFrame({"x": [0.0]}))
    assert design.to_csr().toarray().tolist() == [[0.0]]


@pytest.mark.parametrize("frame", LIBRARIES)
def test_unseen_levels(frame: Any) -> None:
    encoder = TableEncoder().fit(frame({"user": ["ann", "bob"]}))
    (block,) = encoder.transform(frame({"user": ["zoe", "bob", "cy", "zoe"]})).blocks
    assert block.index is not None
    assert block.index.tolist() == [3, 1, 2, 3]
    assert block.unseen.tolist() == level_hashes(["cy", "zoe"]).tolist()
    np.testing.assert_array_equal(block.expand().toarray(), [[0, 0], [0, 1], [0, 0], [0, 0]])
    assert len(encoder.transform(frame({"user": ["ann"]})).blocks[0].unseen) == 0


def test_columns_are_taken_by_name() -> None:
    encoder = TableEncoder().fit(pd.DataFrame(TABLE))
    shuffled = pl.DataFrame({c: TABLE[c] for c in reversed(TABLE)})
    same(encoder.transform(shuffled), encoder.transform(pd.DataFrame(TABLE)))


def test_fitting_again_forgets_the_old_columns() -> None:
    encoder = TableEncoder().fit(pl.DataFrame({"a": [1], "b": [2]})).fit(pl.DataFrame({"b": [3]}))
    assert encoder.columns == ("b",)
    assert encoder.transform(pl.DataFrame({"b": [3]})).feature_names.tolist() == ["b=3"]


def test_failed_fit_keeps_what_was_learned() -> None:
    encoder = TableEncoder().fit(pl.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="missing"):
        encoder.fit(pl.DataFrame({"b": [1, None]}))
    assert encoder.columns == ("a",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1]}, "Feature names seen at fit time, yet now missing:\n- age\n"),
        ({"user": [1], "age": [0.5], "b": [1], "a": [1]}, "Feature names unseen at fit time:\n- a\n- b\n"),
        (
            {"user": [1], "Age": [0.5]},
            "Feature names unseen at fit time:\n- Age\n"
            "Feature names seen at fit time, yet now missing:\n- age\n",
        ),
    ],
)
def test_missing_and_unknown_columns(columns: dict[str, list[Any]], message: str) -> None:
    encoder = TableEncoder().fit(pl.DataFrame({"user": [1, 2], "age": [0.5, 1.0]}))
    start = "The feature names should match those that were passed during fit.\n"
    with pytest.raises(ValueError, match=re.escape(start + message)):
        encoder.transform(pl.DataFrame(columns))


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ([1, 2], ["1", "2"], "'str', but 'int'"),
        (["1", "2"], [1, 2], "'int', but 'str'"),
        ([1, 2], [True, False], "'bool', but 'int'"),
        ([True, False], [1, 0], "'int', but 'bool'"),
        ([1, 2], [1.5, 2.0], "'float', but 'int'"),
        ([1, 2], [1e30, 2.0], "'float', but 'int'"),
    ],
)
@pytest.mark.parametrize("frame", LIBRARIES)
def test_changed_types(frame: Any, old: list[Any], new: list[Any], kinds: str) -> None:
    encoder = TableEncoder(categorical=["c"]).fit(frame({"c": old}))
    with pytest.raises(TypeError, match=f"column 'c' holds values of kind {kinds} when fitted"):
        encoder.transform(frame({"c": new}))


def test_whole_floats_match_integers_and_back() -> None:
    encoder = TableEncoder().fit(pl.DataFrame({"c": [1, 2]}))
    (block,) = encoder.transform(pl.DataFrame({"c": [2.0, 3.0]})).blocks
    assert block.index is not None
    assert block.index.tolist() == [1, 2]
    assert block.unseen.tolist() == level_hashes([3]).tolist()
    encoder = TableEncoder(categorical=["c"]).fit(pl.DataFrame({"c": [1.0, 2.0]}))
    (block,) = encoder.transform(pl.DataFrame({"c": [2, 3]})).blocks
    assert block.index is not None
    assert block.index.tolist() == [1, 2]
    assert block.unseen.tolist() == level_hashes([3.0]).tolist()
    with pytest.raises(TypeError, match="'int', but 'float'"):
        encoder.transform(pl.DataFrame({"c": [2**53 + 1]}))  # no float has this value


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pd.DataFrame({"c": ["a", None, None]}),
            "categorical column 'c' contains 2 missing .*NaN.*such as 'missing'",
        ),
        (pd.DataFrame({"c": pd.Series(["a", NAN], dtype=object)}), "'c' contains 1 missing"),
        (pd.DataFrame({"c": pd.Categorical(["a", None])}), "'c' contains 1 missing"),
        (pd.DataFrame({"c": pd.array([1, None], dtype="Int64")}), "'c' contains 1 missing"),
        (pl.DataFrame({"c": [1, None]}), "'c' contains 1 missing"),
        (pl.DataFrame({"c": [None, None]}), "'c' contains 2 missing"),
        (pl.DataFrame({"c": [True, None]}), "'c' contains 1 missing"),
        (pa.table({"c": ["a", None]}), "'c' contains 1 missing"),
        (pl.DataFrame({"x": [1.0, None]}), "numeric column 'x' contains 1 missing .*indicator"),
        (pl.DataFrame({"x": [1.0, NAN, NAN]}), "numeric column 'x' contains 2 missing"),
        (pd.DataFrame({"x": [1.0, NAN]}), "numeric column 'x' contains 1 missing"),
        (pd.DataFrame({"x": [1.0, INF]}), r"numeric column 'x' contains 1 infinite values \(inf\)"),
        (pl.DataFrame({"f": [1.0, NAN]}), "categorical column 'f' contains 1 missing"),
        (pl.DataFrame({"f": [1.0, -INF]}), "categorical column 'f' contains 1 infinite"),
        (pl.DataFrame({"n": [1, None]}), "numeric column 'n' contains 1 missing"),
    ],
)
def test_missing_and_infinite_values(frame: Any, message: str) -> None:
    declared = {
        "categorical": [c for c in ("f",) if c in frame],
        "numeric": [c for c in ("n",) if c in frame],
    }
    if isinstance(frame, pa.Table):
        declared = {}
    with pytest.raises(ValueError, match=message):
        TableEncoder(**declared).fit(frame)
    (name,) = frame.columns if not isinstance(frame, pa.Table) else frame.column_names
    good = pl.DataFrame({name: [1.0, 2.0] if name in "xf" else [1, 2]})
    with pytest.raises(ValueError, match=message):
        TableEncoder(**declared).fit(good).transform(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"c": [datetime.timedelta(1)]}),
        pd.DataFrame({"c": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}),
        pl.DataFrame({"c": [[1]]}),
        pl.DataFrame({"c": [b"a"]}),
        pl.DataFrame({"c": ["1.5"]}).select(pl.col("c").cast(pl.Decimal(4, 1))),
        pl.DataFrame({"c": pl.Series([1], dtype=pl.Int128)}),
        pd.DataFrame({"c": pd.Series([1, "a"], dtype=object)}),
        pd.DataFrame({"c": pd.Series([1, True], dtype=object)}),
        pd.DataFrame({"c": pd.Series([2**64], dtype=object)}),
        pd.DataFrame({"c": pd.Series([decimal.Decimal(1)])}),
        pd.DataFrame({"c": pd.Series([datetime.date(2020, 1, 1), 1], dtype=object)}),
    ],
)
def test_other_types_of_columns(frame: Any) -> None:
    for declared in ({}, {"categorical": ["c"]}, {"numeric": ["c"]}):
        with pytest.raises(TypeError, match=r"column 'c' has dtype .* (convert it|let it be categorical)"):
            TableEncoder(**declared).fit(frame)


@pytest.mark.parametrize("values", [["a"], pd.Categorical(["a"])])
def test_strings_are_no_numbers(values: Any) -> None:
    with pytest.raises(
        TypeError, match=r"numeric column 'c' has dtype .* which is no number: convert it to float"
    ):
        TableEncoder(numeric=["c"]).fit(pd.DataFrame({"c": values}))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.eye(2), TypeError, "X must be a DataFrame .* got ndarray"),
        (pl.Series([1]), TypeError, "X must be a DataFrame .* got Series"),
        (pl.LazyFrame({"a": [1]}), TypeError, "collect it first"),
        (pd.DataFrame(np.eye(2)), TypeError, "column names must be strings, got 0"),
        (pd.DataFrame(np.eye(2), columns=["a", "a"]), ValueError, "column names must be unique"),
        (pl.DataFrame({"a": []}), ValueError, r"0 sample\(s\) \(shape=\(0, 1\)\).*empty input"),
        (
            pd.DataFrame(index=[0, 1]),
            ValueError,
            r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1 is required\.",
        ),
        (
            pl.DataFrame({"numeric": [1], "x": [0.5]}),
            ValueError,
            "'numeric' has the name of the block.*rename it",
        ),
    ],
)
def test_bad_frames(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TableEncoder().fit(X)


def test_a_column_may_be_called_numeric_where_there_is_no_clash() -> None:
    design = TableEncoder().fit_transform(pl.DataFrame({"numeric": [1, 2]}))
    assert design.blocks[0].feature_names.tolist() == ["numeric=1", "numeric=2"]
    design = TableEncoder().fit_transform(pl.DataFrame({"numeric": [1.0, 2.0]}))
    assert design.feature_names.tolist() == ["numeric"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"categorical": "user"}, TypeError, r"categorical must be a list.*write \['user'\]"),
        ({"numeric": [1]}, TypeError, r"numeric must be a list of column names \(strings\), got 1"),
        ({"numeric": [None]}, TypeError, "got None"),
        ({"categorical": ["a"], "numeric": ["a", "b"]}, ValueError, r"at once: \['a'\]"),
        (
            {"categorical": ["user", "nobody"]},
            ValueError,
            r"categorical names .*not have: \['nobody'\]; X has \['user'\]",
        ),
        ({"numeric": ["nobody"]}, ValueError, r"numeric names columns that X does not have: \['nobody'\]"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TableEncoder(**options).fit(pl.DataFrame({"user": [1]}))


def test_not_fitted() -> None:
    with pytest.raises(RuntimeError, match="TableEncoder is not fitted: call fit first"):
        TableEncoder().transform(pl.DataFrame({"a": [1]}))
