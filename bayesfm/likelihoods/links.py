"""Distribution functions F with P(class) = F(upper - eta) - F(lower - eta), right where differences cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid
from jax.scipy.special import logit, ndtr, ndtri
from jaxtyping import Array

from bayesfm.random import mills_ratio

__all__ = ["LINKS", "NARROW", "Link", "normal_interval"]

NARROW = {"float32": 0.1, "float64": 1e-3}
"""Width, in units of the density's own scale, below which an interval counts as narrow. The expansion leaves out its
fourth power over 1920, less than rounding there; a difference of tails loses rounding over the width."""


class Link(NamedTuple):
    """A distribution function F, symmetric around zero, and what follows from it, elementwise."""

    cdf: Callable[[Array], Array]
    quantile: Callable[[Array], Array]
    log_density: Callable[[Array], Array]
    log_interval: Callable[[Array, Array], Array]


@jax.custom_jvp
def normal_interval(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """log p, A = phi(low)/p and B = phi(high)/p of p = Phi(high) - Phi(low) for low < high, elementwise.

    By Mills ratios R of the nearer side. With |low| <= high: p = phi(low) (R(low) - e^(-(high^2 - low^2)/2) R(high))
    for low >= 0, else one minus both tails. In narrow intervals, where these cancel, the integral of the density's
    second-order expansion around the middle. Derivatives are those of :func:`_normal_interval_jvp`.
    """
    flip = low + high < 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    width, inside = high - low, low < 0
    near, far = mills_ratio(jnp.abs(low)), mills_ratio(jnp.where(high > 0, high, 0.0))
    narrow = width * (1 + jnp.abs(low)) < NARROW[str(low.dtype)]
    drop = jnp.exp(-0.5 * width * (high + low))
    tail = jnp.where(inside | narrow, 1.0, near - drop * far)
    phi_low, phi_high = jnp.exp(log_phi(low)), jnp.exp(log_phi(high))
    tails = jnp.where(inside & ~narrow, phi_low * near + phi_high * far, 0.0)
    m, w = 0.5 * (low + high), jnp.where(narrow, width, 0.0)
    bulge = (m * m - 1) * w * w / 24
    small = jnp.maximum(width, jnp.finfo(low.dtype).tiny)
    over = 1 / (small * (1 + bulge))  # phi(m)/p

    def case(middle: Array, around: Array, beside: Array) -> Array:
        return jnp.where(narrow, middle, jnp.where(inside, around, beside))

    log_p = case(
        log_phi(m) + jnp.log(small) + jnp.log1p(bulge), jnp.log1p(-tails), log_phi(low) + jnp.log(tail)
    )
    A = case(over * jnp.exp(0.25 * w * (low + m)), phi_low / (1 - tails), 1 / tail)
    B = case(over * jnp.exp(-0.25 * w * (high + m)), phi_high / (1 - tails), drop / tail)
    return log_p, jnp.where(flip, B, A), jnp.where(flip, A, B)


@normal_interval.defjvp
def _normal_interval_jvp(
    at: tuple[Array, Array], step: tuple[Array, Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """d log p = B dhigh - A dlow, dA = -A (low dlow + d log p), dB = -B (high dhigh + d log p).

    By the function's own values, so that derivatives of any order cost no more than it does.
    """
    (low, high), (dlow, dhigh) = at, step
    log_p, A, B = normal_interval(low, high)
    rise = B * dhigh - A * dlow
    return (log_p, A, B), (rise, -A * (low * dlow + rise), -B * (high * dhigh + rise))


def log_interval_logit(low: Array, high: Array) -> Array:
    """log(F(high) - F(low)) for low < high and the logistic F, on the side where it does not cancel."""
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    gap = jnp.maximum(high - low, jnp.finfo(low.dtype).tiny)
    return log_sigmoid(high) + log_sigmoid(-low) + log1mexp(gap)


def log_phi(x: Array) -> Array:
    """Log of the normal density."""
    return -0.5 * x * x - 0.9189385332046727


def log1mexp(x: Array) -> Array:
    """log(1 - exp(-x)) for x > 0 (Mächler 2012, Accurately computing log(1 - exp(-|a|)))."""
    small = x < 0.6931472
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1.0)))
    far = jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, x)))
    return jnp.where(small, near, far)


LINKS = {
    "probit": Link(ndtr, ndtri, log_phi, lambda low, high: normal_interval(low, high)[0]),
    "logit": Link(sigmoid, logit, lambda x: log_sigmoid(x) + log_sigmoid(-x), log_interval_logit),
}
