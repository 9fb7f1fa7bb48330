"""Gaussian likelihood with unknown precision: y_n ~ N(eta_n, 1/alpha), a row of weight c counting as c rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Observed, Params, RowData
from bayesfm.likelihoods.real import RealResponse
from bayesfm.likelihoods.response import spread
from bayesfm.random import gamma
from bayesfm.random.densities import Gamma
from bayesfm.sums import total, weighted_square

__all__ = ["Gaussian"]


@pytree()
@dataclass(frozen=True)
class Gaussian(RealResponse):
    """Normal noise, ``y_n ~ N(eta_n, 1/alpha)``, with ``alpha ~ Gamma(a0/2, rate b0/2)``.

    A row of weight c counts as c equal rows, in the sums and in the conditional of alpha.

    Parameters
    ----------
    a0, b0 : float, default=1.0
        Prior degrees of freedom of the noise precision alpha, and prior sum of squares in units of y squared:
        alpha is thought to be near a0/b0, as if a0 residuals with sum of squares b0 had been seen.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, section 14.2.

    Examples
    --------
    >>> from bayesfm.likelihoods import Gaussian
    >>> Gaussian(a0=2.0, b0=0.5)
    Gaussian(a0=2.0, b0=0.5)
    """

    has_bound: ClassVar[bool] = True
    a0: float = 1.0
    b0: float = 1.0

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """``alpha``, the noise precision."""
        return {"alpha": ()}

    def __post_init__(self) -> None:
        for name in ("a0", "b0"):
            check_positive(f"Gaussian({name}=)", getattr(self, name))

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """One prior observation of the size of y's standard deviation."""
        return cls(b0=spread(y, weight) ** 2)

    def prior(self) -> dict[str, dist.Distribution]:
        """Gamma(a0/2, b0/2)."""
        return {"alpha": Gamma(0.5 * self.a0, 0.5 * self.b0)}

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """N(eta, 1/alpha)."""
        return dist.Normal(eta, 1.0 / jnp.sqrt(params["alpha"]))

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """(W log(alpha / 2 pi) - alpha S) / 2, W = sum weight, S = sum weight (y - eta)^2: one pass over the rows."""
        y, weight, _ = observed
        S = total(weight, y, eta, of=weighted_square)
        return 0.5 * (total(weight) * jnp.log(params["alpha"] / (2 * jnp.pi)) - params["alpha"] * S)

    def initial(self, observed: Observed) -> Params:
        """The posterior mean of alpha if eta were the mean of y."""
        return {"alpha": self.initial_alpha(observed)}

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """alpha | . ~ Gamma((a0 + sum weight)/2, (b0 + sum weight r^2)/2)."""
        y, weight, _ = observed
        shape = 0.5 * (self.a0 + total(weight))
        rate = 0.5 * (self.b0 + total(weight, y, eta, of=weighted_square))
        return {"alpha": gamma(key, shape, native=native) / rate}

    def fit(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """The largest, log alpha being the scale: (a0 + sum weight)/(b0 + sum weight ((y - mean)^2 + variance))."""
        y, weight, _ = observed
        S = total(weight, y, mean, of=weighted_square) + total(weight, variance, of=jnp.multiply)
        return {"alpha": (self.a0 + total(weight)) / (self.b0 + S)}

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(omega, z) = (alpha weight, y): nothing to augment."""
        return params["alpha"] * observed.weight, observed.y

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Exact: E[(y - eta)^2] = (y - mean)^2 + variance."""
        return self.log_density(observed, mean, params) - 0.5 * params["alpha"] * observed.weight * variance
