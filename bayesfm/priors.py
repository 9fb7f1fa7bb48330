"""Prior families over the parameters of features: NumPyro sites and conjugate updates side by side.

A family describes a (p, d) array ``x`` of feature parameters (d = 1 for w, d = rank for v) whose rows belong to G
groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree

__all__ = ["Hyper", "Intercept", "NormalGamma", "Prior"]

Hyper = dict[str, Array]
"""Hyperparameters of one prior, each (G,) or (G, d)."""


@runtime_checkable
class Prior(Protocol):
    """A family of priors on feature parameters x, one set of hyperparameters per group and column.

    Names are without suffix here (``mu``, ``lambda``); the model appends ``_w`` or ``_v``.
    """

    def hyper_names(self) -> tuple[str, ...]:
        """Names of the hyperparameters."""
        ...

    def sample_hyper(self, suffix: str, shape: tuple[int, ...]) -> Hyper:
        """Sample the hyperparameters inside a NumPyro model, as sites named with the suffix."""
        ...

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log density of the hyperparameters."""
        ...

    def distribution(self, hyper: Hyper) -> dist.Distribution:
        """Prior of x given hyperparameters that have been gathered to the shape of x."""
        ...

    def precision_and_mean(self, hyper: Hyper) -> tuple[Array, Array]:
        """Gaussian precision and mean of x given its hyperparameters, for the Gibbs draw of x."""
        ...

    def location(self, hyper: Hyper) -> tuple[Array, Array]:
        """Gaussian precision and mean of ``mu`` given the other hyperparameters."""
        ...

    def scale_rate(self, hyper: Hyper) -> tuple[Array, Array]:
        """Rate r such that scaling x, mu by c and lambda by 1/c^2 has log density -r / (2 c^2) + const log c.

        The second value says whether that holds.
        """
        ...

    def initial(self, shape: tuple[int, ...]) -> Hyper:
        """Where a chain starts."""
        ...

    def update(
        self,
        key: Key[Array, ""],
        hyper: Hyper,
        count: Float[Array, " G"],
        mean: Float[Array, "G *d"],
        scatter: Float[Array, "G *d"],
    ) -> Hyper:
        """Draw the hyperparameters given each group's count, mean and sum of squares around the mean."""
        ...


