"""Coordinate ascent: the best belief about each part of the model given the beliefs about all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bayesfm._pytree import pytree
from bayesfm.design.units import Unit
from bayesfm.inference.conjugate.beliefs import beliefs_of
from bayesfm.inference.conjugate.expectation import curvature, expected_augmentation, local_quadratic
from bayesfm.inference.conjugate.inverse import Gaussians, inverse
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.normal import pivot_floor
from bayesfm.inference.conjugate.prior_terms import prior_of_groups, prior_of_unit
from bayesfm.inference.conjugate.scales import expected_log_prior, fit_hyper
from bayesfm.inference.conjugate.state import ModelData, ModelState, to_sites
from bayesfm.inference.conjugate.sweep_beliefs import eta_variance, sweep_beliefs
from bayesfm.inference.validation import Validation
from bayesfm.model import ModelSpec
from bayesfm.sums import total

__all__ = ["BeliefState", "MeanField"]

START = 0.01
"""Share of the prior variance that beliefs start with: wide ones would flatten every factor before the data speak."""


class BeliefState(NamedTuple):
    """Normal beliefs about w0 and every theta_j; points for hyperparameters and parameters of the likelihood.

    ``point`` has the means, with E[eta] in ``eta``; ``variance`` is that of eta, w0 included. Of several linear
    predictors each has its own, in a leading axis.
    """

    point: ModelState
    w0_variance: Float[Array, "*L"]
    beliefs: tuple[Gaussians, ...]
    variance: Float[Array, "*L n_pad"]


@pytree(static=("fit_scales",))
@dataclass(frozen=True)
class MeanField:
    """A model on one data set, to be climbed (an ``inference.ascent.Climber``).

    Likelihoods without a bound are replaced by the quadratic that touches them at E[eta] (Laplace variational
    inference); what is climbed is then no bound, and may fall.

    Attributes
    ----------
    spec, data, validation
        The model, what it is fitted to, and held-out rows.
    fit_scales
        Whether hyperparameters move.

    References
    ----------
    Wang & Blei (2013), Variational inference in nonconjugate models, JMLR 14.
    """

    spec: ModelSpec
    data: ModelData
    validation: Validation | None
    fit_scales: bool = True

    def start(self, point: ModelState) -> BeliefState:
        """Beliefs around a point, a hundredth as uncertain as the prior has them."""
        own = point._replace(params={})
        state = lax.map(self._start_output, own) if self.spec.likelihood.outputs else self._start_output(own)
        return state._replace(point=state.point._replace(params=point.params))

    def _start_output(self, point: ModelState) -> BeliefState:
        units = zip(self.data.layout.units, point.theta, strict=True)
        beliefs = tuple(self._start_unit(point, unit, theta) for unit, theta in units)
        w0_variance = jnp.zeros_like(point.w0)
        if self.spec.intercept is not None:
            w0_variance = w0_variance + START / self.spec.intercept.precision
        return self._with_eta(point, w0_variance, beliefs)

    def _start_unit(self, point: ModelState, unit: Unit, theta: Float[Array, "K m"]) -> Gaussians:
        precision, _ = prior_of_unit(self.spec, point, self.data.layout, unit)
        if precision.ndim == 2:
            variance = START / precision
            cov = jnp.eye(theta.shape[0], dtype=theta.dtype)[:, :, None] * variance[:, None]
            return Gaussians(theta, cov, jnp.sum(jnp.log(variance), axis=0))
        return Gaussians(theta, *inverse(precision / START, pivot_floor(precision / START, precision)))

    def _with_eta(
        self, point: ModelState, w0_variance: Float[Array, ""], beliefs: tuple[Gaussians, ...]
    ) -> BeliefState:
        theta = tuple(b.mean for b in beliefs)
        eta = linear_predictor(self.spec.predictor, self.data.layout, point.w0, theta)
        variance = w0_variance + eta_variance(self.spec.predictor, self.data.layout, beliefs)
        return BeliefState(point._replace(theta=theta, eta=eta), w0_variance, beliefs, variance)

    def step(self, state: BeliefState) -> BeliefState:
        """Every belief once: parameters of the likelihood, augmentation, w0, theta unit by unit, hyperparameters."""
        with jax.default_matmul_precision("highest"):
            likelihood, observed, point = self.spec.likelihood, self.data.observed, state.point
            params = likelihood.fit(observed, point.eta, state.variance, point.params)
            own = state._replace(point=point._replace(params={}))
            if likelihood.outputs:
                own = self._outputs(own, params)
            elif likelihood.has_bound:
                now = expected_augmentation(likelihood, observed, point.eta, state.variance, params)
                own = self._output(own, *now)
            else:
                own = self._output(own, *local_quadratic(likelihood, observed, point.eta, params))
            return own._replace(point=own.point._replace(params=params))

    def _outputs(self, state: BeliefState, params: dict[str, Array]) -> BeliefState:
        """One linear predictor after the other, each with the quadratic at what all others have come to by now."""
        count = state.point.eta.shape[0]

        def one(i: Array, state: BeliefState) -> BeliefState:
            omega, z = local_quadratic(self.spec.likelihood, self.data.observed, state.point.eta, params)
            own = self._output(jax.tree.map(lambda x: x[i], state), omega[i], z[i])
            return jax.tree.map(lambda x, new: x.at[i].set(new), state, own)

        return lax.fori_loop(0, count, one, state)

    def _output(
        self, state: BeliefState, omega: Float[Array, " n_pad"], z: Float[Array, " n_pad"]
    ) -> BeliefState:
        spec, layout, point, w0_variance = self.spec, self.data.layout, state.point, state.w0_variance
        r, w0 = z - point.eta, point.w0
        if spec.intercept is not None:
            w0_variance = 1 / (spec.intercept.precision + total(omega))
            pull = spec.intercept.precision * (spec.intercept.mean - w0)
            w0 = w0 + w0_variance * (pull + total(omega, r, of=jnp.multiply))
            r = r - (w0 - point.w0)
        by_unit = lambda: [prior_of_unit(spec, point, layout, unit) for unit in layout.units]  # noqa: E731
        by_group = lambda: [prior_of_groups(spec, point, layout, unit) for unit in layout.units]  # noqa: E731
        priors = by_group() if layout.native else by_unit()
        beliefs, _ = sweep_beliefs(spec.predictor, layout, state.beliefs, priors, omega, r)
        point = point._replace(w0=w0)
        if self.fit_scales:
            of_w, of_v = beliefs_of(layout, beliefs, full=spec.prior_v.full)
            hyper_w = fit_hyper(spec.prior_w, point.hyper_w, of_w)
            point = point._replace(hyper_w=hyper_w, hyper_v=fit_hyper(spec.prior_v, point.hyper_v, of_v))
        return self._with_eta(point, w0_variance, beliefs)

    def objective(self, state: BeliefState) -> Float[Array, ""]:
        """The evidence lower bound, with scales and parameters as points on unconstrained scales."""
        likelihood, observed, point = self.spec.likelihood, self.data.observed, state.point
        bound = likelihood.height(observed, point.eta, state.variance, point.params)
        if not likelihood.has_bound:
            _, omega = curvature(likelihood, observed, point.eta, point.params)
            bound -= 0.5 * jnp.sum(omega * state.variance)
        own = state._replace(point=point._replace(params={}))
        if likelihood.outputs:
            return bound + jnp.sum(jax.vmap(self._prior_and_entropy)(own))
        return bound + self._prior_and_entropy(own)

    def _prior_and_entropy(self, state: BeliefState) -> Float[Array, ""]:
        """E[log p(w0, w, v, scales)] and the entropy of the beliefs."""
        spec, point = self.spec, state.point
        of_w, of_v = beliefs_of(self.data.layout, state.beliefs, full=spec.prior_v.full)
        out = expected_log_prior(spec.prior_w, point.hyper_w, of_w)
        if spec.predictor.rank:
            out += expected_log_prior(spec.prior_v, point.hyper_v, of_v)
        for belief in state.beliefs:
            out += jnp.sum(0.5 * (belief.log_det + spec.predictor.width * (1 + jnp.log(2 * jnp.pi))))
        if spec.intercept is None:
            return out
        precision, square = (
            spec.intercept.precision,
            (point.w0 - spec.intercept.mean) ** 2 + state.w0_variance,
        )
        return out + 0.5 * (jnp.log(precision * state.w0_variance) + 1 - precision * square)

    def score(self, state: BeliefState) -> Float[Array, ""]:
        """Mean log density of the validation rows at the means."""
        if self.validation is None:
            return jnp.asarray(jnp.nan)
        return self.validation.score(self.spec, to_sites(state.point, self.data.layout))
