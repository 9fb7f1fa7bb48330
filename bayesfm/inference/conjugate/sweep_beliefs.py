"""One pass over the units of a design: the belief about every feature, once; and what the beliefs say of eta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit, Unit
from bayesfm.inference.conjugate import compiled_beliefs
from bayesfm.inference.conjugate.blocks import GroupPrior, UnitPrior
from bayesfm.inference.conjugate.inverse import Gaussians
from bayesfm.inference.conjugate.linear_predictor import codes_of, summary_of
from bayesfm.inference.conjugate.mean_field import (
    Others,
    table_spread,
    update_field,
    update_rows,
    update_table,
)
from bayesfm.predictors import FM
from bayesfm.predictors.spread import Spread, variance_of_rows

__all__ = ["eta_variance", "sweep_beliefs"]

UPDATES: dict[type, Callable] = {FieldUnit: update_field, TableUnit: update_table, RowsUnit: update_rows}


def sweep_beliefs(
    predictor: FM,
    layout: Layout,
    beliefs: tuple[Gaussians, ...],
    priors: Sequence[UnitPrior] | Sequence[GroupPrior],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[tuple[Gaussians, ...], Float[Array, " n_pad"]]:
    """Bring the belief about every unit up to date, one unit after the other; also the residual z - E[eta].

    ``priors`` are per feature, or in a layout for the compiled kernels per group.
    """
    if layout.native:
        return compiled_beliefs.sweep_beliefs(layout, beliefs, cast("Sequence[GroupPrior]", priors), omega, r)
    units, new = layout.units, list(beliefs)
    factors = [summary_of(predictor, u, b.mean, layout)[1:] for u, b in zip(units, new, strict=True)]
    spreads = [_spread_of(u, b) for u, b in zip(units, new, strict=True)]
    for i, unit in enumerate(units):
        rest = [j for j in range(len(units)) if j != i]
        codes = [codes_of(units[j]) for j in rest]
        others = Others([factors[j] for j in rest], [spreads[j] for j in rest], codes, r)
        new[i], r = UPDATES[type(unit)](predictor, unit, new[i], priors[i], others, omega, r)
        factors[i] = summary_of(predictor, unit, new[i].mean, layout)[1:]
        spreads[i] = _spread_of(unit, new[i])
    return tuple(new), r


def eta_variance(predictor: FM, layout: Layout, beliefs: tuple[Gaussians, ...]) -> Float[Array, " n_pad"]:
    """Variance of eta of every row, w0 left out, by tiles."""
    if layout.native:
        return compiled_beliefs.eta_variance(layout, beliefs)
    units, k = layout.units, predictor.rank
    parts = [
        (summary_of(predictor, u, b.mean, layout)[1:], _spread_of(u, b), codes_of(u))
        for u, b in zip(units, beliefs, strict=True)
    ]
    size = layout.num_padded // layout.num_tiles

    def tile(row: Array) -> Float[Array, " t"]:
        at = [row if code is None else code[row] for _, _, code in parts]
        q = reduce(jnp.add, [Q[:, here] for (Q, _, _), here in zip(parts, at, strict=True)])
        return variance_of_rows(k, q, [u for _, u, _ in parts], at)

    rows = jnp.arange(layout.num_padded).reshape(layout.num_tiles, size)
    return tile(rows[0]) if layout.num_tiles == 1 else jax.lax.map(tile, rows).reshape(-1)


def _spread_of(unit: Unit, belief: Gaussians) -> Float[Array, "u rows"]:
    """Packed spreads of a unit's own rows, the last one that of a row without owner: zero."""
    if isinstance(unit, RowsUnit):
        return table_spread(unit.table, belief)
    if isinstance(unit, TableUnit):
        own = table_spread(unit.table, belief)
    else:
        own = Spread.of_features(belief.mean, belief.cov).packed()
    return jnp.pad(own, ((0, 0), (0, 1)))
