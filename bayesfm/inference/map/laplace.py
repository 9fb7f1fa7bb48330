"""The Laplace approximation in blocks: normals around a mode, one per feature."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bayesfm.inference.conjugate.curvature import block_covariances
from bayesfm.inference.conjugate.expectation import curvature
from bayesfm.inference.conjugate.inverse import Gaussians
from bayesfm.inference.conjugate.prior_terms import prior_of_unit
from bayesfm.inference.conjugate.state import ModelData, ModelState
from bayesfm.inference.conjugate.sweep_beliefs import eta_variance
from bayesfm.model import ModelSpec
from bayesfm.sums import total

__all__ = ["Blocks", "laplace_blocks"]


class Blocks(NamedTuple):
    """Covariance of every feature's parameters given all others, and of w0 and eta; outputs in a leading axis."""

    beliefs: tuple[Gaussians, ...]
    w0_variance: Float[Array, "*L"]
    variance: Float[Array, "*L n_pad"]


def laplace_blocks(spec: ModelSpec, data: ModelData, state: ModelState) -> Blocks:
    """From the curvature of the log posterior at the state, whose eta is up to date."""
    _, omega = curvature(spec.likelihood, data.observed, state.eta, state.params)
    own = state._replace(params={})
    if spec.likelihood.outputs:
        return lax.map(lambda x: _of_output(spec, data, *x), (own, omega))
    return _of_output(spec, data, own, omega)


def _of_output(spec: ModelSpec, data: ModelData, state: ModelState, omega: Float[Array, " n_pad"]) -> Blocks:
    priors = [prior_of_unit(spec, state, data.layout, unit) for unit in data.layout.units]
    beliefs = block_covariances(spec.predictor, data.layout, state.theta, priors, omega)
    w0_variance = jnp.zeros_like(state.w0)
    if spec.intercept is not None:
        w0_variance = 1 / (spec.intercept.precision + total(omega))
    variance = w0_variance + eta_variance(spec.predictor, data.layout, beliefs)
    return Blocks(beliefs, w0_variance, variance)
