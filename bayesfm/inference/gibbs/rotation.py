"""Rotate the factors: v <- v R for all features, which no row of any design sees.

The likelihood knows v through inner products alone, so that it says nothing about R; the prior does, and draws it with
its hyperparameters integrated out. The draw of the hyperparameters follows. Without it a chain takes as long for the
group means of v to turn as for the rows of v to follow them one by one.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm import native
from bayesfm.design.units import Layout, Unit
from bayesfm.model import ModelSpec
from bayesfm.priors.rotation import SquareSums

__all__ = ["rotate", "sums_of_squares"]

FEW_GROUPS = 16
"""Of which each has a product of matrices of its own: a scattered sum takes as long as so many multiply-adds."""

Theta = tuple[Float[Array, "K m"], ...]


def rotate(key: Key[Array, ""], theta: Theta, spec: ModelSpec, layout: Layout) -> Theta:
    """The same w, and v R in the place of v, with R drawn as the prior of v says; nothing if it has no such move.

    The hyperparameters of v have to be drawn next: R is from the posterior without them.
    """
    if spec.predictor.rank < 2:
        return theta
    R = spec.prior_v.rotation(key, sums_of_squares(theta, layout))
    if R is None:
        return theta
    return tuple(jnp.concatenate([x[:1], R.T @ x[1:]]) for x in theta)


def sums_of_squares(theta: Theta, layout: Layout) -> SquareSums:
    """Numbers, means and scatter matrices of v, per group; in two passes, so that nothing cancels."""
    number = reduce(jnp.add, [unit.count for unit in layout.units])
    pairs = list(zip(theta, layout.units, strict=True))
    add, scatter = (_compiled_sum, _compiled_scatter) if layout.native else (_sum, _scatter)
    mean = reduce(jnp.add, [add(x, unit, layout.num_groups) for x, unit in pairs]) / jnp.maximum(number, 1)
    return SquareSums(number, mean.T, reduce(jnp.add, [scatter(x, unit, mean) for x, unit in pairs]))


def _compiled_sum(theta: Float[Array, "K m"], unit: Unit, num_groups: int) -> Float[Array, "k G"]:
    return unit.count * native.group_moments(theta, unit.group, num_groups)[0][1:]


def _compiled_scatter(
    theta: Float[Array, "K m"], unit: Unit, mean: Float[Array, "k G"]
) -> Float[Array, "G k k"]:
    return native.group_scatter(theta, unit.group, mean)


def _sum(theta: Float[Array, "K m"], unit: Unit, num_groups: int) -> Float[Array, "k G"]:
    return _by_group(theta[1:], unit, num_groups)


def _by_group(x: Float[Array, "k m"], unit: Unit, num_groups: int) -> Float[Array, "k G"]:
    return jax.ops.segment_sum(x.T, unit.group, num_groups, indices_are_sorted=True).T


def _scatter(theta: Float[Array, "K m"], unit: Unit, mean: Float[Array, "k G"]) -> Float[Array, "G k k"]:
    """Sum of (v - mean)(v - mean)' per group: products of matrices, a group at a time, where there are few.

    With many groups a factor at a time: m k numbers at once, not m k^2.
    """
    k, num_groups = mean.shape
    x = theta[1:] - mean[:, unit.group]
    own = getattr(unit, "own_group", None)
    if own is not None:
        return jnp.zeros((num_groups, k, k), x.dtype).at[own].set(x @ x.T)
    if num_groups <= FEW_GROUPS:
        return lax.map(lambda g: jnp.where(unit.group == g, x, 0) @ x.T, jnp.arange(num_groups))
    return jnp.moveaxis(lax.map(lambda row: _by_group(row * x, unit, num_groups), x), -1, 0)
