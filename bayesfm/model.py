"""The model: predictor + likelihood + priors, its joint density as one NumPyro callable, and its table of sites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, Int

from bayesfm import likelihoods
from bayesfm._pytree import pytree
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.on_device import OnDevice
from bayesfm.likelihoods import Gaussian, Likelihood
from bayesfm.likelihoods.base import RowData, check_row_data
from bayesfm.predictors import FM
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    Hyper,
    Intercept,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    PerGroup,
    Prior,
)
from bayesfm.term import fm_dims, fm_term

__all__ = [
    "ModelSpec",
    "default_spec",
    "log_joint",
    "log_prior_of_features",
    "numpyro_model",
    "part_from_dict",
    "part_to_dict",
    "site_dims",
]

PRIORS = (NormalGamma, HalfT, Fixed, Horseshoe, MultiplicativeGamma, NormalWishart, PerGroup)
REGISTRY: dict[str, type] = {
    **{name: getattr(likelihoods, name) for name in likelihoods.__all__ if name != "Likelihood"},
    **{c.__name__: c for c in (FM, *PRIORS, Intercept)},
}
"""Classes that may stand in a saved specification; a new part of a model adds itself here."""


@pytree()
@dataclass(frozen=True)
class ModelSpec:
    """What is modelled; no word on how it is fitted.

    Parameters
    ----------
    predictor : FM
        Equation of eta.
    likelihood : Likelihood
        p(y | eta).
    prior_w, prior_v : Prior
        Priors of the linear weights and of the factors, one set of hyperparameters per group (and factor, for v).
        :class:`~bayesfm.priors.PerGroup` has a family for each.
    intercept : Intercept or None
        Prior of w0; None for a model without w0, which ordinal likelihoods ask for.

    Examples
    --------
    >>> from bayesfm.model import ModelSpec
    >>> from bayesfm.predictors import FM
    >>> ModelSpec(predictor=FM(rank=4)).predictor.rank
    4
    """

    predictor: FM = field(default_factory=FM)
    likelihood: Likelihood = field(default_factory=Gaussian)
    prior_w: Prior = field(default_factory=NormalGamma)
    prior_v: Prior = field(default_factory=NormalGamma)
    intercept: Intercept | None = field(default_factory=Intercept)

    def __post_init__(self) -> None:
        expected = {"likelihood": Likelihood, "prior_w": Prior, "prior_v": Prior}
        for name, kind in {"predictor": FM, **expected}.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}")
        if not isinstance(self.intercept, Intercept | None):
            raise TypeError(f"intercept must be an Intercept or None, got {self.intercept!r}")
        if self.intercept is not None and not self.likelihood.identifies_intercept:
            raise ValueError(
                f"{type(self.likelihood).__name__} knows no intercept, since its cut-points take every shift of eta: "
                "give intercept=None"
            )
        site_dims(self)  # a family may not be meant for w, or not for v

    def for_groups(self, groups: Sequence[str]) -> ModelSpec:
        """The same with priors per group in this order, that of a design's ``group_names``.

        Raises
        ------
        ValueError
            If they are priors of other groups.
        """
        priors = {name: getattr(self, name) for name in ("prior_w", "prior_v")}
        ordered: dict[str, Any] = {
            name: x.in_order(groups) for name, x in priors.items() if isinstance(x, PerGroup)
        }
        return replace(self, **ordered) if ordered else self

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of class names and numbers, for JSON."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: None if part is None else part_to_dict(part) for name, part in parts.items()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ModelSpec:
        """Inverse of :meth:`to_dict`."""
        parts: dict[str, Any] = {name: None if x is None else part_from_dict(x) for name, x in state.items()}
        return cls(**parts)


def part_to_dict(part: Any) -> dict[str, Any]:
    """A part of a model as its class name and its numbers."""
    return {
        "class": type(part).__name__,
        **{f.name: _to_json(getattr(part, f.name)) for f in fields(part)},
    }


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(x) for x in value]
    if isinstance(value, Prior):
        return part_to_dict(value)
    value = value.item() if isinstance(value, np.generic) else value
    return "inf" if value == math.inf else value  # JSON has no infinity


def part_from_dict(state: Mapping[str, Any]) -> Any:
    """Inverse of :func:`part_to_dict`."""
    kind = REGISTRY.get(state["class"])
    if kind is None:
        raise ValueError(f"unknown model part {state['class']!r}; known are {', '.join(sorted(REGISTRY))}")
    return kind(**{name: _from_json(x) for name, x in state.items() if name != "class"})


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(x) for x in value)
    if isinstance(value, dict):
        return part_from_dict(value)
    return math.inf if value == "inf" else value


def default_spec(
    y: Float[np.ndarray, " n"],
    rank: int = 8,
    weight: Float[np.ndarray, " n"] | None = None,
    likelihood: Likelihood | None = None,
    row_data: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Weakly informative specification on the scale of eta.

    The prior scales follow the spread s of eta that the likelihood expects for y, for a real response its standard
    deviation: one prior degree of freedom everywhere, noise and weights thought to be of size s, factors of size
    sqrt(s), and w0 within five s of where eta is expected. Multiplying a real y by a constant therefore multiplies
    predictions by it. For a constant y, s is 1.

    Where the likelihood asks for it (``Likelihood.light_scales``), the standard deviations of weights and factors are
    half-normal, of scale s and 0.4 sqrt(s): where ones and zeros can be separated, the likelihood has nothing against
    scales without bound, and neither has the tail of a Gamma prior of precisions (docs/priors.md).

    Parameters
    ----------
    y : array of shape (n,)
        Response, as the likelihood wants it.
    rank : int
        Number of factors.
    weight : array of shape (n,), optional
        Row weights.
    likelihood : Likelihood, optional
        By default Gaussian noise thought to be of the size of s.
    row_data : mapping, optional
        What the likelihood has to know of every row, for instance ``{"exposure": ...}``.

    Returns
    -------
    ModelSpec

    Raises
    ------
    ValueError
        If y is not a response of this likelihood; for a real one, if s is below 1e-12 or above 1e12: sums of squares
        would leave the range of float32.
    """
    y = np.asarray(y)
    likelihood = Gaussian.for_response(y, weight) if likelihood is None else likelihood
    rows = check_row_data(likelihood, row_data, len(y))
    y = np.asarray(likelihood.validate(y, weight, rows), np.float64)
    mean, s = likelihood.expected_eta(y, weight, rows)
    intercept = Intercept(mean=mean, precision=1.0 / (25.0 * s * s))
    prior_w: Prior = NormalGamma(b0=s * s)
    prior_v: Prior = NormalGamma(b0=s)
    if likelihood.light_scales:
        prior_w, prior_v = HalfT(scale=s, df=math.inf), HalfT(scale=0.4 * s**0.5, df=math.inf)
    return ModelSpec(
        predictor=FM(rank),
        likelihood=likelihood,
        prior_w=prior_w,
        prior_v=prior_v,
        intercept=intercept if likelihood.identifies_intercept else None,
    )


