"""Figures: traces of identified quantities, calibration of predictive distributions, and both side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.diagnostics import identified, labelled_draws, summary, worst_probe

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_calibration", "plot_demo", "plot_trace"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of chains; distinguishable by everybody (Okabe & Ito)."""
MANY = 16
"""Quantities shown unasked."""
MEANING = {"w0": "intercept", "alpha": "noise precision", "lp": "log joint density"}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": "0.2",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "0.4",
    "ytick.color": "0.4",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def plot_trace(tree: xr.DataTree, var_names: str | Sequence[str] | None = None) -> Figure:
    """Density and trace of identified quantities, one row each, one colour per chain.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    var_names : str or sequence of str, optional
        Names from :func:`bayesfm.diagnostics.identified`; ``eta`` shows every probe row. By default all, with the probe
        row of largest R-hat; where that makes more than 16, those that stand for the whole model.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    data = _chosen(tree, var_names)
    names, values = labelled_draws(data)
    table = summary(tree, var_names)
    with _figure(8.5, 0.6 + 1.05 * len(names)) as figure:
        axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(1, 2.2))
        for i, name in enumerate(names):
            _density(axes[i, 0], values[..., i])
            _trace(axes[i, 1], values[..., i])
            axes[i, 0].set_title(_title(name))
            axes[i, 1].set_title(_verdict(table.loc[name]), color="0.4", fontsize=8, loc="right")
            axes[i, 1].tick_params(labelbottom=i == len(names) - 1)
        axes[-1, 1].set_xlabel("draw")
        _chain_legend(figure, values.shape[0])
    return figure


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
        Probabilities of the quantiles, symmetric about 1/2; by default 1/(q+1), ..., q/(q+1).
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If shapes do not match, or probabilities are not symmetric.
    """
    nominal, observed = _coverage(y, predicted, probs)
    if ax is not None:
        _calibration(ax, nominal, observed, len(y))
        return ax.get_figure(root=True)  # type: ignore[return-value]
    with _figure(4.6, 4.6) as figure:
        _calibration(figure.subplots(), nominal, observed, len(y))
    return figure


def plot_demo(
    tree: xr.DataTree,
    y: Float[np.ndarray, " n"],
    quantiles: Float[np.ndarray, "n q"],
    probs: Sequence[float] | None = None,
) -> Figure:
    """Did it converge, and do the intervals hold? Traces on the left, calibration on the right.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    y : array of shape (n,)
        Rows that the fit has not seen.
    quantiles : array of shape (n, q) or (n,)
        Predictive quantiles at these rows, or the distribution function at y; see :func:`plot_calibration`.
    probs : sequence of q floats, optional
        Probabilities of the quantiles.

    Returns
    -------
    matplotlib.figure.Figure
    """
    nominal, observed = _coverage(y, quantiles, probs)
    table = summary(tree)
    names, values = labelled_draws(_with_worst_probe(identified(tree)))
    scalars = [i for i, name in enumerate(names) if "[" not in name]
    shown = (scalars + [i for i in range(len(names)) if i not in scalars])[:3]
    with _figure(10.5, 4.8) as figure:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
        left, right = halves
        for i, ax in zip(shown, left.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0], strict=True):
            _trace(ax, values[..., i])
            ax.set_title(_title(names[i]))
            ax.set_title(_verdict(table.loc[names[i]]), color="0.4", fontsize=8, loc="right")
        ax.set_xlabel("draw")
        _chain_legend(left, values.shape[0])
        _calibration(right.subplots(), nominal, observed, len(y))
    return figure


def _chosen(tree: xr.DataTree, var_names: str | Sequence[str] | None) -> xr.Dataset:
    data = identified(tree)
    if var_names is not None:
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        unknown = [name for name in names if name not in data]
        if unknown:
            known = ", ".join(map(str, data.data_vars))
            raise ValueError(f"var_names names unknown quantities {unknown}; known are {known}")
        return data[names]
    data = _with_worst_probe(data)
    if len(labelled_draws(data)[0]) <= MANY:
        return data
    return data[[name for name, x in data.data_vars.items() if x.ndim == 2 or name == "eta"]]


def _with_worst_probe(data: xr.Dataset) -> xr.Dataset:
    return data.drop_dims("probe").assign(eta=worst_probe(data["eta"])) if "eta" in data else data


def _coverage(y: Any, predicted: Any, probs: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
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
    levels = np.arange(1, q + 1) / (q + 1) if probs is None else np.asarray(probs, np.float64)
    symmetric = levels.shape == (q,) and np.all(np.diff(levels) > 0) and np.allclose(levels, 1 - levels[::-1])
    if not symmetric or q < 2:
        raise ValueError(
            f"probs must be {q} (at least 2) increasing numbers, symmetric about 1/2; got {probs!r}"
        )
    pairs = range(q // 2 - 1, -1, -1)
    inside = [np.mean((predicted[:, i] <= y) & (y <= predicted[:, -1 - i])) for i in pairs]
    return 1 - 2 * levels[list(pairs)], np.array(inside)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure that pyplot forgets again: a notebook shows it once, as the value of its cell."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE), plt.ioff():
        figure = plt.figure(figsize=(width, height), layout="constrained")
        plt.close(figure)
        yield figure


def _title(name: str) -> str:
    return f"{name}  ({MEANING[name]})" if name in MEANING else name


def _verdict(row: Any) -> str:
    return f"R-hat {row['r_hat']:.3f}   ESS bulk {row['ess_bulk']:.0f}, tail {row['ess_tail']:.0f}"


def _trace(ax: Axes, values: Float[np.ndarray, "chain draw"]) -> None:
    for chain, x in enumerate(values):
        ax.plot(x, lw=0.6, alpha=0.85, color=COLOURS[chain % len(COLOURS)])
    ax.margins(x=0.01)
    ax.locator_params(axis="y", nbins=4)


def _density(ax: Axes, values: Float[np.ndarray, "chain draw"]) -> None:
    from arviz_stats.base import array_stats

    for chain, x in enumerate(values):
        colour = COLOURS[chain % len(COLOURS)]
        if np.ptp(x) == 0:
            ax.axvline(x[0], color=colour, lw=1.2)
            continue
        grid, density, _ = array_stats.kde(x)
        ax.plot(grid, density, color=colour, lw=1.2)
        ax.fill_between(grid, density, color=colour, alpha=0.12, lw=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", nbins=5)


def _chain_legend(figure: Any, num_chains: int) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=COLOURS[c % len(COLOURS)], lw=2, label=f"chain {c}") for c in range(num_chains)
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=min(num_chains, 8), handlelength=1.2)


def _calibration(ax: Axes, nominal: np.ndarray, observed: np.ndarray, n: int) -> None:
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
