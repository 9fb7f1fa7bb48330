"""From a mode to draws: the point itself, or the Laplace approximation around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.conjugate.belief_kernel import BeliefKernel, roots
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelData, ModelState, from_sites
from bayesfm.inference.draws import Draws
from bayesfm.inference.map.laplace import laplace_blocks
from bayesfm.inference.map.mode import Mode
from bayesfm.inference.problem import Problem, as_draws
from bayesfm.model import ModelSpec

__all__ = ["mode_draws"]


def mode_draws(
    key: Key[Array, ""],
    mode: Mode,
    problem: Problem,
    spec: ModelSpec,
    data: ModelData,
    report: Mapping[str, Any],
    *,
    num_samples: int,
    scales: str,
    info: Mapping[str, Any],
) -> Draws:
    """Draws around a mode, one chain of them; with ``num_samples`` 0 a single draw, the mode itself.

    w0 and every (w_j, v_j) come from normals around the mode, whose covariance is the inverse curvature of the log
    posterior in the block of that feature; scales come from their conditionals (``scales="conditional"``) or stay
    (``"point"``).
    """
    state = _state(problem.spec, data, mode.sites)
    w0_sd, root = jnp.zeros_like(state.w0), None
    if num_samples:
        blocks = jax.jit(laplace_blocks)(problem.spec, data, state)
        w0_sd, root = jnp.sqrt(blocks.w0_variance), jax.jit(roots)(blocks.beliefs)
    kernel = BeliefKernel(
        spec=problem.spec,
        data=data,
        point=state,
        w0_sd=w0_sd,
        root=root,
        scales=scales if num_samples else "point",
        **report,
    )
    options = ChainOptions(0, max(1, num_samples), num_chains=1, progress=False)
    run = run_chains(kernel, key, options)
    return as_draws(run, spec, problem.centre, problem.probe_rows, {**info, "point": not num_samples})


@jax.jit
def _state(spec: ModelSpec, data: ModelData, sites: dict[str, Array]) -> ModelState:
    state = from_sites(sites, spec, data)

    def eta_of(own: tuple[Array, Any]) -> Array:
        return linear_predictor(spec.predictor, data.layout, *own)

    own = (state.w0, state.theta)
    return state._replace(eta=lax.map(eta_of, own) if spec.likelihood.outputs else eta_of(own))
