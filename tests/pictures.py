"""Pictures that are compared with ``tests/baseline``; ``python -m tests.pictures`` draws those anew: look at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bayesfm.plots import plot_feature_map, plot_interactions, plot_loss, plot_reliability
from tests.posteriors import rotated, tree_of, words

BASELINE = Path(__file__).parent / "baseline"
DPI = 54
RENDERING = {
    "font.family": ["DejaVu Sans"],
    "text.hinting": "none",
}
NAMES, V, TOPICS = words()
TREE = tree_of(rotated(V), NAMES)


def fitted_ascent() -> SimpleNamespace:
    """What plot_loss reads of an estimator."""
    i = np.arange(41)
    looks = {str(k): -1.4 - 0.3 * np.exp(-k / 8) - 2e-4 * (k - 25.0) ** 2 for k in range(5, 41, 5)}
    return SimpleNamespace(
        fit_info_={"engine": "map", "objective": [], "validation": looks},
        loss_history_=1e5 * np.exp(-i / 1.2) + 2000 + 300 * np.exp(-i / 10),
    )


def too_sure() -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and probabilities that are too high in the middle."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.8, size=2000)
    return rng.random(2000) < p**1.3, p


def beside() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(NAMES), 2))


PICTURES: dict[str, Callable[[], Figure]] = {
    "feature_map": lambda: plot_feature_map(TREE, NAMES, color=TOPICS),
    "feature_map_beside": lambda: plot_feature_map(
        TREE, NAMES[:10], color=range(10), beside={"Another map": beside()[:10]}, prob=0.9
    ),
    "interactions": lambda: plot_interactions(TREE, features=["the", "law", "gun", "memory", "disk"], n=8),
    "loss": lambda: plot_loss(fitted_ascent()),
    "reliability": lambda: plot_reliability(*too_sure(), bins=8),
}


def draw(name: str, folder: Path) -> Path:
    """One picture as a file, in a style that does not depend on the user's."""
    path = folder / f"{name}.png"
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.use("agg")
        mpl.rcParams.update(RENDERING)
        PICTURES[name]().savefig(path, dpi=DPI, metadata={"Software": mpl.__version__})
    return path


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    for name in PICTURES:
        draw(name, BASELINE)
