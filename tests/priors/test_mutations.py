"""Bugs planted in the updates of priors, each of which the invariance test of the update has to find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bayesfm._pytree import pytree
from bayesfm.priors import Features, HalfT, Horseshoe, Hyper, MultiplicativeGamma, NormalWishart, Prior
from tests.priors.test_families import V, W
from tests.priors.updates import invariance
from tests.statistics import alarms


@pytree(static=("df",))
@dataclass(frozen=True)
class AuxiliaryStays(HalfT):
    """a of the mixture is not drawn given sigma: it is what it would be at sigma = scale."""

    def update(self, key: Any, hyper: Hyper, features: Features) -> Hyper:
        return super().update(key, {**hyper, "sigma": jnp.full_like(hyper["sigma"], self.scale)}, features)


@pytree(static=("global_df", "slab_df"))
@dataclass(frozen=True)
class LocalStale(Horseshoe):
    """The global scale is drawn given the local scales of before."""

    def update(self, key: Any, hyper: Hyper, features: Features) -> Hyper:
        new = super().update(key, hyper, features)
        return {**new, "global_scale": self._draw_global(jax.random.fold_in(key, 1), hyper, features)}


@pytree(static=("global_df", "slab_df"))
@dataclass(frozen=True)
class SlabForgottenByLocal(Horseshoe):
    """Local scales of the plain horseshoe: the factor sqrt(1 + tau^2 lambda^2/c^2) is left out."""

    def _draw_local(self, key: Any, hyper: Hyper, features: Features) -> jax.Array:
        return super()._draw_local(key, {**hyper, "slab_scale": 1e6 * self._slab(hyper)}, features)


@pytree(static=("global_df", "slab_df"))
@dataclass(frozen=True)
class SlabForgottenByGlobal(Horseshoe):
    """The same for the global scale."""

    def _draw_global(self, key: Any, hyper: Hyper, features: Features) -> jax.Array:
        return super()._draw_global(key, {**hyper, "slab_scale": 1e6 * self._slab(hyper)}, features)


@pytree(static=("df",))
@dataclass(frozen=True)
class ColumnsOffByOne(MultiplicativeGamma):
    """delta_l sees the squares of the columns from l + 1 on."""

    def _draw_delta(self, key: Any, delta: Any, number: Any, S: jax.Array) -> jax.Array:
        return super()._draw_delta(key, delta, number, jnp.roll(S, -1, axis=1))


@pytree(static=("df",))
@dataclass(frozen=True)
class ShapeOffByOne(MultiplicativeGamma):
    """delta_l counts one feature too many."""

    def _draw_delta(self, key: Any, delta: Any, number: jax.Array, S: Any) -> jax.Array:
        return super()._draw_delta(key, delta, number + 1, S)


def as_class(cls: type, prior: Any) -> Prior:
    return cls(**{name: getattr(prior, name) for name in prior.__dataclass_fields__})


MATRIX = V["normal-Wishart"]
assert isinstance(MATRIX, NormalWishart)
MUTANTS: dict[str, tuple[Prior, tuple[int, ...], Prior]] = {
    "half-t: auxiliary variable stays": (W["half-t"], (), as_class(AuxiliaryStays, W["half-t"])),
    "half-normal: scale": (W["half-normal"], (), replace(W["half-normal"], scale=0.9)),  # type: ignore[type-var]
    "horseshoe: local scales stale": (W["horseshoe"], (), as_class(LocalStale, W["horseshoe"])),
    "horseshoe: slab forgotten by local scales": (
        W["horseshoe"],
        (),
        as_class(SlabForgottenByLocal, W["horseshoe"]),
    ),
    "horseshoe: slab forgotten by the global scale": (
        W["horseshoe"],
        (),
        as_class(SlabForgottenByGlobal, W["horseshoe"]),
    ),
    "columns: one off": (
        V["multiplicative gamma"],
        (3,),
        as_class(ColumnsOffByOne, V["multiplicative gamma"]),
    ),
    "columns: one feature too many": (
        V["multiplicative gamma"],
        (3,),
        as_class(ShapeOffByOne, V["multiplicative gamma"]),
    ),
    "Wishart: one degree of freedom too many": (MATRIX, (3,), replace(MATRIX, a0=MATRIX.a0 + 1)),
    "Wishart: weight of the mean": (MATRIX, (3,), replace(MATRIX, beta0=2 * MATRIX.beta0)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str) -> None:
    prior, columns, mutant = MUTANTS[name]
    assert alarms(invariance(prior, columns, 10_000, update_with=mutant))
