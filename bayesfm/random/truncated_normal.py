"""Truncated normals by inversion, right in both tails and in single precision.

Measured from the mean, let a be the end of the interval that is nearer to it, w the width and x = a + t. The normal
survival function S has the cumulative hazard

    H_c(t) = log S(c) - log S(c + t) = c t + t^2 / 2 - log(R(c + t) / R(c)),        R the Mills ratio,

in which nothing cancels or underflows for c >= 0. Three cases:

- a >= 0: t solves H_a(t) = E with E a unit exponential truncated at H_a(w).
- a < 0: the mean is inside. The smaller one, p, of the two tail probabilities of x is a mixture of those of the ends,
  by the uniform; the distance from the mean solves H_0(t) = -log(2 p).
- w small: a truncated exponential with the slope of the log density in the middle of the interval. What is left out is
  a factor within exp(w^2 / 8) of one.

Distances are added to the nearer bound and not to the mean, so that a draw far in the tail is as precise as its bound.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key

from bayesfm.random.tails import halley_steps, mills_ratio, quadratic_start, uniform_pair

__all__ = ["truncated_normal"]

_FAR = 1e18
"""Stands for infinity: its square is finite in single precision."""

_NARROW = {"float32": 0.03, "float64": 1e-4}
"""Width below which the log density counts as straight: there w^2 / 130 and eps / w, the errors of the cdf, meet."""


def truncated_normal(
    key: Key[Array, ""], mean: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, native: bool = False
) -> Float[Array, "..."]:
    """Draw from N(mean, 1) truncated to [lower, upper], elementwise; the arguments broadcast.

    Parameters
    ----------
    key : typed JAX key
    mean, lower, upper : arrays
        Bounds may be infinite; where ``lower > upper`` the draw is NaN.
    native : bool
        Whether the compiled kernel for the CPU may be used, where there is one for the case at hand.

    Returns
    -------
    array of the broadcast shape
        Never outside [lower, upper]. One uniform of 32 bits (64 in float64) is used per element.

    Notes
    -----
    The distribution function of the draws is right to about 1e-5 in float32 and 1e-10 in float64, the worst cases being
    narrow intervals; relative to the interval, so that tails are as good as the centre.

    References
    ----------
    Robert (1995), Simulation of truncated normal variables, Statistics and Computing 5 (for the problem);
    Devroye (1986), Non-Uniform Random Variate Generation, II.2 (inversion by the cumulative hazard).

    Examples
    --------
    >>> import jax
    >>> from bayesfm.random import truncated_normal
    >>> x = truncated_normal(jax.random.key(0), -40.0, jax.numpy.zeros(1000), jax.numpy.inf)
    >>> bool((x > 0).all()), round(float(x.mean()), 3)
    (True, 0.025)
    """
    mean, lower, upper = jnp.broadcast_arrays(*_floats(mean, lower, upper))
    u, v = uniform_pair(key, mean.shape, mean.dtype)
    return _quantile(u, v, mean, lower, upper)


def _floats(*arguments: ArrayLike) -> list[Array]:
    dtype = jnp.promote_types(jnp.result_type(*arguments), jnp.float32)
    return [jnp.asarray(x, dtype) for x in arguments]


@jax.jit
def _quantile(u: Array, v: Array, mean: Array, lower: Array, upper: Array) -> Array:
    """Quantile of v = 1 - u (from the nearer bound outwards: of u where the interval lies below the mean)."""
    a, b = lower - mean, upper - mean
    flip = jnp.abs(b) < jnp.abs(a)
    a, b = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    a, b = jnp.clip(a, -_FAR, None), jnp.clip(b, None, _FAR)  # a may be far above, as b then is
    w = jnp.clip(upper - lower, None, _FAR)

    c = jnp.maximum(a, 0)
    R_c = mills_ratio(c)
    q = jnp.exp(-_cumulative_hazard(c, w, R_c))  # S(b) / S(a) where a >= 0
    outside = jnp.where(u < 0.5, -jnp.log1p(-u * (1 - q)), -jnp.log(v + u * q))
    p_below, p_above = _tail_probabilities(u, v, a, b)
    inside = -jnp.log(2 * jnp.minimum(p_below, p_above))
    t = _solve(jnp.maximum(jnp.where(a < 0, inside, outside), 0), c, R_c)

    slope = jnp.maximum(a + w / 2, 1e-8 / jnp.maximum(w, 1e-28))  # 0 / 0 in the middle, and w may be 0
    straight = -jnp.log1p(u * jnp.expm1(-slope * w)) / slope
    narrow = w < _NARROW[str(w.dtype)]
    t = jnp.minimum(jnp.where(narrow, straight, t), w)

    from_mean = (a < 0) & ~narrow
    above = jnp.where(from_mean & (p_below < p_above), flip, ~flip)
    x = jnp.where(from_mean, mean, jnp.where(flip, upper, lower)) + jnp.where(above, t, -t)
    return jnp.where(lower <= upper, jnp.clip(x, lower, upper), jnp.nan)


def _cumulative_hazard(c: Array, t: Array, R_c: Array) -> Array:
    """H_c(t), given the Mills ratio at c."""
    return c * t + t * t / 2 - jnp.log(mills_ratio(c + t) / R_c)


def _tail_probabilities(u: Array, v: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Phi(x) and 1 - Phi(x) of the draw where a < 0 <= b, each without cancellation."""
    tail_a, tail_b = (jnp.exp(-x * x / 2) * mills_ratio(x) / math.sqrt(2 * math.pi) for x in (jnp.abs(a), b))
    return v * tail_a + u * (1 - tail_b), v * (1 - tail_a) + u * tail_b


def _solve(E: Array, c: Array, R_c: Array) -> Array:
    """The t with H_c(t) = E by Halley's method: H' is the hazard h, H'' = h (h - c - t)."""
    t = quadratic_start(E, 1 / R_c, jnp.clip(1 - c * R_c, 0, None))
    for _ in range(halley_steps(E.dtype)):
        R = mills_ratio(c + t)
        step = (c * t + t * t / 2 - jnp.log(R / R_c) - E) * R
        t = jnp.maximum(t - step / (1 - step * (1 / R - c - t) / 2), 0)
    return t
