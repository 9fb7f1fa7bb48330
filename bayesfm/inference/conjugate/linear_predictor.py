"""eta of all rows from the parameters of the units."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.design.units import FieldUnit, Layout, RowsUnit, Unit
from bayesfm.inference.conjugate import compiled
from bayesfm.predictors import FM

__all__ = ["codes_of", "linear_predictor", "summary_of"]


def linear_predictor(
    predictor: FM, layout: Layout, w0: Float[Array, ""], theta: tuple[Float[Array, "K m"], ...]
) -> Float[Array, " n_pad"]:
    """eta of all rows, by tiles."""
    if layout.native:
        return compiled.linear_predictor(layout, w0, theta)
    summaries = [
        summary_of(predictor, unit, own, layout) for unit, own in zip(layout.units, theta, strict=True)
    ]

    def tile(parts: list[tuple[Array, Array | None]]) -> Float[Array, " t"]:
        at_rows = [s if code is None else s[:, code] for s, code in parts]
        return w0 + reduce(predictor.combine, at_rows)[0]

    tiles = layout.num_tiles
    if tiles == 1:
        return tile([(s, codes_of(unit)) for s, unit in zip(summaries, layout.units, strict=True)])

    def tile_at(i: Int[Array, ""]) -> Float[Array, " t"]:
        size = layout.num_padded // tiles
        parts: list[tuple[Array, Array | None]] = []
        for s, unit in zip(summaries, layout.units, strict=True):
            code = codes_of(unit)
            if code is None:
                parts.append((lax.dynamic_slice_in_dim(s, i * size, size, 1), None))
            else:
                parts.append((s, lax.dynamic_slice_in_dim(code, i * size, size)))
        return tile(parts)

    return lax.map(tile_at, jnp.arange(tiles)).reshape(-1)


def codes_of(unit: Unit) -> Int[Array, " n_pad"] | None:
    """Owner of each data row; None for rows of their own."""
    return None if isinstance(unit, RowsUnit) else unit.rows.code


def summary_of(
    predictor: FM, unit: Unit, theta: Float[Array, "K m"], layout: Layout
) -> Float[Array, "K rows"]:
    """Summaries of a unit's own rows, the last one that of a row without owner: zero."""
    if isinstance(unit, RowsUnit):
        return predictor.summarize(unit.table, theta)
    own = theta if isinstance(unit, FieldUnit) else predictor.summarize(unit.table, theta)
    return jnp.pad(own, ((0, 0), (0, 1)))
