"""NUTS on a model: the engine's front door."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_choice, check_count, check_finite
from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.gradient import GradientArrays
from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.draws import Draws
from bayesfm.inference.identified import Identified
from bayesfm.inference.nuts.coordinates import loc_scale_sites
from bayesfm.inference.nuts.kernel import NutsKernel
from bayesfm.inference.problem import Problem, as_draws, kept_sites, prepare, rows_of_streams
from bayesfm.inference.start import start_sites
from bayesfm.model import ModelSpec
from bayesfm.term import fm_dims

__all__ = ["DivergenceWarning", "nuts", "nuts_kernel"]


class DivergenceWarning(UserWarning):
    """Trajectories left the energy level that they should have stayed on: parts of the posterior may be missing."""


def nuts(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: ChainOptions | None = None,
    start: Mapping[str, Any] | Draws | str = "prior",
    parametrization: str = "non-centred",
    target_accept: float = 0.8,
    max_tree_depth: int = 10,
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> Draws:
    """Sample the posterior of a model by the No-U-Turn sampler.

    The transitions are NumPyro's, on ``model.numpyro_model``; chains, thinning, streams, checkpoints and resumption are
    those of :func:`bayesfm.inference.chains.run_chains`, as for every engine.

    Parameters
    ----------
    key : typed key
        ``jax.random.key(seed)``.
    spec : ModelSpec
        The model.
    design : Design
        n rows, p features.
    y : array of shape (n,)
        Response.
    weight : array of shape (n,), optional
        A row of weight c counts as c equal rows.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row, for instance ``{"exposure": ...}`` of counts.
    options : ChainOptions, optional
        Chains, counts, progress, checkpoint. The step size and the diagonal mass matrix are adapted during
        ``num_warmup``.
    start : "prior", Draws or mapping of str to array
        Where chains start: at draws from the prior given precisions at their prior means; at the last draw of every
        chain of an earlier run; at sites by name, each of the site's shape or with a leading axis of chains.
        :func:`bayesfm.nuts` also starts from Gibbs.
    parametrization : {"non-centred", "centred"}
        Move in standardised coordinates of all sites of the prior that are loc + scale z, or in the sites themselves.
        Centred is better where every feature has many rows.
    target_accept : float, default=0.8
        Acceptance probability that the step size is adapted to; closer to 1 takes smaller steps.
    max_tree_depth : int, default=10
        A trajectory has at most 2^max_tree_depth - 1 steps, each of which costs a gradient.
    keep : "all", "hyper" or sequence of str
        Sites to store per draw; "hyper" leaves out w and v.
    streams : mapping of str to Design, optional
        Rows whose predictive moments are gathered while sampling.
    stream_row_data : mapping of str to mapping, optional
        Row data of these rows, by name of the stream.

    Returns
    -------
    Draws
        Sites as :func:`bayesfm.gibbs` has them; statistics also ``diverging``, ``n_steps``, ``tree_depth``,
        ``acceptance_rate``, ``energy`` and ``step_size`` of the transition that led to the draw.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was expected and what came.

    Warns
    -----
    DivergenceWarning
        If transitions that led to draws diverged.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn sampler, JMLR 15. Phan, Pradhan & Jankowiak (2019), Composable effects for
    flexible and accelerated probabilistic programming in NumPyro, arXiv:1912.11554.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.chains import ChainOptions
    >>> from bayesfm.inference.nuts.run import nuts
    >>> from bayesfm.model import default_spec
    >>> user, trial = np.divmod(np.arange(60), 3)
    >>> design = Design((Block.field("user", user, np.arange(20)),))
    >>> y = user % 4 + 0.5 * trial
    >>> options = ChainOptions(num_warmup=100, num_samples=20, progress=False)
    >>> draws = nuts(jax.random.key(0), default_spec(y, rank=0), design, y, options=options, target_accept=0.95)
    >>> draws.sites["w"].shape
    (2, 20, 20)
    """
    options = options or ChainOptions()
    kernel, problem = nuts_kernel(
        spec,
        design,
        y,
        weight=weight,
        row_data=row_data,
        num_warmup=options.num_warmup,
        parametrization=parametrization,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        keep=keep,
        streams=streams,
        stream_row_data=stream_row_data,
    )
    key_start, key_chains = jax.random.split(key)
    states = None
    if not (isinstance(start, str) and start == "prior"):
        sites = start_sites(start, kernel.site_shapes(), options.num_chains, problem.centre)
        states = _start_at(kernel, jax.random.split(key_start, options.num_chains), sites)
        _check_start(states.potential_energy)
    info: dict[str, Any] = {"engine": "nuts", "parametrization": parametrization}
    info |= {"target_accept": kernel.target_accept, "max_tree_depth": kernel.max_tree_depth}
    law = Identified(spec, problem.centre)
    run = run_chains(kernel, key_chains, options, states, law=law, restarts=False)
    draws = as_draws(run, spec, problem.centre, problem.probe_rows, info)
    _report_divergences(draws)
    return draws


def nuts_kernel(
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    num_warmup: int = 200,
    parametrization: str = "non-centred",
    target_accept: float = 0.8,
    max_tree_depth: int = 10,
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[NutsKernel, Problem]:
    """The kernel of :func:`nuts` with its data on the device, and the problem as it was prepared."""
    check_choice("parametrization", parametrization, ("non-centred", "centred"))
    if not 0 < check_finite("target_accept", target_accept) < 1:
        raise ValueError(f"target_accept must lie in (0, 1), got {target_accept!r}")
    problem = prepare(spec, design, y, weight, row_data)
    dtype = jnp.zeros(()).dtype
    kernel = NutsKernel(
        spec=problem.spec,
        design=GradientArrays.from_design(design, dtype),
        groups=jnp.asarray(design.groups),
        y=jnp.asarray(problem.y, dtype),
        weight=jnp.asarray(problem.weight, dtype),
        rows={name: jnp.asarray(x, dtype) for name, x in problem.rows.items()},
        stream_rows=jax.tree.map(jnp.asarray, rows_of_streams(spec, streams or {}, dtype, stream_row_data)),
        probe_rows=jnp.asarray(problem.probe_rows),
        streams={name: DesignArrays.from_design(rows, dtype) for name, rows in (streams or {}).items()},
        target_accept=float(target_accept),
        num_groups=len(design.group_names),
        standardised=(),
        num_warmup=num_warmup,
        max_tree_depth=check_count("max_tree_depth", max_tree_depth, minimum=1),
        keep=kept_sites(keep, spec),
    )
    if parametrization == "non-centred":
        names = tuple(fm_dims(spec.prior_w, spec.prior_v))
        kernel = replace(kernel, standardised=loc_scale_sites(kernel.model, names))
    return kernel, problem


_start_at = jax.jit(lambda kernel, keys, sites: jax.vmap(kernel.init_at)(keys, sites))


def _check_start(potential: Float[Array, " chain"]) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(potential))).tolist()
    if bad:
        raise ValueError(
            f"start has no finite log density in chain(s) {bad}: are all precisions and scales positive?"
        )


def _report_divergences(draws: Draws) -> None:
    diverging = draws.stats["diverging"]
    count = int(diverging.sum())
    draws.info["num_divergences"] = count
    if not count:
        return
    message = (
        f"{count} of {diverging.size} draws came from trajectories that diverged: where the posterior is curved "
        "most it may not have been reached, and means are not to be trusted. Try target_accept closer to 1 (it was "
        f"{draws.info['target_accept']}), the other parametrization (it was {draws.info['parametrization']!r}), a "
        "longer num_warmup, or priors with less weight on tiny and huge scales."
    )
    warnings.warn(message, DivergenceWarning, skip_file_prefixes=(str(Path(__file__).parents[2]),))
