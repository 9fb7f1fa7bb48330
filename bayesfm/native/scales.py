"""What hyperparameters and the parameters of likelihoods read: sums over features and over rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayesfm.native.library import SUMS, call

__all__ = ["group_moments", "group_scatter", "row_sums", "scale_sums", "turn_pairs"]


def group_moments(
    theta: Float[Array, "K m"], group: Int[Array, " m"], num_groups: int
) -> tuple[Float[Array, "K G"], Float[Array, "K G"]]:
    """Mean of every group (sorted) and sum of squares around it; zeros for a group without features."""
    shape = jax.ShapeDtypeStruct((theta.shape[0], num_groups), theta.dtype)
    mean, scatter = call("moments", theta.dtype, (shape, shape))(theta, group)
    return mean, scatter


def group_scatter(
    theta: Float[Array, "K m"], group: Int[Array, " m"], centre: Float[Array, "k G"]
) -> Float[Array, "G k k"]:
    """Sum of (v_j - centre)(v_j - centre)' over every group (sorted), v_j the factors in column j of theta."""
    k, num_groups = centre.shape
    return call("scatter", theta.dtype, jax.ShapeDtypeStruct((num_groups, k, k), theta.dtype))(
        theta, group, centre
    )


def row_sums(
    terms: str,
    y: Float[Array, " n"],
    weight: Float[Array, " n"],
    eta: Float[Array, " n"],
    at: Float[Array, " d"],
) -> tuple[Float[Array, " 2"], Float[Array, " d"], Float[Array, "d d"]]:
    """Sum over rows of weight times ``terms`` ("ordinal", "student_t", "counts"), its gradient and Hessian by ``at``.

    In float32, added up in float64: the sum comes as two numbers, the second one what the first has rounded off. Rows
    of weight zero count for nothing. See ``src/row_sums.h``.
    """
    if terms not in SUMS:
        raise ValueError(f"terms must be one of {', '.join(SUMS)}, got {terms!r}")
    d = at.shape[0]
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2,), (d,), (d, d)))
    value, gradient, hessian = call(terms, at.dtype, shapes)(y, weight, eta, at)
    return value, gradient, hessian


def scale_sums(
    c: Float[Array, " m"],
    d: Float[Array, " m"],
    group: Int[Array, " m"],
    before: Float[Array, " G"],
    at: Float[Array, " G"],
) -> Float[Array, "sums G"]:
    """What integrated features say of the precision of their group (sorted).

    See ``inference/conjugate/shrinkage.py``.
    """
    shape = jax.ShapeDtypeStruct((9, at.shape[0]), at.dtype)
    return call("shrinkage", at.dtype, shape)(c, d, group, before, at)


def turn_pairs(
    R: Float[Array, "k k"],
    S: Float[Array, "G k k"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""],
    pairs: Int[Array, "rounds pairs 2"],
    u: Float[Array, "rounds pairs tries"],
) -> Float[Array, "k k"]:
    """R times the turns of all pairs; see ``bayesfm/priors/rotation.py``, whose ``turn_pairs`` it is."""
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (R, S))
    return call("rotation", R.dtype, shapes)(R, S, degrees, rate, pairs, u)[0]
