"""One Gibbs sweep: every full conditional once. No word on which likelihood or prior it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm import native
from bayesfm.design.layout import FieldUnit, Layout, RowsUnit, TableUnit, Unit
from bayesfm.inference.gibbs.blocks import FactorBlocks, OtherFactors, UnitPrior
from bayesfm.inference.gibbs.moves import invariant_moves
from bayesfm.inference.gibbs.state import GibbsData, GibbsState
from bayesfm.inference.gibbs.units import update_field, update_rows, update_table
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Hyper, Prior
from bayesfm.sums import total

__all__ = ["linear_predictor", "sweep"]


def sweep(
    key: Key[Array, ""], state: GibbsState, spec: ModelSpec, data: GibbsData, factor_block: int
) -> GibbsState:
    """Draw every parameter once from its full conditional.

    Order: likelihood parameters, augmentation, w0, theta unit by unit, hyperparameters; then the moves along directions
    that the likelihood cannot see.

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
    k_params, k_augment, k_w0, k_theta, k_w, k_v, k_moves = jax.random.split(key, 7)
    y, weight = data.y, data.weight
    # Computed anew in every sweep: the residual below is only ever as old as the sweep, so it cannot drift.
    eta = linear_predictor(spec.predictor, data.layout, state.w0, state.theta)
    params = spec.likelihood.update(k_params, y, eta, weight, state.params)
    omega, z = spec.likelihood.augment(k_augment, y, eta, weight, params)
    r = z - eta

    omega_sum = total(omega)
    w0 = spec.intercept.update(k_w0, omega_sum, total(omega * r) + omega_sum * state.w0)
    r = r - (w0 - state.w0)

    state = state._replace(w0=w0, params=params)
    theta, r = _sweep_units(k_theta, state, spec, data.layout, omega, r, factor_block)
    state = state._replace(
        theta=theta,
        hyper_w=_update_hyper(k_w, spec.prior_w, state.hyper_w, theta, data.layout, slice(0, 1)),
        hyper_v=_update_hyper(k_v, spec.prior_v, state.hyper_v, theta, data.layout, slice(1, None)),
        eta=z - r,
    )
    return invariant_moves(k_moves, state, spec, data.layout)


def linear_predictor(
    predictor: FM, layout: Layout, w0: Float[Array, ""], theta: tuple[Float[Array, "K m"], ...]
) -> Float[Array, " n_pad"]:
    """eta of all rows, by tiles."""
    summaries = [
        _summary(predictor, unit, own, layout) for unit, own in zip(layout.units, theta, strict=True)
    ]

    if layout.native:
        codes = [_codes(unit) for unit in layout.units]
        every_row = jnp.arange(layout.num_padded, dtype=jnp.int32)
        tables = [native.as_table(s) for s in summaries]
        return native.linear_predictor(w0, tables, [every_row if c is None else c for c in codes])

    def tile(parts: list[tuple[Array, Array | None]]) -> Float[Array, " t"]:
        at_rows = [s if code is None else s[:, code] for s, code in parts]
        return w0 + reduce(predictor.combine, at_rows)[0]

    tiles = layout.num_tiles
    if tiles == 1:
        return tile([(s, _codes(unit)) for s, unit in zip(summaries, layout.units, strict=True)])

    def tile_at(i: Int[Array, ""]) -> Float[Array, " t"]:
        size = layout.num_padded // tiles
        parts: list[tuple[Array, Array | None]] = []
        for s, unit in zip(summaries, layout.units, strict=True):
            code = _codes(unit)
            if code is None:
                parts.append((lax.dynamic_slice_in_dim(s, i * size, size, 1), None))
            else:
                parts.append((s, lax.dynamic_slice_in_dim(code, i * size, size)))
        return tile(parts)

    return lax.map(tile_at, jnp.arange(tiles)).reshape(-1)


def _codes(unit: Unit) -> Int[Array, " n_pad"] | None:
    return None if isinstance(unit, RowsUnit) else unit.rows.code


def _summary(predictor: FM, unit: Unit, theta: Float[Array, "K m"], layout: Layout) -> Float[Array, "K rows"]:
    """Summaries of a unit's own rows, the last one that of a row without owner: zero."""
    if isinstance(unit, RowsUnit):
        return predictor.summarize(unit.table, theta)
    own = theta if isinstance(unit, FieldUnit) else predictor.summarize(unit.table, theta)
    return jnp.pad(own, ((0, 0), (0, 1)))


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
    thetas = list(state.theta)
    factors = [_summary(predictor, u, t, layout)[1:] for u, t in zip(layout.units, thetas, strict=True)]

    for i, (sub, unit) in enumerate(zip(jax.random.split(key, len(layout.units)), layout.units, strict=True)):
        rest = [j for j in range(len(thetas)) if j != i]
        others = OtherFactors([factors[j] for j in rest], [_codes(layout.units[j]) for j in rest], r)
        prior = UnitPrior(*_prior_of_theta(spec, state, unit.group))
        update = UPDATES[type(unit)]
        thetas[i], r = update(sub, predictor, unit, blocks, thetas[i], prior, others, omega, r)
        factors[i] = _summary(predictor, unit, thetas[i], layout)[1:]
    return tuple(thetas), r


def _prior_of_theta(
    spec: ModelSpec, state: GibbsState, group: Int[Array, " m"]
) -> tuple[Float[Array, "K m"], Float[Array, "K m"]]:
    """Prior precision and mean of (w_j, v_j), features in the last axis."""
    precision_w, mean_w = spec.prior_w.precision_and_mean(state.hyper_w)
    precision_v, mean_v = spec.prior_v.precision_and_mean(state.hyper_v)
    precision = jnp.concatenate([precision_w[None], precision_v.T])
    mean = jnp.concatenate([mean_w[None], mean_v.T])
    return precision[:, group], mean[:, group]


def _update_hyper(
    key: Key[Array, ""],
    prior: Prior,
    hyper: Hyper,
    theta: tuple[Float[Array, "K m"], ...],
    layout: Layout,
    rows: slice,
) -> Hyper:
    """Hyperparameters from each group's count, mean and scatter; two passes, so that nothing cancels."""
    G = layout.num_groups
    xs = [t[rows] for t in theta]

    def by_group(values: list[Float[Array, "d m"]]) -> Float[Array, "G d"]:
        sums = [
            jax.ops.segment_sum(x.T, unit.group, G, indices_are_sorted=True)
            for x, unit in zip(values, layout.units, strict=True)
        ]
        return reduce(jnp.add, sums)

    count = by_group([jnp.ones_like(x, shape=(1, x.shape[1])) for x in xs])[:, 0]
    mean = by_group(xs) / jnp.maximum(count, 1)[:, None]
    centred = [(x - mean.T[:, unit.group]) ** 2 for x, unit in zip(xs, layout.units, strict=True)]
    scatter = by_group(centred)
    shape = next(iter(hyper.values())).shape
    return prior.update(key, hyper, count, mean.reshape(shape), scatter.reshape(shape))
