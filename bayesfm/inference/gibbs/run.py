"""Gibbs sampling of a model: the engine's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm import native
from bayesfm._checks import check_choice, check_count
from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit
from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.kernel import GibbsKernel
from bayesfm.inference.gibbs.state import GibbsData, start_sd
from bayesfm.model import ModelSpec, site_dims

__all__ = ["default_factor_block", "gibbs", "gibbs_kernel"]

NUM_PROBES = 100


def gibbs(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    options: ChainOptions | None = None,
    factor_block: int | str = "auto",
    kernels: str = "auto",
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
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
    options : ChainOptions, optional
        Chains, counts, progress, checkpoint.
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
    kernel, centre = gibbs_kernel(
        spec,
        design,
        y,
        weight=weight,
        factor_block=factor_block,
        kernels=kernels,
        keep=keep,
        streams=streams,
    )
    sites, stats, moments, info = run_chains(kernel, key, options)
    for name in {"w0", "eta"} & set(sites):
        sites[name] = np.asarray(sites[name], np.float64) + centre
    moments = {name: replace(m, mean=m.mean + centre) for name, m in moments.items()}
    used = "native" if kernel.data.layout.native else "xla"
    info = {"engine": "gibbs", "factor_block": kernel.factor_block, "kernels": used, **info}
    return Draws(sites, _dims(spec, kernel.keep), stats, np.asarray(kernel.probe_rows), moments, info)


def gibbs_kernel(
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    factor_block: int | str = "auto",
    kernels: str = "auto",
    keep: Sequence[str] | str = "all",
    streams: Mapping[str, Design] | None = None,
) -> tuple[GibbsKernel, float]:
    """The kernel of :func:`gibbs` with its data on the device, and the centre that was taken off y (and w0).

    In float32 a response of 1e6 +- 1 would lose its digits; it is centred in float64 before it goes to the device, and
    the prior mean of w0 with it, which leaves the model the same.
    """
    y = spec.likelihood.validate(np.asarray(y))
    if y.shape != (design.num_rows,):
        raise ValueError(
            f"y must have shape ({design.num_rows},), one value per row of the design; got {y.shape}"
        )
    if weight is not None and np.shape(weight) != y.shape:
        raise ValueError(f"weight must have shape {y.shape}, as y has; got {np.shape(weight)}")
    centre = spec.likelihood.centre(y, weight)
    spec = replace(spec, intercept=replace(spec.intercept, mean=spec.intercept.mean - centre))
    dtype = jnp.zeros(()).dtype
    use_native = _use_native(kernels, spec)
    layout = build_layout(design, dtype=dtype.type, native=use_native)

    only_fields = all(isinstance(unit, FieldUnit) for unit in layout.units)

    def padded(x: np.ndarray) -> Array:
        return jnp.asarray(np.pad(x, (0, layout.num_padded - len(x))), dtype)

    data = GibbsData(
        layout=jax.device_put(layout),
        y=padded(y - centre),
        weight=padded(np.ones(len(y)) if weight is None else np.asarray(weight)),
        start_sd=jnp.asarray(start_sd(design, y, spec.predictor.rank), dtype),
    )
    rng = np.random.default_rng(0)
    probes = np.sort(rng.choice(design.num_rows, min(NUM_PROBES, design.num_rows), replace=False))
    kernel = GibbsKernel(
        spec=spec,
        data=data,
        probe_rows=jnp.asarray(probes),
        streams={name: DesignArrays.from_design(rows, dtype) for name, rows in (streams or {}).items()},
        factor_block=_factor_block(factor_block, spec.predictor.rank, use_native and only_fields),
        keep=_keep(keep, spec),
    )
    return kernel, centre


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
        reason = "the package was built without a C++ compiler"
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


def _keep(keep: Sequence[str] | str, spec: ModelSpec) -> tuple[str, ...]:
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


def _dims(spec: ModelSpec, keep: tuple[str, ...]) -> dict[str, Any]:
    dims = {**site_dims(spec), "eta": ("probe",)}
    return {name: dims[name] for name in keep}
