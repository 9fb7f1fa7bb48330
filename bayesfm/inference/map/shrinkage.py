"""A prior with its precision multiplied: how a mode makes up for being one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Key

from bayesfm._pytree import pytree
from bayesfm.model import ModelSpec
from bayesfm.priors import Features, Hyper, Prior, Sizes

__all__ = ["Tempered", "shrunk"]


@pytree()
@dataclass(frozen=True)
class Tempered(Prior):
    """``prior`` with the precision of x multiplied by ``factor``; hyperparameters are those of ``prior``.

    A mode takes every factor of the others at its word, where a posterior mean knows how uncertain they are: with the
    scales of the posterior it fits too closely.
    """

    prior: Prior
    factor: float

    def hyper_names(self) -> tuple[str, ...]:
        """Those of the prior."""
        return self.prior.hyper_names()

    @property
    def local_names(self) -> tuple[str, ...]:
        """Those of the prior."""
        return self.prior.local_names

    @property
    def full(self) -> bool:
        """As the prior has it."""
        return self.prior.full

    def hyper_dims(self, columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Those of the prior."""
        return self.prior.hyper_dims(columns)

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Those of the prior."""
        return self.prior.sample_hyper(suffix, sizes)

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """That of the prior."""
        return self.prior.log_hyper(hyper)

    def of_features(self, hyper: Hyper, group: Int[Array, " p"], columns: tuple[int, ...]) -> Hyper:
        """Those of the prior."""
        return self.prior.of_features(hyper, group, columns)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """Normal with the larger precision."""
        base = self.prior.distribution(own)
        if self.full:
            return dist.MultivariateNormal(base.mean, precision_matrix=self.factor * base.precision_matrix)
        return dist.Normal(base.mean, jnp.sqrt(base.variance / self.factor))

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The larger precision, and the mean."""
        precision, mean = self.prior.precision_and_mean(hyper, shape)
        return self.factor * precision, mean

    def initial(self, sizes: Sizes) -> Hyper:
        """That of the prior."""
        return self.prior.initial(sizes)

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Refused: nothing is learned under a prior that was changed for the sake of the mode."""
        raise NotImplementedError("a tempered prior has no posterior")


def shrunk(spec: ModelSpec, factor: float) -> ModelSpec:
    """The model with the prior precision of v multiplied."""
    if not spec.predictor.rank:
        return spec
    return replace(spec, prior_v=Tempered(spec.prior_v, factor))  # type: ignore[abstract]
