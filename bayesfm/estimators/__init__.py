"""The scikit-learn face."""

from bayesfm.estimators.classifier import FMClassifier
from bayesfm.estimators.count import FMCount
from bayesfm.estimators.ordinal import FMOrdinal
from bayesfm.estimators.regressor import FMRegressor

__all__ = ["FMClassifier", "FMCount", "FMOrdinal", "FMRegressor"]
