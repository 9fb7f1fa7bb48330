"""NumPyro distributions in terms of eta, right where their usual parameters underflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import log_sigmoid, sigmoid
from jax.scipy.special import gammaln, log_ndtr, logit, ndtr, ndtri
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution, constraints

from bayesfm.random import mills_ratio
from bayesfm.random.densities import log_gamma

__all__ = [
    "LINKS",
    "BernoulliLogits",
    "BinomialLogits",
    "InducedDirichlet",
    "Link",
    "LogNegativeBinomial",
    "LogPoisson",
    "Ordinal",
    "Probit",
]

FAR = 1e6
"""Stands for an infinite cut-point: infinity would make derivatives NaN."""


NARROW = {"float32": 0.1, "float64": 1e-3}
"""Width, in units of the density's own scale, below which an interval counts as narrow. The expansion leaves out its
fourth power over 1920, less than rounding there; a difference of tails loses rounding over the width."""


class Link(NamedTuple):
    """A distribution function F, symmetric around zero, and what follows from it, elementwise."""

    cdf: Callable[[Array], Array]
    quantile: Callable[[Array], Array]
    log_density: Callable[[Array], Array]
    log_interval: Callable[[Array, Array], Array]


class Probit(Distribution):
    """y = 1 with probability Phi(eta), else 0."""

    arg_constraints = {"eta": constraints.real}  # noqa: RUF012
    support = constraints.boolean

    def __init__(self, eta: Float[Array, "..."], *, validate_args: bool | None = None) -> None:
        self.eta = eta
        super().__init__(batch_shape=jnp.shape(eta), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """0 or 1."""
        u = jax.random.uniform(key, sample_shape + self.batch_shape)
        return (u < ndtr(self.eta)).astype(jnp.int32)

    def log_prob(self, value: Array) -> Array:
        """Log Phi(eta) or log Phi(-eta)."""
        return log_ndtr(jnp.where(jnp.asarray(value) > 0, self.eta, -self.eta))

    @property
    def mean(self) -> Array:
        """Phi(eta)."""
        return ndtr(self.eta)

    @property
    def variance(self) -> Array:
        """Phi(eta) Phi(-eta)."""
        return ndtr(self.eta) * ndtr(-self.eta)


class Ordinal(Distribution):
    """y = c with probability F(cut_c - eta) - F(cut_{c-1} - eta), c = 0, ..., C - 1.

    The difference is taken on the side where it does not cancel.
    """

    arg_constraints = {"eta": constraints.real, "cutpoints": constraints.ordered_vector}  # noqa: RUF012
    pytree_aux_fields = ("link",)

    def __init__(
        self,
        eta: Float[Array, "..."],
        cutpoints: Float[Array, " c"],
        link: str = "probit",
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.eta, self.cutpoints, self.link = eta, cutpoints, link
        super().__init__(batch_shape=jnp.shape(eta), validate_args=validate_args)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.cutpoints.shape[-1] + 1

    @property
    def support(self) -> constraints.Constraint:
        """0, ..., C - 1."""
        return constraints.integer_interval(0, self.num_classes - 1)

    def log_prob(self, value: Array) -> Array:
        """Log probability of class ``value``."""
        lower, upper = class_edges(value, self.cutpoints)
        return LINKS[self.link].log_interval(lower - self.eta, upper - self.eta)

    def probabilities(self) -> Float[Array, "... c"]:
        """Of all classes, in the last axis."""
        classes = jnp.arange(self.num_classes)
        return jnp.exp(jnp.stack([self.log_prob(c) for c in classes], axis=-1))

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """A class."""
        F = LINKS[self.link].cdf
        u = jax.random.uniform(key, sample_shape + self.batch_shape)
        return jnp.sum(u[..., None] > F(self.cutpoints - jnp.asarray(self.eta)[..., None]), axis=-1)

    @property
    def mean(self) -> Array:
        """Mean class: the sum over c of the probabilities of c or more."""
        F = LINKS[self.link].cdf
        return reduce(jnp.add, [F(self.eta - cut) for cut in self.cutpoints])

    @property
    def variance(self) -> Array:
        """Variance of the class."""
        away = jnp.arange(self.num_classes) - self.mean[..., None]
        return jnp.sum(self.probabilities() * away**2, axis=-1)


def class_edges(y: Array, cutpoints: Float[Array, " c"], far: float = FAR) -> tuple[Array, Array]:
    """Cut-points below and above each row's class."""
    end = jnp.full((1,), far, cutpoints.dtype)
    code = jnp.asarray(y).astype(jnp.int32)
    return jnp.concatenate([-end, cutpoints])[code], jnp.concatenate([cutpoints, end])[code]


def log_interval_logit(low: Array, high: Array) -> Array:
    """log(F(high) - F(low)) for low < high and the logistic F, on the side where it does not cancel."""
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    gap = jnp.maximum(high - low, jnp.finfo(low.dtype).tiny)
    return log_sigmoid(high) + log_sigmoid(-low) + log1mexp(gap)


def log_interval_probit(low: Array, high: Array) -> Array:
    """log(Phi(high) - Phi(low)) for low < high; see :func:`normal_interval`."""
    return normal_interval(low, high)[0]


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


def log_phi(x: Array) -> Array:
    """Log of the normal density."""
    return -0.5 * x * x - 0.9189385332046727


