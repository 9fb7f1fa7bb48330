"""Rows of fields for the encoders, in all the ways in which they can be given, and a reference by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import strategies as st

FIELDS = ("os", "city", "user", "flag", "age", "x=y")

VALUES = {
    "os": st.sampled_from(["Linux", "Plan 9", "", "ü", "a=b"]),
    "city": st.text(max_size=3),
    "user": st.integers(-3, 2**40),
    "flag": st.booleans(),
    "age": st.sampled_from([-1.5, 0.25, 3.0, 1e6]),
    "x=y": st.sampled_from(["z", "w"]),
}
"""Of one type each, so that they can be the columns of a DataFrame."""

Row = dict[str, Any]

full_rows = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=8)
rows_with_gaps = st.lists(
    st.dictionaries(st.sampled_from(FIELDS), st.none(), min_size=1).flatmap(
        lambda row: st.fixed_dictionaries({field: VALUES[field] for field in row})
    ),
    min_size=1,
    max_size=8,
)
sizes = st.sampled_from([1, 3, 16, 1 << 10, 1 << 20, (1 << 22) + 1, (1 << 31) - 1])


def token(field: str, value: Any) -> tuple[str, float]:
    """Token and value of one entry."""
    return (field, value) if isinstance(value, float) else (f"{field}={value}", 1.0)


def entries(X: Any, columns: np.ndarray | None = None) -> dict[tuple[int, int], float]:
    """What is stored in a sparse matrix, zeros left out; columns under the names that ``columns`` gives them.

    (To index the columns of a matrix with 2**31 of them SciPy makes arrays of that length.)
    """
    X = X.tocoo()
    names = X.col if columns is None else columns[X.col]
    out = dict(zip(zip(X.row.tolist(), names.tolist(), strict=True), X.data.tolist(), strict=True))
    assert len(out) == X.nnz
    return {place: value for place, value in out.items() if value}


def as_tokens(row: Row) -> dict[str, float]:
    return dict(token(field, value) for field, value in row.items())


def frames(rows: list[Row]) -> list[Any]:
    return [pd.DataFrame(rows), pl.DataFrame(rows)]
