"""Polya-Gamma variables PG(b, c) (Polson, Scott & Windle 2013), for any real b >= 0 and any c.

**PG(h, c) = X / 4 for 0 < h <= 1 by rejection.** The density of X has an alternating series around zero (Biane, Pitman
& Yor 2001):

    f(x) e^{-z^2 x / 2},  z = |c| / 2,   f(x) = L(x) A(x),   L(x) = 2^h h (2 pi x^3)^(-1/2) e^{-h^2 / 2x},
    A(x) = sum_n (-1)^n (2n + h) / h  Gamma(n + h) / (Gamma(h) n!)  e^{-2n (n + h) / x} .

The envelope is L(x) below CUT = 2 / pi, and L(CUT) e^{-pi^2 (x - CUT) / 8} above. For h = 1 that is Devroye's (2009),
and theta's functional equation turns f / envelope into one expression on either side; 99.9 % of proposals are accepted.
For h < 1 at least 89 % are.

Proposals are drawn by inversion from one uniform. Below CUT, L(x) e^{-z^2 x / 2} is an inverse Gaussian density. With
s = h / sqrt(x) and y = s - h z / s its distribution function is a sum of two normal tails; over phi(y) they are Mills
ratios R, and the hazard solver of the truncated normals works on

    D(tau) = phi(tau) (R(tau) +- R(sqrt(tau^2 + 4 h z))),    + for y = tau, - for y = -tau (from the other end).

**PG(b, c) for b > 1** is a sum of gammas, see ``gamma_sums.py``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Key

from bayesfm import native as kernels
from bayesfm.random.gamma_sums import sum_of_gammas
from bayesfm.random.rejection import by_rejection
from bayesfm.random.tails import halley_steps, mills_ratio, quadratic_start, uniform_pair

__all__ = ["polya_gamma"]

CUT = 2 / math.pi
"""Where both halves of the envelope meet: with h = 1 the two series for f begin with the same value there."""


def polya_gamma(
    key: Key[Array, ""], b: ArrayLike, c: ArrayLike, *, native: bool = False
) -> Float[Array, "..."]:
    """Draw from PG(b, c), elementwise; the arguments broadcast.

    Parameters
    ----------
    key : typed JAX key
    b : number or array
        Shape, zero or more. PG(0, c) is zero; where b is negative the draw is NaN. The Python number 1 (one trial per
        row) is the quick case, and integers are quicker than floating-point numbers.
    c : array
        Tilt, of either sign.
    native : bool
        Draw by the compiled kernels for the CPU: where b is the number 1 or above 1, in float32 and with threefry keys,
        other cases take the usual way. But for what is rejected the draws are the same up to rounding.

    Returns
    -------
    array of the broadcast shape

    Raises
    ------
    RuntimeError
        If ``native`` is true and bayesfm was built without its kernels.

    Notes
    -----
    For b <= 1 the law is exact up to rounding. For b > 1 the distribution function differs from that of PG(b, c) by at
    most 2.1e-5 / sqrt(b) (near |c| = 12; by 1e-6 where |c| <= 2): found by Fourier inversion of both characteristic
    functions.

    References
    ----------
    Polson, Scott & Windle (2013), JASA 108; Devroye (2009), On exact simulation algorithms for some distributions
    related to Jacobi theta functions, Statistics & Probability Letters 79; Windle, Polson & Scott (2014),
    arXiv:1405.0506.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from bayesfm.random import polya_gamma
    >>> omega = polya_gamma(jax.random.key(0), 1, jnp.full(100_000, 2.0))
    >>> round(float(omega.mean()), 2), round(0.25 * float(jnp.tanh(1.0)), 2)
    (0.19, 0.19)
    """
    one = isinstance(b, int | float | np.number) and b == 1
    whole = one or jnp.issubdtype(jnp.result_type(b), jnp.integer)
    dtype = jnp.promote_types(jnp.result_type(b, c), jnp.float32)
    b, z = jnp.broadcast_arrays(jnp.asarray(b, dtype), jnp.abs(jnp.asarray(c, dtype)) / 2)
    if one and native and kernels.can_draw(key, dtype):
        return kernels.polya_gamma(key, 2 * z)
    return _first(key, None, z) if one else _any(key, b, z, whole, native)


@partial(jax.jit, static_argnames=("whole", "native"))
def _any(key: Key[Array, ""], b: Array, z: Array, whole: bool, native: bool) -> Array:
    """PG(b, 2z); ``whole`` says that b has no fractions."""
    key_small, key_large = jax.random.split(key)
    large = b > 1
    draw = kernels.gamma_sums if native and kernels.can_draw(key, b.dtype) else sum_of_gammas
    omega = draw(key_large, jnp.where(large, b, 1), 2 * z)

    def with_small() -> Array:
        h = None if whole else jnp.clip(b, 1e-12, 1)  # the square of a smaller one is lost
        return jnp.where(large, omega, _first(key_small, h, z))

    omega = lax.cond(jnp.all(large), lambda: omega, with_small)
    return jnp.where(b > 0, omega, jnp.where(b == 0, 0, jnp.nan))


@jax.jit
def _first(key: Key[Array, ""], h: Array | None, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """PG(h, 2z), 0 < h <= 1; no h: one everywhere."""

    def attempt(key: Key[Array, ""], z: Array, *h: Array) -> tuple[Array, Array]:
        key_x, key_accept = jax.random.split(key)
        shape = h[0] if h else jnp.ones((), z.dtype)
        x = _propose(*uniform_pair(key_x, z.shape, z.dtype), shape, z, _envelope(shape, z))
        u, _ = uniform_pair(key_accept, z.shape, z.dtype)
        return x, u > (_ratio(x, shape) if h else _ratio_whole(x))

    parameters, one_in = ((z,), 512) if h is None else ((z, h), 8)
    return by_rejection(key, attempt, parameters, one_in) / 4


class _Envelope(NamedTuple):
    """Masses over a common factor, and where the inversion begins."""

    p_right: Array  # mass above CUT
    p_left: Array
    beyond: Array  # where `tail` is false: 1 - p_right - p_left
    rate: Array  # of the exponential above CUT
    tail: Array  # whether what is below CUT lies in one normal tail
    y: Array
    root: Array  # sqrt(y^2 + 4 h z)
    near: Array  # Mills ratios at y and at the root
    far: Array


def _envelope(h: Array, z: Array) -> _Envelope:
    s0 = h / math.sqrt(CUT)
    y0, mirror = s0 - h * z / s0, s0 + h * z / s0
    rate = math.pi**2 / 8 + z * z / 2
    right = h * CUT**-1.5 / rate
    at_y0, at_mirror = mills_ratio(jnp.abs(y0)), mills_ratio(mirror)
    phi = jnp.exp(-y0 * y0 / 2) / math.sqrt(2 * math.pi)
    tail = y0 >= 0
    left = jnp.where(tail, at_y0 + at_mirror, 1 - phi * (at_y0 - at_mirror))
    beyond = phi * (at_y0 - at_mirror - right)
    root = jnp.where(tail, mirror, 2 * jnp.sqrt(h * z))
    near = jnp.where(tail, at_y0, math.sqrt(math.pi / 2))
    far = jnp.where(tail, at_mirror, mills_ratio(root))
    p_right = jnp.where(tail, right, phi * right)
    return _Envelope(p_right, left, beyond, rate, tail, jnp.maximum(y0, 0), root, near, far)


def _propose(u: Array, v: Array, h: Array, z: Array, e: _Envelope) -> Array:
    """x from the envelope by inversion; v = 1 - u, and u is next to zero where x is largest."""
    total = e.p_right + e.p_left
    is_right = u * total < e.p_right
    # Probabilities above y and, without cancellation, below: of both normal tails where `tail` is false.
    above, below = v * total, u + v * e.beyond
    upper = e.tail | (above < (e.near + e.far) / math.sqrt(2 * math.pi))
    sign = jnp.where(upper, 1, -1).astype(z.dtype)
    base = e.near + sign * e.far
    mass = jnp.where(is_right, u * total, jnp.where(upper, above, below))
    most = jnp.where(is_right, e.p_right, jnp.where(e.tail, e.p_left, base / math.sqrt(2 * math.pi)))
    E = jnp.maximum(-jnp.log(mass / most), 0)

    tau, root = _solve(E, sign, h * z, base, e)
    s = (tau + root) / 2
    left = jnp.where(upper, h / s, s / z) ** 2
    return jnp.where(is_right, CUT + E / e.rate, jnp.minimum(left, CUT))


def _solve(E: Array, sign: Array, hz: Array, base: Array, e: _Envelope) -> tuple[Array, Array]:
    """The tau >= y with log D(y) - log D(tau) = E, by Halley's method, and sqrt(tau^2 + 4 hz).

    The hazard is (1 +- tau / root) / (R(tau) +- R(root)), and its logarithm has the derivative
    hazard - tau +- 4 hz / root^3 / (1 +- tau / root).
    """

    def hazard_and_growth(tau: Array, root: Array, ratio: Array) -> tuple[Array, Array]:
        weight = 1 + sign * tau / root
        hazard = weight / ratio
        return hazard, hazard - tau + sign * 4 * hz / (root * root * root * weight)

    hazard, growth = hazard_and_growth(e.y, e.root, base)
    tau = e.y + quadratic_start(E, hazard, jnp.clip(growth / hazard, 0, None))
    for _ in range(halley_steps(E.dtype)):
        root = jnp.sqrt(tau * tau + 4 * hz)
        ratio = mills_ratio(tau) + sign * mills_ratio(root)
        hazard, growth = hazard_and_growth(tau, root, ratio)
        step = ((tau - e.y) * (tau + e.y) / 2 - jnp.log(ratio / base) - E) / hazard
        tau = jnp.maximum(tau - step / (1 - step * growth / 2), e.y)
    return tau, jnp.sqrt(tau * tau + 4 * hz)


def _ratio_whole(x: Array) -> Array:
    """f / envelope for h = 1: below CUT by the series A, above by its mirror image; what is left out is below 1e-25."""
    e = jnp.exp(-jnp.where(x < CUT, 4 / x, math.pi**2 * x))
    return 1 - e * (3 - e * e * (5 - 7 * e * e * e))


def _ratio(x: Array, h: Array) -> Array:
    """f / envelope for 0 < h <= 1."""
    q = jnp.exp(-2 / x)
    q_h, q_2 = q**h, q * q
    power, factor, coefficient = jnp.ones_like(x), q * q_h, jnp.ones_like(h)
    A = jnp.ones_like(x)
    for n in range(1, 13 if x.dtype == jnp.float32 else 29):
        coefficient = coefficient * (n - 1 + h) / n
        power = power * factor  # exp(-2n (n + h) / x)
        factor = factor * q_2
        A += (-1) ** n * coefficient * (2 * n + h) / h * power
    right = jnp.exp(math.pi**2 / 8 * (x - CUT) + h * h / 2 * (1 / CUT - 1 / x)) * (CUT / x) ** 1.5
    return jnp.clip(A * jnp.where(x < CUT, 1, right), 0, 1)
