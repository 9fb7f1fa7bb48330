"""One pass over the units of a design: theta of every feature, once."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit
from bayesfm.inference.conjugate import compiled
from bayesfm.inference.conjugate.blocks import FactorBlocks, OtherFactors
from bayesfm.inference.conjugate.collapsed import FieldPrior
from bayesfm.inference.conjugate.linear_predictor import codes_of, summary_of
from bayesfm.inference.conjugate.noise import MaybeKey, at, split
from bayesfm.inference.conjugate.prior_terms import prior_of_unit
from bayesfm.inference.conjugate.state import Hypers, ModelState, Swept
from bayesfm.inference.conjugate.units import update_field, update_rows, update_table
from bayesfm.model import ModelSpec

__all__ = ["sweep_units"]

UPDATES: dict[type, Callable] = {TableUnit: update_table, RowsUnit: update_rows}


def sweep_units(
    key: MaybeKey,
    state: ModelState,
    spec: ModelSpec,
    layout: Layout,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    factor_block: int,
) -> Swept:
    """Draw theta of every unit given all others, or without a key take its conditional mean.

    With a key hyperparameters of a field are drawn before its features, which are integrated out.
    """
    predictor = spec.predictor
    blocks = FactorBlocks(predictor.rank, min(factor_block, predictor.rank))
    if layout.native:
        return compiled.sweep_units(key, state, spec, layout, blocks, omega, r)
    thetas = list(state.theta)
    factors = [summary_of(predictor, u, t, layout)[1:] for u, t in zip(layout.units, thetas, strict=True)]

    keys = split(key, len(layout.units))
    for i, unit in enumerate(layout.units):
        rest = [j for j in range(len(thetas)) if j != i]
        others = OtherFactors([factors[j] for j in rest], [codes_of(layout.units[j]) for j in rest], r)
        prior = prior_of_unit(spec, state, layout, unit)
        rest_of_it = blocks, thetas[i], prior, others, omega, r
        if isinstance(unit, FieldUnit):
            own, hyper = FieldPrior.of(spec, layout, thetas, i), Hypers(state.hyper_w, state.hyper_v)
            thetas[i], r, hyper = update_field(at(keys, i), predictor, unit, *rest_of_it, own, hyper)
            state = state._replace(hyper_w=hyper.w, hyper_v=hyper.v)
        else:
            thetas[i], r = UPDATES[type(unit)](at(keys, i), predictor, unit, *rest_of_it)
        factors[i] = summary_of(predictor, unit, thetas[i], layout)[1:]
    return Swept(tuple(thetas), Hypers(state.hyper_w, state.hyper_v), r)
