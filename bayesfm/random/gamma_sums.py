"""PG(m, c) for m = 0, 1, 2, ... by its sum of gammas, with a remainder that has the right first three cumulants.

    PG(m, c) = (1 / 2 pi^2) sum_k G_k / ((k - 1/2)^2 + a^2),        G_k ~ Gamma(m),  a = |c| / 2 pi.

The first TERMS of the sum are drawn. The cumulants of the rest are m (j - 1)! (2 pi^2)^-j T_j with
T_j = sum_{k > N} ((k - 1/2)^2 + a^2)^-j, by the Euler-Maclaurin formula; a shifted inverse Gaussian variable has the
same mean, variance and third cumulant. Its fourth is 7 % too small at c = 0, and right for large c, where PG(m, c)
itself becomes inverse Gaussian: from STRAIGHT on the whole sum counts as rest.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm.random.tails import polynomial, uniform_pair

__all__ = ["STRAIGHT", "TERMS", "sum_of_gammas"]

TERMS = 4
"""Gammas drawn before the remainder."""

STRAIGHT = 12.5
"""|c| from which PG(m, c) is drawn as remainder alone: it is inverse Gaussian up to terms of exp(-|c|)."""

# int_0^1 (sin(p s) / p)^2 ds and int_0^1 (sin(p s) / p)^4 ds as polynomials in p^2, to 3e-11 and 1e-9 for p <= pi / 2.
_SQUARES = (
    0.3333333333,
    -0.06666666644,
    0.006349204895,
    -0.0003527301339,
    1.282254026e-05,
    -3.264028926e-07,
    5.516255767e-09,
)
_FOURTHS = (
    0.1999999999,
    -0.09523809102,
    0.02222218604,
    -0.003270684873,
    0.0003362626979,
    -2.548499388e-05,
    1.42599512e-06,
    -4.845988941e-08,
)


def sum_of_gammas(
    key: Key[Array, ""], m: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """PG(m, c) for whole m >= 0 and c >= 0."""
    key_gamma, key_rest = jax.random.split(key)
    a = c / (2 * math.pi)
    drawn = c < STRAIGHT
    shift, centre, spread = _remainder(jnp.where(drawn, TERMS, 0).astype(c.dtype), a)
    many = jnp.maximum(m, 1)
    total = many * shift + _inverse_gaussian(key_rest, many * centre, many * many * spread)
    gammas = _gamma(key_gamma, many, TERMS)
    for k in range(TERMS):
        total += jnp.where(drawn, gammas[k] / (2 * math.pi**2 * ((k + 0.5) ** 2 + a * a)), 0)
    return jnp.where(m > 0, total, 0)


def _remainder(
    N: Float[Array, "*shape"], a: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Shift, mean and shape parameter of the inverse Gaussian variable in place of the terms k > N, for m = 1.

    T_j q^(1 - 2j) is kept, which neither vanishes nor grows: with x = a cot(angle) the integral of (x^2 + a^2)^-j
    over x > N is q^(2j - 1) times that of (sin(p s) / p)^(2j - 2) over 0 < s < 1, p = arctan(a / N), q = p / a.
    """
    p = jnp.arctan2(a, N)
    q = jnp.where(a < 1e-4, 1 / jnp.maximum(N, 1), p / jnp.maximum(a, 1e-4))
    Q = N * N + a * a

    def scaled(j: int, integral: Array | float) -> Array:
        first = -2 * j * N / Q ** (j + 1)
        third = 4 * j * (j + 1) * N * (3 - 2 * (j + 2) * N * N / Q) / Q ** (j + 2)
        return integral + jnp.where(N > 0, (first / 24 - third * (7 / 5760)) / q ** (2 * j - 1), 0)

    t1, t2, t3 = (
        scaled(1, 1.0),
        scaled(2, polynomial(_SQUARES, p * p)),
        scaled(3, polynomial(_FOURTHS, p * p)),
    )
    unit = q / (2 * math.pi**2)
    centre = (
        1.5 * t2 * t2 / t3
    )  # in that unit; the variance is t2 q / unit, the third cumulant 2 t3 (q / unit)^2
    return unit * (t1 - centre), unit * centre, centre**3 / t2 / (2 * math.pi**2)


def _inverse_gaussian(key: Key[Array, ""], mean: Array, shape: Array) -> Array:
    """Michael, Schucany & Haas (1976); the smaller root without cancellation."""
    key_normal, key_root = jax.random.split(key)
    v = jax.random.normal(key_normal, mean.shape, mean.dtype) ** 2 * (mean / shape / 2)
    g = 1 + v + jnp.sqrt(v * (v + 2))
    u, _ = uniform_pair(key_root, mean.shape, mean.dtype)
    return mean * jnp.where(u * (1 + g) <= g, 1 / g, g)


def _gamma(key: Key[Array, ""], shape: Float[Array, "*shape"], count: int) -> Float[Array, "count *shape"]:
    """Gammas of shape parameters >= 1 by Marsaglia & Tsang (2000), for whole arrays at a time."""
    d = shape - 1 / 3
    scale = 1 / jnp.sqrt(9 * d)
    size = (count, *shape.shape)

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, waiting = state
        key_normal, key_accept = jax.random.split(jax.random.fold_in(key, i))
        normal = jax.random.normal(key_normal, size, shape.dtype)
        u, _ = uniform_pair(key_accept, size, shape.dtype)
        w = jnp.maximum(scale * normal, -0.9999)  # beyond it log u is never small enough
        growth = w * (3 + w * (3 + w))  # (1 + w)^3 - 1
        accept = jnp.log(u) < normal * normal / 2 + d * (3 * jnp.log1p(w) - growth)
        return i + 1, jnp.where(waiting, d * (1 + growth), x), waiting & ~accept

    start = attempt((jnp.int32(0), jnp.zeros(size, shape.dtype), jnp.ones(size, bool)))
    return lax.while_loop(lambda s: s[2].any(), attempt, start)[1]
