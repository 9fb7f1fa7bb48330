"""Likelihoods: one object each, used by every engine."""

from bayesfm.likelihoods.base import Likelihood
from bayesfm.likelihoods.bernoulli import BernoulliLogit, BernoulliProbit
from bayesfm.likelihoods.binomial import BinomialLogit
from bayesfm.likelihoods.categorical import Categorical
from bayesfm.likelihoods.counts import NegativeBinomial, Poisson
from bayesfm.likelihoods.gaussian import Gaussian
from bayesfm.likelihoods.groupwise import GroupwiseGaussian
from bayesfm.likelihoods.ordinal import OrdinalLogit, OrdinalProbit
from bayesfm.likelihoods.student_t import StudentT

__all__ = [
    "BernoulliLogit",
    "BernoulliProbit",
    "BinomialLogit",
    "Categorical",
    "Gaussian",
    "GroupwiseGaussian",
    "Likelihood",
    "NegativeBinomial",
    "OrdinalLogit",
    "OrdinalProbit",
    "Poisson",
    "StudentT",
]
