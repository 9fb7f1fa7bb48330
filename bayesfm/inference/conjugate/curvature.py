"""Covariance of every feature's parameters given all others, at a point: the Laplace approximation in blocks."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, Steps, TableUnit, Unit
from bayesfm.inference.conjugate import compiled_beliefs
from bayesfm.inference.conjugate.blocks import FactorBlocks, OtherFactors, UnitPrior
from bayesfm.inference.conjugate.inverse import Gaussians, posterior
from bayesfm.inference.conjugate.linear_predictor import codes_of, summary_of
from bayesfm.inference.conjugate.normal import information, pack, sum_by_owner, unpack
from bayesfm.inference.conjugate.tiles import (
    information_by_owner,
    over_chunk,
    row_derivatives,
    set_features,
    with_sentinel,
)
from bayesfm.predictors import FM

__all__ = ["block_covariances"]


def block_covariances(
    predictor: FM,
    layout: Layout,
    theta: tuple[Float[Array, "K m"], ...],
    priors: list[UnitPrior],
    omega: Float[Array, " n_pad"],
) -> tuple[Gaussians, ...]:
    """(Lambda + sum omega h h')^-1 of every feature, around theta: ``omega`` is the curvature of the rows' log density.

    No unit waits for another, and no feature for another: nothing moves.
    """
    units = layout.units
    if layout.native:
        of_units = [compiled_beliefs.information(layout, i, theta, omega).T for i in range(len(units))]
        return tuple(
            posterior(*x) for x in zip(of_units, theta, [p.precision for p in priors], theta, strict=True)
        )
    factors = [summary_of(predictor, u, t, layout)[1:] for u, t in zip(units, theta, strict=True)]
    out = []
    for i, unit in enumerate(units):
        rest = [j for j in range(len(units)) if j != i]
        others = OtherFactors([factors[j] for j in rest], [codes_of(units[j]) for j in rest], omega)
        packed = _information(predictor, unit, theta[i], others, omega)
        # Without a gradient and around a prior mean that is theta itself, the mean stays where it is.
        out.append(posterior(packed, theta[i], priors[i].precision, theta[i]))
    return tuple(out)


def _information(
    predictor: FM, unit: Unit, theta: Float[Array, "K m"], others: OtherFactors, omega: Float[Array, " n_pad"]
) -> Float[Array, "q m"]:
    """Packed sums of omega h h' of every feature, with zeros for gradients."""
    blocks = FactorBlocks(predictor.rank, predictor.rank)
    others_at = others.at_rows(jnp.asarray(0), blocks.size)
    nothing = jnp.zeros_like(omega)
    if isinstance(unit, RowsUnit):
        every_row = jnp.arange(omega.shape[0])
        q = predictor.summarize(unit.table, theta)[1:] + others_at(every_row)

        def of_rows(now: Steps, own: Float[Array, "K J"]) -> Float[Array, "q C"]:
            u = q[:, now.row] - now.value * own[1:, None, now.owner]
            return information(predictor.derivative(u, now.value), omega[now.row], nothing[now.row])

        return _by_steps(unit, theta, of_rows)
    rows = unit.rows
    h = row_derivatives(predictor, rows, others_at)
    packed = information_by_owner(rows, h, omega[rows.row], nothing[rows.row]).T
    if isinstance(unit, FieldUnit):
        return packed
    G, g = unpack(with_sentinel(packed), len(theta))
    Q = with_sentinel(predictor.summarize(unit.table, theta)[1:])

    def of_block_rows(now: Steps, own: Float[Array, "K J"]) -> Float[Array, "q C"]:
        u = Q[:, now.row] - now.value * own[1:, None, now.owner]
        return over_chunk(pack(*predictor.pull_back(u, now.value, G[:, :, now.row], g[:, now.row])))

    return _by_steps(unit, theta, of_block_rows)


def _by_steps(
    unit: RowsUnit | TableUnit, theta: Float[Array, "K m"], terms: Callable[[Steps, Array], Array]
) -> Float[Array, "q m"]:
    K, m = theta.shape
    own = with_sentinel(theta)

    def step(packed: Float[Array, "q wide"], now: Steps) -> tuple[Float[Array, "q wide"], None]:
        summed = sum_by_owner(terms(now, own[:, now.feature]), now.owner, now.feature.shape[0])
        return set_features(packed, now, summed.T), None

    packed = jnp.zeros_like(own, shape=(K * (K + 1) // 2 + K, m + 1))
    for steps in unit.steps:
        packed, _ = lax.scan(step, packed, steps)
    return packed[:, :-1]
