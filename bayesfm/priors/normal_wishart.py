"""Normal-Wishart over the factors of a feature: a full precision matrix per group, conjugate."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import OTHER_FACTOR, Dims, Features, Hyper, Location, Prior, Sizes
from bayesfm.priors.location import best_mean
from bayesfm.random import gamma

__all__ = ["NormalWishart"]


@pytree()
@dataclass(frozen=True)
class NormalWishart(Prior):
    """v_j ~ N(mu_g, Lambda_g^-1), mu_g ~ N(mu0 1, (beta0 Lambda_g)^-1), Lambda_g ~ Wishart(k - 1 + a0, I/b0).

    The prior of Bayesian probabilistic matrix factorization: the k factors of a group may be correlated and of any
    scale, so that the posterior does not depend on how the factors are rotated. For k = 1 it is
    :class:`NormalGamma` with the same numbers. The factors alone are joint: w has a prior of its own.

    Parameters
    ----------
    a0 : float, default=1.0
        Degrees of freedom above k - 1: the Wishart distribution has k - 1 + a0.
    b0 : float, default=1.0
        Inverse scale: E[Lambda] = (k - 1 + a0)/b0 I. Has the unit of v squared.
    beta0 : float, default=1.0
        Precision of the group mean, in units of Lambda.
    mu0 : float, default=0.0
        Prior mean of the group means, the same for all factors.

    References
    ----------
    Salakhutdinov & Mnih (2008), Bayesian probabilistic matrix factorization using MCMC, ICML, equations 5, 6 and 14.

    Examples
    --------
    >>> from bayesfm.priors import NormalWishart
    >>> NormalWishart(b0=0.5).hyper_dims(("factor",))
    {'mu': ('group', 'factor'), 'precision': ('group', 'factor', 'factor_other')}
    """

    a0: float = 1.0
    b0: float = 1.0
    beta0: float = 1.0
    mu0: float = 0.0

    def __post_init__(self) -> None:
        for name in ("a0", "b0", "beta0"):
            check_positive(f"NormalWishart({name}=)", getattr(self, name))
        check_finite("NormalWishart(mu0=)", self.mu0)

    def hyper_names(self) -> tuple[str, ...]:
        """``mu`` (mean) and ``precision`` (matrix)."""
        return ("mu", "precision")

    @property
    def full(self) -> bool:
        """The precision is a matrix."""
        return True

    def hyper_dims(self, columns: Dims) -> dict[str, Dims]:
        """Refuses w, which has no columns."""
        if not columns:
            raise ValueError("NormalWishart correlates the columns of v: give it as prior_v, not as prior_w")
        return {"mu": ("group", *columns), "precision": ("group", *columns, OTHER_FACTOR)}

    def _of_precision(self, G: int, k: int) -> dist.Distribution:
        rate = self.b0 * jnp.eye(k)
        return dist.Wishart(jnp.asarray(k - 1 + self.a0), rate_matrix=rate).expand((G,)).to_event(1)

    def _of_mu(self, precision: Float[Array, "*L G k k"]) -> dist.Distribution:
        mean = jnp.full(precision.shape[:-1], self.mu0)
        return dist.MultivariateNormal(mean, precision_matrix=self.beta0 * precision).to_event(1)

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sites ``precision<suffix>`` and ``mu<suffix>`` of a NumPyro model."""
        precision = numpyro.sample(f"precision{suffix}", self._of_precision(*sizes.of_hyper))
        return {"mu": numpyro.sample(f"mu{suffix}", self._of_mu(precision)), "precision": precision}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log p(Lambda) + log p(mu | Lambda)."""
        mu, precision = hyper["mu"], hyper["precision"]
        return self._of_precision(*mu.shape).log_prob(precision) + self._of_mu(precision).log_prob(mu)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(mu, Lambda^-1), of the factors together."""
        return dist.MultivariateNormal(own["mu"], precision_matrix=own["precision"])

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """(Lambda, mu)."""
        return hyper["precision"], hyper["mu"]

    def location(self, hyper: Hyper, g: int) -> Location:
        """Precision beta0 Lambda and mean mu0 of mu."""
        mu = hyper["mu"][g]
        return Location(self.beta0 * hyper["precision"][g], jnp.full_like(mu, self.mu0), mu)

    def initial(self, sizes: Sizes) -> Hyper:
        """The prior's own centre: mu0 and (k - 1 + a0)/b0 I."""
        (k,) = sizes.columns
        precision = (k - 1 + self.a0) / self.b0 * jnp.eye(k)
        return {
            "mu": jnp.full((sizes.groups, k), self.mu0),
            "precision": jnp.broadcast_to(precision, (sizes.groups, k, k)),
        }

    def mode(self, features: Features, covariance: Float[Array, "G k k"]) -> Hyper:
        """Lambda = (k + a0 + p_g) R^-1 with R as in :meth:`update`, of the expected scatter matrix; the mean of mu."""
        rate = self._rate(features) + covariance
        df = rate.shape[-1] + self.a0 + features.number
        return {
            "mu": best_mean(features, self.beta0, self.mu0),
            "precision": df[:, None, None] * jnp.linalg.inv(rate),
        }

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw (Lambda, mu) of every group from their joint conditional: Lambda with mu integrated out, then mu.

        Lambda | v     ~ Wishart(k - 1 + a0 + p_g, R^-1),
        R              = b0 I + scatter matrix + beta0 p_g/(beta0 + p_g) (mean - mu0)(mean - mu0)',
        mu | Lambda, v ~ N((p_g mean + beta0 mu0)/(p_g + beta0), ((p_g + beta0) Lambda)^-1).
        """
        G, k = features.mean.shape
        if not k:
            return hyper
        key_precision, key_mu = jax.random.split(key)
        number = features.number[:, None]
        weight = number + self.beta0
        degrees = k - 1 + self.a0 + features.number
        root = _wishart_root(key_precision, degrees, self._rate(features))
        noise = jax.random.normal(key_mu, (G, k, 1), root.dtype)
        deviation = solve_triangular(root, noise, trans="T")[..., 0] / jnp.sqrt(weight)
        mu = best_mean(features, self.beta0, self.mu0) + deviation
        return {"mu": mu, "precision": root @ jnp.swapaxes(root, -1, -2)}

    def _rate(self, features: Features) -> Float[Array, "G k k"]:
        """R of :meth:`update`."""
        number = features.number[:, None]
        off = jnp.sqrt(self.beta0 * number / (number + self.beta0)) * (features.mean - self.mu0)
        return self.b0 * jnp.eye(off.shape[1]) + _scatter(features) + off[:, :, None] * off[:, None]


def _scatter(features: Features) -> Float[Array, "G k k"]:
    """Sum of (x - mean)(x - mean)' in every group, one group after the other: p k^2 products each, p k numbers."""
    centred = features.x - features.mean[features.group]

    def of_group(g: Array) -> Float[Array, "k k"]:
        own = jnp.where((features.group == g)[:, None], centred, 0.0)
        return jnp.matmul(own.T, own, precision=lax.Precision.HIGHEST)

    return lax.map(of_group, jnp.arange(features.number.shape[0]))


def _wishart_root(
    key: Key[Array, ""], degrees: Float[Array, " G"], rate: Float[Array, "G k k"]
) -> Float[Array, "G k k"]:
    """M with M M' ~ Wishart(degrees, rate^-1): with rate = L L', M = L^-T A upper triangular.

    A is upper triangular: its last diagonal entry is the root of a chi-square variable of ``degrees`` degrees of
    freedom, the one before of one less, and so on; standard normals stand above the diagonal (Bartlett 1933, the
    coordinates counted from the last).
    """
    key_diagonal, key_upper = jax.random.split(key)
    G, k = rate.shape[:2]
    half = 0.5 * (degrees[:, None] - jnp.arange(k)[::-1])
    diagonal = jnp.sqrt(2 * gamma(key_diagonal, half))
    upper = jnp.triu(jax.random.normal(key_upper, (G, k, k), rate.dtype), 1)
    A = upper + diagonal[:, :, None] * jnp.eye(k)
    return solve_triangular(jnp.linalg.cholesky(rate), A, lower=True, trans="T")