def site_dims(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """The one table of sites: name -> named dimensions, sample dimensions left out.

    Examples
    --------
    >>> from bayesfm.model import ModelSpec, site_dims
    >>> site_dims(ModelSpec())["mu_v"]
    ('group', 'factor')
    """
    outputs = spec.likelihood.output_dims
    dims: dict[str, tuple[str, ...]] = {} if spec.intercept is None else {"w0": outputs}
    dims |= spec.likelihood.dims
    return {**dims, **fm_dims(spec.prior_w, spec.prior_v, output_dims=outputs)}


def numpyro_model(
    spec: ModelSpec,
    design: DesignArrays,
    groups: Int[Array, " p"],
    num_groups: int,
    y: Float[Array, " n"] | None = None,
    weight: Float[Array, " n"] | None = None,
    rows: RowData | None = None,
) -> None:
    """The joint density of all sites and y, as a NumPyro model: the ground truth that every engine answers to.

    Parameters
    ----------
    spec : ModelSpec
        What is modelled.
    design : DesignArrays
        n rows, p features.
    groups : array of shape (p,)
        Prior group of every feature.
    num_groups : int
        G; an empty group keeps its prior.
    y : array of shape (n,), optional
        Response; None samples it.
    weight : array of shape (n,), optional
        A row of weight c counts as c equal rows.
    rows : dict of arrays of shape (n,), optional
        The likelihood's row data; see ``likelihoods.base.check_row_data``.
    """
    params = spec.likelihood.sample()
    eta = fm_term(
        OnDevice(design, groups, num_groups),
        spec.predictor.rank,
        spec.prior_w,
        spec.prior_v,
        intercept=spec.intercept,
        outputs=spec.likelihood.outputs,
    )
    eta = numpyro.deterministic("eta", eta)
    weight = jnp.ones(design.num_rows) if weight is None else weight
    seen = weight > 0  # NumPyro refuses a scale of zero
    with (
        numpyro.plate("row", design.num_rows),
        numpyro.handlers.mask(mask=seen),
        numpyro.handlers.scale(scale=jnp.where(seen, weight, 1.0)),
    ):
        numpyro.sample("y", spec.likelihood.distribution(eta, params, rows or {}), obs=y)


def log_joint(
    spec: ModelSpec,
    groups: Int[Array, " p"],
    sites: Mapping[str, Array],
    log_likelihood: Float[Array, ""],
) -> Float[Array, ""]:
    """Log joint density from the log-likelihood and the sites, without another pass over the rows."""
    params = {name: sites[name] for name in spec.likelihood.dims}
    lp = log_likelihood + spec.likelihood.log_prior(params)
    if not spec.likelihood.outputs:
        return _add_log_prior(lp, spec, groups, sites)
    own = _of_outputs(spec, sites)
    return lp + jnp.sum(jax.vmap(partial(_add_log_prior, jnp.zeros(()), spec, groups))(own))


def log_prior_of_features(
    spec: ModelSpec, groups: Int[Array, " p"], sites: Mapping[str, Array]
) -> Float[Array, ""]:
    """log p(w0) + log p(w | hyper) + log p(v | hyper): what of the joint density depends on them, but for the rows."""
    of_output = partial(_add_log_prior, jnp.zeros(()), spec, groups, with_hyper=False)
    return (
        jnp.sum(jax.vmap(of_output)(_of_outputs(spec, sites)))
        if spec.likelihood.outputs
        else of_output(sites)
    )


def _of_outputs(spec: ModelSpec, sites: Mapping[str, Array]) -> dict[str, Array]:
    """The sites that every linear predictor has for itself."""
    shared = spec.likelihood.dims
    return {name: x for name, x in sites.items() if name in site_dims(spec) and name not in shared}


def _add_log_prior(
    lp: Float[Array, ""],
    spec: ModelSpec,
    groups: Int[Array, " p"],
    sites: Mapping[str, Array],
    *,
    with_hyper: bool = True,
) -> Float[Array, ""]:
    """With the log prior density of the parameters of one linear predictor."""
    if spec.intercept is not None:
        lp += spec.intercept.distribution().log_prob(sites["w0"])
    for prior, x in ((spec.prior_w, "w"), (spec.prior_v, "v")):
        if sites[x].size:
            hyper: Hyper = {name: sites[f"{name}_{x}"] for name in prior.hyper_names()}
            lp += prior.log_hyper(hyper) if with_hyper else 0.0
            own = prior.of_features(hyper, groups, sites[x].shape[1:])
            lp += jnp.sum(prior.distribution(own).log_prob(sites[x]))
    return lp
