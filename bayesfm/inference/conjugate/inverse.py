"""Means and covariances of many small Gaussians, side by side in the last axis."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bayesfm.inference.conjugate.normal import pivot_floor, unpack
from bayesfm.sums import inner

__all__ = ["Gaussians", "inverse", "posterior"]

LANES = 128
"""Large matrices that are inverted side by side."""
SMALL = 17
"""Up to this K all matrices are inverted side by side: a few at a time is no faster."""


class Gaussians(NamedTuple):
    """N(mean_j, cov_j) of every feature, and log |cov_j|."""

    mean: Float[Array, "K m"]
    cov: Float[Array, "K K m"]
    log_det: Float[Array, " m"]


def posterior(
    packed: Float[Array, "q J"],
    theta: Float[Array, "K J"],
    precision: Float[Array, "K *K J"],
    mean: Float[Array, "K J"],
) -> Gaussians:
    """N(P^-1 b, P^-1), with P and b as in ``normal.draw``: what a draw without noise leaves out is the covariance.

    The mean is found as a step from the present theta, so that nothing cancels where it hardly moves.
    """
    G, g = unpack(packed, theta.shape[0])
    if precision.ndim == 2:
        step = precision * (mean - theta) + g
        P = G + jnp.eye(len(theta), dtype=G.dtype)[:, :, None] * precision[:, None]
    else:
        step = inner(precision, (mean - theta)[None], axis=1) + g
        P = G + precision
    cov, log_det = inverse(P, pivot_floor(P, precision))
    return Gaussians(theta + inner(cov, step[None], axis=1), cov, log_det)


def inverse(
    P: Float[Array, "K K J"], floor: Float[Array, "K J"]
) -> tuple[Float[Array, "K K J"], Float[Array, " J"]]:
    """P^-1 and log |P^-1| of positive definite matrices, by sweeps over all pivots; none is below its ``floor``.

    Large matrices are worked off a few at a time, as many as stay in cache: LAPACK, one matrix at a time, takes two to
    ten times as long.

    References
    ----------
    Goodnight (1979), A tutorial on the SWEEP operator, The American Statistician 33.
    """
    K, _, J = P.shape
    if K <= SMALL or J <= LANES:
        return _sweep(P, floor)
    pad = -J % LANES
    more = jnp.broadcast_to(jnp.eye(K, dtype=P.dtype)[:, :, None], (K, K, pad))
    matrices = jnp.concatenate([P, more], axis=-1).reshape(K, K, -1, LANES)
    floors = jnp.pad(floor, ((0, 0), (0, pad))).reshape(K, -1, LANES)
    inverses, log_dets = lax.map(
        lambda x: _sweep(*x), (jnp.moveaxis(matrices, 2, 0), jnp.moveaxis(floors, 1, 0))
    )
    return jnp.moveaxis(inverses, 0, 2).reshape(K, K, -1)[..., :J], log_dets.reshape(-1)[:J]


def _sweep(P: Float[Array, "K K J"], floor: Float[Array, "K J"]) -> tuple[Array, Array]:
    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        M, log_det = carry
        pivot = jnp.maximum(M[i, i], floor[i])
        row = M[i] / pivot
        M = M - M[i][:, None] * row[None]
        return M.at[i].set(row).at[:, i].set(row).at[i, i].set(-1 / pivot), log_det - jnp.log(pivot)

    # A loop for small matrices too: unrolled it is no faster, and takes XLA seconds to compile.
    M, log_det = lax.fori_loop(0, P.shape[0], step, (P, jnp.zeros_like(P[0, 0])))
    return -M, log_det
