"""Beliefs about the features of one-hot fields, by coordinate ascent: see ``inference/conjugate/mean_field.py``."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from bayesfm.native.library import call, check_pointers

__all__ = ["row_variances", "spread_stride", "spread_table", "update_beliefs"]


def spread_stride(rank: int, dtype: np.dtype | type) -> int:
    """Numbers in a row of a table of spreads: a multiple of 64 bytes."""
    size, full = rank * (rank + 1) // 2 + 3 * rank + 2, 64 // np.dtype(dtype).itemsize
    return -(-size // full) * full


def spread_table(mean: Float[Array, "K m"], cov: Float[Array, "K K m"]) -> Float[Array, "m+1 stride"]:
    """What every feature brings into a row (``predictors/spread.py``), and a row of zeros for rows without a feature.

    In a row: the triangle of C by rows, cov(v, w), A, the mean of v, a, t.
    """
    K, m = mean.shape
    shape = jax.ShapeDtypeStruct((m + 1, spread_stride(K - 1, mean.dtype)), mean.dtype)
    return call("spreads", mean.dtype, shape)(mean, cov)


def row_variances(
    mean: Float[Array, "K m"],
    spreads: Sequence[Float[Array, "_ stride"]],
    codes: Sequence[Int[Array, " n"]],
) -> Float[Array, " n"]:
    """Variance of eta of every data row, w0 left out, from the tables of all units; ``codes`` lead there.

    ``mean`` is that of any unit: it says what the rank is.
    """
    shape = jax.ShapeDtypeStruct(codes[0].shape, mean.dtype)
    units = [x for unit in zip(spreads, codes, strict=True) for x in unit]
    return call("variances", mean.dtype, shape)(mean, *units)


def update_beliefs(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    group: Int[Array, " m"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    theta: Float[Array, "K m"],
    tables: Sequence[Float[Array, "_ stride"]],
    spreads: Sequence[Float[Array, "_ wide"]],
    codes: Sequence[Int[Array, " rows"]],
) -> tuple[Float[Array, "K m"], Float[Array, "K K m"], Float[Array, " m"], Float[Array, " n_pad"]]:
    """The best normal belief about every feature of a one-hot field: mean, covariance, its log determinant; also r.

    Arguments as in :func:`~bayesfm.native.update_field`; ``theta`` has the present means, ``tables`` those of the other
    units' factors, ``spreads`` their :func:`spread_table`. See ``src/beliefs.cc``.
    """
    check_pointers(ptr)
    K, m = theta.shape
    like = (theta.shape, (K, K, m), (m,), r.shape)
    shapes = tuple(jax.ShapeDtypeStruct(shape, theta.dtype) for shape in like)
    units = [x for unit in zip(tables, spreads, codes, strict=True) for x in unit]
    new, cov, log_det, r = call("beliefs", theta.dtype, shapes)(
        ptr, row, omega, r, group, precision, mean, theta, *units
    )
    return new, cov, log_det, r
