"""Independent draws from Gaussian beliefs as a kernel for the chain runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm._pytree import pytree
from bayesfm.inference.conjugate.features import features_of, group_moments
from bayesfm.inference.conjugate.inverse import Gaussians
from bayesfm.inference.conjugate.kernel import StateKernel
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.noise import standard_normal
from bayesfm.inference.conjugate.state import ModelState, to_sites
from bayesfm.model import log_prior_of_features
from bayesfm.priors import Hyper

__all__ = ["BeliefKernel", "Drawn", "roots"]


class Drawn(NamedTuple):
    """A draw, and log p(y, w0, w, v | scales at their estimates) less the log density it was drawn with."""

    state: ModelState
    log_weight: Float[Array, ""]


@pytree(static=("keep", "scales"))
@dataclass(frozen=True)
class BeliefKernel(StateKernel):
    """Draws of w0 and every theta_j from independent normals (a ``inference.kernel.Kernel``).

    With ``scales="conditional"`` hyperparameters and the parameters of the likelihood follow from their full
    conditionals given the draw, by the updates of the Gibbs sweep; with ``"point"`` they stay where they are.

    Attributes
    ----------
    point
        Means; hyperparameters and parameters of the likelihood.
    w0_sd
        Standard deviation of w0.
    root
        Cholesky factor of the covariance of every theta_j, unit by unit; None where theta is certain.
    scales
        What becomes of hyperparameters and parameters.
    """

    point: ModelState
    w0_sd: Float[Array, "*L"]
    root: tuple[Float[Array, "*L m K K"], ...] | None
    scales: str

    def init(self, key: Key[Array, ""]) -> Drawn:
        """The means."""
        return Drawn(self.point, jnp.zeros((), self.point.eta.dtype))

    def sweep(self, key: Key[Array, ""], state: Drawn) -> Drawn:
        """A fresh draw of w0 and theta, and scales given it."""
        key_theta, key_scales = jax.random.split(self._own(key))
        with jax.default_matmul_precision("highest"):
            drawn = self._theta(key_theta)
            if self.scales == "point":
                return drawn
            # Updates that are Metropolis steps go on from the scales of the last draw.
            before = state.state
            own = drawn.state._replace(params=before.params, hyper_w=before.hyper_w, hyper_v=before.hyper_v)
            return drawn._replace(state=self._scales(key_scales, own))

    def report(self, state: Drawn) -> tuple[dict[str, Array], dict[str, Array]]:
        """As for all kernels; the log weight of the draw among the statistics."""
        sites, stats = self.report_of(state.state)
        return sites, stats if self.root is None else {**stats, "log_weight": state.log_weight}

    def moments(self, key: Key[Array, ""], state: Drawn) -> dict[str, tuple[Array, Array]]:
        """As for all kernels."""
        return self.moments_of(key, state.state, point=self.root is None)

    def _theta(self, key: Key[Array, ""]) -> Drawn:
        key_w0, key_theta = jax.random.split(key)
        z = jax.random.normal(key_w0, self.w0_sd.shape, self.w0_sd.dtype)
        w0, theta, squares = self.point.w0 + self.w0_sd * z, self.point.theta, jnp.sum(z * z)
        if self.root is not None:
            keys, drawn = jax.random.split(key_theta, len(theta)), []
            for i, (mean, root) in enumerate(zip(theta, self.root, strict=True)):
                noise = standard_normal(keys[i], root[..., 0], use_native=self.data.layout.native)
                drawn.append(mean + jnp.einsum("...mij,...mj->...im", root, noise))
                squares += jnp.sum(noise * noise)
            theta = tuple(drawn)
        state = self.point._replace(w0=w0, theta=theta, eta=self._eta(w0, theta))
        observed, layout = self.data.observed, self.data.layout
        of_rows = self.spec.likelihood.log_likelihood(observed, state.eta, state.params)
        of_features = log_prior_of_features(self.spec, layout.group, to_sites(state, layout))
        return Drawn(state, of_rows + of_features + 0.5 * squares)

    def _eta(self, w0: Array, theta: tuple[Array, ...]) -> Float[Array, "*L n_pad"]:
        def of_output(own: tuple[Array, Any]) -> Array:
            return linear_predictor(self.spec.predictor, self.data.layout, *own)

        return lax.map(of_output, (w0, theta)) if self.spec.likelihood.outputs else of_output((w0, theta))

    def _scales(self, key: Key[Array, ""], state: ModelState) -> ModelState:
        key_params, key_w, key_v = jax.random.split(key, 3)
        likelihood, native = self.spec.likelihood, self.data.layout.native
        update = self._hyper
        if likelihood.outputs:
            key_w, key_v = (jax.random.split(key, likelihood.outputs[0]) for key in (key_w, key_v))
            update = jax.vmap(update)
        hyper_w, hyper_v = update(key_w, key_v, state.theta, state.hyper_w, state.hyper_v)
        params = likelihood.update(key_params, self.data.observed, state.eta, state.params, native=native)
        return state._replace(hyper_w=hyper_w, hyper_v=hyper_v, params=params)

    def _hyper(
        self,
        key_w: Key[Array, ""],
        key_v: Key[Array, ""],
        theta: tuple[Float[Array, "K m"], ...],
        hyper_w: Hyper,
        hyper_v: Hyper,
    ) -> tuple[Hyper, Hyper]:
        layout = self.data.layout
        moments = group_moments(layout, theta)
        of_w, of_v = (features_of(layout, theta, moments, of_w=of_w) for of_w in (True, False))
        return self.spec.prior_w.update(key_w, hyper_w, of_w), self.spec.prior_v.update(key_v, hyper_v, of_v)


def roots(beliefs: tuple[Gaussians, ...]) -> tuple[Float[Array, "*L m K K"], ...]:
    """Cholesky factors of the covariances."""
    return tuple(jnp.linalg.cholesky(jnp.moveaxis(b.cov, -1, -3)) for b in beliefs)
