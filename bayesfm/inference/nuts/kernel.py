"""NumPyro's NUTS as a kernel for the chain runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key
from numpyro.infer.hmc import HMCState, hmc

from bayesfm._pytree import pytree
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.nuts.coordinates import Coordinates, Shapes
from bayesfm.inference.report import draw_stats, row_moments
from bayesfm.likelihoods.base import Observed, RowData
from bayesfm.model import ModelSpec, numpyro_model, site_dims

__all__ = ["NutsKernel"]


@pytree(static=("num_groups", "standardised", "num_warmup", "max_tree_depth", "keep"))
@dataclass(frozen=True)
class NutsKernel:
    """Transitions of NUTS for one model on one data set (an ``inference.kernel.Kernel``).

    Its state is NumPyro's ``HMCState`` without keys: the chain runner has a key for every transition.

    Attributes
    ----------
    spec, design, groups, num_groups, y, weight, rows
        The arguments of ``model.numpyro_model``.
    probe_rows
        Rows at which eta is reported.
    streams, stream_rows
        Rows at which predictive moments are gathered, by name, and the likelihood's row data there.
    target_accept
        Mean acceptance probability that the step size is adapted to.
    standardised
        Sites in non-centred parametrisation.
    num_warmup
        Transitions with adaptation of step size and mass matrix.
    max_tree_depth
        Doublings of a trajectory, at most.
    keep
        Names of the sites to be reported.
    """

    spec: ModelSpec
    design: DesignArrays
    groups: Int[Array, " p"]
    y: Float[Array, " n"]
    weight: Float[Array, " n"]
    rows: RowData
    stream_rows: dict[str, RowData]
    probe_rows: Int[Array, " probe"]
    streams: dict[str, DesignArrays]
    target_accept: float
    num_groups: int
    standardised: Shapes
    num_warmup: int
    max_tree_depth: int
    keep: tuple[str, ...]

    @property
    def coordinates(self) -> Coordinates:
        """What NUTS moves in."""
        return Coordinates(self.model, self.standardised)

    def model(self) -> None:
        """The joint density, data bound."""
        numpyro_model(self.spec, self.design, self.groups, self.num_groups, self.y, self.weight, self.rows)

    def init(self, key: Key[Array, ""]) -> HMCState:
        """Start at a point that the prior thinks likely."""
        key_sites, key_state = jax.random.split(key)
        return self._start(key_state, self.coordinates.from_prior(key_sites))

    def init_at(self, key: Key[Array, ""], sites: Mapping[str, Array]) -> HMCState:
        """Start at given sites."""
        return self._start(key, self.coordinates.of_sites(sites))

    def site_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every site that a start has to name."""

        def values() -> dict[str, Array]:
            return self.coordinates.sites(self.coordinates.from_prior(jax.random.key(0)))

        return {name: x.shape for name, x in jax.eval_shape(values).items() if name in site_dims(self.spec)}

    def _start(self, key: Key[Array, ""], z: dict[str, Array]) -> HMCState:
        start, _ = self._hmc()
        return _without_keys(start(z, rng_key=key))

    def sweep(self, key: Key[Array, ""], state: HMCState) -> HMCState:
        """One transition, with adaptation while the chain warms up."""
        start, transition = self._hmc()
        jax.eval_shape(start, state.z)  # hmc() learns its settings by the way
        return _without_keys(transition(state._replace(rng_key=key)))

    def _hmc(self) -> tuple[Callable[..., HMCState], Callable[..., HMCState]]:
        start, transition = hmc(potential_fn=self.coordinates.potential, algo="NUTS")
        settings = {"target_accept_prob": self.target_accept, "max_tree_depth": self.max_tree_depth}
        return partial(start, num_warmup=self.num_warmup, **settings), transition

    def report(self, state: HMCState) -> tuple[dict[str, Array], dict[str, Array]]:
        """Kept sites; statistics of the draw as Gibbs has them, and of the transition by ArviZ's names."""
        sites = self._sites(state)
        stats = draw_stats(
            self.spec, self.groups, Observed(self.y, self.weight, self.rows), sites, sites["eta"]
        )
        stats |= {
            "diverging": state.diverging,
            "n_steps": state.num_steps,
            "tree_depth": _bit_length(state.num_steps),
            "acceptance_rate": state.accept_prob,
            "energy": state.energy,
            "step_size": state.adapt_state.step_size,
        }
        sites["eta"] = sites["eta"][..., self.probe_rows]
        return {name: sites[name] for name in self.keep}, stats

    def moments(self, key: Key[Array, ""], state: HMCState) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of y at the rows of every stream; unseen levels are drawn from their group's prior."""
        return row_moments(key, self.spec, self._sites(state), self.streams, self.stream_rows)

    def _sites(self, state: HMCState) -> dict[str, Array]:
        """All sites, with those of rank 0, which the model does not have, as arrays without values."""
        sites = self.coordinates.sites(state.z)
        sizes = {
            "group": self.num_groups,
            "factor": self.spec.predictor.rank,
            "feature": self.design.num_features,
            **self.spec.likelihood.sizes,
        }
        for name, dims in site_dims(self.spec).items():
            if name not in sites and not self.spec.predictor.rank:
                sites[name] = jnp.zeros([sizes[d] for d in dims], self.y.dtype)
        return sites


def _without_keys(state: HMCState) -> HMCState:
    return state._replace(rng_key=None, adapt_state=state.adapt_state._replace(rng_key=None))


def _bit_length(count: Int[Array, ""]) -> Int[Array, ""]:
    """Depth of the tree in which so many steps lie: a tree of depth d has 2^d - 1 of them when it is full."""
    bits: Any = jnp.iinfo(count.dtype).bits
    return bits - lax.clz(count)
