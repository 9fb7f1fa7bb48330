"""Mean-field inference by coordinate ascent: the engine's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_choice, check_count
from bayesfm.design import Design
from bayesfm.inference.ascent import AscentOptions, climb
from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.conjugate.belief_kernel import BeliefKernel, roots
from bayesfm.inference.conjugate.kernel import belief_data, report_options
from bayesfm.inference.draws import Draws
from bayesfm.inference.problem import as_draws, prepare
from bayesfm.inference.start import point_sites
from bayesfm.inference.validation import validation_rows
from bayesfm.inference.vi.cavi import BeliefState, MeanField
from bayesfm.inference.vi.scales import start_beliefs
from bayesfm.model import ModelSpec

__all__ = ["SCALES", "cavi"]

SCALES = ("conditional", "point")
"""What becomes of hyperparameters in the draws."""


def cavi(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: AscentOptions | None = None,
    num_samples: int = 500,
    scales: str = "conditional",
    start: Mapping[str, Any] | None = None,
    validation: tuple[Any, ...] | None = None,
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> Draws:
    """Approximate the posterior by independent normals, one per feature, found by coordinate ascent.

    Every feature's (w_j, v_j) has a normal distribution of its own with a full covariance; hyperparameters and the
    parameters of the likelihood are points that maximise the evidence lower bound (variational empirical Bayes). The
    augmentations of the Gibbs sweep make every step one in closed form, so that the bound never falls.

    Parameters
    ----------
    key, spec, design, y, weight, row_data, keep, streams, stream_row_data
        As for :func:`bayesfm.gibbs`. Likelihoods with several linear predictors, or without an augmentation, are
        refused.
    options : AscentOptions, optional
        Iterations, tolerance, progress.
    num_samples : int, default=500
        Independent draws from the approximation.
    scales : {"conditional", "point"}
        In the draws, hyperparameters and parameters of the likelihood from their full conditionals given w0, w and v,
        or at the values that were found.
    start : mapping of str to array, optional
        w0, w and v by site, where the means start; by default w = 0 and small random v.
    validation : tuple, optional
        ``(design, y)`` or ``(design, y, weight, row_data)`` of held-out rows: the ascent stops when their log density
        no longer rises.

    Returns
    -------
    Draws
        One chain. ``info["elbo"]`` has the bound before every iteration and at the end, up to a constant.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was expected and what came.
    FloatingPointError
        If the bound leaves the finite numbers.

    References
    ----------
    Lim & Teh (2007), Variational Bayesian approach to movie rating prediction, KDD Cup. Jaakkola & Jordan (2000),
    Statistics and Computing 10. Blei, Kucukelbir & McAuliffe (2017), Variational inference: a review, JASA 112.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import AscentOptions, Block, Design, cavi, default_spec
    >>> design = Design((Block.field("user", np.array([0, 0, 1, 1]), np.array(["ann", "bob"])),))
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> options = AscentOptions(max_iterations=20, progress=False)
    >>> draws = cavi(jax.random.key(0), default_spec(y, rank=2), design, y, options=options, num_samples=10)
    >>> draws.sites["w"].shape
    (1, 10, 2)
    """
    options = options or AscentOptions()
    check_choice("scales", scales, SCALES)
    check_count("num_samples", num_samples, minimum=1)
    if not spec.likelihood.has_bound:
        raise ValueError(
            f"{type(spec.likelihood).__name__} has no bound for coordinate ascent: use "
            f"{'gibbs, ' if spec.likelihood.conjugate else ''}nuts, map, laplace, svi or stochastic_map"
        )
    problem = prepare(spec, design, y, weight, row_data)
    data = belief_data(design, problem)
    climber = MeanField(problem.spec, data, validation_rows(problem, spec, validation))
    key_start, key_draws = jax.random.split(key)
    given = {} if start is None else _floats(point_sites(start, spec, design.num_features, problem.centre))
    state, ascent = climb(climber, start_beliefs(climber, key_start, given), options, design.num_rows)
    kernel = _belief_kernel(
        state, problem.spec, data, scales, report_options(problem, keep, streams, stream_row_data)
    )
    run = run_chains(kernel, key_draws, ChainOptions(0, num_samples, num_chains=1, progress=False))
    info = {
        "engine": "cavi",
        "elbo": ascent.objective.tolist(),
        "validation": dict(zip(ascent.looked_at.tolist(), ascent.scores.tolist(), strict=True)),
        "converged": ascent.converged,
        "iterations": ascent.iterations,
        "seconds_to_the_mode": ascent.seconds,
        "scales": scales,
    }
    return as_draws(run, spec, problem.centre, problem.probe_rows, info)


def _floats(sites: dict[str, np.ndarray]) -> dict[str, Array]:
    return {name: jnp.asarray(x, jnp.zeros(()).dtype) for name, x in sites.items()}


def _belief_kernel(
    state: BeliefState, spec: ModelSpec, data: Any, scales: str, report: dict[str, Any]
) -> BeliefKernel:
    return BeliefKernel(
        spec=spec,
        data=data,
        point=state.point,
        w0_sd=jnp.sqrt(state.w0_variance),
        root=jax.jit(roots)(state.beliefs),
        scales=scales,
        **report,
    )
