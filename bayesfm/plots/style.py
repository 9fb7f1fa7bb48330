"""What all figures have in common: colours, style, and figures that pyplot forgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "GREY", "STYLE", "draw_on", "figure_of", "new_figure", "remark"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of chains and categories; distinguishable by everybody (Okabe & Ito)."""
GREY = "0.4"
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


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure that pyplot forgets again: a notebook shows it once, as the value of its cell."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE), plt.ioff():
        figure = plt.figure(figsize=(width, height), layout="constrained")
        plt.close(figure)
        yield figure


def draw_on(ax: Axes | None, size: tuple[float, float], draw: Callable[[Axes], None]) -> Figure:
    """Draw into given axes, or those of a new figure; the figure."""
    if ax is not None:
        draw(ax)
        return figure_of(ax)
    with new_figure(*size) as figure:
        draw(figure.subplots())
    return figure


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes stand in."""
    return ax.get_figure(root=True)  # type: ignore[return-value]


def remark(ax: Axes, text: str) -> None:
    """Small print between the title and the axes."""
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=8 + 10 * len(text.splitlines()))
    ax.annotate(text, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color=GREY, va="bottom")
