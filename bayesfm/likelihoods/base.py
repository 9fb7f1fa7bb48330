"""What every likelihood offers: a NumPyro distribution, its parameters' prior, and its Gibbs conditionals."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution

__all__ = ["Likelihood", "Params"]

Params = dict[str, Array]
"""Named parameters of a likelihood, for instance ``{"alpha": ...}``."""


@runtime_checkable
class Likelihood(Protocol):
    """p(y | eta, params).

    Gibbs meets a likelihood only through :meth:`augment`, a weight omega_n and a working response z_n with
    ``z_n ~ N(eta_n, 1/omega_n)`` given the augmentation, and through :meth:`update`, which draws ``params``.
    """

    dims: ClassVar[dict[str, tuple[str, ...]]]
    """Named dimensions of each parameter, the scalars ``()``."""

    def validate(self, y: np.ndarray) -> np.ndarray:
        """Check the response on the host; return it as a float array, or raise."""
        ...

    def centre(self, y: np.ndarray, weight: np.ndarray | None) -> float:
        """What may be taken off y and off w0 alike without changing the model; 0 where there is no such thing."""
        ...

    def sample(self) -> Params:
        """Sample the parameters from their prior, inside a NumPyro model."""
        ...

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """Log prior density of the parameters."""
        ...

    def distribution(self, eta: Float[Array, "..."], params: Params) -> Distribution:
        """Distribution of y given the linear predictor."""
        ...

    def log_likelihood(
        self, y: Float[Array, " n"], eta: Float[Array, " n"], weight: Float[Array, " n"], params: Params
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density of y; rows of weight zero count for nothing, whatever their y."""
        ...

    def initial(self, y: Float[Array, " n"], weight: Float[Array, " n"]) -> Params:
        """Where a chain starts."""
        ...

    def update(
        self,
        key: Key[Array, ""],
        y: Float[Array, " n"],
        eta: Float[Array, " n"],
        weight: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """Draw the parameters from their full conditional."""
        ...

    def augment(
        self,
        key: Key[Array, ""],
        y: Float[Array, " n"],
        eta: Float[Array, " n"],
        weight: Float[Array, " n"],
        params: Params,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Draw the augmentation; return (omega, z). Rows of weight zero have omega zero and any finite z."""
        ...
