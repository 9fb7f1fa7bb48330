"""Rotations of the factors, drawn with the hyperparameters integrated out (docs/math.md, section 14)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm.priors.draws import slice_step

__all__ = ["MAX_ROUNDS", "SquareSums", "draw_rotation", "rounds_of_pairs"]

MAX_ROUNDS = 7
"""Rounds of disjoint pairs in one move: all pairs up to rank 8; of more factors a random part, so that the move stays
small beside the sweep."""


class SquareSums(NamedTuple):
    """Of the v of every group: how many, their mean, the sum of (v - mean)(v - mean)'."""

    number: Float[Array, " G"]
    mean: Float[Array, "G k"]
    scatter: Float[Array, "G k k"]


def rounds_of_pairs(k: int) -> Int[np.ndarray, "rounds pairs 2"]:
    """All pairs of k factors in rounds of disjoint ones, as in a tournament (circle method)."""
    seats = list(range(k + k % 2))
    rounds = []
    for _ in range(len(seats) - 1):
        pairs = zip(seats[: len(seats) // 2], reversed(seats[len(seats) // 2 :]), strict=True)
        rounds.append([pair for pair in pairs if max(pair) < k])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return np.asarray(rounds, dtype=np.int32).reshape(len(rounds), -1, 2)


def draw_rotation(
    key: Key[Array, ""],
    S: Float[Array, "G k k"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""] | float,
) -> Float[Array, "k k"]:
    """Draw R so that v <- v R leaves a posterior with prior prod_gf (rate + S_gff)^(-degrees_g/2) as it is.

    S_g becomes R' S_g R. The pairs of factors are turned one round after the other, each by an angle drawn by slice
    sampling from the density along its circle.

    Parameters
    ----------
    key : typed key
        Random key.
    S : Array, shape (G, k, k)
        Sums of v v' in each group, around the prior mean as the family has it.
    degrees : Array, shape (G,)
        Power of each group.
    rate : float
        Prior sum of squares, the same for all factors.

    Returns
    -------
    Array, shape (k, k)
        An orthogonal matrix.
    """
    k = S.shape[-1]
    key_order, key_rounds = jax.random.split(key)
    pairs = jnp.asarray(rounds_of_pairs(k))[:MAX_ROUNDS]
    # Which pairs meet is drawn anew, independently of where the chain is.
    pairs = jax.random.permutation(key_order, k)[pairs]

    def turn(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        R, S = carry
        key, (first, second) = now[0], now[1].T
        angle = _draw_angles(
            key, S[:, first, first], S[:, second, second], S[:, first, second], degrees, rate
        )
        c, s = jnp.cos(angle), jnp.sin(angle)
        own = jnp.ones(k).at[first].set(c).at[second].set(c)
        Q = jnp.diag(own).at[first, second].set(-s).at[second, first].set(s)
        return (R @ Q, jnp.einsum("fa,gfh,hb->gab", Q, S, Q)), None

    carry = (jnp.eye(k, dtype=S.dtype), S)
    return lax.scan(turn, carry, (jax.random.split(key_rounds, len(pairs)), pairs))[0][0]


def _draw_angles(
    key: Key[Array, ""],
    first: Float[Array, "G P"],
    second: Float[Array, "G P"],
    across: Float[Array, "G P"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""] | float,
) -> Float[Array, " P"]:
    """One slice step for the angle of every pair, from 0; S = [[first, across], [across, second]] of each group.

    With x twice the angle the two sums are A + d(x) and A - d(x), d(x) = B cos x + C sin x, which has period pi in the
    product; a multiple of a quarter turn (labels and signs) is drawn uniformly. Densities are relative to x = 0 and
    without cancellation: (A^2 - d^2)/(A^2 - B^2) = 1 + (B - d)(B + d)/(A^2 - B^2).
    """
    B, C = 0.5 * (first - second), across
    scale = (rate + first) * (rate + second)  # A^2 - B^2
    key_place, key_quarter = jax.random.split(key)
    shape, dtype = first.shape[1:], first.dtype

    def log_density(x: Float[Array, " P"]) -> Float[Array, " P"]:
        half_sin, half_cos = jnp.sin(0.5 * x), jnp.cos(0.5 * x)
        B_minus_d = 2 * half_sin * (B * half_sin - C * half_cos)
        ratio = B_minus_d * (2 * B - B_minus_d) / scale
        smallest = jnp.asarray(-1 + jnp.finfo(dtype).eps, dtype)
        return -0.5 * jnp.sum(degrees[:, None] * jnp.log1p(jnp.maximum(ratio, smallest)), axis=0)

    # The whole circle is the first interval, and is not stepped out of.
    x = slice_step(key_place, log_density, jnp.zeros(shape, dtype), jnp.pi, max_steps=1)
    quarters = jax.random.randint(key_quarter, shape, 0, 4)
    return 0.5 * x + 0.5 * jnp.pi * quarters
