"""The updates of ``mean_field.py`` by the compiled kernels, where all units are one-hot fields."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm import native
from bayesfm.design.units import FieldUnit, Layout, Unit
from bayesfm.inference.conjugate.blocks import GroupPrior
from bayesfm.inference.conjugate.inverse import Gaussians

__all__ = ["eta_variance", "information", "sweep_beliefs"]


def sweep_beliefs(
    layout: Layout,
    beliefs: Sequence[Gaussians],
    priors: Sequence[GroupPrior],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[tuple[Gaussians, ...], Float[Array, " n_pad"]]:
    """As ``sweep_beliefs.sweep_beliefs``."""
    new = list(beliefs)
    tables = [_factors(b.mean) for b in new]
    spreads = [native.spread_table(b.mean, b.cov) for b in new]
    for i, unit in enumerate(_fields(layout)):
        rows = unit.sorted
        assert rows is not None
        rest = [j for j in range(len(new)) if j != i]
        others, spread, codes = [tables[j] for j in rest], [spreads[j] for j in rest], list(rows.codes)
        if not rest:  # a table without any factors
            nobody = jnp.zeros_like(new[i].mean, shape=(*new[i].mean.shape[:1], 0))
            others, codes = [_factors(nobody)], [jnp.zeros_like(rows.row)]
            spread = [native.spread_table(nobody, jnp.zeros_like(nobody, shape=(*new[i].cov.shape[:2], 0)))]
        mean, cov, log_det, r = native.update_beliefs(
            rows.ptr,
            rows.row,
            omega,
            r,
            priors[i].group,
            *priors[i].arrays,
            new[i].mean,
            others,
            spread,
            codes,
        )
        new[i] = Gaussians(mean, cov, log_det)
        tables[i], spreads[i] = _factors(mean), native.spread_table(mean, cov)
    return tuple(new), r


def eta_variance(layout: Layout, beliefs: Sequence[Gaussians]) -> Float[Array, " n_pad"]:
    """As ``sweep_beliefs.eta_variance``."""
    spreads = [native.spread_table(b.mean, b.cov) for b in beliefs]
    return native.row_variances(beliefs[0].mean, spreads, [unit.rows.code for unit in _fields(layout)])


def information(
    layout: Layout, number: int, theta: Sequence[Float[Array, "K m"]], omega: Float[Array, " n_pad"]
) -> Float[Array, "m q"]:
    """Packed sums of omega h h' of every feature of a unit, with zeros for gradients."""
    rows, K = _fields(layout)[number].sorted, len(theta[number])
    assert rows is not None
    tables = [_factors(x) for j, x in enumerate(theta) if j != number]
    codes = list(rows.codes)
    if not tables:
        tables, codes = (
            [jnp.zeros((1, native.table_stride(K - 1, omega.dtype)), omega.dtype)],
            [jnp.zeros_like(rows.row)],
        )
    return native.row_information(rows.ptr, rows.row, omega, jnp.zeros_like(omega), K, tables, codes)


def _factors(mean: Float[Array, "K m"]) -> Float[Array, "m+1 stride"]:
    """As a table; the last row is that of a data row without a feature: zero."""
    return native.as_table(jnp.pad(mean[1:], ((0, 0), (0, 1))))


def _fields(layout: Layout) -> list[FieldUnit]:
    def field(unit: Unit) -> FieldUnit:
        assert isinstance(unit, FieldUnit), "beliefs about other units are XLA's"
        return unit

    return [field(unit) for unit in layout.units]
