"""Gibbs sampling of a model: the engine's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm import native
from bayesfm._checks import check_choice, check_count
from bayesfm.design import Design
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, Layout
from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.conjugate.kernel import model_data, report_options
from bayesfm.inference.conjugate.state import ModelState, from_sites, to_sites
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.kernel import GibbsKernel
from bayesfm.inference.identified import Identified
from bayesfm.inference.problem import as_draws, prepare
from bayesfm.inference.start import start_sites
from bayesfm.model import ModelSpec, site_dims

__all__ = ["default_factor_block", "gibbs", "gibbs_kernel", "plan"]


def gibbs(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: ChainOptions | None = None,
    start: str | Draws | Mapping[str, Any] = "random",
    factor_block: int | str = "auto",
    kernels: str = "auto",
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> Draws:
    """Sample the posterior of a model by Gibbs sweeps.

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
        Chains, counts, progress, checkpoint.
    start : "random", Draws or mapping of str to array
        Where chains start: at w = 0 and small random v; at the last draw of every chain of an earlier run, or the last
        draws of another engine (``keep="all"``); at all sites by name, each of the site's shape or with a leading axis
        of chains.
    factor_block : int, "joint" or "auto", default="auto"
        Number of factors drawn jointly with w: "joint" is all of them, 1 is factor by factor. "auto" is the measured
        best (``benchmarks/README.md``).
    kernels : {"auto", "native", "xla"}, default="auto"
        Compiled kernels, or XLA. "auto" takes the kernels on a CPU where the package was built with them, unless the
        prior of v has a matrix for its precision. ``info["kernels"]`` says which were used.
    keep : "all", "hyper" or sequence of str
        Sites to store per draw; "hyper" leaves out what every feature has of its own: w, v, local scales.
    streams : mapping of str to Design, optional
        Rows whose predictive moments are gathered while sampling (needed where w and v are not kept).
    stream_row_data : mapping of str to mapping, optional
        Row data of these rows, by name of the stream.

    Returns
    -------
    Draws

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.chains import ChainOptions
    >>> from bayesfm.inference.gibbs.run import gibbs
    >>> from bayesfm.model import default_spec
    >>> design = Design((Block.field("user", np.array([0, 0, 1, 1]), np.array(["ann", "bob"])),))
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> options = ChainOptions(num_warmup=10, num_samples=20, progress=False)
    >>> gibbs(jax.random.key(0), default_spec(y, rank=2), design, y, options=options).sites["v"].shape
    (2, 20, 2, 2)
    """
    options = options or ChainOptions()
    if isinstance(start, str):
        check_choice("start", start, ("random",))
    kernel, centre = gibbs_kernel(
        spec,
        design,
        y,
        weight=weight,
        row_data=row_data,
        factor_block=factor_block,
        kernels=kernels,
        keep=keep,
        streams=streams,
        stream_row_data=stream_row_data,
    )
    used = "native" if kernel.data.layout.native else "xla"
    info = {"engine": "gibbs", "factor_block": kernel.factor_block, "kernels": used}
    states = None if isinstance(start, str) else _states_at(kernel, start, options.num_chains, centre)
    run = run_chains(kernel, key, options, states, law=Identified(spec, centre))
    return as_draws(run, spec, centre, np.asarray(kernel.probe_rows), info)


def _states_at(
    kernel: GibbsKernel, start: Draws | Mapping[str, Any], num_chains: int, centre: float
) -> ModelState:
    """States of all chains side by side."""
    spec, data = kernel.spec, kernel.data
    like = jax.eval_shape(lambda: to_sites(kernel.init(jax.random.key(0)), data.layout))
    shapes = {name: x.shape for name, x in like.items() if name in site_dims(spec)}
    sites = start_sites(start, shapes, num_chains, centre)
    on_device = {name: jnp.asarray(x, data.y.dtype) for name, x in sites.items()}
    return _start_at(on_device, spec, data)


# Module-level, with the data as arguments: a second start of the same shapes compiles nothing.
_start_at = jax.jit(lambda sites, spec, data: jax.vmap(lambda own: from_sites(own, spec, data))(sites))


def gibbs_kernel(
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    factor_block: int | str = "auto",
    kernels: str = "auto",
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[GibbsKernel, float]:
    """The kernel of :func:`gibbs` with its data on the device, and the centre that was taken off y (and w0)."""
    if not spec.likelihood.conjugate:
        raise ValueError(f"{type(spec.likelihood).__name__} has no Gibbs sweep: use NUTS")
    problem = prepare(spec, design, y, weight, row_data)
    layout, size = plan(spec, design, factor_block, kernels)
    kernel = GibbsKernel(
        spec=problem.spec,
        data=model_data(design, problem, layout),
        factor_block=size,
        **report_options(problem, keep, streams, stream_row_data),
    )
    return kernel, problem.centre


def plan(spec: ModelSpec, design: Design, factor_block: int | str, kernels: str) -> tuple[Layout, int]:
    """The layout of a design, still on the host, and the number of factors drawn jointly with w."""
    use_native = _use_native(kernels, spec)
    layout = build_layout(design, dtype=jnp.zeros(()).dtype.type, native=use_native)
    only_fields = all(isinstance(unit, FieldUnit) for unit in layout.units)
    return layout, _factor_block(factor_block, spec.predictor.rank, use_native and only_fields)


def default_factor_block(rank: int, native_fields: bool = False) -> int:
    """Factors drawn jointly with w: all, where compiled kernels draw fields alone; else equal blocks of at most eight.

    Both measured, see ``benchmarks/README.md``.
    """
    if native_fields:
        return rank
    count = max(1, -(-rank // 8))
    return -(-rank // count)


def _use_native(choice: str, spec: ModelSpec) -> bool:
    check_choice("kernels", choice, ("auto", "native", "xla"))
    reason = None
    if jax.default_backend() != "cpu":
        reason = "JAX runs on another device"
    elif not native.available():
        reason = "the package was installed without them (there was no C++ compiler, or the library is gone)"
    elif spec.prior_v.full:
        reason = (
            f"they take a diagonal prior precision, and that of {type(spec.prior_v).__name__} is a matrix"
        )
    if choice == "native" and reason is not None:
        raise ValueError(f"kernels='native' cannot be had: {reason}; use 'auto' or 'xla'")
    return choice != "xla" and reason is None


def _factor_block(choice: int | str, rank: int, native_fields: bool = False) -> int:
    if choice == "auto":
        return default_factor_block(rank, native_fields)
    if choice == "joint":
        return rank
    if isinstance(choice, str):
        raise ValueError(f"factor_block must be an integer >= 1, 'joint' or 'auto'; got {choice!r}")
    return min(check_count("factor_block", choice, minimum=1), rank)
