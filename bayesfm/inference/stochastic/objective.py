r"""What a batch says of the parameters it touches: its part of the log joint density, or of the evidence lower bound.

Every row carries its share of all priors, a feature's prior being shared out over the feature's entries. The parts of
the batches of an epoch then add up to the whole, exactly, and a part is a function of what the batch touches alone:

    log p(y, theta) = sum_n [ log p(y_n | eta_n) + sum_{j in row n} log p(theta_j) / c_j + log p(rest) / N ],

c_j the number of entries of feature j. With batches drawn at random, N/B times a part is an unbiased estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jaxtyping import Array, Float, Int, Key
from numpyro.distributions import biject_to

from bayesfm.inference.stochastic import rowwise
from bayesfm.inference.stochastic.batches import Batch, Layout
from bayesfm.likelihoods.base import Likelihood, Params
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper, Prior

__all__ = [
    "Dense",
    "Model",
    "Normals",
    "Rule",
    "constrained",
    "eta_of_draw",
    "expected_log_prior",
    "log_joint_of_batch",
    "normals_of_features",
    "normals_of_intercept",
    "prior_of_features",
    "unconstrained",
]

type Dense = dict[str, Any]
"""What every row depends on: ``w0`` of shape (parts, *L) and ``params``, unconstrained, by name."""

NODES = 10
"""Of the Gauss-Hermite quadrature over eta."""


@dataclass(frozen=True)
class Rule:
    """How a step is made; part of the compiled program.

    Attributes
    ----------
    expectation : {"point", "samples", "moments"}
        A point; a normal approximation whose expected log-likelihood is estimated from one draw of the parameters, or
        integrated over a normal eta of the right mean and variance.
    optimiser : optax.GradientTransformation
        Of a feature, and of everything else.
    rank, num_groups : int
        Factors and prior groups.
    outputs : tuple of int
        Linear predictors, () for one.
    """

    expectation: str
    optimiser: optax.GradientTransformation
    rank: int
    num_groups: int
    outputs: tuple[int, ...] = ()

    @property
    def parts(self) -> int:
        """Numbers per parameter: the point, or mean and log standard deviation."""
        return 1 if self.expectation == "point" else 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers that describe a feature."""
        return (self.parts, *self.outputs, self.rank + 1)

    @property
    def width(self) -> int:
        """How many these are."""
        return int(np.prod(self.shape))


class Model(NamedTuple):
    """What does not change within an epoch; ``groups`` has one more entry, for the padding of batches."""

    spec: ModelSpec
    groups: Int[Array, " p+1"]
    hyper_w: Hyper
    hyper_v: Hyper


class Normals(NamedTuple):
    """Independent normals; points where there is no ``sd``."""

    mean: Array
    sd: Array | None = None

    @property
    def variance(self) -> Array | None:
        """Square of the standard deviation."""
        return None if self.sd is None else self.sd**2

    def draw(self, key: Key[Array, ""]) -> Array:
        """One of each; the points themselves."""
        if self.sd is None:
            return self.mean
        return self.mean + self.sd * jax.random.normal(key, self.mean.shape, self.mean.dtype)


def normals_of_features(model: Model, batch: Batch, x: Float[Array, "U *parts"]) -> Normals:
    """Of the touched features, (U, *L, K); padding is zero for sure."""
    known = (batch.touched < model.groups.shape[0] - 1).reshape(-1, *[1] * (x.ndim - 2))
    sd = jnp.where(known, jnp.exp(x[:, 1]), 0.0) if x.shape[1] == 2 else None
    return Normals(jnp.where(known, x[:, 0], 0.0), sd)


def normals_of_intercept(rule: Rule, dense: Dense, like: Array) -> Normals:
    """Of w0, (*L); zero for sure in a model without."""
    if "w0" not in dense:
        zero = jnp.zeros_like(like, shape=rule.outputs)
        return Normals(zero, None if rule.parts == 1 else zero)
    w0 = dense["w0"]
    return Normals(w0[0], jnp.exp(w0[1]) if rule.parts == 2 else None)


