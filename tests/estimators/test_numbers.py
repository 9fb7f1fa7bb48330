"""Numbers of odd types and odd scales: refused with a remedy, or taken right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.estimators.data import matrix, quick

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

X, Y = matrix()
N = len(Y)
DATES = pd.date_range("2024-01-01", periods=N)
NO_NUMBERS = {
    "words": (["high"] * N, r"'high'\): convert it to float, \.astype\(float\)"),
    "numbers as strings": ([str(x) for x in Y], r"\.astype\(float\)"),
    "strings in pandas": (pd.Series(Y).astype(str), r"\.astype\(float\)"),
    "strings in polars": (pl.Series([str(x) for x in Y]), r"\.astype\(float\)"),
    "bytes": (np.array([b"1"] * N), r"\.astype\(float\)"),
    "one string": ([*Y[:-1].tolist(), "3"], r"\.astype\(float\)"),
    "one string, objects": (np.array([*Y[:-1], "3"], dtype=object), r"\.astype\(float\)"),
    "dates": (DATES, "number of days"),
    "dates in pandas": (pd.Series(DATES), "number of days"),
    "dates in polars": (pl.Series(DATES.to_list()), "number of days"),
    "Python's dates": (DATES.date, "number of days"),
    "durations": (DATES - DATES[0], "number of days"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_only_numbers_are_numbers(name: str) -> None:
    bad, message = NO_NUMBERS[name]
    with pytest.raises(TypeError, match=f"y must hold numbers, got .*{message}"):
        quick().fit(X, bad)
    with pytest.raises(TypeError, match=f"sample_weight must hold numbers, got .*{message}"):
        quick().fit(X, Y, sample_weight=bad)


def test_masks_are_not_dropped() -> None:
    hide = lambda x: np.ma.masked_where(x == x.flat[3], x)  # noqa: E731
    for data in ((hide(X), Y), (X, hide(Y)), (X, Y, hide(np.ones(N)))):
        name = ("X", "y", "sample_weight")[[isinstance(x, np.ma.MaskedArray) for x in data].index(True)]
        with pytest.raises(TypeError, match=f"^{name} is a masked array.*filled"):
            quick().fit(*data)
    with pytest.raises(TypeError, match="X is a masked array"):
        quick(predict_rows={"new": hide(X)}).fit(X, Y)


@pytest.mark.parametrize("factor", [1e-4, 1e-30])
def test_columns_of_small_numbers_are_pointed_out(factor: float) -> None:
    with pytest.warns(UserWarning, match=r"1 column\(s\) of X hold small numbers, 'x1' .*prior.*standardise"):
        quick().fit(X * [1.0, factor, 0.0], Y)


@pytest.mark.parametrize("scale", [2.0**-36, 2.0**36])
def test_predictions_follow_the_scale_of_y(scale: float) -> None:
    """By an even power of two, of which all priors have a power: the same chain."""
    wanted, got = (m.predict(X, return_std=True) for m in (quick().fit(X, Y), quick().fit(X, Y * scale)))
    np.testing.assert_allclose(got, np.multiply(wanted, scale), rtol=64 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            Y * 1e-30,
            "y must have a standard deviation between 1e-12 and 1e[+]12, .*: multiply y by a constant",
        ),
        (
            Y * 1e15,
            "y must have a standard deviation between 1e-12 and 1e[+]12, .*: multiply y by a constant",
        ),
        (np.append(Y[1:], 1e300), "y must lie within [+]-1e[+]18, got 1e[+]300: divide y by a constant"),
        (np.full(N, -1e300), "y must lie within [+]-1e[+]18, got 1e[+]300: divide y by a constant"),
    ],
)
def test_scales_of_y_beyond_float32(y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick().fit(X, y)
