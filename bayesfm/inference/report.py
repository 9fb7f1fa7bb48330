"""What engines report of a draw, computed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bayesfm.design.arrays import DesignArrays
from bayesfm.likelihoods.base import Observed, RowData
from bayesfm.model import ModelSpec, log_joint
from bayesfm.priors import Hyper, Prior
from bayesfm.sums import total, weighted_square

__all__ = ["draw_stats", "row_moments"]


def draw_stats(
    spec: ModelSpec,
    groups: Int[Array, " p"],
    observed: Observed,
    sites: Mapping[str, Array],
    eta: Float[Array, "*L n"],
    *,
    native: bool = False,
) -> dict[str, Array]:
    """Log joint density ``lp``, log-likelihood and, where y has a mean, training RMSE.

    ``native`` says that compiled kernels may be used.
    """
    params = {name: sites[name] for name in spec.likelihood.dims}
    y, weight, rows = observed
    log_likelihood = spec.likelihood.log_likelihood(observed, eta, params, native=native)
    stats = {"lp": log_joint(spec, groups, sites, log_likelihood), "log_likelihood": log_likelihood}
    if spec.likelihood.has_moments:
        expected = spec.likelihood.distribution(eta, params, rows).mean
        stats["train_rmse"] = jnp.sqrt(total(weight, y, expected, of=weighted_square) / total(weight))
    return stats


def row_moments(
    key: Key[Array, ""],
    spec: ModelSpec,
    sites: Mapping[str, Array],
    streams: Mapping[str, DesignArrays],
    stream_rows: Mapping[str, RowData],
    *,
    point: bool = False,
) -> dict[str, tuple[Array, Array]]:
    """Mean and variance of y at the rows of every stream.

    Unseen levels are drawn from their group's prior, or for a ``point`` estimate are at its mean.
    """
    if not streams:
        return {}
    theta = spec.predictor.join(sites["w"], sites["v"])
    params = {name: sites[name] for name in spec.likelihood.dims}
    out = {}
    for name, design in streams.items():
        all_theta = jnp.concatenate([theta, _unseen_theta(key, spec, sites, design, point)], axis=1)
        eta = sites.get("w0", 0.0) + design.row_effect(spec.predictor, all_theta)
        y = spec.likelihood.distribution(eta, params, stream_rows[name])
        out[name] = (y.mean, jnp.broadcast_to(y.variance, eta.shape))
    return out


def _unseen_theta(
    key: Key[Array, ""], spec: ModelSpec, sites: Mapping[str, Array], design: DesignArrays, point: bool
) -> Float[Array, "K u"]:
    group = design.unseen_group
    if group is None or not group.shape[0]:
        return jnp.zeros_like(sites["w"], shape=(spec.predictor.width, 0))
    key_w, key_v = jax.random.split(key)
    u, k = group.shape[0], spec.predictor.rank

    def new(key: Key[Array, ""], prior: Prior, x: str, shape: tuple[int, ...]) -> Array:
        hyper: Hyper = {name: sites[f"{name}_{x}"] for name in prior.hyper_names()}
        own = prior.of_groups(hyper, group, shape[1:])
        return prior.mean_new(own, shape) if point else prior.sample_new(key, own, shape)

    w = new(key_w, spec.prior_w, "w", (u,))
    if not k:
        return w[None]
    v = new(key_v, spec.prior_v, "v", (u, k))
    return jnp.concatenate([w[None], v.T])
