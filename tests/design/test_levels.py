from __future__ import annotations

import json
import subprocess
import sys
import zlib
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design.levels import Kind, Levels, level_hashes, level_names

INT64 = st.integers(-(2**63), 2**63 - 1)
COLUMNS: dict[Kind, st.SearchStrategy[Any]] = {
    "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "int": st.one_of(st.integers(-3, 3), INT64),
    "float": st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False, allow_infinity=False)),
    "bool": st.booleans(),
}
DTYPES = {"int": np.int64, "float": np.float64, "bool": np.bool_}


def column(kind: Kind, values: list[Any], library: Any = pl) -> np.ndarray | nw.Series:
    if kind != "str":
        return np.array(values, dtype=DTYPES[kind])
    return nw.from_native(library.DataFrame({"c": values}))["c"]


@pytest.mark.parametrize("library", [pl, pd])
@pytest.mark.parametrize("kind", ["str", "int", "float", "bool"])
@given(data=st.data())
def test_encode_is_the_naive_look_up(kind: Kind, library: Any, data: st.DataObject) -> None:
    old = data.draw(st.lists(COLUMNS[kind], min_size=1, max_size=12))
    new = data.draw(st.lists(st.one_of(st.sampled_from(old), COLUMNS[kind]), min_size=1, max_size=12))
    levels = Levels.of(kind, column(kind, old, library))
    assert levels.values.tolist() == sorted(set(old))
    index, unseen = levels.encode(column(kind, new, library))
    assert unseen == sorted(set(new) - set(old))
    numbered = levels.values.tolist() + unseen
    assert index.dtype == np.int32
    assert [numbered[i] for i in index] == new

    again = Levels.from_dict(json.loads(json.dumps(levels.to_dict())))
    assert again.kind == kind
    assert again.values.dtype == levels.values.dtype
    assert [type(x) for x in again.values.tolist()] == [type(x) for x in levels.values.tolist()]
    np.testing.assert_array_equal(again.encode(column(kind, new, library))[0], index)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8, np.uint32, np.uint64])
def test_integers_of_every_width_have_the_same_levels(dtype: type) -> None:
    levels = Levels.of("int", np.array([7, 3, 7], dtype=dtype))
    assert levels.values.dtype == np.int64
    assert levels.encode(np.array([3, 7, 5], dtype=np.int64))[1] == [5]


def test_integers_beyond_int64() -> None:
    large = 2**63 + 1  # the next float64 is 2**63: a comparison as floats would confuse the two
    levels = Levels.of("int", np.array([0, large], dtype=np.uint64))
    assert levels.values.tolist() == [0, large]
    index, unseen = levels.encode(np.array([-1, 0, 5], dtype=np.int64))
    assert (index.tolist(), unseen) == ([2, 0, 3], [-1, 5])
    index, unseen = levels.encode(np.array([2**63, large], dtype=np.uint64))
    assert (index.tolist(), unseen) == ([2, 1], [2**63])
    again = Levels.from_dict(json.loads(json.dumps(levels.to_dict())))
    assert again.values.dtype == np.uint64
    assert again.values.tolist() == [0, large]
    mixed = Levels.of("int", np.array([2**53, 2**53 + 1, large], dtype=np.uint64))
    index, unseen = mixed.encode(np.array([2**53 + 1, 2**53 + 2], dtype=np.int64))
    assert (index.tolist(), unseen) == ([1, 3], [2**53 + 2])
    small = Levels.of("int", np.array([-1, 1]))
    assert small.encode(np.array([1, 2**64 - 1], dtype=np.uint64))[1] == [2**64 - 1]


def test_negative_zero_is_zero() -> None:
    levels = Levels.of("float", np.array([-0.0, 0.0, 1.0], dtype=np.float32))
    assert level_names(levels.values) == ["0.0", "1.0"]


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        (["b", "a"], ["b", "a"]),
        (np.array(["b"]), ["b"]),
        ([np.str_("b"), np.int64(3), np.float64(0.1), np.bool_(True)], ["b", "3", "0.1", "True"]),
        (np.array([1, 2]), ["1", "2"]),
        (np.array([0.1, 1e300]), ["0.1", "1e+300"]),
        (np.array([True, False]), ["True", "False"]),
        (pd.Series(["b", "a"]), ["b", "a"]),
        (pl.Series([3, 4]), ["3", "4"]),
        (range(2), ["0", "1"]),
    ],
)
def test_names(levels: Any, names: list[str]) -> None:
    assert level_names(levels) == names


@pytest.mark.parametrize("wrong", [None, 1j, (1,), np.datetime64("2020-01-01")])
def test_levels_of_other_types(wrong: Any) -> None:
    with pytest.raises(TypeError, match="strings, integers, floats or booleans"):
        level_names(["a", wrong])


def test_hashes_are_crc32_of_the_name() -> None:
    hashes = level_hashes(["ann", 17, "ü", True])
    assert hashes.dtype == np.uint32
    assert hashes.tolist() == [zlib.crc32(x.encode()) for x in ("ann", "17", "ü", "True")]
    assert level_hashes([]).dtype == np.uint32
    level_hashes(["\ud800"])  # a lone surrogate, which strict UTF-8 refuses


def test_hashes_are_the_same_in_another_process() -> None:
    code = "from bayesfm.design.levels import level_hashes; print(level_hashes(['ann', 17, 0.1]).tolist())"
    command = [sys.executable, "-c", code]
    outputs = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{level_hashes(['ann', 17, 0.1]).tolist()}\n"}


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="one of str, int, float, bool; got 'date'"):
        Levels.from_dict({"kind": "date", "values": []})
