"""One Gibbs sweep: every full conditional once. No word on which likelihood or prior it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm.inference.conjugate.features import features_of, group_moments
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelData, ModelState
from bayesfm.inference.conjugate.sweep_units import sweep_units
from bayesfm.inference.gibbs.interweave import RowDensity, interweave, rescale_eta
from bayesfm.inference.gibbs.moves import invariant_moves
from bayesfm.inference.gibbs.rotation import rotate
from bayesfm.model import ModelSpec
from bayesfm.sums import total

__all__ = ["linear_predictor", "sweep", "sweep_given"]


def sweep(
    key: Key[Array, ""], state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
) -> ModelState:
    """Draw every parameter once from its full conditional.

    Order: likelihood parameters, augmentation, w0, theta unit by unit, a rotation of the factors together with the
    hyperparameters, a second draw of group means and scales where groups are no whole fields; then the moves along
    directions that the likelihood cannot see. Several linear predictors have their turns one after the other, each with
    an augmentation of its own.

    Parameters
    ----------
    key : typed key
        Key of this sweep.
    state : ModelState
        Where the chain is.
    spec : ModelSpec
        The model.
    data : ModelData
        Layout, response and weights.
    factor_block : int
        Number of factors drawn jointly with w: the rank for the joint draw, 1 for factor by factor.

    Returns
    -------
    ModelState
        With ``eta`` at the new parameters.
    """
    likelihood, observed = spec.likelihood, data.observed
    if likelihood.outputs:
        return _sweep_outputs(key, state, spec, data, factor_block)
    k_params, k_augment, *k_rest = jax.random.split(key, 10)
    # Computed anew in every sweep: the residual below is only ever as old as the sweep, so it cannot drift.
    eta = linear_predictor(spec.predictor, data.layout, state.w0, state.theta)
    params = likelihood.update(k_params, observed, eta, state.params, native=data.layout.native)
    omega, z = likelihood.augment(k_augment, observed, eta, params, native=data.layout.native)
    state = state._replace(params=params, eta=eta)

    def log_density(eta: Float[Array, " n_pad"]) -> Float[Array, " n_pad"]:
        return likelihood.log_density(observed, eta, params)

    return _sweep_output(k_rest, state, spec, data, omega, z, log_density, factor_block)


def sweep_given(
    key: Key[Array, ""],
    state: ModelState,
    spec: ModelSpec,
    data: ModelData,
    omega: Float[Array, " n_pad"],
    z: Float[Array, " n_pad"],
    factor_block: int,
) -> ModelState:
    """Draw w0, theta and hyperparameters where z ~ N(eta, 1/omega) is all that is known of the rows.

    For callers with a likelihood and an augmentation of their own; what ``spec`` and ``data`` say of it is not read.
    ``state.eta`` must be that of the parameters.
    """

    def log_density(eta: Float[Array, " n_pad"]) -> Float[Array, " n_pad"]:
        return -0.5 * omega * (z - eta) ** 2

    keys = list(jax.random.split(key, 8))
    return _sweep_output(keys, state, spec, data, omega, z, log_density, factor_block)


def _sweep_outputs(
    key: Key[Array, ""], state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
) -> ModelState:
    """One linear predictor after the other, in one loop: the program is as long as that of one.

    Each is drawn given what all others come to: those before it as they are by now (at first, the reference, whose eta
    is zero), those after it as they were.
    """
    k_params, k_outputs = jax.random.split(key)
    likelihood, observed, native = spec.likelihood, data.observed, data.layout.native
    eta = lax.map(lambda own: linear_predictor(spec.predictor, data.layout, *own), (state.w0, state.theta))
    params = likelihood.update(k_params, observed, eta, state.params)

    def one(
        before: Float[Array, " n_pad"], of_output: tuple[Array, Array, Array, ModelState]
    ) -> tuple[Float[Array, " n_pad"], ModelState]:
        output, key, after, own = of_output
        k_augment, *k_rest = jax.random.split(key, 9)
        others = likelihood.pooled(before, after)
        omega, z = likelihood.augment_output(
            k_augment, observed, output, own.eta, others, params, native=native
        )

        def log_density(eta: Float[Array, " n_pad"]) -> Float[Array, " n_pad"]:
            return likelihood.log_density_of_output(observed, output, eta, others, params)

        own = own._replace(params=params)
        own = _sweep_output(k_rest, own, spec, data, omega, z, log_density, factor_block)
        return likelihood.pooled(before, own.eta), own._replace(params={})

    (count,) = likelihood.outputs
    turns = jnp.arange(count), jax.random.split(k_outputs, count), likelihood.others_after(eta)
    own = state._replace(params={}, eta=eta)
    return lax.scan(one, jnp.zeros_like(data.y), (*turns, own))[1]._replace(params=params)


def _sweep_output(
    keys: list[Key[Array, ""]],
    state: ModelState,
    spec: ModelSpec,
    data: ModelData,
    omega: Float[Array, " n_pad"],
    z: Float[Array, " n_pad"],
    log_density: RowDensity,
    factor_block: int,
) -> ModelState:
    """w0, theta and hyperparameters of one linear predictor, given the augmentation."""
    k_w0, k_theta, k_turn, k_w, k_v, k_loose, k_scale, k_moves = keys
    w0, eta = state.w0, state.eta
    if spec.intercept is not None:
        omega_sum = total(omega)
        residual_sum = total(omega, z, eta, of=lambda omega, z, eta: omega * (z - eta))
        w0 = spec.intercept.update(k_w0, omega_sum, residual_sum + omega_sum * state.w0)
    r = z - eta - (w0 - state.w0)

    state = state._replace(w0=w0)
    theta, hyper, r = sweep_units(k_theta, state, spec, data.layout, omega, r, factor_block)
    theta = rotate(k_turn, theta, spec, data.layout)
    moments = group_moments(data.layout, theta)
    state = state._replace(
        theta=theta,
        hyper_w=spec.prior_w.update(k_w, hyper.w, features_of(data.layout, theta, moments, of_w=True)),
        hyper_v=spec.prior_v.update(k_v, hyper.v, features_of(data.layout, theta, moments, of_w=False)),
        eta=z - r,
    )
    # These two integrate the augmentation out: nothing may use omega and z from here on.
    state = interweave(k_loose, state, spec, data.layout, log_density)
    state = rescale_eta(k_scale, state, spec, data.layout, log_density)
    return invariant_moves(k_moves, state, spec, data.layout)
