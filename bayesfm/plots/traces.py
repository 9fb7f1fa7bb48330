"""Density and trace of identified quantities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.diagnostics import identified, labelled_draws, summary, worst_probe
from bayesfm.plots.style import COLOURS, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["chain_legend", "draw_trace", "plot_trace", "title_of", "verdict", "with_worst_probe"]

MANY = 16
"""Quantities shown unasked."""
MEANING = {"w0": "intercept", "alpha": "noise precision", "lp": "log joint density"}


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
    with new_figure(8.5, 0.6 + 1.05 * len(names)) as figure:
        axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(1, 2.2))
        for i, name in enumerate(names):
            _density(axes[i, 0], values[..., i])
            draw_trace(axes[i, 1], values[..., i])
            axes[i, 0].set_title(title_of(name))
            axes[i, 1].set_title(verdict(table.loc[name]), color="0.4", fontsize=8, loc="right")
            axes[i, 1].tick_params(labelbottom=i == len(names) - 1)
        axes[-1, 1].set_xlabel("draw")
        chain_legend(figure, values.shape[0])
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
    data = with_worst_probe(data)
    if len(labelled_draws(data)[0]) <= MANY:
        return data
    return data[[name for name, x in data.data_vars.items() if x.ndim == 2 or name == "eta"]]


def with_worst_probe(data: xr.Dataset) -> xr.Dataset:
    """The probe row of largest R-hat in place of all."""
    return data.drop_dims("probe").assign(eta=worst_probe(data["eta"])) if "eta" in data else data


def title_of(name: str) -> str:
    """A name, with its meaning where that is known."""
    return f"{name}  ({MEANING[name]})" if name in MEANING else name


def verdict(row: Any) -> str:
    """R-hat and effective sample sizes of a row of the summary."""
    return f"R-hat {row['r_hat']:.3f}   ESS bulk {row['ess_bulk']:.0f}, tail {row['ess_tail']:.0f}"


def draw_trace(ax: Axes, values: Float[np.ndarray, "chain draw"]) -> None:
    """One line per chain."""
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


def chain_legend(figure: Any, num_chains: int) -> None:
    """Which colour is which chain, below the figure."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=COLOURS[c % len(COLOURS)], lw=2, label=f"chain {c}") for c in range(num_chains)
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=min(num_chains, 8), handlelength=1.2)