def log1mexp(x: Array) -> Array:
    """log(1 - exp(-x)) for x > 0 (Mächler 2012, Accurately computing log(1 - exp(-|a|)))."""
    small = x < 0.6931472
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1.0)))
    far = jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, x)))
    return jnp.where(small, near, far)


class InducedDirichlet(Distribution):
    """Prior of cut-points under which the class probabilities of a typical row are Dirichlet(concentration).

    The typical row has a linear predictor of spread ``scale`` together with the link's own noise:
    p_c = F(cut_c / scale) - F(cut_{c-1} / scale).

    References
    ----------
    Betancourt (2019), Ordinal regression, section 2.2 (the induced Dirichlet prior).
    """

    arg_constraints = {"concentration": constraints.positive, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.ordered_vector
    pytree_aux_fields = ("num_classes", "link")

    def __init__(
        self,
        num_classes: int,
        concentration: float = 1.0,
        scale: float = 1.0,
        link: str = "probit",
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.num_classes, self.concentration, self.scale, self.link = num_classes, concentration, scale, link
        super().__init__(event_shape=(num_classes - 1,), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Ordered cut-points."""
        p = jax.random.dirichlet(key, jnp.full(self.num_classes, self.concentration), sample_shape)
        below = jnp.cumsum(p, axis=-1)[..., :-1]
        above = jnp.flip(jnp.cumsum(jnp.flip(p, -1), axis=-1), -1)[..., 1:]
        F = LINKS[self.link].quantile  # from the nearer end, where the sum has not lost its digits
        return self.scale * jnp.where(below < 0.5, F(below), -F(above))

    def log_prob(self, value: Array) -> Array:
        """Log density of the cut-points."""
        link, at = LINKS[self.link], value / self.scale
        far = jnp.full((*at.shape[:-1], 1), FAR, at.dtype)
        log_p = link.log_interval(jnp.concatenate([-far, at], axis=-1), jnp.concatenate([at, far], axis=-1))
        jacobian = jnp.sum(link.log_density(at) - jnp.log(self.scale), axis=-1)
        constant = log_gamma(self.num_classes * self.concentration)
        constant -= self.num_classes * log_gamma(self.concentration)
        return jnp.sum((self.concentration - 1.0) * log_p, axis=-1) + jacobian + constant


class BernoulliLogits(dist.BernoulliLogits):
    """NumPyro's, with the right derivative at eta = 0 too, where its density is written with a kink on each side."""

    def log_prob(self, value: Array) -> Array:
        """Log probability of 0 or 1."""
        return log_sigmoid(jnp.where(jnp.asarray(value) > 0, self.logits, -self.logits))


class BinomialLogits(dist.BinomialLogits):
    """The same of a number of trials."""

    def log_prob(self, value: Array) -> Array:
        """Log probability of a number of successes."""
        failures = self.total_count - value
        log_choose = gammaln(self.total_count + 1.0) - gammaln(value + 1.0) - gammaln(failures + 1.0)
        return log_choose + value * log_sigmoid(self.logits) + failures * log_sigmoid(-self.logits)


class LogPoisson(Distribution):
    """Poisson counts with a given log mean."""

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Float[Array, "..."], *, validate_args: bool | None = None) -> None:
        self.log_mean = log_mean
        super().__init__(batch_shape=jnp.shape(log_mean), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """A count."""
        return jax.random.poisson(key, jnp.exp(self.log_mean), sample_shape + self.batch_shape)

    def log_prob(self, value: Array) -> Array:
        """Log probability of a count."""
        return value * self.log_mean - jnp.exp(self.log_mean) - gammaln(value + 1.0)

    @property
    def mean(self) -> Array:
        """exp(log mean)."""
        return jnp.exp(self.log_mean)

    @property
    def variance(self) -> Array:
        """The mean."""
        return jnp.exp(self.log_mean)


class LogNegativeBinomial(Distribution):
    """Negative binomial counts with a given log mean m: variance mean + mean^2 / concentration."""

    arg_constraints = {"log_mean": constraints.real, "concentration": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(
        self,
        log_mean: Float[Array, "..."],
        concentration: Float[Array, "..."],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.log_mean, self.concentration = log_mean, concentration
        shape = jnp.broadcast_shapes(jnp.shape(log_mean), jnp.shape(concentration))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """A count."""
        key_rate, key_count = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        r = jnp.broadcast_to(self.concentration, shape)
        rate = jnp.exp(self.log_mean) * jax.random.gamma(key_rate, r, shape) / r
        return jax.random.poisson(key_count, rate, shape)

    def log_prob(self, value: Array) -> Array:
        """Log probability of a count, with psi = log mean - log concentration."""
        r = self.concentration
        psi = self.log_mean - jnp.log(r)
        return log_choose(value, r) + value * log_sigmoid(psi) + r * log_sigmoid(-psi)

    @property
    def mean(self) -> Array:
        """exp(log mean)."""
        return jnp.broadcast_to(jnp.exp(self.log_mean), self.batch_shape)

    @property
    def variance(self) -> Array:
        """Mean + mean^2 / concentration."""
        return self.mean + self.mean**2 / self.concentration


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

LINKS = {
    "probit": Link(ndtr, ndtri, log_phi, log_interval_probit),
    "logit": Link(sigmoid, logit, lambda x: log_sigmoid(x) + log_sigmoid(-x), log_interval_logit),
}
