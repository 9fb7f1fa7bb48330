"""Means and covariances of many small Gaussians, side by side in the last axis."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.inference.conjugate.normal import UNROLLED, diagonal, pivot_floor, unpack
from bayesfm.sums import inner

__all__ = ["Gaussians", "points", "posterior"]


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
    """P^-1 and log |P^-1| of positive definite matrices, by sweeps over all pivots (Goodnight 1979)."""
    K = P.shape[0]
    if K > UNROLLED:
        # LAPACK's pivots cannot be bounded from within; raising the diagonal by its own rounding does the same.
        raised = P + jnp.eye(K, dtype=P.dtype)[:, :, None] * (K * jnp.finfo(P.dtype).eps * diagonal(P))
        L = jnp.linalg.cholesky(jnp.moveaxis(raised, -1, 0))
        root = jnp.linalg.inv(L)
        log_det = -2 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2)), axis=1)
        return jnp.moveaxis(jnp.matmul(root.mT, root, precision="highest"), 0, -1), log_det
    M, log_det = P, jnp.zeros_like(P[0, 0])
    for i in range(K):
        pivot = jnp.maximum(M[i, i], floor[i])
        row = M[i] / pivot
        M = M - M[i][:, None] * row[None]
        M = M.at[i].set(row).at[:, i].set(row).at[i, i].set(-1 / pivot)
        log_det = log_det - jnp.log(pivot)
    return -M, log_det


def points(mean: Float[Array, "K m"]) -> Gaussians:
    """Points: no covariance."""
    K, m = mean.shape
    return Gaussians(mean, jnp.zeros_like(mean, shape=(K, K, m)), jnp.zeros_like(mean, shape=(m,)))
