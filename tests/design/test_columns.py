"""Columns of types that need a second look: dates, intervals, Python objects, floats of two widths."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bayesfm.design import Block, Design, TableEncoder

DAYS = [datetime.date(2020, 1, 10), datetime.date(1969, 2, 3)]
DATES = {
    "pandas, s": pd.DataFrame({"day": pd.to_datetime(DAYS).astype("datetime64[s]")}),
    "pandas, ns": pd.DataFrame({"day": pd.to_datetime(DAYS).astype("datetime64[ns]")}),
    "pandas, Python": pd.DataFrame({"day": pd.Series(DAYS, dtype=object)}),
    "pandas, category": pd.DataFrame({"day": pd.Categorical(pd.to_datetime(DAYS))}),
    "pandas, pyarrow": pd.DataFrame({"day": pd.Series(DAYS, dtype="date32[pyarrow]")}),
    "polars, date": pl.DataFrame({"day": DAYS}),
    "polars, datetime": pl.DataFrame({"day": DAYS}).cast(pl.Datetime("ms")),
    "pyarrow": pa.table({"day": DAYS}),
}


@pytest.mark.parametrize("name", DATES)
def test_declared_dates_are_the_same_levels_in_all_libraries(name: str) -> None:
    encoder = TableEncoder(categorical=["day"]).fit(DATES[name])
    encoder = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    for frame in DATES.values():
        (block,) = encoder.transform(frame).blocks
        assert block.feature_names.tolist() == ["day=1969-02-03", "day=2020-01-10"]
        assert block.index is not None
        assert block.index.tolist() == [1, 0]


def test_names_of_times() -> None:
    texts = ["2020-01-10", "2020-01-10T10:00:00", "2020-01-10T10:20:30.05", "2020-01-10T00:00:00.000000001"]
    frame = pd.DataFrame({"t": np.array(texts, "datetime64[ns]")})
    names = TableEncoder(categorical=["t"]).fit_transform(frame).feature_names.tolist()
    assert names == [f"t={x}" for x in sorted(texts)]


@pytest.mark.parametrize("name", [x for x in DATES if x not in ("pandas, Python", "pandas, category")])
def test_dates_that_nobody_declared(name: str) -> None:
    message = r"column 'day' has dtype Date.* number of days, .* can be named in categorical="
    for options in ({}, {"numeric": ["day"]}):
        with pytest.raises(TypeError, match=message):
            TableEncoder(**options).fit(DATES[name])


def test_missing_dates() -> None:
    with pytest.raises(ValueError, match="categorical column 'day' contains 1 missing"):
        TableEncoder(categorical=["day"]).fit(pd.DataFrame({"day": pd.to_datetime(["2020-01-10", None])}))


def test_intervals_are_categories() -> None:
    frame = pd.DataFrame({"age": pd.cut([15.0, 40.0, 3.0], [0, 18, 65])})
    encoder = TableEncoder().fit(frame)
    (block,) = encoder.transform(frame).blocks
    assert block.feature_names.tolist() == ["age=(0, 18]", "age=(18, 65]"]
    assert block.index is not None
    assert block.index.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="'age' contains 1 missing"):
        encoder.transform(pd.DataFrame({"age": pd.cut([15.0, 70.0], [0, 18, 65])}))


@pytest.mark.parametrize("options", [{}, {"categorical": ["user"]}])
def test_integers_as_python_objects(options: dict[str, Any]) -> None:
    ids = [7, -(2**63), 2**63 - 1]
    encoder = TableEncoder(**options).fit(pd.DataFrame({"user": pd.Series(ids, dtype=object)}))
    (block,) = encoder.transform(pd.DataFrame({"user": np.array(ids)})).blocks
    assert block.feature_names.tolist() == [f"user={x}" for x in sorted(ids)]
    assert block.index is not None
    assert block.index.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.arrays.SparseArray([0.0, 1.0]), r"dtype Sparse\[float64.*X\.sparse\.to_coo\(\)"),
        (np.array([1j, 2j]), r"dtype complex128.*to float.*\.astype\(str\)"),
        (pd.period_range("2020-01", periods=2, freq="M"), r"dtype period\[M\].*\.astype\(str\)"),
        (pd.to_timedelta([1, 2]), r"dtype Duration.*\.astype\(str\)"),
    ],
)
def test_types_without_a_meaning_are_named(values: Any, message: str) -> None:
    for options in ({}, {"categorical": ["c"]}, {"numeric": ["c"]}):
        with pytest.raises(TypeError, match=f"column 'c' has {message}"):
            TableEncoder(**options).fit(pd.DataFrame({"c": values}))


FLOATS = [0.1, 0.5, 0.3]


@pytest.mark.parametrize(("fitted", "new"), [("f8", "f4"), ("f4", "f8"), ("f8", "f2"), ("f4", "f2")])
def test_floats_of_another_width_do_not_become_unseen(fitted: str, new: str) -> None:
    """As float32 and as float64, 0.1 are two numbers: all but 0.5 would be levels never seen."""
    encoder = TableEncoder(categorical=["c"]).fit(pd.DataFrame({"c": np.array(FLOATS, fitted)}))
    encoder = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    bits = 8 * np.dtype(fitted).itemsize
    with pytest.raises(TypeError, match=f"column 'c' holds float.*convert the column to float{bits}"):
        encoder.transform(pd.DataFrame({"c": np.array(FLOATS, new)}))
    (block,) = encoder.transform(pd.DataFrame({"c": np.array(FLOATS, fitted)})).blocks
    assert len(block.unseen) == 0


@pytest.mark.parametrize(("fitted", "new"), [("f8", "f4"), ("f4", "f8"), ("f2", "f8")])
def test_floats_that_are_exact_in_both_widths_match(fitted: str, new: str) -> None:
    encoder = TableEncoder(categorical=["stars"]).fit(pl.DataFrame({"stars": np.array([0.5, 4.0], fitted)}))
    (block,) = encoder.transform(pl.DataFrame({"stars": np.array([4.0, 3.5, 0.5], new)})).blocks
    assert block.index is not None
    assert block.index.tolist() == [1, 2, 0]


def test_fields_of_other_levels_say_how_new_ones_are_passed() -> None:
    fitted = Design([Block.field("user", [0, 1, 2], ["ann", "bob", "cy"])])
    new = Design([Block.field("user", [0, 1], ["ann", "zoe"])])
    with pytest.raises(
        ValueError, match=r"block 'user' has 2 features, the fitted one 3: .*levels=.*unseen="
    ):
        new.check_matches(fitted.schema)
    Design([Block.field("user", [0, 3], ["ann", "bob", "cy"], unseen=["zoe"])]).check_matches(fitted.schema)
