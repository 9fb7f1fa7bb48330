"""Bayesian factorization machines on JAX, NumPyro and ArviZ.

Everything is imported on first use, so that ``import bayesfm`` costs next to nothing:

>>> import bayesfm
>>> bayesfm.FM(rank=4)
FM(rank=4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesfm.alignment import align
    from bayesfm.comparison import compare
    from bayesfm.design import (
        Block,
        Design,
        DesignEncoder,
        TableEncoder,
        design_from_matrix,
        iter_dataset,
        iter_libfm,
        read_libfm,
        write_libfm,
    )
    from bayesfm.design.on_device import on_device
    from bayesfm.diagnostics import ApproximationWarning, ConvergenceWarning, pareto_k, summary
    from bayesfm.encoders import BloomInclusion, HashedFields, HashedText, PoissonInclusion
    from bayesfm.estimators import FMClassifier, FMCount, FMOrdinal, FMRegressor
    from bayesfm.inference.ascent import AscentOptions
    from bayesfm.inference.chains import ChainOptions
    from bayesfm.inference.engines import nuts
    from bayesfm.inference.gibbs.numpyro_block import FMBlock
    from bayesfm.inference.gibbs.run import gibbs
    from bayesfm.inference.modes import find_map, laplace
    from bayesfm.inference.nuts.run import DivergenceWarning
    from bayesfm.inference.stochastic import MinibatchOptions, stochastic_map, svi
    from bayesfm.inference.vi.run import cavi
    from bayesfm.likelihoods import (
        BernoulliLogit,
        BernoulliProbit,
        BinomialLogit,
        Categorical,
        Gaussian,
        NegativeBinomial,
        OrdinalLogit,
        OrdinalProbit,
        Poisson,
        StudentT,
    )
    from bayesfm.maps import feature_map
    from bayesfm.model import ModelSpec, default_spec
    from bayesfm.posterior_files import load, save
    from bayesfm.predictors import FM
    from bayesfm.priors import (
        Fixed,
        HalfT,
        Horseshoe,
        Intercept,
        MultiplicativeGamma,
        NormalGamma,
        NormalWishart,
        PerGroup,
    )
    from bayesfm.similarity import interactions, nearest_features
    from bayesfm.term import fm_dims, fm_term
    from bayesfm.versions import show_versions

    __version__: str

__all__ = [
    "FM",
    "ApproximationWarning",
    "AscentOptions",
    "BernoulliLogit",
    "BernoulliProbit",
    "BinomialLogit",
    "Block",
    "BloomInclusion",
    "Categorical",
    "ChainOptions",
    "ConvergenceWarning",
    "Design",
    "DesignEncoder",
    "DivergenceWarning",
    "FMBlock",
    "FMClassifier",
    "FMCount",
    "FMOrdinal",
    "FMRegressor",
    "Fixed",
    "Gaussian",
    "HalfT",
    "HashedFields",
    "HashedText",
    "Horseshoe",
    "Intercept",
    "MinibatchOptions",
    "ModelSpec",
    "MultiplicativeGamma",
    "NegativeBinomial",
    "NormalGamma",
    "NormalWishart",
    "OrdinalLogit",
    "OrdinalProbit",
    "PerGroup",
    "Poisson",
    "PoissonInclusion",
    "StudentT",
    "TableEncoder",
    "__version__",
    "align",
    "cavi",
    "compare",
    "default_spec",
    "design_from_matrix",
    "feature_map",
    "find_map",
    "fm_dims",
    "fm_term",
    "gibbs",
    "interactions",
    "iter_dataset",
    "iter_libfm",
    "laplace",
    "load",
    "nearest_features",
    "nuts",
    "on_device",
    "pareto_k",
    "read_libfm",
    "save",
    "show_versions",
    "stochastic_map",
    "summary",
    "svi",
    "write_libfm",
]

_MODULES = {
    "design": (
        "Block",
        "Design",
        "DesignEncoder",
        "TableEncoder",
        "design_from_matrix",
        "iter_dataset",
        "iter_libfm",
        "read_libfm",
        "write_libfm",
    ),
    "alignment": ("align",),
    "comparison": ("compare",),
    "diagnostics": ("ApproximationWarning", "ConvergenceWarning", "pareto_k", "summary"),
    "encoders": ("BloomInclusion", "HashedFields", "HashedText", "PoissonInclusion"),
    "estimators": ("FMClassifier", "FMCount", "FMOrdinal", "FMRegressor"),
    "inference.ascent": ("AscentOptions",),
    "inference.chains": ("ChainOptions",),
    "inference.engines": ("nuts",),
    "inference.gibbs.numpyro_block": ("FMBlock",),
    "inference.gibbs.run": ("gibbs",),
    "inference.modes": ("find_map", "laplace"),
    "inference.nuts.run": ("DivergenceWarning",),
    "inference.stochastic": ("MinibatchOptions", "stochastic_map", "svi"),
    "inference.vi.run": ("cavi",),
    "likelihoods": (
        "BernoulliLogit",
        "BernoulliProbit",
        "BinomialLogit",
        "Categorical",
        "Gaussian",
        "NegativeBinomial",
        "OrdinalLogit",
        "OrdinalProbit",
        "Poisson",
        "StudentT",
    ),
    "maps": ("feature_map",),
    "model": ("ModelSpec", "default_spec"),
    "posterior_files": ("load", "save"),
    "predictors": ("FM",),
    "priors": (
        "Fixed",
        "HalfT",
        "Horseshoe",
        "Intercept",
        "MultiplicativeGamma",
        "NormalGamma",
        "NormalWishart",
        "PerGroup",
    ),
    "design.on_device": ("on_device",),
    "similarity": ("interactions", "nearest_features"),
    "term": ("fm_dims", "fm_term"),
    "versions": ("show_versions",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

DISTRIBUTION = "bayesfm-jax"


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        value = getattr(import_module(f"bayesfm.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'bayesfm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
