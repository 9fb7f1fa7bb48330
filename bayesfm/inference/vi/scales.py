"""Scales for engines that cannot find them: estimated under mean-field beliefs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm.inference.ascent import Ascent, AscentOptions, climb
from bayesfm.inference.conjugate.state import (
    ModelData,
    ModelState,
    initial_state,
    theta_of_units,
    to_sites,
)
from bayesfm.inference.problem import Problem
from bayesfm.inference.vi.cavi import BeliefState, MeanField
from bayesfm.model import ModelSpec

__all__ = ["Scales", "estimate_scales", "start_beliefs", "start_sites"]


class Scales(NamedTuple):
    """All sites at the means of mean-field beliefs, of the centred problem, and how the ascent went."""

    sites: dict[str, np.ndarray]
    ascent: Ascent


def estimate_scales(
    key: Key[Array, ""],
    problem: Problem,
    data: ModelData,
    options: AscentOptions,
    held: Mapping[str, Float[np.ndarray, "..."]] | None = None,
) -> Scales:
    """Hyperparameters and parameters of the likelihood that maximise the evidence under mean-field beliefs.

    Parameters
    ----------
    key : typed key
        For the start.
    problem : Problem
        Checked and centred.
    data : ModelData
        Its rows on the device.
    options : AscentOptions
        Iterations, tolerance, progress.
    held : mapping of str to array, optional
        Hyperparameters, by the names of their sites, that are known: all of them, or none. The parameters of the
        likelihood are then estimated alone.

    Returns
    -------
    Scales
    """
    climber = MeanField(problem.spec, data, None, fit_scales=not held)
    known = {name: jnp.asarray(x, data.y.dtype) for name, x in (held or {}).items()}
    state, ascent = climb(climber, start_beliefs(climber, key, known), options, len(problem.y))
    sites = jax.jit(to_sites)(state.point, data.layout)
    return Scales({name: np.asarray(x) for name, x in sites.items()}, ascent)


@jax.jit
def start_sites(
    key: Key[Array, ""], spec: ModelSpec, data: ModelData, held: dict[str, Array]
) -> dict[str, Array]:
    """All sites at a random start, with hyperparameters that are held: where there is nothing to estimate."""
    return to_sites(_with_hyper(initial_state(key, spec, data), held), data.layout)


@jax.jit
def start_beliefs(climber: MeanField, key: Key[Array, ""], held: dict[str, Array]) -> BeliefState:
    """Beliefs at a random start, with what is held: hyperparameters by site, or w0, w and v."""
    point = initial_state(key, climber.spec, climber.data)
    if "w" in held:
        theta = theta_of_units(held["w"], held["v"], climber.data.layout)
        point = point._replace(w0=held.get("w0", point.w0), theta=theta)
    return climber.start(_with_hyper(point, held))


def _with_hyper(point: ModelState, held: Mapping[str, Array]) -> ModelState:
    return point._replace(
        hyper_w={name: held.get(f"{name}_w", x) for name, x in point.hyper_w.items()},
        hyper_v={name: held.get(f"{name}_v", x) for name, x in point.hyper_v.items()},
    )
