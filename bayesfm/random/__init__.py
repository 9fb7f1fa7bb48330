"""Random variables that the augmentations of the likelihoods need: truncated normals and Polya-Gamma variables."""

from bayesfm.random.polya_gamma import polya_gamma
from bayesfm.random.truncated_normal import truncated_normal

__all__ = ["polya_gamma", "truncated_normal"]
