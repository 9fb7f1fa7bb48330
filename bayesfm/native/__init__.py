"""Compiled kernels for the CPU, reached through ``jax.ffi``.

They do what the XLA code of ``inference/gibbs`` does, which stays the reference and the way on other devices. The
library is built with the package where there is a C++ compiler; without it everything runs on XLA.

Every kernel takes leading batch dimensions: under ``jax.vmap`` one call works off the whole batch.

Kernels check shapes, and trust indices: these live on the device, and are looked at once, on the host, by
``design.build_layout``. Pointers, rows, codes and groups that do not come from there can end the process, and so can
counts or classes that no likelihood has validated.
"""

from __future__ import annotations

from bayesfm.native.beliefs import row_variances, spread_stride, spread_table, update_beliefs
from bayesfm.native.draws import (
    THREEFRY,
    can_draw,
    gamma,
    gamma_sums,
    polya_gamma,
    random_bits,
    random_keys,
    standard_normal,
    truncated_normal,
)
from bayesfm.native.features import (
    as_table,
    eliminate_field,
    linear_predictor,
    move_residual,
    row_information,
    substitute_field,
    summarize,
    table_stride,
    update_columns,
    update_table,
)
from bayesfm.native.library import ISAS, available, isa
from bayesfm.native.scales import group_moments, group_scatter, row_sums, scale_sums, turn_pairs

__all__ = [
    "ISAS",
    "THREEFRY",
    "as_table",
    "available",
    "can_draw",
    "eliminate_field",
    "gamma",
    "gamma_sums",
    "group_moments",
    "group_scatter",
    "isa",
    "linear_predictor",
    "move_residual",
    "polya_gamma",
    "random_bits",
    "random_keys",
    "row_information",
    "row_sums",
    "row_variances",
    "scale_sums",
    "spread_stride",
    "spread_table",
    "standard_normal",
    "substitute_field",
    "summarize",
    "table_stride",
    "truncated_normal",
    "turn_pairs",
    "update_beliefs",
    "update_columns",
    "update_table",
]
