"""A normal prior whose mean and precision are given: no hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_finite, check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import Features, Hyper, Prior, Sizes

__all__ = ["Fixed"]


@pytree()
@dataclass(frozen=True)
class Fixed(Prior):
    """x_j ~ N(mean, 1/precision) in every group: a ridge of known strength.

    Parameters
    ----------
    mean : float, default=0.0
        In units of x.
    precision : float, default=1.0
        One over the prior variance.

    Examples
    --------
    >>> from bayesfm.priors import Fixed
    >>> Fixed(precision=4.0)
    Fixed(mean=0.0, precision=4.0)
    """

    mean: float = 0.0
    precision: float = 1.0

    def __post_init__(self) -> None:
        check_finite("Fixed(mean=)", self.mean)
        check_positive("Fixed(precision=)", self.precision)

    def hyper_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """No sites."""
        return {}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Zero."""
        return jnp.zeros(())

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(mean, 1/precision)."""
        return dist.Normal(jnp.asarray(self.mean), jnp.asarray(self.precision) ** -0.5)

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The two numbers, for every group."""
        return jnp.full(shape, self.precision), jnp.full(shape, self.mean)

    def mean_new(self, own: Hyper, shape: tuple[int, ...]) -> Array:
        """The mean."""
        return jnp.full(shape, self.mean)

    def initial(self, sizes: Sizes) -> Hyper:
        """Nothing to start."""
        return {}

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Nothing to draw."""
        return {}
