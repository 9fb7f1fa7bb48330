"""What makes a draw of a conditional mean: standard normals, or none.

Without a key there is no noise, and a sweep that draws from full conditionals becomes one that maximises them:
coordinate ascent, known for matrix factorisation as alternating least squares.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesfm import native

__all__ = ["MaybeKey", "at", "split", "standard_normal", "three"]

type MaybeKey = Key[Array, "..."] | None
"""A typed key, or None for no noise."""


def split(key: MaybeKey, num: int) -> MaybeKey:
    """``num`` keys, or none."""
    return None if key is None else jax.random.split(key, num)


def three(key: MaybeKey) -> tuple[MaybeKey, MaybeKey, MaybeKey]:
    """Three keys, or none."""
    keys = split(key, 3)
    return at(keys, 0), at(keys, 1), at(keys, 2)


def at(keys: MaybeKey, i: int | Array) -> MaybeKey:
    """The i-th of several keys, or none."""
    return None if keys is None else keys[i]


def standard_normal(
    key: MaybeKey, like: Float[Array, "*shape"], *, use_native: bool = False
) -> Float[Array, "*shape"]:
    """Standard normals of the shape and type of ``like``; zeros without a key."""
    if key is None:
        return jnp.zeros_like(like)
    draw = native.standard_normal if use_native else jax.random.normal
    return draw(key, like.shape, like.dtype)
