"""The scikit-learn face: fit, predict with standard deviations and intervals, and the posterior behind them."""

from __future__ import annotations

from bayesfm.estimators.regressor import FMRegressor

__all__ = ["FMRegressor"]
