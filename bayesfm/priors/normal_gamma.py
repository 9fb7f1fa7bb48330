"""Normal-gamma: unknown mean and precision per group, conjugate."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import Features, Hyper, Location, LocationScale, Prior, Sizes
from bayesfm.priors.location import best_mean, draw_mean, square_sums, sum_of_squares
from bayesfm.priors.rotation import SquareSums, draw_rotation
from bayesfm.random import gamma
from bayesfm.random.densities import Gamma

__all__ = ["NormalGamma"]


@pytree()
@dataclass(frozen=True)
class NormalGamma(Prior):
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
        return Gamma(0.5 * self.a0, 0.5 * self.b0).expand(shape).to_event(len(shape))

    def _mu(self, lam: Array) -> dist.Distribution:
        return dist.Normal(self.mu0, 1.0 / jnp.sqrt(self.beta0 * lam)).to_event(lam.ndim)

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sites ``lambda<suffix>`` and ``mu<suffix>`` of a NumPyro model."""
        lam = numpyro.sample(f"lambda{suffix}", self._lambda(sizes.of_hyper))
        return {"mu": numpyro.sample(f"mu{suffix}", self._mu(lam)), "lambda": lam}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log p(lambda) + log p(mu | lambda)."""
        mu, lam = hyper["mu"], hyper["lambda"]
        return self._lambda(lam.shape).log_prob(lam) + self._mu(lam).log_prob(mu)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(mu, 1/lambda), elementwise."""
        return dist.Normal(own["mu"], 1.0 / jnp.sqrt(own["lambda"]))

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """(lambda, mu)."""
        return hyper["lambda"], hyper["mu"]

    def location(self, hyper: Hyper, g: int) -> Location:
        """Precision beta0 lambda and mean mu0 of mu."""
        mu = hyper["mu"][g]
        return Location(self.beta0 * hyper["lambda"][g], jnp.full_like(mu, self.mu0), mu)

    def scale_factor(self, key: Key[Array, ""], hyper: Hyper, g: int, h: int) -> Float[Array, " k"]:
        """One slice step for x = 2 log c - s, of density proportional to exp(-omega cosh x); c = 1 if mu0 is not 0.

        -b0 lambda_g / (2 c^2) is what the Gamma prior of lambda_g says of c, and -b0 lambda_h c^2 / 2 that of lambda_h;
        everything else cancels against the Jacobian. The slice is known in closed form.
        """
        lam = hyper["lambda"]
        s = 0.5 * jnp.log(lam[g] / lam[h])
        omega = self.b0 * jnp.sqrt(lam[g] * lam[h])
        key_height, key_place = jax.random.split(key)
        height = jnp.cosh(s) + jax.random.exponential(key_height, s.shape, s.dtype) / omega
        x = jnp.arccosh(height) * jax.random.uniform(key_place, s.shape, s.dtype, -1.0, 1.0)
        return jnp.where(jnp.asarray(self.mu0 == 0), jnp.exp(0.5 * (x + s)), 1.0)

    def scaled(self, hyper: Hyper, g: int, c: Float[Array, " k"]) -> Hyper:
        """C mu, lambda / c^2."""
        mu, lam = hyper["mu"], hyper["lambda"]
        return {**hyper, "mu": mu.at[g].multiply(c), "lambda": lam.at[g].divide(c * c)}

    def location_scale(self, hyper: Hyper) -> LocationScale:
        """Mu and lambda^(-1/2)."""
        return LocationScale(hyper["mu"], hyper["lambda"] ** -0.5, self.beta0, self.mu0)

    def from_location_scale(self, hyper: Hyper, mu: Array, sigma: Array) -> Hyper:
        """Mu and 1/sigma^2."""
        return {**hyper, "mu": mu, "lambda": sigma**-2}

    def log_sigma_density(self, log_sigma: Array, group: Int[Array, ""] | None = None) -> Array:
        """Of log sigma = -log(lambda)/2: -a0 log sigma - b0/(2 sigma^2)."""
        return -self.a0 * log_sigma - 0.5 * self.b0 * jnp.exp(-2 * log_sigma)

    def rotation(self, key: Key[Array, ""], sums: SquareSums) -> Float[Array, "k k"]:
        """P(v) is prod_gf (b0 + S_gff)^(-(a0 + p_g)/2), S of ``square_sums``; no rotation if mu0 is not 0."""
        S = square_sums(sums, self.beta0)
        R = draw_rotation(key, S, self.a0 + sums.number, self.b0)
        return jnp.where(jnp.asarray(self.mu0 == 0), R, jnp.eye(len(R), dtype=R.dtype))

    def initial(self, sizes: Sizes) -> Hyper:
        """The prior's own centre: mu0 and a0/b0."""
        shape = sizes.of_hyper
        return {"mu": jnp.full(shape, self.mu0), "lambda": jnp.full(shape, self.a0 / self.b0)}

    def mode(self, features: Features, covariance: Array) -> Hyper:
        """lambda = (a0 + p_g + 1)/(b0 + scatter + beta0 p_g/(beta0 + p_g) (mean - mu0)^2), and the mean of mu."""
        rate = self.b0 + sum_of_squares(features, self.beta0, self.mu0)
        lam = (self.a0 + features.number_per_column + 1) / rate
        return {"mu": best_mean(features, self.beta0, self.mu0), "lambda": lam}

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw (lambda, mu) of every group from their joint conditional: lambda with mu integrated out, then mu.

        lambda | x     ~ Gamma((a0 + p_g)/2, (b0 + scatter + beta0 p_g/(beta0 + p_g) (mean - mu0)^2)/2),
        mu | lambda, x ~ N((p_g mean + beta0 mu0)/(p_g + beta0), 1/((p_g + beta0) lambda)).

        The joint draw costs no more than the two single ones and lambda never waits for mu.
        """
        key_lambda, key_mu = jax.random.split(key)
        rate = 0.5 * (self.b0 + sum_of_squares(features, self.beta0, self.mu0))
        shape = jnp.broadcast_to(0.5 * (self.a0 + features.number_per_column), rate.shape)
        lam = gamma(key_lambda, shape) / rate
        return {"mu": draw_mean(key_mu, features, lam, self.beta0, self.mu0), "lambda": lam}
