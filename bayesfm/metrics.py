"""Scores of predictions: errors of the mean, coverage and width of intervals, log predictive density, CRPS."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "crps",
    "interval_coverage",
    "mae",
    "mean_interval_width",
    "mean_log_density",
    "rmse",
]


def rmse(
    y: ArrayLike,
    prediction: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Root mean squared error.

    Parameters
    ----------
    y : array-like of shape (n,)
        What was observed.
    prediction : array-like of shape (n,)
        What was predicted.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Examples
    --------
    >>> from bayesfm.metrics import rmse
    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    y, prediction = _pair(y, prediction, "prediction")
    return float(np.sqrt(_average((y - prediction) ** 2, sample_weight)))


def mae(
    y: ArrayLike,
    prediction: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean absolute error; parameters as in :func:`rmse`.

    Examples
    --------
    >>> from bayesfm.metrics import mae
    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    y, prediction = _pair(y, prediction, "prediction")
    return float(_average(np.abs(y - prediction), sample_weight))


def interval_coverage(
    y: ArrayLike,
    intervals: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of rows whose y lies in its interval, ends included.

    Parameters
    ----------
    y : array-like of shape (n,)
        What was observed.
    intervals : array-like of shape (n, 2)
        Lower and upper ends.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float
        To be compared with the nominal probability of the intervals.

    Examples
    --------
    >>> from bayesfm.metrics import interval_coverage
    >>> interval_coverage([1.0, 2.0], [[0.0, 1.5], [3.0, 4.0]])
    0.5
    """
    y, ends = _column(y, "y"), _intervals(intervals)
    if len(y) != len(ends):
        raise ValueError(f"intervals must have one row per entry of y: expected {len(y)}, got {len(ends)}")
    return float(_average((ends[:, 0] <= y) & (y <= ends[:, 1]), sample_weight))


def mean_interval_width(intervals: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Mean width of intervals: of two methods with the right coverage, the one with narrower intervals knows more.

    Parameters
    ----------
    intervals : array-like of shape (n, 2)
        Lower and upper ends.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Examples
    --------
    >>> from bayesfm.metrics import mean_interval_width
    >>> mean_interval_width([[0.0, 1.5], [3.0, 4.0]])
    1.25
    """
    ends = _intervals(intervals)
    return float(_average(ends[:, 1] - ends[:, 0], sample_weight))


def mean_log_density(log_density: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Mean log predictive density per row, in nats; larger is better, and it is a proper score.

    Parameters
    ----------
    log_density : array-like of shape (n,)
        For instance :func:`bayesfm.predictive.log_predictive_density`; -inf is allowed.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Examples
    --------
    >>> from bayesfm.metrics import mean_log_density
    >>> mean_log_density([-1.0, -2.0])
    -1.5
    """
    values = np.asarray(log_density, np.float64)
    if values.ndim != 1 or values.size == 0 or np.isnan(values).any() or np.any(values == np.inf):
        raise ValueError("log_density must be one-dimensional, not empty, without NaN and below infinity")
    return float(_average(values, sample_weight))


def crps(
    y: ArrayLike,
    draws: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean continuous ranked probability score of predictive draws: E|Y - y| - E|Y - Y'| / 2; smaller is better.

    Parameters
    ----------
    y : array-like of shape (n,)
        What was observed.
    draws : array-like of shape (..., n)
        Predictive draws of every row, for instance :func:`bayesfm.predictive.predictive_draws`; two at least.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float
        In units of y: the mean absolute error, if all draws of a row are equal. Unbiased in the number of draws.

    References
    ----------
    Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102, equation 21.

    Examples
    --------
    >>> from bayesfm.metrics import crps
    >>> crps([0.0], [[1.0], [1.0]])
    1.0
    """
    y = _column(y, "y")
    sample = np.asarray(draws, np.float64)
    if sample.ndim < 2 or sample.shape[-1] != len(y) or sample.size < 2 * len(y):
        raise ValueError(
            f"draws must have shape (draws, n={len(y)}) with two draws at least, got {sample.shape}"
        )
    if not np.all(np.isfinite(sample)):
        raise ValueError("draws must be finite")
    sample = np.sort(sample.reshape(-1, len(y)), axis=0)
    S = len(sample)
    # The mean of |Y - Y'| over pairs is a sum over order statistics.
    coefficient = (2.0 * np.arange(1, S + 1) - S - 1) / (S * (S - 1))
    return float(_average(np.mean(np.abs(sample - y), axis=0) - coefficient @ sample, sample_weight))


def _column(x: object, argument: str) -> np.ndarray:
    array = np.asarray(x, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{argument} must be one-dimensional and not empty, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{argument} must be finite")
    return array


def _pair(y: object, other: object, argument: str) -> tuple[np.ndarray, np.ndarray]:
    first, second = _column(y, "y"), _column(other, argument)
    if first.shape != second.shape:
        raise ValueError(
            f"{argument} must have as many entries as y: expected {len(first)}, got {len(second)}"
        )
    return first, second


def _intervals(intervals: object) -> np.ndarray:
    ends = np.asarray(intervals, np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2 or len(ends) == 0:
        raise ValueError(f"intervals must have shape (n, 2), lower and upper ends, got {ends.shape}")
    if not np.all(ends[:, 0] <= ends[:, 1]):
        raise ValueError("intervals must have lower ends that are not above the upper ones")
    return ends


def _average(values: np.ndarray, sample_weight: object) -> np.floating:
    if sample_weight is None:
        return np.mean(values)
    weight = _column(sample_weight, "sample_weight")
    if weight.shape != values.shape:
        raise ValueError(f"sample_weight must have {len(values)} entries, got {len(weight)}")
    if np.any(weight < 0) or not np.any(weight > 0):
        raise ValueError("sample_weight must not be negative, and not zero everywhere")
    return np.average(values, weights=weight)
