"""One pass over the units of a design: theta of every feature, once."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit
from bayesfm.inference.conjugate import compiled
from bayesfm.inference.conjugate.blocks import FactorBlocks, OtherFactors
from bayesfm.inference.conjugate.linear_predictor import codes_of, summary_of
from bayesfm.inference.conjugate.noise import MaybeKey, at, split
from bayesfm.inference.conjugate.prior_terms import prior_of_unit, priors_of_units
from bayesfm.inference.conjugate.state import ModelState
from bayesfm.inference.conjugate.units import update_field, update_rows, update_table
from bayesfm.model import ModelSpec

__all__ = ["sweep_units"]

UPDATES: dict[type, Callable] = {FieldUnit: update_field, TableUnit: update_table, RowsUnit: update_rows}


def sweep_units(
    key: MaybeKey,
    state: ModelState,
    spec: ModelSpec,
    layout: Layout,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    factor_block: int,
) -> tuple[tuple[Float[Array, "K m"], ...], Float[Array, " n_pad"]]:
    """Draw theta of every unit given all others, or without a key take its conditional mean; also the residual."""
    predictor = spec.predictor
    blocks = FactorBlocks(predictor.rank, min(factor_block, predictor.rank))
    if layout.native:
        priors = priors_of_units(spec, state, layout)
        return compiled.sweep_units(key, layout, blocks, state.theta, priors, omega, r)
    thetas = list(state.theta)
    factors = [summary_of(predictor, u, t, layout)[1:] for u, t in zip(layout.units, thetas, strict=True)]

    keys = split(key, len(layout.units))
    for i, unit in enumerate(layout.units):
        rest = [j for j in range(len(thetas)) if j != i]
        others = OtherFactors([factors[j] for j in rest], [codes_of(layout.units[j]) for j in rest], r)
        prior = prior_of_unit(spec, state, layout, unit)
        update = UPDATES[type(unit)]
        thetas[i], r = update(at(keys, i), predictor, unit, blocks, thetas[i], prior, others, omega, r)
        factors[i] = summary_of(predictor, unit, thetas[i], layout)[1:]
    return tuple(thetas), r
