"""Half-t standard deviations (half-Cauchy and half-normal among them), with a conjugate mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import Features, Hyper, Location, LocationScale, Prior, Sizes
from bayesfm.priors.draws import generalized_inverse_gaussian, inverse_gamma
from bayesfm.priors.location import best_mean, draw_mean, sum_of_squares
from bayesfm.random.densities import StudentT

__all__ = ["HalfT", "half_t"]


def half_t(df: float, scale: float | Array) -> dist.Distribution:
    """|scale T|, T Student-t with df degrees of freedom; half-normal at infinity."""
    if df == math.inf:
        return dist.HalfNormal(scale)
    return dist.FoldedDistribution(StudentT(df, jnp.zeros_like(jnp.asarray(scale)), scale))


def check_degrees(name: str, value: float) -> float:
    """A positive number, infinity allowed."""
    return value if value == math.inf else check_positive(name, value)


@pytree(static=("df",))
@dataclass(frozen=True)
class HalfT(Prior):
    """x_j ~ N(mu_g, sigma_g^2) with mu_g | sigma_g ~ N(mu0, sigma_g^2/beta0), sigma_g ~ half-t(df, scale).

    Unlike a Gamma prior of the precision it has mass at sigma = 0, so that a group without effect can be shrunk to
    its mean, while its tail still lets large effects through.

    Parameters
    ----------
    scale : float, default=1.0
        Scale of sigma, in units of x.
    df : float, default=3.0
        Degrees of freedom of the half-t: 1 is the half-Cauchy, ``math.inf`` the half-normal.
    beta0 : float, default=1.0
        Precision of the group mean in units of 1/sigma^2.
    mu0 : float, default=0.0
        Prior mean of the group means.

    References
    ----------
    Gelman (2006), Prior distributions for variance parameters in hierarchical models, Bayesian Analysis 1.
    Wand, Ormerod, Padoan & Frühwirth (2011), Mean field variational Bayes for elaborate distributions, Bayesian
    Analysis 6, result 5 (the half-t as a mixture of inverse gammas).

    Examples
    --------
    >>> from bayesfm.priors import HalfT
    >>> HalfT(scale=0.5, df=1.0)
    HalfT(scale=0.5, df=1.0, beta0=1.0, mu0=0.0)
    """

    scale: float = 1.0
    df: float = 3.0
    beta0: float = 1.0
    mu0: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "beta0"):
            check_positive(f"HalfT({name}=)", getattr(self, name))
        object.__setattr__(self, "df", check_degrees("HalfT(df=)", self.df))
        check_finite("HalfT(mu0=)", self.mu0)

    def hyper_names(self) -> tuple[str, ...]:
        """``mu`` (mean) and ``sigma`` (standard deviation)."""
        return ("mu", "sigma")

    def _sigma(self, shape: tuple[int, ...]) -> dist.Distribution:
        return half_t(self.df, jnp.full(shape, self.scale)).to_event(len(shape))

    def _mu(self, sigma: Array) -> dist.Distribution:
        return dist.Normal(self.mu0, sigma * jnp.asarray(self.beta0) ** -0.5).to_event(sigma.ndim)

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sites ``sigma<suffix>`` and ``mu<suffix>`` of a NumPyro model."""
        sigma = numpyro.sample(f"sigma{suffix}", self._sigma(sizes.of_hyper))
        return {"mu": numpyro.sample(f"mu{suffix}", self._mu(sigma)), "sigma": sigma}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log p(sigma) + log p(mu | sigma)."""
        mu, sigma = hyper["mu"], hyper["sigma"]
        return self._sigma(sigma.shape).log_prob(sigma) + self._mu(sigma).log_prob(mu)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(mu, sigma^2), elementwise."""
        return dist.Normal(own["mu"], own["sigma"])

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """(1/sigma^2, mu)."""
        return hyper["sigma"] ** -2, hyper["mu"]

    def location(self, hyper: Hyper, g: int) -> Location:
        """Precision beta0/sigma^2 and mean mu0 of mu."""
        mu = hyper["mu"][g]
        return Location(self.beta0 * hyper["sigma"][g] ** -2, jnp.full_like(mu, self.mu0), mu)

    def scale_factor(self, key: Key[Array, ""], hyper: Hyper, g: int, h: int) -> Float[Array, " k"]:
        """One slice step for x = 2 log c + s, the slice in closed form; c = 1 if mu0 is not 0.

        With a = sigma_g^2, b = sigma_h^2 in units of df scale^2, what does not cancel against the Jacobian is
        ((1 + a c^2)(1 + b/c^2))^(-(df + 1)/2), and (1 + a c^2)(1 + b/c^2) = 1 + ab + 2 sqrt(ab) cosh(x),
        s = log(a/b)/2. For the half-normal it is exp(-a c^2 - b/c^2), in units of 2 scale^2.
        """
        unit = 2.0 if self.df == math.inf else self.df
        a, b = ((hyper["sigma"][i] / self.scale) ** 2 / unit for i in (g, h))
        s, root = 0.5 * jnp.log(a / b), jnp.sqrt(a * b)
        key_height, key_place = jax.random.split(key)
        noise = jax.random.exponential(key_height, s.shape, s.dtype)
        if self.df == math.inf:
            height = jnp.cosh(s) + noise / (2 * root)
        else:
            grown = jnp.expm1(2 * noise / (self.df + 1))
            height = jnp.cosh(s) + grown * ((1 + a * b) / (2 * root) + jnp.cosh(s))
        x = jnp.arccosh(height) * jax.random.uniform(key_place, s.shape, s.dtype, -1.0, 1.0)
        return jnp.where(jnp.asarray(self.mu0 == 0), jnp.exp(0.5 * (x - s)), 1.0)

    def scaled(self, hyper: Hyper, g: int, c: Float[Array, " k"]) -> Hyper:
        """C mu, c sigma."""
        return {**hyper, **{name: hyper[name].at[g].multiply(c) for name in ("mu", "sigma")}}

    def location_scale(self, hyper: Hyper) -> LocationScale:
        """Mu and sigma."""
        return LocationScale(hyper["mu"], hyper["sigma"], self.beta0, self.mu0)

    def from_location_scale(self, hyper: Hyper, mu: Array, sigma: Array) -> Hyper:
        """Mu and sigma."""
        return {**hyper, "mu": mu, "sigma": sigma}

    def log_sigma_density(self, log_sigma: Array, group: Int[Array, ""] | None = None) -> Array:
        """That of sigma, times sigma."""
        sigma = jnp.exp(log_sigma)
        return half_t(self.df, jnp.full_like(sigma, self.scale)).log_prob(sigma) + log_sigma

    def initial(self, sizes: Sizes) -> Hyper:
        """Mu0 and the scale."""
        shape = sizes.of_hyper
        return {"mu": jnp.full(shape, self.mu0), "sigma": jnp.full(shape, self.scale)}

    def mode(self, features: Features, covariance: Array) -> Hyper:
        """sigma^2 is the positive root of a quadratic equation, and mu the mean of mu.

        With B as in :meth:`update` and s = sigma^2 the slope of the log density by log sigma is
        -p_g + B/s - (df + 1) s/(df scale^2 + s), for the half-normal -p_g + B/s - s/scale^2.
        """
        B = sum_of_squares(features, self.beta0, self.mu0)
        p = jnp.broadcast_to(features.number_per_column, B.shape)
        if self.df == math.inf:
            a, b, c = jnp.asarray(1 / self.scale**2, B.dtype), p, B
        else:
            unit = self.df * self.scale**2
            a, b, c = p + self.df + 1, p * unit - B, B * unit
        root = jnp.sqrt(b * b + 4 * a * c)
        # Of the two formulas for the root, the one without cancellation.
        variance = jnp.where(b > 0, 2 * c / jnp.where(b > 0, b + root, 1.0), (root - b) / (2 * a))
        tiny = jnp.finfo(B.dtype).tiny
        return {
            "mu": best_mean(features, self.beta0, self.mu0),
            "sigma": jnp.sqrt(jnp.maximum(variance, tiny)),
        }

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw (sigma, mu), sigma with mu integrated out, by the mixture sigma^2 | a ~ InvGamma(df/2, df/a).

        With a ~ InvGamma(1/2, 1/scale^2) sigma is half-t. Drawn afresh given sigma, a need not be kept:

        a | sigma      ~ InvGamma((df + 1)/2, df/sigma^2 + 1/scale^2),
        sigma^2 | a, x ~ InvGamma((df + p_g)/2, df/a + B/2),  B the sum of squares (``location.sum_of_squares``).

        For the half-normal sigma^2 | x is generalised inverse Gaussian, of order (1 - p_g)/2.
        """
        key_aux, key_sigma, key_mu = jax.random.split(key, 3)
        B = sum_of_squares(features, self.beta0, self.mu0)
        count = jnp.broadcast_to(features.number_per_column, B.shape)
        per_square = jnp.asarray(self.scale, B.dtype) ** -2
        if self.df == math.inf:
            variance = generalized_inverse_gaussian(key_sigma, 0.5 * (1 - count), B, per_square)
        else:
            a = inverse_gamma(
                key_aux, jnp.full_like(B, 0.5 * (self.df + 1)), self.df * hyper["sigma"] ** -2 + per_square
            )
            variance = inverse_gamma(key_sigma, 0.5 * (self.df + count), self.df / a + 0.5 * B)
        sigma = jnp.sqrt(variance)
        return {"mu": draw_mean(key_mu, features, 1 / variance, self.beta0, self.mu0), "sigma": sigma}
