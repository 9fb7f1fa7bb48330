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

from bayesfm import native as kernels
from bayesfm.random.tails import halley_steps, mills_ratio, quadratic_start, uniform_pair

__all__ = ["truncated_normal"]

_FAR = 1e18
"""Stands for what is farther, infinity too: its square is finite in single precision."""

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
        Draw by the compiled kernel for the CPU: in float32 and with threefry keys, other cases take the usual way. The
        random bits are the same, and so are the draws up to rounding.

    Returns
    -------
    array of the broadcast shape
        Never outside [lower, upper]. One uniform of 32 bits (64 in float64) is used per element.

    Raises
    ------
    RuntimeError
        If ``native`` is true and bayesfm was built without its kernels.

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
    if native and kernels.can_draw(key, mean.dtype):
        return kernels.truncated_normal(key, mean, lower, upper)
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
    a, b, w = jnp.clip(a, -_FAR, _FAR), jnp.minimum(b, _FAR), jnp.minimum(upper - lower, _FAR)
    narrow = w < _NARROW[str(w.dtype)]
    inside = (a < 0) & ~narrow
    R_a, R_b = mills_ratio(jnp.abs(a)), mills_ratio(jnp.abs(b))

    # From the nearer end outwards: an exponential E that may not exceed `most`.
    c, R_c = jnp.maximum(a, 0), jnp.where(a < 0, math.sqrt(math.pi / 2), R_a)
    least = float(jnp.finfo(w.dtype).eps) ** 2  # of slope w, where nothing may be zero
    slope = jnp.maximum(a + w / 2, least / jnp.maximum(w, 1e-20))
    most = jnp.maximum(jnp.where(narrow, slope * w, _cumulative_hazard(c, w, R_c, R_b)), 0)
    passed = -u * jnp.expm1(-most)
    E = jnp.where(passed < 0.5, -jnp.log1p(-passed), -jnp.log(v + u * jnp.exp(-most)))
    # From the mean.
    tail_a, tail_b = (jnp.exp(-x * x / 2) * R / math.sqrt(2 * math.pi) for x, R in ((a, R_a), (b, R_b)))
    below, above = (
        v * tail_a + u * (1 - tail_b),
        v * (1 - tail_a) + u * tail_b,
    )  # probabilities, nothing cancels
    E = jnp.maximum(jnp.where(inside, -jnp.log(2 * jnp.minimum(below, above)), E), 0)

    t = jnp.minimum(jnp.where(narrow, E / slope, _solve(E, c, R_c)), w)
    upwards = ~flip ^ (inside & (below < above))
    x = jnp.where(inside, mean, jnp.where(flip, upper, lower)) + jnp.where(upwards, t, -t)
    return jnp.where(lower <= upper, jnp.clip(x, lower, upper), jnp.nan)


def _cumulative_hazard(c: Array, t: Array, R_c: Array, R: Array) -> Array:
    """H_c(t), given the Mills ratios at c and at c + t."""
    return c * t + t * t / 2 - jnp.log(R / R_c)


def _solve(E: Array, c: Array, R_c: Array) -> Array:
    """The t with H_c(t) = E by Halley's method: H' is the hazard h, H'' = h (h - c - t)."""
    t = quadratic_start(E, 1 / R_c, jnp.clip(1 - c * R_c, 0, None))
    for _ in range(halley_steps(E.dtype)):
        R = mills_ratio(c + t)
        step = (_cumulative_hazard(c, t, R_c, R) - E) * R
        t = jnp.maximum(t - step / (1 - step * (1 / R - c - t) / 2), 0)
    return t
