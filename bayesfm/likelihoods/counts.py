"""Likelihoods of counts, with exposure: E[y_n] = exposure_n exp(eta_n)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm import native as kernels
from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Likelihood, Observed, Params, RowData
from bayesfm.likelihoods.bernoulli import polya_gamma_augmentation
from bayesfm.likelihoods.bounds import logistic_bound
from bayesfm.likelihoods.distributions import LogNegativeBinomial, LogPoisson
from bayesfm.likelihoods.log_gamma_ratios import log_choose
from bayesfm.likelihoods.newton import RowSums, newton_metropolis, row_sums
from bayesfm.likelihoods.response import check_whole_numbers
from bayesfm.random.densities import Gamma
from bayesfm.sums import total

__all__ = ["NegativeBinomial", "Poisson"]


class _Counts(Likelihood):
    @property
    def row_data(self) -> dict[str, float | None]:
        """``exposure``, one where nothing is said."""
        return {"exposure": 1.0}

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Whole numbers, and an exposure above zero."""
        exposure = np.asarray((rows or {}).get("exposure", 1.0))
        if not np.all(exposure > 0):
            wrong = exposure[~(exposure > 0)].flat[0]
            raise ValueError(
                f"exposure must be > 0, got {wrong:g}: leave out rows that nothing could happen in"
            )
        return check_whole_numbers("y", y)

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Log of the overall rate (half an event added), and one: rates differ by a factor of e."""
        weight = np.ones(len(y)) if weight is None else weight
        rate = (np.sum(weight * y) + 0.5) / np.sum(weight * rows["exposure"])
        return float(np.log(rate)), 1.0


@pytree()
@dataclass(frozen=True)
class Poisson(_Counts):
    """y_n ~ Poisson(exposure_n exp(eta_n)).

    There is no exact augmentation with finitely many variables, so no Gibbs sweep: use NUTS, or
    :class:`NegativeBinomial`, whose large concentration is Poisson.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.likelihoods import Poisson
    >>> float(Poisson().distribution(jnp.zeros(()), {}, {"exposure": jnp.array(3.0)}).mean)
    3.0
    """

    conjugate: ClassVar[bool] = False

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """Poisson with mean exposure exp(eta)."""
        return LogPoisson(eta + jnp.log(rows["exposure"]))


@pytree()
@dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Overdispersed counts: mean m_n = exposure_n exp(eta_n), variance m_n + m_n^2 / concentration.

    The concentration is drawn with the Pólya-Gamma variables integrated out.

    Parameters
    ----------
    shape, rate : float
        Prior of the concentration, Gamma(shape, rate).

    References
    ----------
    Polson, Scott & Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables, JASA 108.

    Examples
    --------
    >>> from bayesfm.likelihoods import NegativeBinomial
    >>> NegativeBinomial().row_data
    {'exposure': 1.0}
    """

    has_bound: ClassVar[bool] = True
    shape: float = 2.0
    rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("shape", "rate"):
            check_positive(f"NegativeBinomial({name}=)", getattr(self, name))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """``concentration``."""
        return {"concentration": ()}

    def prior(self) -> dict[str, dist.Distribution]:
        """Gamma prior of the concentration."""
        return {"concentration": Gamma(self.shape, self.rate)}

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """Negative binomial with mean exposure exp(eta)."""
        return LogNegativeBinomial(eta + jnp.log(rows["exposure"]), params["concentration"])

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density, by the kernel of :meth:`update` where it may be used."""
        if not (native and eta.dtype == jnp.float32):
            return super().log_likelihood(observed, eta, params)
        y, weight, rows = observed
        log_mean, u = eta + jnp.log(rows["exposure"]), jnp.log(params["concentration"])
        return total(kernels.row_sums("counts", y, weight, log_mean, u[None])[0])

    def initial(self, observed: Observed) -> Params:
        """The prior's mean."""
        return {"concentration": jnp.asarray(self.shape / self.rate, observed.y.dtype)}

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """A Metropolis step in the log of the concentration."""
        y, weight, rows = observed
        log_mean = eta + jnp.log(rows["exposure"])

        def rest(u: Float[Array, " d"]) -> Float[Array, ""]:
            """Log prior density of u: that of the concentration, and the Jacobian."""
            return self.log_prior({"concentration": jnp.exp(u[0])}) + u[0]

        def sums(u: Float[Array, " d"]) -> RowSums:
            return row_sums("counts", concentration_sums, y, weight, log_mean, u, native=native)

        def derivatives(u: Float[Array, " d"], S: RowSums) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
            return jax.grad(rest)(u) + S.gradient, jax.hessian(rest)(u) + S.hessian

        def log_ratio(u: Float[Array, " d"], S: RowSums, new: Float[Array, " d"], S_new: RowSums) -> Array:
            return rest(new) - rest(u) + S.rise_to(S_new)

        u = jnp.log(params["concentration"])[None]
        return {"concentration": jnp.exp(newton_metropolis(key, u, sums, derivatives, log_ratio)[0])}

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """omega ~ PG(c (y + r), psi) with psi = eta + log exposure - log r, of which z is the working response."""
        y, weight, rows = observed
        r = params["concentration"]
        offset = jnp.log(rows["exposure"]) - jnp.log(r)
        kappa = 0.5 * weight * (y - r)
        omega, z = polya_gamma_augmentation(key, weight * (y + r), kappa, eta + offset, native=native)
        return omega, z - offset

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """The bound of the Pólya-Gamma augmentation."""
        y, weight, rows = observed
        r = params["concentration"]
        psi = mean + jnp.log(rows["exposure"]) - jnp.log(r)
        return weight * (log_choose(y, r) + logistic_bound(y, y + r, psi, variance))


def concentration_sums(
    y: Float[Array, " n"], weight: Float[Array, " n"], log_mean: Float[Array, " n"], u: Float[Array, " 1"]
) -> RowSums:
    """Log-likelihood of a negative binomial model, with derivatives by the log u of the concentration."""

    def row(u: Array, y: Array, log_mean: Array) -> Array:
        return LogNegativeBinomial(log_mean, jnp.exp(u)).log_prob(y)

    slope = jax.grad(row)
    first, second = (jax.vmap(f, (None, 0, 0))(u[0], y, log_mean) for f in (slope, jax.grad(slope)))
    terms, first, second = (
        jnp.where(weight > 0, weight * x, 0.0) for x in (row(u[0], y, log_mean), first, second)
    )
    return RowSums(terms, total(first)[None], total(second)[None, None])
