"""Likelihoods: one object each, used by every engine."""

from bayesfm.likelihoods.base import Likelihood
from bayesfm.likelihoods.gaussian import Gaussian

__all__ = ["Gaussian", "Likelihood"]
