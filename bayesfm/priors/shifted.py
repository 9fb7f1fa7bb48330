"""A family of priors with a mean of its own for every feature on top of what the family says."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Key

from bayesfm._pytree import pytree
from bayesfm.priors.base import Dims, Features, Hyper, Location, Prior, Sizes

__all__ = ["OFFSET", "Shifted"]

OFFSET = "offset"
"""Name under which the means stand among the hyperparameters: those of features, known and never drawn."""


@pytree()
@dataclass(frozen=True)
class Shifted(Prior):
    """x_j = offset_j + e_j with e_j from ``base``: what a regression on side information says of x, and the rest.

    Moves that multiply or rotate x would leave the offset behind, so that there are none here; shifts of whole groups
    are what they are for the base.

    Parameters
    ----------
    base : Prior
        Family of x minus offset.
    offset : array of shape (p,) for w, (p, k) for v
        Part of the prior mean that is known, features in the order of the design.
    """

    base: Prior
    offset: Float[Array, "p *d"]

    def hyper_names(self) -> tuple[str, ...]:
        """Those of the base, and the offset."""
        return (*self.base.hyper_names(), OFFSET)

    @property
    def local_names(self) -> tuple[str, ...]:
        """Those of the base, and the offset."""
        return (*self.base.local_names, OFFSET)

    @property
    def full(self) -> bool:
        """As the base."""
        return self.base.full

    def hyper_dims(self, columns: Dims) -> dict[str, Dims]:
        """Those of the base, and the offset."""
        return {**self.base.hyper_dims(columns), OFFSET: ("feature", *columns)}

    def _own(self, hyper: Hyper) -> Hyper:
        return {name: x for name, x in hyper.items() if name != OFFSET}

    def of_features(self, hyper: Hyper, group: Int[Array, " p"], columns: tuple[int, ...]) -> Hyper:
        """Those of the base, and the offset."""
        return {**self.base.of_features(self._own(hyper), group, columns), OFFSET: hyper[OFFSET]}

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sites of the base."""
        return {**self.base.sample_hyper(suffix, sizes), OFFSET: self.offset}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """That of the base."""
        return self.base.log_hyper(self._own(hyper))

    def distribution(self, own: Hyper) -> dist.Distribution:
        """The base's normal distribution, moved."""
        of_rest = self.base.distribution(self._own(own))
        if isinstance(of_rest, dist.MultivariateNormal):
            return dist.MultivariateNormal(of_rest.loc + own[OFFSET], scale_tril=of_rest.scale_tril)
        if isinstance(of_rest, dist.Normal):
            return dist.Normal(of_rest.loc + own[OFFSET], of_rest.scale)
        raise TypeError(
            f"{type(self.base).__name__} must be normal given its hyperparameters to take means of features; it is "
            f"{type(of_rest).__name__}"
        )

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Per feature."""
        precision, mean = self.base.precision_and_mean(self._own(hyper), shape)
        return precision, mean + hyper[OFFSET]

    def location(self, hyper: Hyper, g: int) -> Location | None:
        """That of the base: x - mu is offset + e - mu whatever mu is."""
        return self.base.location(self._own(hyper), g)

    def moved(self, hyper: Hyper, g: int, delta: Float[Array, "*k"]) -> Hyper:
        """As the base."""
        return {**self.base.moved(self._own(hyper), g, delta), OFFSET: hyper[OFFSET]}

    def initial(self, sizes: Sizes) -> Hyper:
        """Where the base starts."""
        return {**self.base.initial(sizes), OFFSET: self.offset}

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """The base's draw given x minus offset."""
        drawn = self.base.update(key, self._own(hyper), _without(features, hyper[OFFSET]))
        return {**drawn, OFFSET: hyper[OFFSET]}


def _without(features: Features, offset: Float[Array, "p *d"]) -> Features:
    """The features x - offset; moments in two passes, so that nothing cancels."""
    rest = features._replace(x=features.x - offset)
    mean = rest.sum(rest.x) / jnp.maximum(features.number_per_column, 1)
    return rest._replace(mean=mean, scatter=rest.sum((rest.x - mean[features.group]) ** 2))
