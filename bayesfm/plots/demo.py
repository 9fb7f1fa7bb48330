"""Traces and calibration side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.diagnostics import identified, labelled_draws, summary
from bayesfm.plots.calibration import coverage, draw_calibration
from bayesfm.plots.style import new_figure
from bayesfm.plots.traces import chain_legend, draw_trace, title_of, verdict, with_worst_probe

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["plot_demo"]


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
    nominal, observed = coverage(y, quantiles, probs)
    table = summary(tree)
    names, values = labelled_draws(with_worst_probe(identified(tree)))
    scalars = [i for i, name in enumerate(names) if "[" not in name]
    shown = (scalars + [i for i in range(len(names)) if i not in scalars])[:3]
    with new_figure(10.5, 4.8) as figure:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
        left, right = halves
        for i, ax in zip(shown, left.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0], strict=True):
            draw_trace(ax, values[..., i])
            ax.set_title(title_of(names[i]))
            ax.set_title(verdict(table.loc[names[i]]), color="0.4", fontsize=8, loc="right")
        ax.set_xlabel("draw")
        chain_legend(left, values.shape[0])
        draw_calibration(right.subplots(), nominal, observed, len(y))
    return figure
