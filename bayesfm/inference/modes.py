"""The mode of the posterior, and draws around it: scales from mean-field beliefs, then the engine of modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_choice, check_count
from bayesfm.design import Design
from bayesfm.inference.ascent import AscentOptions
from bayesfm.inference.conjugate.kernel import belief_data, report_options
from bayesfm.inference.conjugate.state import ModelData
from bayesfm.inference.draws import Draws
from bayesfm.inference.map.mode import find_mode, random_start
from bayesfm.inference.map.run import mode_draws
from bayesfm.inference.problem import Problem, prepare
from bayesfm.inference.start import point_sites
from bayesfm.inference.validation import validation_rows
from bayesfm.inference.vi.scales import estimate_scales, start_sites
from bayesfm.model import ModelSpec
from bayesfm.priors import Sizes

__all__ = ["find_map", "laplace"]

SHRINKAGE = 2.0
"""Factor of the prior precision of v in a mode where nothing says better; measured, see docs/engines.md."""

SCALE_ITERATIONS = 100
"""Mean-field iterations that estimate scales; measured, see docs/engines.md."""


def find_map(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    optimiser: str = "auto",
    scales: str | Mapping[str, Any] = "estimate",
    scale_iterations: int = SCALE_ITERATIONS,
    shrinkage: float | str = "auto",
    start: str | Mapping[str, Any] = "random",
    options: AscentOptions | None = None,
    validation: tuple[Any, ...] | None = None,
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> Draws:
    """The posterior mode of w0, w and v, given scales that maximise the evidence.

    The joint mode of hierarchical scales and what they scale lies where both vanish, so that scales (hyperparameters
    and parameters of the likelihood) are estimated first, under mean-field beliefs.

    Parameters
    ----------
    key, spec, design, y, weight, row_data, keep, streams, stream_row_data
        As for :func:`bayesfm.gibbs`; every likelihood and every prior.
    optimiser : {"auto", "als", "lbfgs"}
        Alternating least squares (Gibbs sweeps without noise), for likelihoods that have a Gibbs sweep with one linear
        predictor; or L-BFGS, for all. "auto" takes the former where it can.
    scales : "estimate", "prior" or mapping of str to array
        Hyperparameters: those of largest evidence under mean-field beliefs; where the prior starts a chain; or given by
        the names of their sites, all of them.
    scale_iterations : int, default=100
        Mean-field iterations at most that estimate scales and the parameters of the likelihood: most of the time of a
        mode. A quarter of them gives a slightly worse mode in about half the time (docs/engines.md).
    shrinkage : float, "validation" or "auto"
        Factor of the prior precision of v. A mode takes the factors of all others at their word, where a posterior mean
        knows how uncertain they are, and fits too closely with the scales of the posterior. "validation" tries 1, 1.5,
        2, 3, 4, 6 until held-out rows are predicted worse; "auto" does so where there are such rows, and is 2 where
        there are none (measured, see docs/engines.md).
    start : "random", "mean-field" or mapping of str to array
        Where w0, w and v start: small random v; the means of the beliefs that estimated the scales; or sites by name.
    options : AscentOptions, optional
        Iterations, tolerance, patience, progress.
    validation : tuple, optional
        ``(design, y)`` or ``(design, y, weight, row_data)`` of held-out rows: the ascent stops when their log density
        no longer rises, and the best state is kept.

    Returns
    -------
    Draws
        One chain with one draw. ``info["objective"]`` has the log posterior given scales, iteration by iteration.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was expected and what came.
    FloatingPointError
        If the ascent leaves the finite numbers.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import AscentOptions, Block, Design, default_spec, find_map
    >>> design = Design((Block.field("user", np.array([0, 0, 1, 1]), np.array(["ann", "bob"])),))
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> options = AscentOptions(max_iterations=20, progress=False)
    >>> find_map(jax.random.key(0), default_spec(y, rank=1), design, y, options=options).sites["w"].shape
    (1, 1, 2)
    """
    return _around_mode(
        key,
        spec,
        design,
        y,
        num_samples=0,
        sample_scales="point",
        engine_name="map",
        weight=weight,
        row_data=row_data,
        optimiser=optimiser,
        scales=scales,
        scale_iterations=scale_iterations,
        shrinkage=shrinkage,
        start=start,
        options=options,
        validation=validation,
        keep=keep,
        streams=streams,
        stream_row_data=stream_row_data,
    )


def laplace(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    num_samples: int = 500,
    sample_scales: str = "conditional",
    **settings: Any,
) -> Draws:
    """The Laplace approximation in blocks: normals around the mode of :func:`find_map`, one per feature.

    Parameters
    ----------
    key, spec, design, y
        As for :func:`find_map`.
    num_samples : int, default=500
        Independent draws.
    sample_scales : {"conditional", "point"}
        In the draws, hyperparameters and parameters of the likelihood from their full conditionals given w0, w and v,
        or at their estimates.
    **settings
        Everything else that :func:`find_map` takes.

    Returns
    -------
    Draws
        One chain.

    References
    ----------
    Tierney & Kadane (1986), Accurate approximations for posterior moments and marginal densities, JASA 81.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import AscentOptions, Block, Design, default_spec, laplace
    >>> design = Design((Block.field("user", np.array([0, 0, 1, 1]), np.array(["ann", "bob"])),))
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> settings = {"options": AscentOptions(max_iterations=20, progress=False), "num_samples": 10}
    >>> laplace(jax.random.key(0), default_spec(y, rank=1), design, y, **settings).sites["w"].shape
    (1, 10, 2)
    """
    check_count("num_samples", num_samples, minimum=1)
    check_choice("sample_scales", sample_scales, ("conditional", "point"))
    given: dict[str, Any] = {
        "num_samples": num_samples,
        "sample_scales": sample_scales,
        "engine_name": "laplace",
    }
    return _around_mode(key, spec, design, y, **given, **settings)


def _around_mode(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    num_samples: int,
    sample_scales: str,
    engine_name: str,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    optimiser: str = "auto",
    scales: str | Mapping[str, Any] = "estimate",
    scale_iterations: int = SCALE_ITERATIONS,
    shrinkage: float | str = "auto",
    start: str | Mapping[str, Any] = "random",
    options: AscentOptions | None = None,
    validation: tuple[Any, ...] | None = None,
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> Draws:
    """Scales, then the mode, then draws around it."""
    options = options or AscentOptions()
    problem = prepare(spec, design, y, weight, row_data)
    held_out = validation_rows(problem, spec, validation)
    if shrinkage == "auto":
        shrinkage = SHRINKAGE if held_out is None else "validation"
    report = report_options(problem, keep, streams, stream_row_data)
    key_scales, key_start, key_draws = jax.random.split(key, 3)
    own = replace(
        options, max_iterations=check_count("scale_iterations", scale_iterations, minimum=1), callback=None
    )
    data = belief_data(design, problem)
    sites, seconds = _scales_and_means(
        key_scales, problem, data, own, _held_scales(scales, spec, design), start
    )
    sites |= _start_of(start, key_start, problem, design)
    mode = find_mode(
        problem,
        design,
        sites,
        optimiser=optimiser,
        shrinkage=shrinkage,
        options=options,
        validation=held_out,
    )
    info = {
        "engine": engine_name,
        "objective": mode.ascent.objective.tolist(),
        "validation": dict(zip(mode.ascent.looked_at.tolist(), mode.ascent.scores.tolist(), strict=True)),
        "shrinkage": mode.shrinkage,
        "shrinkage_scores": {str(factor): score for factor, score in mode.scores.items()},
        "converged": mode.ascent.converged,
        "iterations": mode.ascent.iterations,
        "seconds_for_scales": seconds,
        "seconds_to_the_mode": mode.ascent.seconds,
    }
    return mode_draws(
        key_draws,
        mode,
        problem,
        spec,
        data,
        report,
        num_samples=num_samples,
        scales=sample_scales,
        info=info,
    )


def _scales_and_means(
    key: Key[Array, ""],
    problem: Problem,
    data: ModelData,
    options: AscentOptions,
    held: Mapping[str, Any] | None,
    start: str | Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], float]:
    """Sites at the means of mean-field beliefs, and the seconds that took; no beliefs where nobody asks for them."""
    spec = problem.spec
    known = held is not None or not any(prior.hyper_names() for prior in (spec.prior_w, spec.prior_v))
    if known and not spec.likelihood.dims and start != "mean-field":
        given = {name: jnp.asarray(x, data.y.dtype) for name, x in (held or {}).items()}
        return {name: np.asarray(x) for name, x in start_sites(key, spec, data, given).items()}, 0.0
    estimated = estimate_scales(key, problem, data, options, held)
    return estimated.sites, estimated.ascent.seconds


def _held_scales(
    scales: str | Mapping[str, Any], spec: ModelSpec, design: Design
) -> dict[str, np.ndarray] | None:
    """Hyperparameters that are known, or None."""
    priors = {"w": (spec.prior_w, ()), "v": (spec.prior_v, (spec.predictor.rank,))}
    if isinstance(scales, str):
        check_choice("scales", scales, ("estimate", "prior"))
        if scales == "estimate":
            return None
        sizes = {
            x: Sizes(len(design.group_names), design.num_features, columns)
            for x, (_, columns) in priors.items()
        }
        initial = {x: prior.initial(sizes[x]) for x, (prior, _) in priors.items()}
        outputs = spec.likelihood.outputs
        return {
            f"{name}_{x}": np.broadcast_to(value, (*outputs, *np.shape(value)))
            for x, hyper in initial.items()
            for name, value in hyper.items()
        }
    names = [f"{name}_{x}" for x, (prior, _) in priors.items() for name in prior.hyper_names()]
    missing, unknown = sorted(set(names) - set(scales)), sorted(set(scales) - set(names))
    if missing or unknown:
        raise ValueError(
            f"scales must name the hyperparameters {', '.join(names)}, all of them and no others; missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    return {name: np.asarray(scales[name], np.float64) for name in names}


def _start_of(
    start: str | Mapping[str, Any], key: Key[Array, ""], problem: Problem, design: Design
) -> dict[str, np.ndarray]:
    """w0, w and v that replace the means of the beliefs."""
    if isinstance(start, str):
        check_choice("start", start, ("random", "mean-field"))
        return random_start(key, problem, design) if start == "random" else {}
    return point_sites(start, problem.spec, design.num_features, problem.centre)
