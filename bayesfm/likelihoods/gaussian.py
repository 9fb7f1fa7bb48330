"""Gaussian likelihood with unknown precision: y_n ~ N(eta_n, 1/alpha), a row of weight c counting as c rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Params
from bayesfm.sums import total, weighted_square

__all__ = ["Gaussian"]

MAX_RESPONSE = 1e18


@pytree()
@dataclass(frozen=True)
class Gaussian:
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

    a0: float = 1.0
    b0: float = 1.0

    dims: ClassVar[dict[str, tuple[str, ...]]] = {"alpha": ()}

    def __post_init__(self) -> None:
        for name in ("a0", "b0"):
            check_positive(f"Gaussian({name}=)", getattr(self, name))

    def validate(self, y: np.ndarray) -> np.ndarray:
        """Any finite real response whose square is one, too, in float32."""
        largest = float(np.max(np.abs(y), initial=0.0))
        if largest > MAX_RESPONSE:
            raise ValueError(
                f"y must lie within +-{MAX_RESPONSE:.0e}, got {largest:.3g}: divide y by a constant (other units)"
            )
        return y

    def centre(self, y: np.ndarray, weight: np.ndarray | None) -> float:
        """The weighted mean of y: shifting y and w0 together leaves the model the same."""
        return float(np.average(y, weights=weight))

    def _prior(self) -> dist.Distribution:
        return dist.Gamma(0.5 * self.a0, 0.5 * self.b0)

    def sample(self) -> Params:
        """Sample alpha inside a NumPyro model."""
        return {"alpha": numpyro.sample("alpha", self._prior())}

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """Log density of alpha."""
        return self._prior().log_prob(params["alpha"])

    def distribution(self, eta: Float[Array, "..."], params: Params) -> dist.Distribution:
        """N(eta, 1/alpha)."""
        return dist.Normal(eta, 1.0 / jnp.sqrt(params["alpha"]))

    def log_likelihood(
        self, y: Float[Array, " n"], eta: Float[Array, " n"], weight: Float[Array, " n"], params: Params
    ) -> Float[Array, ""]:
        """(W log(alpha / 2 pi) - alpha S) / 2, W = sum weight, S = sum weight (y - eta)^2: one pass over the rows."""
        S = total(weight, y, eta, of=weighted_square)
        return 0.5 * (total(weight) * jnp.log(params["alpha"] / (2 * jnp.pi)) - params["alpha"] * S)

    def initial(self, y: Float[Array, " n"], weight: Float[Array, " n"]) -> Params:
        """The posterior mean of alpha if eta were the mean of y."""
        mean = total(weight * y) / total(weight)
        return {"alpha": (self.a0 + total(weight)) / (self.b0 + total(weight * (y - mean) ** 2))}

    def update(
        self,
        key: Key[Array, ""],
        y: Float[Array, " n"],
        eta: Float[Array, " n"],
        weight: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """alpha | . ~ Gamma((a0 + sum weight)/2, (b0 + sum weight r^2)/2)."""
        shape = 0.5 * (self.a0 + total(weight))
        rate = 0.5 * (self.b0 + total(weight, y, eta, of=weighted_square))
        return {"alpha": jax.random.gamma(key, shape) / rate}

    def augment(
        self,
        key: Key[Array, ""],
        y: Float[Array, " n"],
        eta: Float[Array, " n"],
        weight: Float[Array, " n"],
        params: Params,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(omega, z) = (alpha weight, y): nothing to augment."""
        return params["alpha"] * weight, y
