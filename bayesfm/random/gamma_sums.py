"""PG(b, c) for real b >= 1 by its sum of gammas, with a remainder that has the right first three cumulants.

    PG(b, c) = (1 / 2 pi^2) sum_k G_k / ((k - 1/2)^2 + a^2),        G_k ~ Gamma(b),  a = |c| / 2 pi.

The first TERMS of the sum are drawn. The mean of the rest is known, since that of the sum is. Its higher cumulants are
b (j - 1)! (2 pi^2)^-j T_j with T_j = sum_{k > N} ((k - 1/2)^2 + a^2)^-j, by the Euler-Maclaurin formula (or Poisson's
where N is zero). A shifted inverse Gaussian variable has the same mean, variance and third cumulant. Its fourth is 7 %
too small at c = 0, and right for large c, where PG(b, c) itself becomes inverse Gaussian: from STRAIGHT on the whole
sum counts as rest.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from bayesfm.random.gamma import ONE_IN, attempt
from bayesfm.random.rejection import by_rejection
from bayesfm.random.tails import polynomial, uniform_pair

__all__ = ["STRAIGHT", "TERMS", "sum_of_gammas"]

TERMS = 4
"""Gammas drawn before the remainder."""

STRAIGHT = 12.5
"""|c| from which PG(b, c) is drawn as remainder alone: it is inverse Gaussian up to terms of exp(-|c|)."""

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
    key: Key[Array, ""], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """PG(b, c) for b >= 1 and c >= 0."""
    key_gamma, key_rest = jax.random.split(key)
    drawn = c < STRAIGHT
    scales = [jnp.where(drawn, s, 0) for s in _scales(c)]
    mean = _mean(c) - sum(scales)
    centre, shape = _remainder(drawn, c)
    rest = _inverse_gaussian(key_rest, b * centre, b * b * shape)
    gammas = by_rejection(key_gamma, attempt, [jnp.broadcast_to(b, (TERMS, *b.shape))], ONE_IN)
    return b * (mean - centre) + rest + sum(s * g for s, g in zip(scales, gammas, strict=True))


def _scales(c: Float[Array, "*shape"]) -> list[Float[Array, "*shape"]]:
    """Of the first gammas."""
    return [1 / (2 * (math.pi * (k + 0.5)) ** 2 + c * c / 2) for k in range(TERMS)]


def _mean(c: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mean of PG(1, c)."""
    x = jnp.maximum(c, 0.02) / 2
    return jnp.where(c < 0.02, (1 - c * c / 12) / 4, jnp.tanh(x) / (4 * x))


def _remainder(
    drawn: Bool[Array, "*shape"], c: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Mean and shape parameter of the inverse Gaussian variable that is shifted, for b = 1.

    With x = a cot(angle) the integral of (x^2 + a^2)^-j over x > N is q^(2j - 1) times that of
    (sin(p s) / p)^(2j - 2) over 0 < s < 1, where p = arctan(a / N) and q = p / a. What is computed is T_j q^(1 - 2j),
    which neither vanishes nor grows with a.
    """
    N = jnp.where(drawn, TERMS, 0).astype(c.dtype)
    a = c / (2 * math.pi)
    p = jnp.arctan2(a, N)
    q = jnp.where(a < 1e-4, 1 / TERMS, p / jnp.maximum(a, 1e-4))

    def scaled(j: int, integral: Array, missing: Array) -> Array:
        Q = TERMS**2 + a * a
        first = -2 * j * TERMS / Q ** (j + 1)
        third = 4 * j * (j + 1) * TERMS * (3 - 2 * (j + 2) * TERMS**2 / Q) / Q ** (j + 2)
        euler_maclaurin = (first / 24 - third * (7 / 5760)) / q ** (2 * j - 1)
        return integral + jnp.where(drawn, euler_maclaurin, -2 * jnp.exp(-c) * missing * integral)  # Poisson

    t2 = scaled(2, polynomial(_SQUARES, p * p), 1 + c)
    t3 = scaled(3, polynomial(_FOURTHS, p * p), 1 + c + c * c / 3)
    # In units of r = q / 2 pi^2 the variance is t2 r^2 / q, and the third cumulant 2 t3 r^3 / q.
    centre = 1.5 * t2 * t2 / t3
    return centre * q / (2 * math.pi**2), centre**3 / t2 / (2 * math.pi**2)


def _inverse_gaussian(key: Key[Array, ""], mean: Array, shape: Array) -> Array:
    """Michael, Schucany & Haas (1976); the smaller root without cancellation."""
    key_normal, key_root = jax.random.split(key)
    v = jax.random.normal(key_normal, mean.shape, mean.dtype) ** 2 * (mean / shape / 2)
    g = 1 + v + jnp.sqrt(v * (v + 2))
    u, _ = uniform_pair(key_root, mean.shape, mean.dtype)
    return mean * jnp.where(u * (1 + g) <= g, 1 / g, g)
