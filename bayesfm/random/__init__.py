"""Random variables that the augmentations of the likelihoods need: truncated normals, gammas, Polya-Gamma variables."""

from bayesfm.random.gamma import gamma
from bayesfm.random.keys import compiled, is_compiled
from bayesfm.random.polya_gamma import polya_gamma
from bayesfm.random.tails import mills_ratio
from bayesfm.random.truncated_normal import truncated_normal

__all__ = ["compiled", "gamma", "is_compiled", "mills_ratio", "polya_gamma", "truncated_normal"]
