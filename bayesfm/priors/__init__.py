"""Prior families over the parameters of features: NumPyro sites and Gibbs updates side by side, one file each.

A family describes a (p,) or (p, k) array ``x`` of feature parameters (w or v) whose rows belong to G groups.
"""

from bayesfm.priors.base import Dims, Features, Hyper, LocationScale, Prior, Sizes, of_features, of_groups
from bayesfm.priors.fixed import Fixed
from bayesfm.priors.half_t import HalfT
from bayesfm.priors.horseshoe import Horseshoe
from bayesfm.priors.intercept import Intercept
from bayesfm.priors.multiplicative_gamma import MultiplicativeGamma
from bayesfm.priors.normal_gamma import NormalGamma
from bayesfm.priors.normal_wishart import NormalWishart

__all__ = [
    "Dims",
    "Features",
    "Fixed",
    "HalfT",
    "Horseshoe",
    "Hyper",
    "Intercept",
    "LocationScale",
    "MultiplicativeGamma",
    "NormalGamma",
    "NormalWishart",
    "Prior",
    "Sizes",
    "of_features",
    "of_groups",
]
