"""Figures: that they show the numbers they should, and leave nothing behind."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.diagnostics import summary
from bayesfm.inference.draws import Draws
from bayesfm.metrics import interval_coverage
from bayesfm.model import default_spec, site_dims
from bayesfm.plots import plot_calibration, plot_demo, plot_trace
from bayesfm.posterior import to_datatree

N, RANK = 12, 2
NINETY_NINE = np.linspace(0.01, 0.99, 99)


def make_tree(chains: int = 2, fields: int = 1, draws: int = 30) -> xr.DataTree:
    rng = np.random.default_rng(0)
    design = Design([Block.field(f"field{f}", np.arange(N) % 3, list("abc")) for f in range(fields)])
    spec = default_spec(np.arange(N, dtype=float), rank=RANK)
    sizes = {"feature": design.num_features, "factor": RANK, "group": fields, "probe": 5}
    dims = {**site_dims(spec), "eta": ("probe",)}
    sites = {x: np.exp(rng.normal(size=(chains, draws, *(sizes[d] for d in own)))) for x, own in dims.items()}
    sites["w0"][0] = 1.0  # a chain that never moves has no density
    lp = rng.normal(size=(chains, draws))
    return to_datatree(Draws(sites, dims, {"lp": lp}, np.arange(5)), spec, design, np.zeros(N))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    mpl.use("agg")
    before = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def render(figure: Figure) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=40)
    return target.getvalue()


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_trace_shows_every_identified_quantity() -> None:
    tree = make_tree()
    figure = plot_trace(tree)
    names = summary(tree).index.tolist()
    assert len(names) == 8
    assert [title.split()[0] for title in titles(figure) if title] == names
    assert titles(figure)[0] == "w0  (intercept)"
    axes = np.array(figure.axes).reshape(-1, 2)
    alpha = names.index("alpha")
    for chain, line in enumerate(axes[alpha, 1].lines):
        np.testing.assert_array_equal(line.get_ydata(), tree["posterior"]["alpha"][chain])
    x, density = axes[alpha, 0].lines[1].get_data()
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=0.05)
    verdict = axes[alpha, 1].get_title(loc="right")
    shown = float(re.match(r"R-hat (\d\.\d+) ", verdict).group(1))  # type: ignore[union-attr]
    assert shown == pytest.approx(summary(tree).loc["alpha", "r_hat"], abs=6e-4)
    assert len(render(figure)) > 1000


def test_trace_of_chosen_and_of_many() -> None:
    tree = make_tree(chains=1)
    assert titles(plot_trace(tree, "mu_w"))[::2] == ["mu_w[field0]"]
    assert titles(plot_trace(tree, ["lp", "eta"]))[::2] == [
        "lp  (log joint density)",
        *(f"eta[{i}]" for i in range(5)),
    ]
    assert [t.split()[0] for t in titles(plot_trace(make_tree(fields=6)))[::2]] == [
        "w0",
        "alpha",
        "lp",
        "eta[worst]",
    ]
    with pytest.raises(ValueError, match=r"unknown quantities \['v'\]; known are w0, alpha"):
        plot_trace(tree, "v")


def test_calibration_from_both_kinds_of_input() -> None:
    rng = np.random.default_rng(1)
    mean = rng.normal(size=500)
    y = mean + rng.normal(size=500)
    wrong = 0.7  # the predictive sd, too small
    quantiles = mean[:, None] + wrong * stats.norm.ppf(NINETY_NINE)
    curves = []
    for predicted in (quantiles, stats.norm.cdf(y, mean, wrong)):
        ax = plot_calibration(y, predicted).axes[0]
        curves.append(next(line.get_data() for line in ax.lines if line.get_label() == "observed"))
    for level, low, high in ((0.9, 4, 94), (0.5, 24, 74), (0.02, 48, 50)):
        covered = interval_coverage(y, quantiles[:, [low, high]])
        for nominal, observed in curves:
            assert observed[np.isclose(nominal, level)] == pytest.approx(covered)
    assert np.all(curves[0][1][5:-5] < curves[0][0][5:-5])


def test_band_is_binomial() -> None:
    """Of rows that follow the prediction, the curve at one level lies inside in 95 % of all cases."""
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(100):
        ax = plot_calibration(np.zeros(80), rng.random(80)).axes[0]
        nominal, observed = next(line.get_data() for line in ax.lines if line.get_label() == "observed")
        band = ax.collections[0].get_paths()[0].vertices
        at = band[np.isclose(band[:, 0], 0.9), 1]
        inside.append(at.min() - 1e-9 <= observed[np.isclose(nominal, 0.9)][0] <= at.max() + 1e-9)
    assert 95 - 4 * np.sqrt(100 * 0.95 * 0.05) < np.sum(
        inside
    )  # at least 95 %, the distribution being discrete
    assert np.sum(inside) < 100


def test_calibration_in_given_axes() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_calibration(np.zeros(3), np.array([0.1, 0.5, 0.9]), ax=right) is figure
    assert not left.lines
    assert right.lines
    render(figure)


def test_demo_shows_traces_and_calibration() -> None:
    tree = make_tree()
    y = np.random.default_rng(0).normal(size=40)
    quantiles = np.tile(stats.norm.ppf(NINETY_NINE), (40, 1))
    figure = plot_demo(tree, y, quantiles)
    shown = [title.split()[0] for title in titles(figure)[:3]]
    assert shown == ["w0", "alpha", "lp"]
    assert titles(figure)[3] == "Calibration of predictive intervals"
    assert len(render(figure)) > 1000
    assert len(render(plot_demo(tree, y, stats.norm.cdf(y)))) > 1000


@pytest.mark.parametrize(
    ("y", "predicted", "probs", "message"),
    [
        (np.zeros(3), np.zeros(2), None, "one row per entry of y"),
        (np.zeros((3, 1)), np.zeros(3), None, "one row per entry of y"),
        (np.zeros(0), np.zeros(0), None, "one row per entry of y"),
        (np.zeros(2), np.array([0.1, 1.1]), None, r"must lie in \[0, 1\]"),
        (np.zeros(2), np.array([0.1, np.nan]), None, r"must lie in \[0, 1\]"),
        (np.zeros(2), np.zeros((2, 2)), [0.05, 0.9], "symmetric about 1/2"),
        (np.zeros(2), np.zeros((2, 2)), [0.95, 0.05], "increasing"),
        (np.zeros(2), np.zeros((2, 2)), [0.5], "probs must be 2"),
        (np.zeros(2), np.zeros((2, 1)), None, "at least 2"),
        (np.zeros(2), np.zeros((2, 2)), None, "may be the bounds of any interval"),
    ],
)
def test_wrong_arguments_are_named(
    y: np.ndarray, predicted: np.ndarray, probs: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plot_calibration(y, predicted, probs)
