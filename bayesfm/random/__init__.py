"""Random variables that the augmentations of the likelihoods need, and a step of slice sampling."""

from bayesfm.random.gamma import gamma
from bayesfm.random.polya_gamma import polya_gamma
from bayesfm.random.slice import slice_step
from bayesfm.random.tails import mills_ratio
from bayesfm.random.truncated_normal import truncated_normal

__all__ = ["gamma", "mills_ratio", "polya_gamma", "slice_step", "truncated_normal"]
