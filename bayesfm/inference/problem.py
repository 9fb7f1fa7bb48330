"""What engines do with a model, a design and a response before they sample, and with their draws afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bayesfm._checks import check_weight
from bayesfm.design import Design
from bayesfm.inference.draws import Draws, StreamedMoments
from bayesfm.inference.identified import CENTRED, NUM_PROBES
from bayesfm.likelihoods.base import check_row_data
from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors import PerGroup

__all__ = [
    "NUM_PROBES",
    "Problem",
    "as_draws",
    "check_groups",
    "kept_sites",
    "prepare",
    "rows_of_streams",
    "start_sd",
]


class Problem(NamedTuple):
    """A checked and centred problem, on the host in float64.

    In float32 a response of 1e6 +- 1 would lose its digits; ``centre`` is taken off y here, and off the prior mean of
    w0 in ``spec``, which leaves the model the same. :func:`as_draws` gives it back. ``rows`` is the likelihood's row
    data, ``spread`` how far eta is expected to go.
    """

    spec: ModelSpec
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    rows: dict[str, np.ndarray]
    centre: float
    spread: float
    probe_rows: Int[np.ndarray, " probe"]


def prepare(
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
) -> Problem:
    """Check y, weight and row data, centre y, choose the probe rows.

    Raises
    ------
    ValueError
        If y is no response of this likelihood, or y or weight have not one value per row; if a prior per group has
        other groups than the design, or in another order.
    """
    check_groups(spec, design)
    y, likelihood = np.asarray(y), spec.likelihood
    if y.shape != (design.num_rows,):
        raise ValueError(
            f"y must have shape ({design.num_rows},), one value per row of the design; got {y.shape}"
        )
    weight = check_weight(weight, len(y))
    rows = check_row_data(likelihood, row_data, len(y))
    y = likelihood.validate(y, weight, rows)
    likelihood.check_training(rows)
    _, spread = likelihood.expected_eta(y, weight, rows)
    centre, centred = 0.0, spec
    if spec.intercept is not None:
        centre = likelihood.centre(y, weight)
        centred = replace(spec, intercept=replace(spec.intercept, mean=spec.intercept.mean - centre))
    rng = np.random.default_rng(0)
    probes = np.sort(rng.choice(design.num_rows, min(NUM_PROBES, design.num_rows), replace=False))
    weight = np.ones(len(y)) if weight is None else weight
    return Problem(centred, y - centre, weight, rows, centre, spread, probes)


def check_groups(spec: ModelSpec, design: Design) -> None:
    """Refuse a prior per group whose groups are not those of the design, in their order."""
    groups = [str(name) for name in design.group_names]
    spec.for_groups(groups)  # raises if there are others
    named = [prior.groups for prior in (spec.prior_w, spec.prior_v) if isinstance(prior, PerGroup)]
    if any(names != tuple(groups) for names in named):
        raise ValueError(
            f"priors per group must be in the order of the design's groups, {', '.join(groups)}: "
            "spec.for_groups(design.group_names) has them so"
        )


def start_sd(design: Design, spread: float, rank: int) -> float:
    """Standard deviation of v at which the interactions of a row start with a tenth of the spread of eta.

    With v_jf ~ N(0, s^2) the pairwise part of eta has variance k s^4 c, c = 1/2 [(sum x^2)^2 - sum x^4]; rows with
    thousands of non-zeros need a far smaller start than rows with two.
    """
    squares, fourths = np.zeros(design.num_rows), np.zeros(design.num_rows)
    for block in design.blocks:
        if block.X is None:
            squares, fourths = squares + 1, fourths + 1
            continue
        at_rows = slice(None) if block.index is None else block.index
        squares += block.X.power(2).sum(axis=1)[at_rows]
        fourths += block.X.power(4).sum(axis=1)[at_rows]
    pairs = 0.5 * float(np.mean(squares**2 - fourths))
    return (0.01 * spread**2 / (max(rank, 1) * pairs)) ** 0.25 if pairs > 0 else 0.1 * spread**0.5


def rows_of_streams(
    spec: ModelSpec,
    streams: Mapping[str, Design],
    dtype: Any,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Row data of the streams: what is given of each, and what the likelihood takes where nothing is said.

    Raises
    ------
    ValueError
        If y is of a kind that has no moments to be gathered, or row data are missing or wrong.
    """
    if streams and not spec.likelihood.has_moments:
        raise ValueError(
            "streams (predict_rows= of an estimator) gather mean and variance of y, and there is neither under "
            f"{type(spec.likelihood).__name__}: keep w and v, and ask for predictive_probabilities (predict_proba)"
        )
    given = given or {}
    rows = {name: check_row_data(spec.likelihood, given.get(name), x.num_rows) for name, x in streams.items()}
    return {name: {k: v.astype(dtype) for k, v in own.items()} for name, own in rows.items()}


def kept_sites(keep: Sequence[str] | str, spec: ModelSpec) -> tuple[str, ...]:
    """Names of the sites that ``keep`` asks for: "all", "hyper" (all but w and v), or names.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    known = [*site_dims(spec), "eta"]
    if keep == "all":
        return tuple(known)
    if keep == "hyper":
        return tuple(name for name in known if "feature" not in site_dims(spec).get(name, ()))
    names = (keep,) if isinstance(keep, str) else tuple(keep)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"keep names unknown site(s) {', '.join(unknown)}; known: all, hyper, or any of {', '.join(known)}"
        )
    return tuple(name for name in known if name in names)


def as_draws(
    run: tuple[dict[str, Any], dict[str, np.ndarray], dict[str, StreamedMoments], dict[str, Any]],
    spec: ModelSpec,
    centre: float,
    probe_rows: Int[np.ndarray, " probe"],
    info: Mapping[str, Any],
) -> Draws:
    """What ``run_chains`` returned, of the problem as the user states it.

    w0, eta and predictive means get the centre back; ``info`` comes before what the run says of itself.
    """
    sites, stats, moments, of_run = run
    for name in set(CENTRED) & set(sites):
        sites[name] = np.asarray(sites[name], np.float64) + centre
    streams = {name: replace(m, mean=m.mean + centre) for name, m in moments.items()}
    dims = {**site_dims(spec), "eta": (*spec.likelihood.output_dims, "probe")}
    kept = {name: dims[name] for name in sites}
    return Draws(sites, kept, stats, probe_rows, streams, {**info, **of_run})
