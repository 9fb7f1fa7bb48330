"""Log-gamma functions of counts: ratios and remainders that do not cancel."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array

__all__ = ["log_choose", "log_rising", "stirling_remainder"]

STIELTJES = (
    1 / 12,
    1 / 30,
    53 / 210,
    195 / 371,
    22999 / 22737,
    29944523 / 19733142,
    109535241009 / 48264275462,
)
STIRLING = 16.0
"""From here on the series is right to 1e-14."""


def log_rising(y: Array, r: Array) -> Array:
    """log Gamma(y + r) - log Gamma(r), by Stirling's series where both are large and their difference is not."""
    large = r > STIRLING
    R = jnp.where(large, r, STIRLING)
    n = jnp.where(large, y, 1.0)

    def remainder(x: Array) -> Array:
        t = 1 / (x * x)
        return (1 / 12 - t * (1 / 360 - t * (1 / 1260 - t / 1680))) / x

    series = (R - 0.5) * jnp.log1p(n / R) + n * (jnp.log(n + R) - 1) + remainder(n + R) - remainder(R)
    return jnp.where(large, series, gammaln(y + r) - gammaln(r))


def stirling_remainder(x: Array) -> Array:
    """log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2, which falls from infinity to zero; exact to 1e-12.

    By Stieltjes' continued fraction from 4 on, and below by log Gamma(x) = log Gamma(x + 1) - log x. Derivatives of any
    order come from elementary functions.

    References
    ----------
    Abramowitz & Stegun (1964), Handbook of Mathematical Functions, 6.1.48.
    """
    small = x < 4
    low = jnp.where(small, x, 1.0)
    steps = reduce(jnp.add, [(low + i + 0.5) * jnp.log((low + i + 1) / (low + i)) - 1 for i in range(4)])
    high = jnp.where(small, x + 4, x)
    below = reduce(lambda fraction, c: high + c / fraction, reversed(STIELTJES[1:]), high)
    return STIELTJES[0] / below + jnp.where(small, steps, 0.0)


def log_choose(y: Array, r: Array) -> Array:
    """log Gamma(y + r) - log Gamma(r) - log Gamma(y + 1)."""
    return log_rising(y, r) - gammaln(y + 1.0)