@pytree()
@dataclass(frozen=True)
class NormalGamma:
    """x_j ~ N(mu_g, 1/lambda_g) with mu_g | lambda_g ~ N(mu0, 1/(beta0 lambda_g)), lambda_g ~ Gamma(a0/2, b0/2).

    Parameters
    ----------
    a0, b0 : float, default=1.0
        Prior degrees of freedom of the precision lambda and prior sum of squares: lambda is thought to be near
        a0/b0. b0 has the unit of x squared.
    beta0 : float, default=1.0
        Precision of the group mean, in units of lambda: the weight of the prior mean counted in features.
    mu0 : float, default=0.0
        Prior mean of the group means.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, section 3.3 (normal with conjugate prior).

    Examples
    --------
    >>> from bayesfm.priors import NormalGamma
    >>> NormalGamma(b0=0.5)
    NormalGamma(a0=1.0, b0=0.5, beta0=1.0, mu0=0.0)
    """

    a0: float = 1.0
    b0: float = 1.0
    beta0: float = 1.0
    mu0: float = 0.0

    def __post_init__(self) -> None:
        for name in ("a0", "b0", "beta0"):
            check_positive(f"NormalGamma({name}=)", getattr(self, name))
        check_finite("NormalGamma(mu0=)", self.mu0)

    def hyper_names(self) -> tuple[str, ...]:
        """``mu`` (mean) and ``lambda`` (precision)."""
        return ("mu", "lambda")

    def _lambda(self, shape: tuple[int, ...]) -> dist.Distribution:
        return dist.Gamma(0.5 * self.a0, 0.5 * self.b0).expand(shape).to_event(len(shape))

    def _mu(self, lam: Array) -> dist.Distribution:
        return dist.Normal(self.mu0, 1.0 / jnp.sqrt(self.beta0 * lam)).to_event(lam.ndim)

    def sample_hyper(self, suffix: str, shape: tuple[int, ...]) -> Hyper:
        """Sites ``lambda<suffix>`` and ``mu<suffix>`` of a NumPyro model."""
        lam = numpyro.sample(f"lambda{suffix}", self._lambda(shape))
        return {"mu": numpyro.sample(f"mu{suffix}", self._mu(lam)), "lambda": lam}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log p(lambda) + log p(mu | lambda)."""
        mu, lam = hyper["mu"], hyper["lambda"]
        return self._lambda(lam.shape).log_prob(lam) + self._mu(lam).log_prob(mu)

    def distribution(self, hyper: Hyper) -> dist.Distribution:
        """N(mu, 1/lambda), elementwise."""
        return dist.Normal(hyper["mu"], 1.0 / jnp.sqrt(hyper["lambda"]))

    def precision_and_mean(self, hyper: Hyper) -> tuple[Array, Array]:
        """(lambda, mu)."""
        return hyper["lambda"], hyper["mu"]

    def location(self, hyper: Hyper) -> tuple[Array, Array]:
        """Precision beta0 lambda and mean mu0 of mu."""
        return self.beta0 * hyper["lambda"], jnp.full_like(hyper["mu"], self.mu0)

    def scale_rate(self, hyper: Hyper) -> tuple[Array, Array]:
        """b0 lambda, from the Gamma prior of lambda; only for mu0 = 0, else mu's prior changes with the scale too."""
        return self.b0 * hyper["lambda"], jnp.asarray(self.mu0 == 0)

    def initial(self, shape: tuple[int, ...]) -> Hyper:
        """The prior's own centre: mu0 and a0/b0."""
        return {"mu": jnp.full(shape, self.mu0), "lambda": jnp.full(shape, self.a0 / self.b0)}

    def update(
        self,
        key: Key[Array, ""],
        hyper: Hyper,
        count: Float[Array, " G"],
        mean: Float[Array, "G *d"],
        scatter: Float[Array, "G *d"],
    ) -> Hyper:
        """Draw (lambda, mu) of every group from their joint conditional: lambda with mu integrated out, then mu.

        lambda | x     ~ Gamma((a0 + p_g)/2, (b0 + scatter + beta0 p_g/(beta0 + p_g) (mean - mu0)^2)/2),
        mu | lambda, x ~ N((p_g mean + beta0 mu0)/(p_g + beta0), 1/((p_g + beta0) lambda)).

        The joint draw costs no more than the two single ones and lambda never waits for mu.
        """
        key_lambda, key_mu = jax.random.split(key)
        count = count.reshape(count.shape + (1,) * (mean.ndim - count.ndim))
        shrink = self.beta0 * count / (self.beta0 + count)
        rate = 0.5 * (self.b0 + scatter + shrink * (mean - self.mu0) ** 2)
        shape = jnp.broadcast_to(0.5 * (self.a0 + count), rate.shape)
        lam = jax.random.gamma(key_lambda, shape, rate.shape, rate.dtype) / rate
        centre = (count * mean + self.beta0 * self.mu0) / (count + self.beta0)
        mu = centre + jax.random.normal(key_mu, rate.shape, rate.dtype) / jnp.sqrt((count + self.beta0) * lam)
        return {"mu": mu, "lambda": lam}


@pytree()
@dataclass(frozen=True)
class Intercept:
    """w0 ~ N(mean, 1/precision).

    Parameters
    ----------
    mean : float, default=0.0
        In units of eta.
    precision : float, default=1.0
        One over the prior variance.
    """

    mean: float = 0.0
    precision: float = 1.0

    def __post_init__(self) -> None:
        check_finite("Intercept(mean=)", self.mean)
        check_positive("Intercept(precision=)", self.precision)

    def distribution(self) -> dist.Distribution:
        """The prior of w0."""
        return dist.Normal(self.mean, self.precision**-0.5)

    def update(
        self, key: Key[Array, ""], weight: Float[Array, ""], weighted_sum: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Draw w0 given sum omega_n and sum omega_n (z_n - eta_n + w0)."""
        precision = self.precision + weight
        centre = (self.precision * self.mean + weighted_sum) / precision
        return centre + jax.random.normal(key, (), centre.dtype) / jnp.sqrt(precision)
