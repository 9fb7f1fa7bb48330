"""Labels of points that overlap neither each other nor the rim; a label that finds no place is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from bayesfm.plots.style import GREY, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

__all__ = ["label_points"]

RADII = (4.0, 9.0, 15.0, 22.0, 30.0)
"""Distances tried between a point and its label, in points of the printer."""
ANGLES = np.deg2rad([0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240])
"""Directions tried at each distance."""
LEADER_FROM = 9.0
"""From this distance on a line leads from the point to its label."""
PADDING = 1.5
HINTED = 1.1
"""How much wider a line may come out where its letters are fitted to a coarse grid of pixels."""


def label_points(
    ax: Axes,
    points: Float[np.ndarray, "m 2"],
    labels: Sequence[str],
    obstacles: Sequence[Float[np.ndarray, "2 2"]] = (),
    fontsize: float = 7.5,
) -> list[Annotation | None]:
    """Write the labels of points beside them, the first ones first.

    Each label takes the nearest free place around its point, one that covers few points if there is a choice. The
    figure has to have its size, limits and everything else: places are found in pixels and kept as offsets.

    Parameters
    ----------
    ax : matplotlib Axes
        Where the points are.
    points : array of shape (m, 2)
        In data coordinates.
    labels : sequence of m strings
        An empty one is not written.
    obstacles : sequence of array of shape (2, 2)
        Corners, lower left and upper right, in pixels, of what must not be covered.
    fontsize : float, default=7.5

    Returns
    -------
    list of matplotlib Annotation or None
        None where there was no place.
    """
    figure = figure_of(ax)
    figure.draw_without_rendering()
    unit = figure.dpi / 72
    places = ax.transData.transform(points)
    rim = np.asarray(ax.get_window_extent().get_points())
    taken = [np.asarray(box, float) for box in obstacles]
    written: list[Annotation | None] = []
    for i, label in enumerate(labels):
        text = _write(ax, label, points[i], fontsize)
        half = (_size(text) / 2 + PADDING) * unit
        offset, radius = _best(places[i], half, rim, taken, places, unit)
        if not label or offset is None:
            text.remove()
            written.append(None)
            continue
        taken.append(np.stack([places[i] + offset - half, places[i] + offset + half]))
        text.set_position(tuple(offset / unit))
        if radius >= LEADER_FROM:
            text.arrow_patch.set(visible=True)  # type: ignore[union-attr]
        written.append(text)
    return written


def _write(ax: Axes, label: str, point: Float[np.ndarray, " 2"], fontsize: float) -> Annotation:
    """A label in the middle of its point, with a leader that is not seen yet."""
    from matplotlib.patheffects import withStroke

    leader = {"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 2, "visible": False}
    text = ax.annotate(
        label,
        (float(point[0]), float(point[1])),
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=fontsize,
        arrowprops=leader,
        zorder=4,
    )
    text.set_in_layout(False)
    text.set_path_effects([withStroke(linewidth=1.6, foreground="white", alpha=0.75)])
    return text


def _size(text: Annotation) -> Float[np.ndarray, " 2"]:
    """Width and height of the words in points, enough at any resolution that the figure may be saved with."""
    from matplotlib.textpath import TextPath

    lines, size = text.get_text().splitlines(), float(text.get_fontsize())
    paths = [
        TextPath((0, 0), line, size=size, prop=text.get_fontproperties()) for line in lines if line.strip()
    ]
    width = max((path.get_extents().width for path in paths), default=0.0)
    return np.array([HINTED * width, 1.2 * size * len(lines)])


def _best(
    place: Float[np.ndarray, " 2"],
    half: Float[np.ndarray, " 2"],
    rim: Float[np.ndarray, "2 2"],
    taken: list[np.ndarray],
    points: Float[np.ndarray, "m 2"],
    unit: float,
) -> tuple[np.ndarray | None, float]:
    """Offset of the middle of a label in pixels, and its distance; None where there is no free place."""
    radius, angle = (x.ravel() for x in np.meshgrid(RADII, ANGLES, indexing="ij"))
    reach = radius[:, None] * unit + half
    offsets = reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = place + offsets - half, place + offsets + half
    free = np.all((low >= rim[0]) & (high <= rim[1]), axis=1)
    for box in taken:
        free &= ~_meet(low, high, box[0], box[1])
    if not np.any(free):
        return None, 0.0
    around = 2 * unit
    covered = np.sum([_meet(low, high, p - around, p + around) for p in points], axis=0)
    # A point that is covered is worse than a step further away.
    cost = np.where(free, covered * 2 + np.searchsorted(RADII, radius), np.inf)
    i = int(np.argmin(cost))
    return offsets[i], float(radius[i])


def _meet(
    low: Float[np.ndarray, "c 2"],
    high: Float[np.ndarray, "c 2"],
    other_low: Float[np.ndarray, " 2"],
    other_high: Float[np.ndarray, " 2"],
) -> Bool[np.ndarray, " c"]:
    return np.all((low < other_high) & (high > other_low), axis=1)
