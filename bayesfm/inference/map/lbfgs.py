"""L-BFGS on all rows at once: for every likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from bayesfm._pytree import pytree
from bayesfm.design.gradient import GradientArrays
from bayesfm.inference.validation import Validation
from bayesfm.likelihoods.base import Observed
from bayesfm.model import ModelSpec, log_prior_of_features

__all__ = ["LBFGS", "LBFGSState"]

MEMORY = 10
"""Pairs of steps and changes of the gradient that are remembered."""


class LBFGSState(NamedTuple):
    """Where it is (w0, w, v), what stays as it is (scales, parameters), the objective there, and the memory."""

    moving: dict[str, Array]
    fixed: dict[str, Array]
    height: Float[Array, ""]
    memory: Any

    @property
    def sites(self) -> dict[str, Array]:
        """All sites."""
        return {**self.fixed, **self.moving}


@pytree()
@dataclass(frozen=True)
class LBFGS:
    """A model on one data set, to be climbed (an ``inference.ascent.Climber``); scales stay where they are.

    References
    ----------
    Liu & Nocedal (1989), On the limited memory BFGS method, Mathematical Programming 45. Line search: Nocedal & Wright
    (2006), Numerical Optimization, algorithms 3.5 and 3.6.
    """

    spec: ModelSpec
    design: GradientArrays
    observed: Observed
    groups: Any
    validation: Validation | None

    @property
    def _optimiser(self) -> optax.GradientTransformationExtraArgs:
        return optax.lbfgs(memory_size=MEMORY)

    def start(self, sites: dict[str, Array]) -> LBFGSState:
        """At these sites, remembering nothing."""
        names = ("w0", "w", "v") if self.spec.intercept is not None else ("w", "v")
        moving = {name: sites[name] for name in names}
        fixed = {name: x for name, x in sites.items() if name not in names}
        return LBFGSState(moving, fixed, -self._depth(moving, fixed), self._optimiser.init(moving))

    def eta(self, sites: dict[str, Array]) -> Float[Array, "*L n"]:
        """Linear predictor of all rows."""
        w0 = sites.get("w0", jnp.zeros(self.spec.likelihood.outputs, self.observed.y.dtype))
        of_output = partial(self.spec.predictor.eta, self.design)
        if self.spec.likelihood.outputs:
            return lax.map(lambda own: of_output(*own), (w0, sites["w"], sites["v"]))
        return of_output(w0, sites["w"], sites["v"])

    def _depth(self, moving: dict[str, Array], fixed: dict[str, Array]) -> Float[Array, ""]:
        sites = {**fixed, **moving}
        params = {name: sites[name] for name in self.spec.likelihood.dims}
        of_rows = self.spec.likelihood.log_likelihood(self.observed, self.eta(sites), params)
        return -of_rows - log_prior_of_features(self.spec, self.groups, sites)

    def step(self, state: LBFGSState) -> LBFGSState:
        """One iteration, line search and all."""
        depth = partial(self._depth, fixed=state.fixed)
        value, gradient = optax.value_and_grad_from_state(depth)(state.moving, state=state.memory)
        change, memory = self._optimiser.update(
            gradient, state.memory, state.moving, value=value, grad=gradient, value_fn=depth
        )
        moving = optax.apply_updates(state.moving, change)
        return state._replace(moving=moving, height=-optax.tree.get(memory, "value"), memory=memory)

    def objective(self, state: LBFGSState) -> Float[Array, ""]:
        """Log-likelihood plus log p(w0, w, v | scales)."""
        return state.height

    def score(self, state: LBFGSState) -> Float[Array, ""]:
        """Mean log density of the validation rows."""
        if self.validation is None:
            return jnp.asarray(jnp.nan)
        return self.validation.score(self.spec, state.sites)
