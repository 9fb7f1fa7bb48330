"""What is drawn of what was learned: maps, forests, reliability and losses show the numbers they should."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.text import Annotation, Text
from scipy import stats
from scipy.spatial.distance import pdist

from bayesfm import feature_map, interactions
from bayesfm.plots import plot_feature_map, plot_interactions, plot_loss, plot_reliability
from tests.pictures import NAMES, TOPICS, TREE, V, fitted_ascent
from tests.posteriors import rotated, tree_of


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    mpl.use("agg")
    before = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def labels_of(ax: Any) -> list[Annotation]:
    return [x for x in ax.texts if isinstance(x, Annotation) and x.arrow_patch is not None]


def test_map_does_not_depend_on_orientation() -> None:
    one, other = (feature_map(tree_of(rotated(V, seed), NAMES), NAMES) for seed in (1, 2))
    xr.testing.assert_allclose(one.drop_vars("r_hat"), other.drop_vars("r_hat"), rtol=1e-9, atol=1e-12)
    # By ranks around the median, at which two draws of 400 tie up to rounding.
    np.testing.assert_allclose(one["r_hat"], other["r_hat"], rtol=0, atol=1 / 400)
    assert one["r_hat"].max() < 1.1
    assert "400 draws" in one.attrs["alignment"]


def test_map_of_draws_that_agree_is_exact() -> None:
    """Points in a plane, turned in four dimensions: the plane is found, with all distances and the origin."""
    rng = np.random.default_rng(0)
    true = np.zeros((6, 4))
    true[:, 1:3] = rng.normal(size=(6, 2)) * [2.0, 1.0] + 0.5
    data = feature_map(tree_of(rotated(np.tile(true, (2, 5, 1, 1))), list("abcdef")), list("abcdef"))
    np.testing.assert_allclose(pdist(data["position"]), pdist(true), rtol=1e-9)
    np.testing.assert_allclose(data["covariance"], 0.0, atol=1e-18)
    np.testing.assert_allclose(data["explained"].sum(), 1.0, rtol=1e-12)
    from_origin = np.linalg.norm(data["position"] - data["origin"], axis=1)
    np.testing.assert_allclose(from_origin, np.linalg.norm(true, axis=1), rtol=1e-9)
    assert data["explained"][0] > data["explained"][1]


def test_covariance_is_that_of_the_draws() -> None:
    """Spread that no rotation can explain: along the line from the origin, of one feature."""
    rng = np.random.default_rng(0)
    true = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    v = np.tile(true, (2, 300, 1, 1))
    length = rng.normal(1.0, 0.1, size=(2, 300))
    v[:, :, 0, 0] *= length
    data = feature_map(tree_of(rotated(v), list("abcd")), list("abcd"), refinements=3)
    covariance = data["covariance"].to_numpy()
    assert covariance[0, 0, 0] == pytest.approx(np.var(3.0 * length, ddof=1), rel=1e-6)
    np.testing.assert_allclose(covariance[1:], 0.0, atol=1e-12)


def test_fewer_features_than_factors() -> None:
    rng = np.random.default_rng(0)
    v = np.tile(rng.normal(size=(3, 6)), (2, 5, 1, 1))
    data = feature_map(tree_of(rotated(v), list("abc")), list("abc"))
    np.testing.assert_allclose(pdist(data["position"]), pdist(v[0, 0]), rtol=1e-9)


def test_ellipses_are_those_of_the_covariance() -> None:
    probs = (0.5, 0.9)
    ax = plot_feature_map(TREE, NAMES, prob=probs).axes[0]
    data = feature_map(TREE, NAMES)
    drawn = [x for x in ax.patches if isinstance(x, Ellipse)][::2]  # each is filled, and has a line
    assert len(drawn) == 2 * len(NAMES)
    for prob, group in zip((0.9, 0.5), (drawn[: len(NAMES)], drawn[len(NAMES) :]), strict=True):
        for place, covariance, ellipse in zip(
            data["position"].values, data["covariance"].values, group, strict=True
        ):
            size, axes = np.linalg.eigh(covariance)
            np.testing.assert_allclose(ellipse.get_center(), place)
            quantile = stats.chi2.ppf(prob, 2)
            np.testing.assert_allclose(
                [ellipse.width, ellipse.height], 2 * np.sqrt(size[::-1] * quantile), rtol=1e-9
            )
            along = np.deg2rad(ellipse.angle)
            assert abs(np.cos(along) * axes[0, 1] + np.sin(along) * axes[1, 1]) == pytest.approx(1.0)


@pytest.mark.parametrize("dpi", [50, 300])
def test_labels_overlap_neither_each_other_nor_the_rim(dpi: int) -> None:
    rng = np.random.default_rng(1)
    names = [f"a feature with the number {i}" for i in range(60)]
    v = rng.uniform(-1, 1, size=(60, 2)) + 0.02 * rng.normal(
        size=(1, 20, 60, 2)
    )  # the legend has to lie on some
    figure = plot_feature_map(tree_of(v, names), names, color=[f"topic {i % 3}" for i in range(60)])
    ax = figure.axes[0]
    labels = labels_of(ax)
    assert 20 < len(labels) < 60
    figure.set_dpi(dpi)  # places are found at one resolution, and hold at others
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(x) for x in labels]
    legend = ax.get_legend().get_window_extent()
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in [*boxes[:i], legend])
        assert ax.get_window_extent().contains(*box.min)
        assert ax.get_window_extent().contains(*box.max)
    missing = 60 - len(labels)
    assert [x.get_text() for x in ax.texts if "left out" in x.get_text()] == [
        f"{missing} of 60 labels left out"
    ]
    assert labels[0].get_text() == names[0]  # the first ones have the first choice


def test_labels_can_be_chosen_and_left_out() -> None:
    assert labels_of(plot_feature_map(TREE, NAMES, labels=False).axes[0]) == []
    figure = plot_feature_map(TREE, NAMES[:3], labels=["a", "", "c"])
    assert [x.get_text() for x in labels_of(figure.axes[0])] == ["a", "c"]


def test_colours_by_category_and_by_value() -> None:
    figure = plot_feature_map(TREE, NAMES, color=TOPICS)
    shown = [x.get_text() for x in figure.axes[0].get_legend().get_texts()]
    assert shown == ["computers", "politics", "neither"]
    assert len(figure.axes) == 1
    many = plot_feature_map(TREE, NAMES, color=[f"c{i % 9}" for i in range(len(NAMES))]).axes[0]
    assert len(many.collections) == 2  # beyond seven colours another marker
    values = [1.5] * (len(NAMES) - 1) + [4.0]
    scaled = plot_feature_map(TREE, NAMES, color=values)
    assert len(scaled.axes) == 2
    assert scaled.axes[1].get_ylim() == (1.5, 4.0)
    colours = scaled.axes[0].collections[0].get_facecolors()
    assert np.all(colours[:-1] == colours[0])
    assert not np.array_equal(colours[0], colours[-1])


def test_beside_and_given_axes() -> None:
    coordinates = np.random.default_rng(0).normal(size=(len(NAMES), 2))
    figure = plot_feature_map(TREE, NAMES, beside={"another": coordinates})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Posterior of the factors", "another"]
    np.testing.assert_array_equal(figure.axes[1].collections[0].get_offsets(), coordinates)
    own = Figure(figsize=(10, 4))
    axes = own.subplots(1, 2)
    assert plot_feature_map(TREE, NAMES, beside=coordinates, ax=axes) is own
    assert axes[1].get_title(loc="left") == "for comparison"
    with pytest.raises(ValueError, match="ax must be 2 Axes, one for each map; got 1"):
        plot_feature_map(TREE, NAMES, beside=coordinates, ax=axes[0])


def test_one_draw_has_no_ellipses() -> None:
    figure = plot_feature_map(tree_of(V[:1, :1], NAMES), NAMES)
    assert "one draw, so no ellipses" in [x.get_text().split(";")[0] for x in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": NAMES[:2]}, "a map needs 3 features of rank 2 or more; got 2 of rank 4"),
        ({"features": ["keybord", "disk", "gun"]}, "did you mean 'keyboard'"),
        ({"color": {"keyboard": 1}}, "color has no value for feature 'windows'"),
        ({"color": ["a"]}, "color must have one value per feature, 18"),
        ({"color": [np.nan] * 18}, "color must be finite numbers"),
        ({"labels": ["a"]}, "labels must be True, False or 18 strings"),
        ({"beside": np.zeros((3, 2))}, r"beside must have finite coordinates of shape \(18, 2\)"),
        ({"prob": 1.0}, r"prob must lie in \(0, 1\)"),
    ],
)
def test_wrong_arguments_of_the_map_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_feature_map(TREE, **{"features": NAMES, **options})


def test_forest_shows_the_table() -> None:
    table = interactions(TREE, ["the", "law", "gun", "memory", "disk"], n=8, prob=0.8)
    figure = plot_interactions(table)
    ax = figure.axes[0]
    segments, points = ax.collections
    np.testing.assert_allclose(
        [s[:, 0] for s in segments.get_segments()], table[["eti80_lb", "eti80_ub"]].to_numpy()
    )
    np.testing.assert_allclose(points.get_offsets()[:, 0], table["mean"])
    assert (
        ax.get_yticklabels()[0].get_text()
        == f"{table['first'][0]} \N{MULTIPLICATION SIGN} {table['second'][0]}"
    )
    assert "80 % interval" in ax.get_xlabel()
    assert ax.yaxis_inverted()
    own = Figure()
    assert plot_interactions(TREE, n=3, ax=own.subplots()) is own
    with pytest.raises(TypeError, match=r"give n to interactions\(\)"):
        plot_interactions(table, n=3)


def test_colours_of_the_forest_say_whether_zero_lies_inside() -> None:
    rng = np.random.default_rng(0)
    v = np.ones((1, 200, 4, 1))
    v[0, :, 1, 0], v[0, :, 2, 0], v[0, :, 3, 0] = 2.0, -3.0, 0.5 * rng.normal(size=200)
    ax = plot_interactions(tree_of(v, list("abcd")), features=["a"], others=["b", "c", "d"]).axes[0]
    colours = [mpl.colors.to_hex(c) for c in ax.collections[0].get_colors()]
    assert [x.get_text()[-1] for x in ax.get_yticklabels()] == ["c", "b", "d"]
    assert colours == ["#d55e00", "#0072b2", "#999999"]


def drawn_reliability(y: np.ndarray, p: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:
    ax = plot_reliability(y, p, **options).axes[0]
    predicted, observed = next(x.get_data() for x in ax.lines if x.get_label() == "observed")
    bars = np.array([s[:, 1] for s in ax.collections[0].get_segments()])
    return np.asarray(predicted), np.asarray(observed), bars[:, 0], bars[:, 1]


def test_reliability_against_loops() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = (rng.random(500) < p).astype(int)
    predicted, observed, low, high = drawn_reliability(y, p, bins=4, strategy="uniform", prob=0.9)
    assert len(predicted) == 4
    for b in range(4):
        inside = [i for i in range(500) if b / 4 <= p[i] < (b + 1) / 4]
        assert predicted[b] == pytest.approx(np.mean(p[inside]))
        assert observed[b] == pytest.approx(np.mean(y[inside]))
        wanted = stats.binom(len(inside), np.mean(p[inside])).ppf([0.05, 0.95]) / len(inside)
        np.testing.assert_allclose([low[b], high[b]], wanted)
    ordered = np.argsort(p)
    predicted, observed, *_ = drawn_reliability(y == 1, p, bins=5)
    np.testing.assert_allclose(predicted, p[ordered].reshape(5, 100).mean(axis=1))
    np.testing.assert_allclose(observed, y[ordered].reshape(5, 100).mean(axis=1))


def test_band_holds_under_calibration_and_only_then() -> None:
    rng = np.random.default_rng(0)
    inside = {"right": [], "wrong": []}  # type: dict[str, list[np.ndarray]]
    for _ in range(40):
        p = rng.random(200)
        for name, true in (("right", p), ("wrong", p**2)):
            _, observed, low, high = drawn_reliability(rng.random(200) < true, p, bins=5, prob=0.9)
            inside[name].append((observed >= low - 1e-9) & (observed <= high + 1e-9))
    assert np.mean(inside["right"]) > 0.9 - 4 * np.sqrt(0.9 * 0.1 / 200)
    assert np.mean(inside["right"]) < 1
    assert np.mean(inside["wrong"]) < 0.8


def test_equal_probabilities_stay_together() -> None:
    p = np.repeat([0.0, 0.2, 1.0], [50, 100, 3])
    predicted, _, low, high = drawn_reliability(p > 0.5, p)
    assert predicted.tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert (low[[0, 2]].tolist(), high[[0, 2]].tolist()) == ([0.0, 1.0], [0.0, 1.0])
    own = Figure()
    assert plot_reliability(p > 0.5, p, ax=own.subplots()) is own


@pytest.mark.parametrize(
    ("y", "p", "options", "message"),
    [
        (np.zeros(2), np.zeros((2, 2)), {}, r"predict_proba\(X\)\[:, 1\]"),
        (np.zeros(2), np.zeros(3), {}, r"one value per row, at least one; got \(2,\) and \(3,\)"),
        (np.zeros(0), np.zeros(0), {}, "at least one"),
        (np.array(["no", "yes"]), np.zeros(2), {}, "give y == label"),
        (np.array([1, 2]), np.zeros(2), {}, "y must be 0 or 1"),
        (np.zeros(2), np.array([0.5, np.nan]), {}, r"p must lie in \[0, 1\]"),
        (np.zeros(2), np.zeros(2), {"strategy": "kmeans"}, "strategy must be one of"),
        (np.zeros(2), np.zeros(2), {"bins": 0}, "bins must be >= 1"),
    ],
)
def test_wrong_arguments_of_reliability_are_named(
    y: np.ndarray, p: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plot_reliability(y, p, **options)


def test_loss_with_validation() -> None:
    model = fitted_ascent()
    left, right = plot_loss(model).axes
    np.testing.assert_array_equal(left.lines[0].get_data(), (np.arange(41), model.loss_history_))
    assert left.get_ylabel() == "minus log posterior density"
    assert left.get_ylim()[1] < 1e4  # the first, at 1e5, are cut off, and it is said
    assert left.texts[0].get_text() == "cut off: the first 4, up to 1.023e+05"
    at, score = right.lines[0].get_data()
    looks = model.fit_info_["validation"]
    assert at.tolist() == sorted(map(int, looks))
    np.testing.assert_array_equal(score, [-looks[str(i)] for i in at])
    best = max(looks, key=lambda i: looks[i])
    assert right.lines[1].get_data() == ([int(best)], [-looks[best]])


def test_loss_by_epoch() -> None:
    history = {"epoch": [1, 2, 3, 4, 5], "held_out_log_density": [-3.0, -2.0, -1.5, -1.0, -1.2]}
    model = SimpleNamespace(
        fit_info_={"engine": "svi", "elbo": [], "history": history},
        loss_history_=np.array([9.0, 7.0, 6.0, 5.0, 5.5]),
    )
    own = Figure()
    ax = own.subplots()
    assert plot_loss(model, ax=ax) is own
    assert ax.lines[0].get_data()[0].tolist() == history["epoch"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "minus evidence lower bound")
    assert ax.texts == [] or not any("cut off" in x.get_text() for x in ax.texts)
    assert own.axes[1].lines[1].get_xdata() == [4]
    del history["held_out_log_density"]
    assert len(plot_loss(model).axes) == 1


def test_what_has_no_loss_says_so() -> None:
    with pytest.raises(ValueError, match=r"gibbs draws from the posterior and has no loss: use plot_trace"):
        plot_loss(SimpleNamespace(fit_info_={"engine": "gibbs"}))
    with pytest.raises(ValueError, match="no loss was recorded by svi"):
        plot_loss(SimpleNamespace(fit_info_={"engine": "svi"}))
    with pytest.raises(
        TypeError, match="must be a fitted estimator, which has fit_info_; got SimpleNamespace"
    ):
        plot_loss(SimpleNamespace())
