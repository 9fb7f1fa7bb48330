"""Prior families over the parameters of features: NumPyro sites and Gibbs updates side by side, one file each.

A family describes a (p,) or (p, k) array ``x`` of feature parameters (w or v) whose rows belong to G groups.
"""

from bayesfm.priors.base import Dims, Features, Hyper, Location, LocationScale, Prior, Sizes
from bayesfm.priors.fixed import Fixed
from bayesfm.priors.half_t import HalfT
from bayesfm.priors.horseshoe import Horseshoe
from bayesfm.priors.intercept import Intercept
from bayesfm.priors.multiplicative_gamma import MultiplicativeGamma
from bayesfm.priors.normal_gamma import NormalGamma
from bayesfm.priors.normal_wishart import NormalWishart
from bayesfm.priors.per_group import PerGroup, as_prior, per_group

__all__ = [
    "Dims",
    "Features",
    "Fixed",
    "HalfT",
    "Horseshoe",
    "Hyper",
    "Intercept",
    "Location",
    "LocationScale",
    "MultiplicativeGamma",
    "NormalGamma",
    "NormalWishart",
    "PerGroup",
    "Prior",
    "Sizes",
    "as_prior",
    "per_group",
]
