"""Minibatch engines: a point or a normal approximation by stochastic gradients, at the cost of what a batch touches."""

from bayesfm.inference.stochastic.batches import Totals
from bayesfm.inference.stochastic.learner import Learner
from bayesfm.inference.stochastic.options import EpochProgress, MinibatchOptions
from bayesfm.inference.stochastic.run import stochastic_map, svi
from bayesfm.inference.stochastic.training import HeldOut

__all__ = ["EpochProgress", "HeldOut", "Learner", "MinibatchOptions", "Totals", "stochastic_map", "svi"]
