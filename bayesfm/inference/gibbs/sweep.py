"""One Gibbs sweep: every full conditional once. No word on which likelihood or prior it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit
from bayesfm.inference.gibbs import compiled
from bayesfm.inference.gibbs.blocks import FactorBlocks, OtherFactors
from bayesfm.inference.gibbs.interweave import RowDensity, interweave, rescale_eta
from bayesfm.inference.gibbs.linear_predictor import codes_of, linear_predictor, summary_of
from bayesfm.inference.gibbs.moves import invariant_moves
from bayesfm.inference.gibbs.prior_terms import prior_of_unit, priors_of_units
from bayesfm.inference.gibbs.rotation import rotate
from bayesfm.inference.gibbs.state import GibbsData, GibbsState
from bayesfm.inference.gibbs.units import update_field, update_rows, update_table
from bayesfm.model import ModelSpec
from bayesfm.priors import Features
from bayesfm.sums import total

__all__ = ["linear_predictor", "sweep", "sweep_given"]


def sweep(
    key: Key[Array, ""], state: GibbsState, spec: ModelSpec, data: GibbsData, factor_block: int
) -> GibbsState:
    """Draw every parameter once from its full conditional.

    Order: likelihood parameters, augmentation, w0, theta unit by unit, a rotation of the factors together with the
    hyperparameters, a second draw of group means and scales where groups are no whole fields; then the moves along
    directions that the likelihood cannot see. Several linear predictors have their turns one after the other, each with
    an augmentation of its own.

    Parameters
    ----------
    key : typed key
        Key of this sweep.
    state : GibbsState
        Where the chain is.
    spec : ModelSpec
        The model.
    data : GibbsData
        Layout, response and weights.
    factor_block : int
        Number of factors drawn jointly with w: the rank for the joint draw, 1 for factor by factor.

    Returns
    -------
    GibbsState
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
    state: GibbsState,
    spec: ModelSpec,
    data: GibbsData,
    omega: Float[Array, " n_pad"],
    z: Float[Array, " n_pad"],
    factor_block: int,
) -> GibbsState:
    """Draw w0, theta and hyperparameters where z ~ N(eta, 1/omega) is all that is known of the rows.

    For callers with a likelihood and an augmentation of their own; what ``spec`` and ``data`` say of it is not read.
    ``state.eta`` must be that of the parameters.
    """

    def log_density(eta: Float[Array, " n_pad"]) -> Float[Array, " n_pad"]:
        return -0.5 * omega * (z - eta) ** 2

    keys = list(jax.random.split(key, 8))
    return _sweep_output(keys, state, spec, data, omega, z, log_density, factor_block)


def _sweep_outputs(
    key: Key[Array, ""], state: GibbsState, spec: ModelSpec, data: GibbsData, factor_block: int
) -> GibbsState:
    """One linear predictor after the other, in one loop: the program is as long as that of one.

    Each is drawn given what all others come to: those before it as they are by now (at first, the reference, whose eta
    is zero), those after it as they were.
    """
    k_params, k_outputs = jax.random.split(key)
    likelihood, observed, native = spec.likelihood, data.observed, data.layout.native
    eta = lax.map(lambda own: linear_predictor(spec.predictor, data.layout, *own), (state.w0, state.theta))
    params = likelihood.update(k_params, observed, eta, state.params)

    def one(
        before: Float[Array, " n_pad"], of_output: tuple[Array, Array, Array, GibbsState]
    ) -> tuple[Float[Array, " n_pad"], GibbsState]:
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
    state: GibbsState,
    spec: ModelSpec,
    data: GibbsData,
    omega: Float[Array, " n_pad"],
    z: Float[Array, " n_pad"],
    log_density: RowDensity,
    factor_block: int,
) -> GibbsState:
    """w0, theta and hyperparameters of one linear predictor, given the augmentation."""
    k_w0, k_theta, k_turn, k_w, k_v, k_loose, k_scale, k_moves = keys
    w0, eta = state.w0, state.eta
    if spec.intercept is not None:
        omega_sum = total(omega)
        residual_sum = total(omega, z, eta, of=lambda omega, z, eta: omega * (z - eta))
        w0 = spec.intercept.update(k_w0, omega_sum, residual_sum + omega_sum * state.w0)
    r = z - eta - (w0 - state.w0)

    state = state._replace(w0=w0)
    theta, r = _sweep_units(k_theta, state, spec, data.layout, omega, r, factor_block)
    theta = rotate(k_turn, theta, spec, data.layout)
    moments = _group_moments(data.layout, theta)
    state = state._replace(
        theta=theta,
        hyper_w=spec.prior_w.update(k_w, state.hyper_w, _features(data.layout, theta, moments, of_w=True)),
        hyper_v=spec.prior_v.update(k_v, state.hyper_v, _features(data.layout, theta, moments, of_w=False)),
        eta=z - r,
    )
    # These two integrate the augmentation out: nothing may use omega and z from here on.
    state = interweave(k_loose, state, spec, data.layout, log_density)
    state = rescale_eta(k_scale, state, spec, data.layout, log_density)
    return invariant_moves(k_moves, state, spec, data.layout)


