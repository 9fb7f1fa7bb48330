"""Densities of scales whose programs are short: JAX's log-gamma of any real number is a third of a Gibbs sweep's."""

from __future__ import annotations

import math
from functools import reduce

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpyro.distributions.util import validate_sample

from bayesfm.random.tails import polynomial

__all__ = ["Gamma", "StudentT", "log_gamma"]

_SHIFT = 8
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def log_gamma(x: ArrayLike) -> Float[Array, "..."]:
    """log Gamma(x) for x > 0, to a few roundings of log Gamma(x + 8).

    By Stirling's series, below eight at x + 8: Gamma(x + 8) = x (x + 1) ... (x + 7) Gamma(x). The constants of priors
    need no more; sums over many rows do, and take ``jax.scipy.special.gammaln``.

    Parameters
    ----------
    x : array of any shape

    Returns
    -------
    array of that shape

    References
    ----------
    Abramowitz & Stegun (1964), Handbook of Mathematical Functions, 6.1.41.

    Examples
    --------
    >>> from bayesfm.random.densities import log_gamma
    >>> round(float(log_gamma(0.5)), 5)  # log(pi) / 2
    0.57236
    """
    x = 1.0 * jnp.asarray(x)
    small = x < _SHIFT
    rising = reduce(jnp.multiply, [jnp.where(small, x, 1.0) + i for i in range(_SHIFT)])
    y = jnp.where(small, x + _SHIFT, x)
    series = polynomial(_STIRLING, 1 / (y * y)) / y
    value = (y - 0.5) * jnp.log(y) - y + 0.5 * math.log(2 * math.pi) + series
    return value - jnp.where(small, jnp.log(rising), 0.0)


class Gamma(dist.Gamma):
    """NumPyro's, with :func:`log_gamma`."""

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density of precisions."""
        a, b = self.concentration, self.rate
        return a * jnp.log(b) - log_gamma(a) + (a - 1) * jnp.log(value) - b * value


class StudentT(dist.StudentT):
    """NumPyro's, with :func:`log_gamma`."""

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density of deviations."""
        nu, z = self.df, (value - self.loc) / self.scale
        constant = log_gamma(0.5 * (nu + 1)) - log_gamma(0.5 * nu) - 0.5 * jnp.log(jnp.pi * nu)
        return constant - jnp.log(self.scale) - 0.5 * (nu + 1) * jnp.log1p(z * z / nu)
