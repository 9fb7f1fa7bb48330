"""Alternating least squares: Gibbs sweeps without noise.

With the expected augmentation at eta in place of a drawn one, every sweep maximises a lower bound of the log posterior
that touches it where the sweep began: an EM algorithm, which never goes down.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm._pytree import pytree
from bayesfm.inference.conjugate.expectation import expected_augmentation
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelData, ModelState, to_sites
from bayesfm.inference.conjugate.sweep_units import sweep_units
from bayesfm.inference.validation import Validation
from bayesfm.model import ModelSpec, log_prior_of_features
from bayesfm.sums import total

__all__ = ["AlternatingLeastSquares"]


@pytree(static=("factor_block",))
@dataclass(frozen=True)
class AlternatingLeastSquares:
    """A model on one data set, to be climbed (an ``inference.ascent.Climber``); scales stay where they are."""

    spec: ModelSpec
    data: ModelData
    validation: Validation | None
    factor_block: int

    def start(self, point: ModelState) -> ModelState:
        """The point, with eta computed."""
        eta = linear_predictor(self.spec.predictor, self.data.layout, point.w0, point.theta)
        return point._replace(eta=eta)

    def step(self, state: ModelState) -> ModelState:
        """One sweep of conditional means."""
        with jax.default_matmul_precision("highest"):
            return self._step(state)

    def _step(self, state: ModelState) -> ModelState:
        spec, data = self.spec, self.data
        certain = jnp.zeros_like(state.eta)
        omega, z = expected_augmentation(spec.likelihood, data.observed, state.eta, certain, state.params)
        r, w0 = z - state.eta, state.w0
        if spec.intercept is not None:
            pull = spec.intercept.precision * (spec.intercept.mean - w0)
            precision = spec.intercept.precision + total(omega)
            w0 = w0 + (pull + total(omega, r, of=jnp.multiply)) / precision
            r = r - (w0 - state.w0)
        theta = sweep_units(None, state, spec, data.layout, omega, r, self.factor_block).theta
        return self.start(state._replace(w0=w0, theta=theta))

    def objective(self, state: ModelState) -> Float[Array, ""]:
        """Log-likelihood plus log p(w0, w, v | scales)."""
        data, likelihood = self.data, self.spec.likelihood
        of_rows = likelihood.log_likelihood(data.observed, state.eta, state.params, native=data.layout.native)
        sites = to_sites(state, data.layout)
        return of_rows + log_prior_of_features(self.spec, data.layout.group, sites)

    def score(self, state: ModelState) -> Float[Array, ""]:
        """Mean log density of the validation rows."""
        if self.validation is None:
            return jnp.asarray(jnp.nan)
        return self.validation.score(self.spec, to_sites(state, self.data.layout))
