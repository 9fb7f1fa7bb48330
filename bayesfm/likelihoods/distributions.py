"""NumPyro distributions in terms of eta, right where their usual parameters underflow."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import log_sigmoid
from jax.scipy.special import gammaln, log_ndtr, ndtr
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution, constraints

from bayesfm.likelihoods.links import LINKS
from bayesfm.likelihoods.log_gamma_ratios import log_choose
from bayesfm.random.densities import log_gamma

__all__ = [
    "BernoulliLogits",
    "BinomialLogits",
    "InducedDirichlet",
    "LogNegativeBinomial",
    "LogPoisson",
    "Ordinal",
    "Probit",
]

FAR = 1e6
"""Stands for an infinite cut-point: infinity would make derivatives NaN."""


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
