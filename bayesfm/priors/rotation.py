"""Rotations of the factors, drawn with the hyperparameters integrated out (docs/math.md, section 14)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm import native as kernels
from bayesfm.random import is_compiled

__all__ = ["MAX_ROUNDS", "TRIES", "SquareSums", "draw_rotation", "rounds_of_pairs"]

MAX_ROUNDS = 7
"""Rounds of disjoint pairs in one move: all pairs up to rank 8; of more factors a random part, so that the move stays
small beside the sweep."""
TRIES = 32
"""Points that a slice is shrunk by: it halves each time on average, so that the last ones are next to the old angle."""


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
        Random key; with those of :func:`bayesfm.random.compiled` the turns are those of the compiled kernel.
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
    k, dtype = S.shape[-1], S.dtype
    key_order, key_turns = jax.random.split(key)
    # Which factors meet is drawn anew, independently of where the chain is.
    order = jax.random.permutation(key_order, k)
    pairs = rounds_of_pairs(k)[:MAX_ROUNDS]
    u = jax.random.uniform(key_turns, (*pairs.shape[:2], 3 + TRIES), dtype)
    start = jnp.eye(k, dtype=dtype)[:, order], S[:, order][:, :, order]
    turn = kernels.turn_pairs if is_compiled(key) else turn_pairs
    return turn(*start, degrees.astype(dtype), jnp.asarray(rate, dtype), jnp.asarray(pairs), u)


def turn_pairs(
    R: Float[Array, "k k"],
    S: Float[Array, "G k k"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""],
    pairs: Int[Array, "rounds pairs 2"],
    u: Float[Array, "rounds pairs tries"],
) -> Float[Array, "k k"]:
    """R times the turns of all pairs, round by round, drawn by the uniform numbers u (:func:`_draw_angles`)."""
    k = R.shape[0]

    def turn(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        R, S = carry
        (first, second), u = now[0].T, now[1]
        c, s = _draw_angles(u, S[:, first, first], S[:, second, second], S[:, first, second], degrees, rate)
        partner = jnp.arange(k).at[first].set(second).at[second].set(first)
        own = jnp.ones(k, R.dtype).at[first].set(c).at[second].set(c)
        other = jnp.zeros(k, R.dtype).at[first].set(s).at[second].set(-s)
        S = S * own + S[:, :, partner] * other
        return (R * own + R[:, partner] * other, S * own[:, None] + S[:, partner] * other[:, None]), None

    return lax.scan(turn, (R, S), (pairs, u))[0][0]


def _draw_angles(
    u: Float[Array, "P tries"],
    first: Float[Array, "G P"],
    second: Float[Array, "G P"],
    across: Float[Array, "G P"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""],
) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """Cosine and sine of the angle of every pair, by a slice step; S = [[first, across], [across, second]] per group.

    With x twice the angle the two sums are A + d(x) and A - d(x), d(x) = B cos x + C sin x, which has period pi in the
    product; a multiple of a quarter turn (labels and signs) is drawn uniformly. Densities are relative to x = 0 and
    without cancellation: (A^2 - d^2)/(A^2 - B^2) = 1 + (B - d)(B + d)/(A^2 - B^2).

    The first interval is the whole circle, and each point that is not in the slice becomes an end of the next one
    (Neal 2003). Where the points fall does not depend on which of them are in the slice, so that all are looked at
    together. If none is, the angle stays 0: what leads from one angle to another is as likely the other way round.
    Columns of u: height of the slice, place of the interval, quarter turn, points.
    """
    B, C = 0.5 * (first - second), across
    scale = (rate + first) * (rate + second)  # A^2 - B^2
    low = -jnp.pi * u[:, 1]
    high = low + jnp.pi
    points = []
    for t in range(3, u.shape[1]):
        x = low + (high - low) * u[:, t]
        low, high = jnp.where(x < 0, x, low), jnp.where(x < 0, high, x)
        points.append(x)
    x = jnp.stack(points)
    half_sin, half_cos = jnp.sin(0.5 * x)[:, None], jnp.cos(0.5 * x)[:, None]
    B_minus_d = 2 * half_sin * (B * half_sin - C * half_cos)
    ratio = B_minus_d * (2 * B - B_minus_d) / scale
    smallest = jnp.asarray(-1 + jnp.finfo(x.dtype).eps, x.dtype)
    log_density = -0.5 * jnp.sum(degrees[:, None] * jnp.log1p(jnp.maximum(ratio, smallest)), axis=1)
    inside = log_density >= jnp.log1p(-u[:, 0])
    chosen = jnp.argmax(inside, axis=0), jnp.arange(x.shape[1])
    half = jnp.where(inside[chosen], 0.5 * x[chosen], 0.0)
    c, s = jnp.cos(half), jnp.sin(half)
    quarter = jnp.floor(4 * u[:, 2]).astype(jnp.int32)
    turn_c, turn_s = (jnp.asarray(table, x.dtype)[quarter] for table in ([1, 0, -1, 0], [0, 1, 0, -1]))
    return turn_c * c - turn_s * s, turn_c * s + turn_s * c
