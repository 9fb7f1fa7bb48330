"""Threefry keys whose bits come from the compiled kernels: the same numbers as ever, and far less to compile.

XLA compiles every request for random numbers to a loop of its own. A sweep makes dozens of them, most of a few numbers
each, and on a CPU most of the time of its compilation was theirs. Under the keys of this module each is one call.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl, threefry_prng_impl
from jaxtyping import Array, Key, Shaped, UInt32

from bayesfm import native as kernels

__all__ = ["compiled", "is_compiled"]


def _split(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    return kernels.random_keys(key, jnp.uint32(0), math.prod(shape)).reshape(*shape, 2)


def _fold_in(key: UInt32[Array, " 2"], data: int | Shaped[Array, ""]) -> UInt32[Array, " 2"]:
    return kernels.random_keys(key, jnp.asarray(data, jnp.uint32), 1)[0]


def _random_bits(key: UInt32[Array, " 2"], bit_width: int, shape: tuple[int, ...]) -> Shaped[Array, "*shape"]:
    size = math.prod(shape)
    if bit_width == 64:
        words = kernels.random_keys(key, jnp.uint32(0), size).astype(jnp.uint64)
        return (words[:, 0] << 32 | words[:, 1]).reshape(shape)
    return kernels.random_bits(key, size).reshape(shape).astype(f"uint{bit_width}")


_IMPL = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name=kernels.THREEFRY,
    tag=kernels.THREEFRY,
)


def compiled(key: Key[Array, "*batch"]) -> Key[Array, "*batch"]:
    """The key as one whose numbers the kernels for the CPU make; itself where that cannot be.

    The numbers are those of ``jax.random`` bit for bit.

    Parameters
    ----------
    key : typed JAX key
        Any but threefry keys are returned as they are, and so are those if JAX is told to make their bits the old way
        (``jax_threefry_partitionable`` is off).

    Raises
    ------
    RuntimeError
        When numbers are drawn, if bayesfm was built without its kernels.

    References
    ----------
    Salmon, Moraes, Dror & Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC 11.

    Examples
    --------
    >>> import jax
    >>> from bayesfm.random import compiled
    >>> key = jax.random.key(0)
    >>> bool(jax.random.normal(compiled(key)) == jax.random.normal(key))
    True
    """
    if str(jax.random.key_impl(key)) != "threefry2x32" or not jax.config.jax_threefry_partitionable:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPL)


def is_compiled(key: Key[Array, "*batch"]) -> bool:
    """Whether the kernels make this key's numbers."""
    return str(jax.random.key_impl(key)) == kernels.THREEFRY
