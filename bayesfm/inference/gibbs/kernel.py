"""The Gibbs sampler as a kernel for the chain runner."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bayesfm._pytree import pytree
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.gibbs.state import GibbsData, GibbsState, initial_state, to_sites
from bayesfm.inference.gibbs.sweep import sweep
from bayesfm.model import ModelSpec, log_joint
from bayesfm.priors import of_groups
from bayesfm.sums import total, weighted_square

__all__ = ["GibbsKernel"]


@pytree(static=("factor_block", "keep"))
@dataclass(frozen=True)
class GibbsKernel:
    """Gibbs sweeps of one model on one data set (a ``inference.kernel.Kernel``).

    Attributes
    ----------
    spec, data
        Model; layout, response and weights.
    probe_rows
        Rows at which eta is reported.
    streams
        Rows at which predictive moments are gathered, by name.
    factor_block
        Factors drawn jointly with w.
    keep
        Names of the sites to be reported.
    """

    spec: ModelSpec
    data: GibbsData
    probe_rows: Int[Array, " probe"]
    streams: dict[str, DesignArrays]
    factor_block: int
    keep: tuple[str, ...]

    def init(self, key: Key[Array, ""]) -> GibbsState:
        """A dispersed start."""
        return initial_state(key, self.spec, self.data)

    def sweep(self, key: Key[Array, ""], state: GibbsState) -> GibbsState:
        """Every full conditional once."""
        return sweep(key, state, self.spec, self.data, self.factor_block)

    def report(self, state: GibbsState) -> tuple[dict[str, Array], dict[str, Array]]:
        """Kept sites; log joint density ``lp``, log-likelihood, training RMSE."""
        sites = to_sites(state, self.data.layout)
        y, weight = self.data.y, self.data.weight
        likelihood = self.spec.likelihood.distribution(state.eta, state.params)
        log_likelihood = self.spec.likelihood.log_likelihood(y, state.eta, weight, state.params)
        stats = {
            "lp": log_joint(self.spec, self.data.layout.group, sites, log_likelihood),
            "log_likelihood": log_likelihood,
            "train_rmse": jnp.sqrt(total(weight, y, likelihood.mean, of=weighted_square) / total(weight)),
        }
        sites["eta"] = state.eta[self.probe_rows]
        return {name: sites[name] for name in self.keep}, stats

    def moments(self, key: Key[Array, ""], state: GibbsState) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of y at the rows of every stream; unseen levels are drawn from their group's prior."""
        theta = jnp.concatenate(state.theta, axis=1)[:, self.data.layout.place]
        out = {}
        for name, design in self.streams.items():
            unseen = self._unseen_theta(key, state, design)
            all_theta = jnp.concatenate([theta, unseen], axis=1)
            eta = state.w0 + design.row_effect(self.spec.predictor, all_theta)
            y = self.spec.likelihood.distribution(eta, state.params)
            out[name] = (y.mean, jnp.broadcast_to(y.variance, eta.shape))
        return out

    def _unseen_theta(
        self, key: Key[Array, ""], state: GibbsState, design: DesignArrays
    ) -> Float[Array, "K u"]:
        spec, group = self.spec, design.unseen_group
        if group is None or not group.shape[0]:
            return jnp.zeros((spec.predictor.width, 0), state.w0.dtype)
        key_w, key_v = jax.random.split(key)
        u, k = group.shape[0], spec.predictor.rank
        w = spec.prior_w.sample_new(key_w, of_groups(spec.prior_w, state.hyper_w, group), (u,))
        if not k:
            return w[None]
        v = spec.prior_v.sample_new(key_v, of_groups(spec.prior_v, state.hyper_v, group), (u, k))
        return jnp.concatenate([w[None], v.T])
