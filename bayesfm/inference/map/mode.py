"""The mode of the posterior of w0, w and v given scales, by either optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from bayesfm import native
from bayesfm._checks import check_choice, check_finite
from bayesfm.design import Design
from bayesfm.design.gradient import GradientArrays
from bayesfm.design.layout import build_layout
from bayesfm.inference.ascent import Ascent, AscentOptions, climb
from bayesfm.inference.conjugate.kernel import model_data
from bayesfm.inference.conjugate.state import from_sites, to_sites
from bayesfm.inference.map.als import AlternatingLeastSquares
from bayesfm.inference.map.lbfgs import LBFGS
from bayesfm.inference.map.shrinkage import shrunk
from bayesfm.inference.problem import Problem, start_sd
from bayesfm.inference.validation import Validation
from bayesfm.likelihoods.base import Observed
from bayesfm.model import ModelSpec

__all__ = ["OPTIMISERS", "SHRINKAGES", "Mode", "find_mode", "random_start"]

OPTIMISERS = ("auto", "als", "lbfgs")
SHRINKAGES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Factors of the prior precision of v that validation rows choose from."""


class Mode(NamedTuple):
    """All sites of the centred problem, how the ascent went, the factor of the prior precision, scores by factor."""

    sites: dict[str, Array]
    ascent: Ascent
    shrinkage: float
    scores: dict[float, float]


def find_mode(
    problem: Problem,
    design: Design,
    sites: Mapping[str, Any],
    *,
    optimiser: str = "auto",
    shrinkage: float | str = 1.0,
    options: AscentOptions | None = None,
    validation: Validation | None = None,
) -> Mode:
    """Maximise the log posterior of w0, w and v, given scales.

    Parameters
    ----------
    problem, design
        What is fitted, and to what.
    sites : mapping of str to array
        w0, w and v where the ascent starts; hyperparameters and parameters of the likelihood, which stay.
    optimiser : {"auto", "als", "lbfgs"}
        Alternating least squares, which needs a likelihood with a bound; or L-BFGS. "auto" takes the former where it
        can be had.
    shrinkage : float or "validation"
        Factor of the prior precision of v; or chosen from :data:`SHRINKAGES` by the validation rows.
    options : AscentOptions, optional
        Iterations, tolerance, progress.
    validation : Validation, optional
        The ascent stops when their log density no longer rises.

    Returns
    -------
    Mode
    """
    optimiser = _check_optimiser(optimiser, problem.spec)
    options, dtype = options or AscentOptions(), jnp.zeros(()).dtype
    given = {name: jnp.asarray(x, dtype) for name, x in sites.items()}
    climber: Any = (_als if optimiser == "als" else _lbfgs)(problem, design, validation)
    if not isinstance(shrinkage, str):
        if check_finite("shrinkage", shrinkage) <= 0:
            raise ValueError(f"shrinkage must be positive, got {shrinkage!r}")
        return _climb(climber, given, float(shrinkage), options, design.num_rows)
    check_choice("shrinkage", shrinkage, ("validation",))
    if validation is None:
        raise ValueError("shrinkage='validation' needs validation=, the rows that choose it")
    modes: list[Mode] = []
    for factor in SHRINKAGES:
        modes.append(_climb(climber, given, factor, options, design.num_rows))
        if len(modes) > 1 and modes[-1].scores[factor] < modes[-2].scores[modes[-2].shrinkage]:
            break
    best = max(modes, key=lambda mode: mode.scores[mode.shrinkage])
    return best._replace(scores={mode.shrinkage: mode.scores[mode.shrinkage] for mode in modes})


def random_start(key: Key[Array, ""], problem: Problem, design: Design) -> dict[str, np.ndarray]:
    """w = 0 and small random v, as chains start."""
    outputs, rank, p = problem.spec.likelihood.outputs, problem.spec.predictor.rank, design.num_features
    sd = start_sd(design, problem.spread, rank)
    v = sd * np.asarray(jax.random.normal(key, (*outputs, p, rank)))
    mean = 0.0 if problem.spec.intercept is None else problem.spec.intercept.mean
    return {"w0": np.full(outputs, mean), "w": np.zeros((*outputs, p)), "v": v}


def _check_optimiser(choice: str, spec: ModelSpec) -> str:
    check_choice("optimiser", choice, OPTIMISERS)
    if choice == "als" and not spec.likelihood.has_bound:
        raise ValueError(
            f"{type(spec.likelihood).__name__} has no bound for least squares: use optimiser='lbfgs'"
        )
    return ("als" if spec.likelihood.has_bound else "lbfgs") if choice == "auto" else choice


def _als(problem: Problem, design: Design, validation: Validation | None) -> AlternatingLeastSquares:
    use_native = native.available() and jax.default_backend() == "cpu" and not problem.spec.prior_v.full
    layout = build_layout(design, dtype=jnp.zeros(()).dtype.type, native=use_native)
    data = model_data(design, problem, layout)
    return AlternatingLeastSquares(problem.spec, data, validation, problem.spec.predictor.rank)


def _lbfgs(problem: Problem, design: Design, validation: Validation | None) -> LBFGS:
    dtype = jnp.zeros(()).dtype
    rows = {name: jnp.asarray(x, dtype) for name, x in problem.rows.items()}
    observed = Observed(jnp.asarray(problem.y, dtype), jnp.asarray(problem.weight, dtype), rows)
    groups = jnp.asarray(design.groups)
    return LBFGS(problem.spec, GradientArrays.from_design(design, dtype), observed, groups, validation)


def _climb(
    climber: Any, sites: dict[str, Array], factor: float, options: AscentOptions, num_rows: int
) -> Mode:
    climber = replace(climber, spec=shrunk(climber.spec, factor))
    state, ascent = climb(climber, _start(climber, sites), options, num_rows)
    score = float(np.max(ascent.scores)) if len(ascent.scores) else float("nan")
    return Mode(_sites(climber, state), ascent, factor, {factor: score})


@jax.jit
def _start(climber: Any, sites: dict[str, Array]) -> Any:
    if isinstance(climber, LBFGS):
        return climber.start(sites)
    return climber.start(from_sites(sites, climber.spec, climber.data))


@jax.jit
def _sites(climber: Any, state: Any) -> dict[str, Array]:
    return state.sites if isinstance(climber, LBFGS) else to_sites(state, climber.data.layout)
