"""Prior of the intercept."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree

__all__ = ["Intercept"]


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
