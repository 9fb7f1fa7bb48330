"""Calibration of predictive intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.plots.style import COLOURS, draw_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["coverage", "draw_calibration", "plot_calibration"]


def plot_calibration(
    y: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"] | Float[np.ndarray, "n q"],
    probs: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Observed against nominal coverage of central predictive intervals.

    Where the predictive distributions are right, the curve stays in the band in 95 % of all cases, at every nominal
    value: with n rows, the number that is covered is binomial. The inset shows the difference, enlarged.

    Parameters
    ----------
    y : array of shape (n,)
        Rows that the fit has not seen.
    predicted : array of shape (n,) or (n, q)
        Predictive distribution function at y (:func:`bayesfm.predictive.predictive_cdf`), or predictive quantiles.
    probs : sequence of q floats, optional
        Probabilities of the quantiles, symmetric about 1/2; by default 1/(q+1), ..., q/(q+1), for q > 2.
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If shapes do not match, probabilities are not symmetric, or two columns come without any.
    """
    nominal, observed = coverage(y, predicted, probs)
    return draw_on(ax, (4.6, 4.6), lambda ax: draw_calibration(ax, nominal, observed, len(y)))


def coverage(y: Any, predicted: Any, probs: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Nominal and observed probability of central intervals."""
    y, predicted = np.asarray(y, np.float64), np.asarray(predicted, np.float64)
    if y.ndim != 1 or predicted.ndim not in (1, 2) or len(y) == 0 or len(predicted) != len(y):
        raise ValueError(f"predicted must have one row per entry of y, {y.shape}; got {predicted.shape}")
    if predicted.ndim == 1:
        if not np.all((predicted >= 0) & (predicted <= 1)):
            raise ValueError("values of a distribution function must lie in [0, 1]; give quantiles as (n, q)")
        nominal = np.linspace(0.01, 0.99, 99)
        return nominal, np.mean(2 * np.abs(predicted - 0.5)[:, None] <= nominal, axis=0)
    q = predicted.shape[1]
    if q == 2 and probs is None:
        raise ValueError(
            "probs must be given with two columns, which may be the bounds of any interval: (0.05, 0.95) for those of "
            "predict_interval(X, prob=0.9)"
        )
    levels = np.arange(1, q + 1) / (q + 1) if probs is None else np.asarray(probs, np.float64)
    symmetric = levels.shape == (q,) and np.all(np.diff(levels) > 0) and np.allclose(levels, 1 - levels[::-1])
    if not symmetric or q < 2:
        raise ValueError(
            f"probs must be {q} (at least 2) increasing numbers, symmetric about 1/2; got {probs!r}"
        )
    pairs = range(q // 2 - 1, -1, -1)
    inside = [np.mean((predicted[:, i] <= y) & (y <= predicted[:, -1 - i])) for i in pairs]
    return 1 - 2 * levels[list(pairs)], np.array(inside)


def draw_calibration(ax: Axes, nominal: np.ndarray, observed: np.ndarray, n: int) -> None:
    """Into given axes, with the band and the inset."""
    from matplotlib.ticker import PercentFormatter
    from scipy.stats import binom

    grid = np.linspace(0, 1, 201)
    low, high = binom.interval(0.95, n, grid) / np.float64(n)
    ax.fill_between(grid, low, high, color="0.5", alpha=0.3, lw=0, label=f"95 % band for {n:,} rows")
    ax.plot([0, 1], [0, 1], color="0.4", lw=0.8)
    ax.plot(nominal, observed, color=COLOURS[0], lw=1.8, label="observed")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="nominal probability of the interval", ylabel="share of held-out rows inside")
    ax.set_title("Calibration of predictive intervals")
    ax.legend(loc="upper left")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    inset = ax.inset_axes((0.56, 0.13, 0.42, 0.3))
    inset.fill_between(grid, 100 * (low - grid), 100 * (high - grid), color="0.5", alpha=0.3, lw=0)
    inset.axhline(0, color="0.4", lw=0.8)
    inset.plot(nominal, 100 * (observed - nominal), color=COLOURS[0], lw=1.2)
    inset.set_title("difference, in points", fontsize=8, color="0.2")
    inset.set(xlim=(0, 1), xticks=[])
    inset.tick_params(labelsize=7)
    inset.locator_params(axis="y", nbins=5)
