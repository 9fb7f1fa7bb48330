"""Where features lie in relation to each other, and how well that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bayesfm._checks import check_probability
from bayesfm.maps import feature_map
from bayesfm.plots.labels import label_points
from bayesfm.plots.style import COLOURS, GREY, figure_of, new_figure, remark

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_feature_map"]

MARKERS = "os^Dv"


class _Marks(NamedTuple):
    """Colour and marker of every feature, and what explains them."""

    colours: list[Any]
    markers: list[str]
    legend: dict[str, tuple[Any, str]]
    scale: Any


def plot_feature_map(
    model: Any,
    features: Sequence[str],
    *,
    color: Mapping[str, Any] | Sequence[Any] | None = None,
    labels: bool | Sequence[str] = True,
    prob: float | Sequence[float] = (0.5, 0.9),
    beside: Float[np.ndarray, "m 2"] | Mapping[str, Float[np.ndarray, "m 2"]] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    which: Mapping[str, Any] | None = None,
) -> Figure:
    """Map of features: posterior means of their factors on a plane, with credible ellipses.

    How draws are brought to one orientation and to the plane is said in :func:`bayesfm.feature_map`. Features that lie
    in the same direction from the cross (v = 0) raise the response together. Distances are true to scale.

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior, with draws of v.
    features : sequence of m strings
        Names of features, the most important first: where there is no room their labels are the last to be left out.
    color : mapping or sequence of m values, optional
        For every feature a category (a string or bool; then there is a legend) or a number (then there is a scale).
    labels : bool or sequence of m strings, default=True
        Whether features are labelled, or what with. Labels do not overlap; some may be left out, which is then said.
    prob : float or sequence of floats, default=(0.5, 0.9)
        Probabilities of the ellipses, those of a normal distribution with the covariance of the draws.
    beside : array of shape (m, 2) or mapping of str to such, optional
        Other coordinates of the same features, drawn beside, with the keys as titles: for instance of latent semantic
        analysis, :func:`bayesfm.encoders.lsa_coordinates`.
    ax : matplotlib Axes or sequence of them, optional
        Where to draw: one for the map, and one for each of ``beside``. They should have their final size and layout.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If features are unknown, or something has not one value per feature.
    """
    probs = [check_probability("prob", p) for p in np.atleast_1d(np.asarray(prob, object)).tolist()]
    others = _others(beside, len(features))
    texts = _texts(labels, list(features))
    data = feature_map(model, features, which=which)
    marks = _marks(color, list(features))
    if ax is not None:
        axes = [*np.atleast_1d(np.asarray(ax, object))]
        if len(axes) != 1 + len(others):
            raise ValueError(f"ax must be {1 + len(others)} Axes, one for each map; got {len(axes)}")
        _draw(axes, data, marks, texts, probs, others)
        return figure_of(axes[0])
    height = 5.0 * np.clip(_height_per_width(data), 0.5, 1.0) + 0.9
    with new_figure(5.6 * (1 + len(others)), height) as figure:
        axes = [*figure.subplots(1, 1 + len(others), squeeze=False)[0]]
        _draw(axes, data, marks, texts, probs, others)
    return figure


def _height_per_width(data: xr.Dataset) -> float:
    reach = 2.0 * np.sqrt(np.diagonal(data["covariance"].to_numpy(), axis1=1, axis2=2))
    position = data["position"].to_numpy()
    width, height = np.max(position + reach, axis=0) - np.min(position - reach, axis=0)
    return float(height / width) if width > 0 else 1.0


def _others(beside: Any, m: int) -> dict[str, np.ndarray]:
    named = beside if isinstance(beside, Mapping) else {} if beside is None else {"for comparison": beside}
    out = {str(name): np.asarray(x, np.float64) for name, x in named.items()}
    for name, x in out.items():
        if x.shape != (m, 2) or not np.all(np.isfinite(x)):
            raise ValueError(
                f"beside must have finite coordinates of shape ({m}, 2), one row per feature; {name!r} is {x.shape}"
            )
    return out


def _texts(labels: Any, features: list[str]) -> list[str]:
    if isinstance(labels, str) or (not isinstance(labels, bool) and len(labels) != len(features)):
        raise ValueError(f"labels must be True, False or {len(features)} strings, got {labels!r}")
    if isinstance(labels, bool):
        return features if labels else [""] * len(features)
    return [str(x) for x in labels]


def _marks(color: Any, features: list[str]) -> _Marks:
    """By category (strings, bools), by value (numbers), or all alike."""
    if color is None:
        return _Marks([COLOURS[0]] * len(features), ["o"] * len(features), {}, None)
    if isinstance(color, Mapping):
        missing = [x for x in features if x not in color]
        if missing:
            raise ValueError(f"color has no value for feature {missing[0]!r}")
        values = [color[x] for x in features]
    else:
        values = list(color)
    if isinstance(color, str) or len(values) != len(features):
        raise ValueError(f"color must have one value per feature, {len(features)}; got {color!r}")
    if all(isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in values):
        return _scaled(np.asarray(values, np.float64))
    categories = list(dict.fromkeys(str(x) for x in values))
    style = {
        c: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)])
        for i, c in enumerate(categories)
    }
    chosen = [style[str(x)] for x in values]
    return _Marks([c for c, _ in chosen], [m for _, m in chosen], style, None)


def _scaled(values: Float[np.ndarray, " m"]) -> _Marks:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if not np.all(np.isfinite(values)):
        raise ValueError("color must be finite numbers, or categories as strings")
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 256)))  # its yellow is lost on white
    scale = ScalarMappable(Normalize(values.min(), values.max()), colours)
    return _Marks([tuple(c) for c in scale.to_rgba(values)], ["o"] * len(values), {}, scale)


def _draw(
    axes: list[Axes],
    data: xr.Dataset,
    marks: _Marks,
    texts: list[str],
    probs: list[float],
    others: dict[str, np.ndarray],
) -> None:
    maps = [data["position"].to_numpy(), *others.values()]
    ellipses = data["covariance"].to_numpy()
    for ax, title, xy in zip(axes, ["Posterior of the factors", *others], maps, strict=True):
        if ax is axes[0]:
            _ellipses(ax, xy, ellipses, marks, probs)
        _points(ax, xy, marks)
        ax.set(aspect="equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set_title(title, loc="left")
        ax.tick_params(labelsize=7)
    _name_axes(axes[0], data)
    remark(axes[0], _what_was_done(data, probs))
    _explain(axes, marks)
    figure_of(axes[0]).draw_without_rendering()  # the legend has its place then
    for ax, xy in zip(axes, maps, strict=True):
        legend = ax.get_legend()
        boxes = [] if legend is None else [np.asarray(legend.get_window_extent().get_points())]
        written = label_points(ax, xy, texts, boxes)
        left_out = sum(bool(text) and label is None for text, label in zip(texts, written, strict=True))
        if left_out:
            note = f"{left_out} of {len(texts)} labels left out"
            ax.annotate(
                note,
                (1, 0),
                (0, -18),
                "axes fraction",
                "offset points",
                fontsize=6.5,
                color=GREY,
                ha="right",
                va="top",
            )


def _ellipses(ax: Axes, xy: np.ndarray, covariance: np.ndarray, marks: _Marks, probs: list[float]) -> None:
    """Where a normal distribution has so much probability: chi-square of two degrees of freedom."""
    from matplotlib.patches import Ellipse

    for prob in sorted(probs, reverse=True):
        quantile = -2.0 * np.log1p(-prob)
        for centre, matrix, colour in zip(xy, covariance, marks.colours, strict=True):
            size, axis = np.linalg.eigh(matrix)
            width, height = 2.0 * np.sqrt(np.maximum(size[::-1], 0.0) * quantile)
            angle = float(np.degrees(np.arctan2(axis[1, 1], axis[0, 1])))
            for paint in (
                {"fc": colour, "alpha": 0.09, "lw": 0},
                {"ec": colour, "alpha": 0.4, "lw": 0.5, "fill": False},
            ):
                ax.add_patch(Ellipse(tuple(centre), width, height, angle=angle, **paint))
    ax.autoscale_view()


def _points(ax: Axes, xy: np.ndarray, marks: _Marks) -> None:
    for marker in dict.fromkeys(marks.markers):
        rows = [i for i, own in enumerate(marks.markers) if own == marker]
        colours = [marks.colours[i] for i in rows]
        ax.scatter(
            xy[rows, 0], xy[rows, 1], s=14, c=colours, marker=marker, lw=0.4, edgecolors="white", zorder=3
        )


def _name_axes(ax: Axes, data: xr.Dataset) -> None:
    ax.plot(*data["origin"].to_numpy(), "+", color=GREY, ms=9, mew=0.9, zorder=2)
    shares = 100 * data["explained"].to_numpy()
    for axis, share, name in zip((ax.xaxis, ax.yaxis), shares, ("first", "second"), strict=True):
        axis.set_label_text(f"{name} principal axis, {share:.0f} %")


def _what_was_done(data: xr.Dataset, probs: list[float]) -> str:
    draws = data.attrs["num_draws"]
    if draws == 1:
        return "one draw, so no ellipses; + is v = 0"
    regions = " and ".join(f"{100 * p:g}" for p in sorted(probs))
    return f"{regions} % ellipses; {draws:,} draws aligned by orthogonal Procrustes; + is v = 0"


def _explain(axes: list[Axes], marks: _Marks) -> None:
    """Legend or scale."""
    from matplotlib.lines import Line2D

    if marks.scale is not None:
        figure_of(axes[0]).colorbar(marks.scale, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    if marks.legend:
        handles = [
            Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=name)
            for name, (colour, marker) in marks.legend.items()
        ]
        axes[0].legend(handles=handles, loc="best", handletextpad=0.1, framealpha=0.8)
