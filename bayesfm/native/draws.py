"""Random numbers by the compiled kernels: those of ``jax.random`` and ``bayesfm.random``, from the same bits."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from bayesfm.native.library import call

__all__ = [
    "THREEFRY",
    "can_draw",
    "gamma",
    "gamma_sums",
    "polya_gamma",
    "random_bits",
    "random_keys",
    "standard_normal",
    "truncated_normal",
]

THREEFRY = "bayesfm-threefry"
"""Name of the kind of keys whose numbers come from the kernels; see ``bayesfm/random/keys.py``."""


def can_draw(key: Key[Array, ""], dtype: Any) -> bool:
    """Whether the kernels draw numbers of this type from this key: float32, and threefry as JAX makes it by default."""
    kind = str(jax.random.key_impl(key))
    ours = kind == THREEFRY or (kind == "threefry2x32" and jax.config.jax_threefry_partitionable)
    return dtype == jnp.float32 and ours


def gamma(key: Key[Array, ""], shape: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gamma(shape, rate 1), where :func:`can_draw`; see ``bayesfm.random``, whose bits these are."""
    out = jax.ShapeDtypeStruct((shape.size,), jnp.float32)
    return call("gammas", jnp.float32, out)(jax.random.key_data(key), shape.ravel()).reshape(shape.shape)


def gamma_sums(
    key: Key[Array, ""], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """PG(b, c) for b >= 1, where :func:`can_draw`; see ``bayesfm/random/gamma_sums.py``."""
    out = jax.ShapeDtypeStruct((c.size,), jnp.float32)
    draws = call("gamma_sums", jnp.float32, out)(jax.random.key_data(key), b.ravel(), c.ravel())
    return draws.reshape(c.shape)


def polya_gamma(key: Key[Array, ""], c: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """PG(1, c), where :func:`can_draw`; see ``bayesfm.random``."""
    out = jax.ShapeDtypeStruct((c.size,), jnp.float32)
    return call("polya_gammas", jnp.float32, out)(jax.random.key_data(key), c.ravel()).reshape(c.shape)


def random_bits(key: UInt32[Array, " 2"], size: int) -> UInt32[Array, " size"]:
    """``jax.random.bits`` of a threefry key, given as its two words."""
    return call("bits", jnp.uint32, jax.ShapeDtypeStruct((size,), jnp.uint32))(key)


def random_keys(key: UInt32[Array, " 2"], first: UInt32[Array, ""], size: int) -> UInt32[Array, "size 2"]:
    """Keys from number ``first`` on of ``jax.random.split``, two words each; one alone is ``jax.random.fold_in``."""
    return call("keys", jnp.uint32, jax.ShapeDtypeStruct((size, 2), jnp.uint32))(key, first)


def standard_normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: np.dtype) -> Float[Array, "..."]:
    """``jax.random.normal`` up to rounding: the same random bits, in float32 and for threefry keys by the kernel."""
    if not can_draw(key, dtype):
        return jax.random.normal(key, shape, dtype)
    out = jax.ShapeDtypeStruct((math.prod(shape),), jnp.float32)
    return call("normals", jnp.float32, out)(jax.random.key_data(key)).reshape(shape)


def truncated_normal(
    key: Key[Array, ""],
    mean: Float[Array, "*shape"],
    lower: Float[Array, "*shape"],
    upper: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """N(mean, 1) in [lower, upper], where :func:`can_draw`; see ``bayesfm.random``, whose bits these are."""
    out = jax.ShapeDtypeStruct((mean.size,), jnp.float32)
    arguments = (x.ravel() for x in (mean, lower, upper))
    return call("truncated_normals", jnp.float32, out)(jax.random.key_data(key), *arguments).reshape(
        mean.shape
    )