def log_joint_of_batch(
    rule: Rule,
    layout: Layout,
    model: Model,
    batch: Batch,
    x: Float[Array, "U *parts"],
    dense: Dense,
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """The batch's part of the log joint density of a point, or of the evidence lower bound of an approximation.

    Parameters
    ----------
    rule, layout : static
        How, and where the features of every block stand.
    model, batch
        See there.
    x : array of shape (U, *rule.shape)
        What describes the touched features.
    dense : dict
        Everything else.
    key : typed key
        Of the draw.
    """
    spec = model.spec
    params = constrained(spec.likelihood, dense["params"])
    features, w0 = normals_of_features(model, batch, x), normals_of_intercept(rule, dense, x)
    if rule.expectation == "moments":
        log_likelihood = _integrated(layout, batch, spec, params, features, w0)
    else:
        eta = eta_of_draw(rule, layout, batch, features, w0, key)
        log_likelihood = jnp.sum(spec.likelihood.log_density(batch.observed, eta, params))
    of_rest = spec.likelihood.log_prior(params)
    if spec.intercept is not None:
        of_rest += _of_intercept(spec, w0)
    of_features = _of_features(rule, model, batch.touched, features)
    if rule.parts == 2:
        of_features += _entropy(x[:, 1])
        of_rest += _entropy(dense["w0"][1][None])[0] if "w0" in dense else 0.0
    return log_likelihood + jnp.sum(batch.share * of_features) + batch.row_share * of_rest


def eta_of_draw(
    rule: Rule, layout: Layout, batch: Batch, features: Normals, w0: Normals, key: Key[Array, ""]
) -> Float[Array, "*L B"]:
    """Eta of the rows at a draw of all parameters, or at the point."""
    key_w0, key_theta = jax.random.split(key)
    of_output = partial(rowwise.eta, batch.design(layout))
    if rule.outputs:
        of_output = jax.vmap(of_output, in_axes=(0, 1))
    return of_output(w0.draw(key_w0), features.draw(key_theta))


def _integrated(
    layout: Layout, batch: Batch, spec: ModelSpec, params: Params, features: Normals, w0: Normals
) -> Float[Array, ""]:
    """Expected log-likelihood over a normal eta; the exact one if the likelihood is quadratic in eta."""
    assert w0.variance is not None
    assert features.variance is not None
    mean, variance = rowwise.eta_moments(
        batch.design(layout), w0.mean, w0.variance, features.mean, features.variance
    )
    sd = jnp.sqrt(variance + jnp.finfo(variance.dtype).tiny)  # a row without features has none
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)

    def at_node(z: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.sum(spec.likelihood.log_density(batch.observed, mean + z * sd, params))

    of_nodes = jax.vmap(at_node)(jnp.asarray(nodes, mean.dtype))
    return jnp.asarray(weights / weights.sum(), mean.dtype) @ of_nodes


def _entropy(log_sd: Float[Array, "U *d"]) -> Float[Array, " U"]:
    """Of the normals of every feature."""
    return jnp.sum(log_sd.reshape(len(log_sd), -1) + 0.5 * (1 + np.log(2 * np.pi)), axis=1)


def _of_intercept(spec: ModelSpec, w0: Normals) -> Float[Array, ""]:
    assert spec.intercept is not None
    lp = jnp.sum(spec.intercept.distribution().log_prob(w0.mean))
    return lp if w0.variance is None else lp - 0.5 * spec.intercept.precision * jnp.sum(w0.variance)


def _of_features(
    rule: Rule, model: Model, touched: Int[Array, " U"], features: Normals
) -> Float[Array, " U"]:
    """Expected log prior density of every touched feature, w and v of all linear predictors."""
    group = model.groups[touched]

    def of_output(hyper_w: Hyper, hyper_v: Hyper, mean: Array, variance: Array | None) -> Float[Array, " U"]:
        lp = jnp.zeros_like(mean[:, 0])
        for prior, hyper, at in (
            (model.spec.prior_w, hyper_w, 0),
            (model.spec.prior_v, hyper_v, slice(1, None)),
        ):
            if at == 0 or rule.rank:
                own = {
                    n: x.at[touched].get(mode="clip") if n in prior.local_names else x
                    for n, x in hyper.items()
                }
                var = None if variance is None else variance[:, at]
                lp += expected_log_prior(prior, own, group, mean[:, at], var, rule.num_groups)
        return lp

    arguments = (model.hyper_w, model.hyper_v, features.mean, features.variance)
    if not rule.outputs:
        return of_output(*arguments)
    return jnp.sum(jax.vmap(of_output, in_axes=(0, 0, 1, 1))(*arguments), axis=0)


def expected_log_prior(
    prior: Prior,
    hyper: Hyper,
    group: Int[Array, " U"],
    mean: Float[Array, "U *d"],
    variance: Float[Array, "U *d"] | None,
    num_groups: int,
) -> Float[Array, " U"]:
    """E log p(x_j | hyper) of every feature under independent normals: log p at the mean, less half of tr(P var).

    Every family is normal given its hyperparameters, so that this is no approximation. Those that belong to features
    are given for these features only.
    """
    own = prior.of_features(hyper, group, mean.shape[1:])
    at_mean = prior.distribution(own).log_prob(mean)
    lp = jnp.sum(at_mean.reshape(len(mean), -1), axis=1)
    if variance is None:
        return lp
    precision, _ = prior_of_features(prior, hyper, group, mean.shape[1:], num_groups)
    terms = precision * variance
    return lp - 0.5 * jnp.sum(terms.reshape(len(mean), -1), axis=1)


def prior_of_features(
    prior: Prior, hyper: Hyper, group: Int[Array, " U"], columns: tuple[int, ...], num_groups: int
) -> tuple[Float[Array, "U *d"], Float[Array, "U *d"]]:
    """Precision of every x_j given all others, and mean."""
    if prior.local_names:
        return prior.precision_and_mean(prior.of_features(hyper, group, columns), (len(group), *columns))
    precision, mean = prior.precision_and_mean(hyper, (num_groups, *columns))
    if prior.full:
        precision = jnp.diagonal(precision, axis1=-2, axis2=-1)
    return precision[group], mean[group]


def supports(likelihood: Likelihood) -> dict[str, Any]:
    """Where the parameters of a likelihood may lie."""
    found: dict[str, Any] = {}

    def look() -> None:
        with numpyro.handlers.trace() as trace, numpyro.handlers.seed(rng_seed=jax.random.key(0)):
            likelihood.sample()
        found.update({name: site["fn"].support for name, site in trace.items() if site["type"] == "sample"})

    jax.eval_shape(look)  # only the supports are asked for
    return found


def constrained(likelihood: Likelihood, coordinates: Mapping[str, Array]) -> Params:
    """Parameters of a likelihood from their unconstrained coordinates."""
    where = supports(likelihood) if coordinates else {}
    return {name: biject_to(where[name])(u) for name, u in coordinates.items()}


def unconstrained(likelihood: Likelihood, params: Mapping[str, Array]) -> dict[str, Array]:
    """Inverse of :func:`constrained`."""
    where = supports(likelihood) if params else {}
    return {name: biject_to(where[name]).inv(x) for name, x in params.items()}
