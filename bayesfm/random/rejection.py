"""Rejection sampling for whole arrays: what is rejected is gathered, and only that is tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

__all__ = ["by_rejection"]

type Attempt = Callable[..., tuple[Array, Array]]
"""(key, *parameters) -> (proposals, whether they are rejected), elementwise in parameters of shape (n,)."""


def by_rejection(
    key: Key[Array, ""], attempt: Attempt, parameters: Sequence[Float[Array, "*shape"]], one_in: int
) -> Float[Array, "*shape"]:
    """One accepted proposal per element.

    Parameters
    ----------
    key : typed JAX key
    attempt : callable
        ``(key, *parameters) -> (proposals, rejected)`` for parameters of shape (n,), whatever n. What is rejected must
        not be so for ever; a NaN should count as accepted.
    parameters : arrays of one shape
    one_in : int
        At most about one proposal in so many is rejected: the size of what is tried again. Should there be more, it is
        tried again in several turns.
    """
    flat = [p.ravel() for p in parameters]
    n = flat[0].size
    size = 64 + n // one_in
    if n <= size:  # nothing to be gained by gathering, and half as much to compile
        _, x = _until_accepted(key, jnp.int32(0), attempt, flat, jnp.ones(n, bool))
        return x.reshape(parameters[0].shape)
    x, waiting = attempt(jax.random.fold_in(key, 0), *flat)

    def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, waiting = state
        # Where the first `size` waiting elements are; n where there are fewer.
        place = jnp.searchsorted(
            jnp.cumsum(waiting, dtype=jnp.int32), jnp.arange(1, size + 1, dtype=jnp.int32)
        )
        i, y = _until_accepted(key, i, attempt, [p[jnp.minimum(place, n - 1)] for p in flat], place < n)
        return i, x.at[place].set(y, mode="drop"), waiting.at[place].set(False, mode="drop")

    _, x, _ = lax.while_loop(lambda state: state[2].any(), turn, (jnp.int32(1), x, waiting))
    return x.reshape(parameters[0].shape)


def _until_accepted(
    key: Key[Array, ""], i: Array, attempt: Attempt, parameters: list[Array], wanted: Bool[Array, " m"]
) -> tuple[Array, Array]:
    """Proposals from attempt i on, and the number of the next one."""

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, waiting = state
        proposal, rejected = attempt(jax.random.fold_in(key, i), *parameters)
        return i + 1, jnp.where(waiting, proposal, x), waiting & rejected

    i, x, _ = lax.while_loop(lambda state: state[2].any(), again, (i, jnp.zeros_like(parameters[0]), wanted))
    return i, x