UPDATES: dict[type, Callable] = {FieldUnit: update_field, TableUnit: update_table, RowsUnit: update_rows}


def _sweep_units(
    key: Key[Array, ""],
    state: GibbsState,
    spec: ModelSpec,
    layout: Layout,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    factor_block: int,
) -> tuple[tuple[Float[Array, "K m"], ...], Float[Array, " n_pad"]]:
    predictor = spec.predictor
    blocks = FactorBlocks(predictor.rank, min(factor_block, predictor.rank))
    if layout.native:
        priors = priors_of_units(spec, state, layout)
        return compiled.sweep_units(key, layout, blocks, state.theta, priors, omega, r)
    thetas = list(state.theta)
    factors = [summary_of(predictor, u, t, layout)[1:] for u, t in zip(layout.units, thetas, strict=True)]

    for i, (sub, unit) in enumerate(zip(jax.random.split(key, len(layout.units)), layout.units, strict=True)):
        rest = [j for j in range(len(thetas)) if j != i]
        others = OtherFactors([factors[j] for j in rest], [codes_of(layout.units[j]) for j in rest], r)
        prior = prior_of_unit(spec, state, layout, unit)
        update = UPDATES[type(unit)]
        thetas[i], r = update(sub, predictor, unit, blocks, thetas[i], prior, others, omega, r)
        factors[i] = summary_of(predictor, unit, thetas[i], layout)[1:]
    return tuple(thetas), r


class Moments(NamedTuple):
    """Of the features of every group: how many, their mean, their sum of squares around it."""

    number: Float[Array, " G"]
    mean: Float[Array, "K G"]
    scatter: Float[Array, "K G"]


def _group_moments(layout: Layout, theta: tuple[Float[Array, "K m"], ...]) -> Moments:
    """In two passes, so that nothing cancels."""
    if layout.native:
        return Moments(*compiled.group_moments(layout, theta))

    def by_group(values: list[Float[Array, "K m"]]) -> Float[Array, "K G"]:
        sums = [
            jax.ops.segment_sum(x.T, unit.group, layout.num_groups, indices_are_sorted=True)
            for x, unit in zip(values, layout.units, strict=True)
        ]
        return reduce(jnp.add, sums).T

    count = reduce(jnp.add, [unit.count for unit in layout.units])
    mean = by_group(list(theta)) / jnp.maximum(count, 1)
    centred = [(x - mean[:, unit.group]) ** 2 for x, unit in zip(theta, layout.units, strict=True)]
    return Moments(count, mean, by_group(centred))


def _features(
    layout: Layout, theta: tuple[Float[Array, "K m"], ...], moments: Moments, of_w: bool
) -> Features:
    """W (row 0) or v (the others) in the order of the design; what a prior does not read is never computed."""

    def own(x: Float[Array, "K m"]) -> Array:
        return x[0] if of_w else x[1:].T

    x = own(jnp.concatenate(theta, axis=1)[:, layout.place])
    return Features(x, layout.group, moments.number, own(moments.mean), own(moments.scatter))
