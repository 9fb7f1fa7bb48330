"""Gamma variables, many at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

__all__ = ["gamma"]


def gamma(key: Key[Array, ""], shape: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Draw from Gamma(shape, rate 1), elementwise, all elements side by side.

    ``jax.random.gamma`` runs a loop of its own for every element, many times slower on a CPU. Here all elements are
    tried at once and those that were refused (at most one in twenty) again; for a shape below one a draw of shape + 1
    is multiplied by U^(1/shape).

    Parameters
    ----------
    key : typed JAX key
    shape : array
        Above zero.

    Returns
    -------
    array of the same shape

    References
    ----------
    Marsaglia & Tsang (2000), A simple method for generating gamma variables, ACM Trans. Math. Software 26.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from bayesfm.random import gamma
    >>> round(float(gamma(jax.random.key(0), jnp.full(100_000, 2.5)).mean()), 1)
    2.5
    """
    key_tries, key_boost = jax.random.split(key)
    small = shape < 1
    d = jnp.where(small, shape + 1, shape) - 1 / 3
    c = lax.rsqrt(9 * d)

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, value, waiting = state
        key_x, key_u = jax.random.split(jax.random.fold_in(key_tries, i))
        x = jax.random.normal(key_x, shape.shape, shape.dtype)
        u = jax.random.uniform(key_u, shape.shape, shape.dtype, jnp.finfo(shape.dtype).tiny)
        v = (1 + c * x) ** 3
        log_v = jnp.log(jnp.where(v > 0, v, 1.0))
        accepted = (v > 0) & (jnp.log(u) < 0.5 * x * x + d * (1 - v + log_v))
        return i + 1, jnp.where(waiting & accepted, d * v, value), waiting & ~accepted

    start = (jnp.zeros((), jnp.int32), d, jnp.full(shape.shape, True))
    _, value, _ = lax.while_loop(lambda state: jnp.any(state[2]), attempt, start)
    u = jax.random.uniform(key_boost, shape.shape, shape.dtype, jnp.finfo(shape.dtype).tiny)
    return jnp.where(small, value * u ** (1 / jnp.where(small, shape, 1.0)), value)
