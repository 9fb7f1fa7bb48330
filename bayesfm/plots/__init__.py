"""Figures: of chains, of predictions, and of what was learned. Every function returns the matplotlib figure."""

from bayesfm.plots.calibration import plot_calibration
from bayesfm.plots.demo import plot_demo
from bayesfm.plots.feature_map import plot_feature_map
from bayesfm.plots.interactions import plot_interactions
from bayesfm.plots.loss import plot_loss
from bayesfm.plots.reliability import plot_reliability
from bayesfm.plots.traces import plot_trace

__all__ = [
    "plot_calibration",
    "plot_demo",
    "plot_feature_map",
    "plot_interactions",
    "plot_loss",
    "plot_reliability",
    "plot_trace",
]
