"""Likelihoods of a response of 0 or 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Key
from scipy.special import logit, ndtri

from bayesfm import native as kernels
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Likelihood, Observed, Params, RowData
from bayesfm.likelihoods.bounds import logistic_bound
from bayesfm.likelihoods.distributions import BernoulliLogits, Probit
from bayesfm.likelihoods.response import check_zero_one_weight, share_of_ones
from bayesfm.random import polya_gamma, truncated_normal
from bayesfm.sums import total

__all__ = ["BernoulliLogit", "BernoulliProbit"]


def _check_binary(name: str, y: np.ndarray) -> np.ndarray:
    y = np.asarray(y, np.float64)
    wrong = ~((y == 0) | (y == 1))
    if wrong.any():
        raise ValueError(
            f"{name} needs y of 0 and 1, got {y[wrong].flat[0]:g}: FMClassifier takes any two labels"
        )
    return y


@pytree()
@dataclass(frozen=True)
class BernoulliProbit(Likelihood):
    """y_n = 1 with probability Phi(eta_n): the sign of a normal variable around eta with variance one.

    The precision of that variable is fixed at one, since the data do not tell it from the scale of eta.

    References
    ----------
    Albert & Chib (1993), Bayesian analysis of binary and polychotomous response data, JASA 88.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.likelihoods import BernoulliProbit
    >>> float(BernoulliProbit().distribution(jnp.zeros(()), {}, {}).mean)
    0.5
    """

    has_bound: ClassVar[bool] = True
    separable = True
    light_scales = True

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """0 or 1, with weights of 0 or 1."""
        check_zero_one_weight("BernoulliProbit", weight, "repeat the rows, or use BernoulliLogit")
        return _check_binary("BernoulliProbit", y)

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """The quantile of the share of ones, and one."""
        return float(ndtri(share_of_ones(y, weight))), 1.0

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """One with probability Phi(eta)."""
        return Probit(eta)

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density: the kernel is that of two ordered classes, cut at zero."""
        if not (native and eta.dtype == jnp.float32):
            return super().log_likelihood(observed, eta, params)
        return total(kernels.row_sums("ordinal", *observed[:2], eta, jnp.zeros(1, eta.dtype))[0])

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(1, z) with z ~ N(eta, 1), above zero where y is one, below where it is zero."""
        y, weight, _ = observed
        lower, upper = jnp.where(y > 0, 0.0, -jnp.inf), jnp.where(y > 0, jnp.inf, 0.0)
        return weight, truncated_normal(key, eta, lower, upper, native=native)

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Log Phi at the mean, less variance/2: the latent variable has variance one."""
        return self.log_density(observed, mean, params) - 0.5 * observed.weight * variance


@pytree()
@dataclass(frozen=True)
class BernoulliLogit(Likelihood):
    """y_n = 1 with probability 1 / (1 + exp(-eta_n)); a row of weight c counts as c equal rows, for any c >= 0.

    References
    ----------
    Polson, Scott & Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables, JASA 108.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.likelihoods import BernoulliLogit
    >>> float(BernoulliLogit().distribution(jnp.zeros(()), {}, {}).mean)
    0.5
    """

    has_bound: ClassVar[bool] = True
    separable = True
    light_scales = True

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """0 or 1."""
        return _check_binary("BernoulliLogit", y)

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Log odds of ones, and the standard deviation of a logistic variable, which is what probit calls one."""
        return float(logit(share_of_ones(y, weight))), float(np.pi / np.sqrt(3))

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """One with log odds eta."""
        return BernoulliLogits(eta)

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """omega ~ PG(c, eta), z = c (y - 1/2) / omega."""
        y, weight, _ = observed
        kappa = weight * (y - 0.5)

        def each_row_once() -> tuple[Float[Array, " n"], Float[Array, " n"]]:
            omega = polya_gamma(key, 1, eta, native=native)
            return weight * omega, kappa / omega

        def weighted() -> tuple[Float[Array, " n"], Float[Array, " n"]]:
            return polya_gamma_augmentation(key, weight, kappa, eta, native=native)

        once = jnp.all((weight == 0) | (weight == 1))  # the quick case
        return lax.cond(once, each_row_once, weighted)

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """The bound of the Pólya-Gamma augmentation."""
        y, weight, _ = observed
        return weight * logistic_bound(y, jnp.ones_like(y), mean, variance)


def polya_gamma_augmentation(
    key: Key[Array, ""],
    b: Float[Array, " n"],
    kappa: Float[Array, " n"],
    psi: Float[Array, " n"],
    *,
    native: bool,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """(omega, kappa / omega) with omega ~ PG(b, psi), for a likelihood exp(psi)^a / (1 + exp(psi))^b, kappa = a - b/2.

    Both are zero where b is.

    References
    ----------
    Polson, Scott & Windle (2013), theorem 1.
    """
    seen = b > 0
    omega = polya_gamma(key, jnp.where(seen, b, 2.0), psi, native=native)  # quicker than one or less
    return jnp.where(seen, omega, 0.0), jnp.where(seen, kappa / omega, 0.0)
