"""Columns of a DataFrame of any library, as arrays; all of narwhals that the encoders need."""

from __future__ import annotations

from datetime import date
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from jaxtyping import Float64, Shaped
from narwhals.exceptions import DuplicateError

from bayesfm.design.levels import Kind

__all__ = ["as_frame", "categorical_values", "column_like", "is_numeric_by_default", "numeric_values"]

_INTEGERS = (nw.Int8, nw.Int16, nw.Int32, nw.Int64, nw.UInt8, nw.UInt16, nw.UInt32, nw.UInt64)
_INT64 = 1 << 63


def as_frame(X: Any) -> nw.DataFrame | None:
    """X as a narwhals DataFrame with unique string column names, or None where X is no DataFrame at all."""
    try:
        frame = nw.from_native(X, pass_through=True)
        if isinstance(frame, nw.LazyFrame):
            raise TypeError("X is a lazy frame: collect it first, for instance with X.collect()")
        if not isinstance(frame, nw.DataFrame):
            return None
        columns = frame.columns
    except DuplicateError as error:
        raise ValueError(f"column names must be unique: {error}") from error
    wrong = [c for c in columns if not isinstance(c, str)]
    if wrong:
        raise TypeError(
            f"column names must be strings, got {wrong[0]!r}: rename the columns, or pass X.to_numpy()"
        )
    for size, what in zip(frame.shape, ("sample(s)", "feature(s)"), strict=True):
        if size == 0:
            found = f"Found array with 0 {what} (shape={frame.shape})"
            raise ValueError(f"{found} while a minimum of 1 is required. (X is empty input)")
    return frame


def is_numeric_by_default(series: nw.Series) -> bool:
    """Float columns are numeric, everything else is categorical."""
    return series.dtype.is_float()


def column_like(series: nw.Series, values: list[Any]) -> nw.Series:
    """A column of other values, with the name and of the library of this one."""
    return nw.new_series(series.name, values, backend=series.implementation)


def categorical_values(series: nw.Series, declared: bool = False) -> tuple[Kind, np.ndarray | nw.Series]:
    """Kind and values of a categorical column: a string Series, or an array of numbers or booleans.

    Dates and times become strings, if they were declared categorical or are the categories of such a column.
    """
    values: np.ndarray | nw.Series
    _check_not_missing(series, series.null_count(), "categorical")
    if series.dtype in (nw.Categorical, nw.Enum):
        series, declared = _categories(series), True
    if series.dtype == nw.String:
        return "str", series
    times = _times(series) if declared else None
    if times is not None:
        return "str", nw.new_series(
            series.name, _iso_strings(times), nw.String, backend=series.implementation
        )
    kind, values = _numbers(series)
    if kind == "float":
        _check_finite(series, values, "categorical")
    return kind, values


def numeric_values(series: nw.Series) -> Float64[np.ndarray, " n"]:
    """A numeric column as finite float64."""
    if series.dtype in (nw.String, nw.Categorical, nw.Enum):
        raise TypeError(
            f"numeric column {series.name!r} has dtype {series.dtype}, which is no number: convert it to "
            "float, or let it be categorical"
        )
    _check_not_missing(series, series.null_count(), "numeric")
    values = _numbers(series)[1].astype(np.float64)
    _check_finite(series, values, "numeric")
    return values


def _categories(series: nw.Series) -> nw.Series:
    """The column of what the categories are; those that pandas alone knows (intervals of ``pd.cut``) as strings."""
    inner = series.cat.get_categories().dtype
    if inner == nw.Unknown:
        return nw.from_native(series.to_native().astype(str), series_only=True)
    return series.cast(inner)


def _times(series: nw.Series) -> Shaped[np.ndarray, " n"] | None:
    """Dates and times without a zone as datetime64, also where pandas holds Python's; None for anything else."""
    if series.dtype == nw.Date or (isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone is None):
        values = series.to_numpy()
        return values if values.dtype.kind == "M" else values.astype("datetime64[us]")
    if series.dtype == nw.Object:
        values = series.to_numpy()
        if all(isinstance(x, date) and getattr(x, "tzinfo", None) is None for x in values):
            return values.astype("datetime64[us]")
    return None


def _iso_strings(times: Shaped[np.ndarray, " n"]) -> list[str]:
    """ISO 8601 without what is zero: the string of a time depends neither on its unit nor on other times."""
    distinct, position = np.unique(times, return_inverse=True)
    texts = np.datetime_as_string(distinct, unit="ns").tolist()
    texts = [text.rstrip("0").rstrip(".").removesuffix("T00:00:00") for text in texts]
    return [texts[i] for i in position]


def _numbers(series: nw.Series) -> tuple[Kind, np.ndarray]:
    if series.dtype == nw.Object:
        values = series.to_list()
        if all(type(x) is int or isinstance(x, np.integer) for x in values) and (
            min(values) >= -_INT64 and max(values) < _INT64
        ):
            return "int", np.array(values, np.int64)
    if series.dtype == nw.Boolean:
        return "bool", series.to_numpy().astype(np.bool_)
    if series.dtype in _INTEGERS:
        return "int", series.to_numpy()
    if series.dtype.is_float():
        return "float", series.to_numpy()
    raise TypeError(
        f"column {series.name!r} has dtype {_dtype_name(series)}, which is neither number, string, category nor "
        f"bool: convert it first ({_remedy(series)}) or drop it"
    )


def _dtype_name(series: nw.Series) -> str:
    """What the library of the frame calls the type, where narwhals has no name for it."""
    return str(series.to_native().dtype if series.dtype == nw.Unknown else series.dtype)


def _remedy(series: nw.Series) -> str:
    if series.dtype == nw.Unknown and _dtype_name(series).startswith("Sparse"):
        return "X.sparse.to_coo() makes a matrix of sparse columns, X.sparse.to_dense() a DataFrame"
    if series.dtype in (nw.Date, nw.Datetime):
        return (
            "to a float number of days, or to a string such as its month; a date without a time zone can be named "
            "in categorical="
        )
    return "to float for a number, to strings, in pandas by .astype(str), for a category"


def _check_not_missing(series: nw.Series, count: int, role: str) -> None:
    if count:
        hint = "a level such as 'missing'" if role == "categorical" else "a number and add an indicator"
        raise ValueError(
            f"{role} column {series.name!r} contains {count} missing values (null or NaN): drop these rows, "
            f"or fill them with {hint}"
        )


def _check_finite(series: nw.Series, values: np.ndarray, role: str) -> None:
    _check_not_missing(series, int(np.isnan(values).sum()), role)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(
            f"{role} column {series.name!r} contains {infinite} infinite values (inf): drop or clip them"
        )
