"""What hyperparameters see of w and v: the features of every group."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.design.units import Layout
from bayesfm.inference.conjugate import compiled
from bayesfm.priors import Features

__all__ = ["Moments", "features_of", "group_moments"]


class Moments(NamedTuple):
    """Of the features of every group: how many, their mean, their sum of squares around it."""

    number: Float[Array, " G"]
    mean: Float[Array, "K G"]
    scatter: Float[Array, "K G"]


def group_moments(layout: Layout, theta: tuple[Float[Array, "K m"], ...]) -> Moments:
    """In two passes, so that nothing cancels."""
    if layout.native:
        return Moments(*compiled.group_moments(layout, theta))

    def by_group(values: list[Float[Array, "K m"]]) -> Float[Array, "K G"]:
        sums = [
            jax.ops.segment_sum(x.T, unit.group, layout.num_groups, indices_are_sorted=True)
            for x, unit in zip(values, layout.units, strict=True)
        ]
        return reduce(jnp.add, sums).T

    count = reduce(jnp.add, [unit.count for unit in layout.units])
    mean = by_group(list(theta)) / jnp.maximum(count, 1)
    centred = [(x - mean[:, unit.group]) ** 2 for x, unit in zip(theta, layout.units, strict=True)]
    return Moments(count, mean, by_group(centred))


def features_of(
    layout: Layout, theta: tuple[Float[Array, "K m"], ...], moments: Moments, of_w: bool
) -> Features:
    """W (row 0) or v (the others) in the order of the design; what a prior does not read is never computed."""

    def own(x: Float[Array, "K m"]) -> Array:
        return x[0] if of_w else x[1:].T

    x = own(jnp.concatenate(theta, axis=1)[:, layout.place])
    return Features(x, layout.group, moments.number, own(moments.mean), own(moments.scatter))
