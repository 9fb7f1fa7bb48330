"""Reliability of predicted probabilities: of rows with probability p a share of p should be ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike

from bayesfm._checks import check_choice, check_count, check_probability
from bayesfm.plots.style import COLOURS, GREY, draw_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_reliability"]


def plot_reliability(
    y: Shaped[np.ndarray, " n"],
    p: Float[np.ndarray, " n"],
    *,
    bins: int = 10,
    strategy: str = "quantile",
    prob: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Observed share of ones against predicted probability, bin by bin, with the band of what chance explains.

    The bars are intervals of a binomial number of ones, with the mean probability of the bin. Where the predicted
    probabilities are right, each point lies in its bar with probability ``prob`` or more: rows of different
    probabilities vary less together (Hoeffding). At the bottom, how often each probability is predicted.

    Parameters
    ----------
    y : array of shape (n,)
        What happened, 0 or 1 (or bools), on rows that the fit has not seen.
    p : array of shape (n,)
        Predicted probabilities of a one: ``model.predict_proba(X)[:, 1]``.
    bins : int, default=10
        How many.
    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equally many rows, or of equal width.
    prob : float, default=0.95
        Probability of the band.
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If y is not 0 or 1, p no probability, or they do not match.

    References
    ----------
    Hoeffding (1956), On the distribution of the number of successes in independent trials, Annals of Mathematical
    Statistics 27. Bröcker & Smith (2007), Increasing the reliability of reliability diagrams, Weather and Forecasting
    22.
    """
    happened, p = _checked(y, p)
    check_choice("strategy", strategy, ("quantile", "uniform"))
    of = _bins(p, check_count("bins", bins, minimum=1), strategy)
    prob = check_probability("prob", prob)
    return draw_on(ax, (4.6, 4.8), lambda ax: _reliability(ax, happened, p, of, prob))


def _checked(y: ArrayLike, p: ArrayLike) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    y, p = np.asarray(y), np.asarray(p, np.float64)
    if p.ndim == 2:
        raise ValueError("p must be the probability of one label, for instance predict_proba(X)[:, 1]")
    if y.ndim != 1 or y.shape != p.shape or len(y) == 0:
        raise ValueError(f"y and p must have one value per row, at least one; got {y.shape} and {p.shape}")
    if y.dtype.kind not in "biuf" or not np.all((y == 0) | (y == 1)):
        raise ValueError(
            "y must be 0 or 1; of other labels give y == label, with the column of p that is its own"
        )
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p must lie in [0, 1]")
    return y == 1, p


def _bins(p: Float[np.ndarray, " n"], count: int, strategy: str) -> Int[np.ndarray, " n"]:
    """The bin of every row; equal probabilities are never in two."""
    cuts = np.arange(1, count)
    if strategy == "uniform":
        return np.searchsorted(cuts / count, p, side="right")
    last = np.maximum(cuts * len(p) // count - 1, 0)  # of each bin, in order
    return np.searchsorted(np.unique(np.sort(p)[last]), p, side="left")


def _reliability(
    ax: Axes,
    happened: Bool[np.ndarray, " n"],
    p: Float[np.ndarray, " n"],
    of: Int[np.ndarray, " n"],
    prob: float,
) -> None:
    from matplotlib.ticker import PercentFormatter
    from scipy.stats import binom

    rows = np.bincount(of)
    used = rows > 0
    rows = rows[used]
    predicted, observed = (np.bincount(of, x)[used] / rows for x in (p, happened.astype(float)))
    low, high = binom.interval(prob, rows, predicted) / rows.astype(float)
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, zorder=1)
    ax.vlines(
        predicted,
        low,
        high,
        color="0.5",
        alpha=0.35,
        lw=7,
        label=f"{100 * prob:g} % where probabilities are right",
    )
    ax.plot(predicted, observed, "o-", color=COLOURS[0], lw=1, ms=4, label="observed")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="predicted probability", ylabel="share of ones")
    ax.set_title("Reliability of probabilities", loc="left")
    ax.set_title(f"{len(p):,} rows, {len(rows)} bins", loc="right", fontsize=7, color=GREY)
    ax.legend(loc="upper left")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    inset = ax.inset_axes((0.0, 0.0, 1.0, 0.12), zorder=0)
    inset.hist(p, bins=50, range=(0, 1), color=COLOURS[0], alpha=0.25)
    inset.set(xlim=(0, 1))
    inset.axis("off")
