"""Which pairs of features go together: a forest of intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesfm.plots.style import COLOURS, GREY, draw_on
from bayesfm.similarity import interactions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_interactions"]

LONGEST = 46
"""Letters of a pair; longer ones are cut in the middle."""


def plot_interactions(model: Any, *, ax: Axes | None = None, **options: Any) -> Figure:
    """Posterior mean and interval of the strongest interactions, and the probability of their sign.

    Blue raises the linear predictor, orange lowers it, with the probability of the interval; of grey ones zero lies
    inside.

    Parameters
    ----------
    model : estimator, xarray.DataTree or DataFrame
        A fitted estimator, a posterior, or what :func:`bayesfm.interactions` returned of one.
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure.
    **options
        Of :func:`bayesfm.interactions`: ``features``, ``others``, ``n``, ``prob``, ``by``, ``max_features``, ``which``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If options are given with a table, which has been made already.
    """
    columns = getattr(model, "columns", None)
    made = columns is not None and {"first", "second", "prob_positive"} <= set(columns)
    if made and options:
        raise TypeError(f"the table is made already: give {', '.join(options)} to interactions()")
    table = model if made else interactions(model, **options)
    return draw_on(ax, (6.6, 1.1 + 0.21 * len(table)), lambda ax: _forest(ax, table))


def _forest(ax: Axes, table: pd.DataFrame) -> None:
    bounds = [name for name in table.columns if name.startswith("eti")]
    low, high = (table[name].to_numpy() for name in bounds)
    mean, rows = table["mean"].to_numpy(), np.arange(len(table))
    colours = [
        COLOURS[0] if a > 0 else COLOURS[1] if b < 0 else "0.6" for a, b in zip(low, high, strict=True)
    ]
    ax.axvline(0, color=GREY, lw=0.8, zorder=0)
    ax.hlines(rows, low, high, colors=colours, lw=1.8)
    ax.scatter(mean, rows, s=22, c=colours, zorder=3, edgecolors="white", lw=0.5)
    names = [
        _short(f"{a} \N{MULTIPLICATION SIGN} {b}")
        for a, b in zip(table["first"], table["second"], strict=True)
    ]
    ax.set_yticks(rows, names)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color="0.92", lw=0.7)
    ax.set_axisbelow(True)
    percent = bounds[0].removeprefix("eti").removesuffix("_lb")
    ax.set_xlabel(f"⟨v, v⟩: posterior mean and {percent} % interval")
    ax.set_title("Strongest interactions", loc="left")
    signs = ax.secondary_yaxis("right")
    signs.set_yticks(rows, [_probability(p) for p in table["prob_positive"]])
    signs.tick_params(length=0, labelsize=7, labelcolor=GREY)
    signs.spines["right"].set_visible(False)
    ax.set_title("P(> 0)", loc="right", fontsize=7, color=GREY)


def _short(name: str) -> str:
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half + 1 :]}"


def _probability(p: float) -> str:
    """No more certain than some hundred draws can be."""
    return "< .01" if p < 0.01 else "> .99" if p > 0.99 else f"{p:.2f}"
