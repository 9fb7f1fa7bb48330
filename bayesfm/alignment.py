"""Factors in one orientation: v of all draws and chains turned to one pivot; means and R-hat of v then make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from bayesfm._checks import check_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["align"]

AT_ONCE = 1 << 24
"""Numbers of v that are turned at once: 128 MiB in double precision."""


def align(tree: xr.DataTree, *, refinements: int = 2) -> xr.Dataset:
    """Turn v of every draw by the rotation or reflection that brings it nearest to one pivot (orthogonal Procrustes).

    A factorization machine knows v through inner products alone: v R with an orthogonal R is the same function, and
    draws of v differ by such an R without disagreeing. The pivot is the last draw, then the mean of the aligned draws,
    ``refinements`` times. Its factors are turned to its principal axes: the first has the largest sum of squares, and
    the largest mean of every factor is positive.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior whose draws of ``v`` have been kept.
    refinements : int, default=2
        How often the pivot is replaced by the mean.

    Returns
    -------
    xarray.Dataset
        ``v`` (chain, draw, feature, factor), ``mu_v`` if it is there, turned alike, and ``r_hat`` (feature, factor) of
        v, of halves of the chain if there is one. Scales of single factors (``lambda_v``) have no counterpart: they
        belong to axes, not to the function. The attribute ``max_r_hat`` is the largest.

    Raises
    ------
    ValueError
        If there are no draws of v, or the rank is 0.

    References
    ----------
    Schoenemann (1966), A generalized solution of the orthogonal Procrustes problem, Psychometrika 31.
    Papastamoulis & Ntzoufras (2022), On the identifiability of Bayesian factor analytic models, Statistics and
    Computing 32.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import ChainOptions, align, default_spec, design_from_matrix, gibbs
    >>> from bayesfm.posterior import to_datatree
    >>> X, y = np.eye(4), np.array([1.0, 2.0, 4.0, 3.0])
    >>> design, spec = design_from_matrix(X), default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, num_chains=2, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> align(tree)["v"].dims
    ('chain', 'draw', 'feature', 'factor')
    """
    import xarray as xr

    check_count("refinements", refinements, minimum=0)
    posterior = tree["posterior"].dataset
    if "v" not in posterior or posterior.sizes.get("factor", 0) == 0:
        raise ValueError("align needs the draws of v: fit a model of rank 1 or more, and keep v (keep='all')")
    v = posterior["v"].transpose("chain", "draw", ..., "feature", "factor")
    if v.ndim != 4:
        raise ValueError(f"align takes one v per draw, but v has the dimensions {v.dims}: select one first")
    R = _rotations(v, refinements)
    aligned = xr.Dataset({"v": v.copy(data=_turned(v, R))})
    if "mu_v" in posterior:
        mu = posterior["mu_v"].transpose("chain", "draw", "group", "factor")
        aligned["mu_v"] = mu.copy(data=(mu.to_numpy() @ R).astype(mu.dtype))
    aligned["r_hat"] = _r_hat(aligned["v"])
    return aligned.assign_attrs(max_r_hat=float(aligned["r_hat"].max()))


def _rotations(v: xr.DataArray, refinements: int) -> Float[np.ndarray, "chain draw k k"]:
    """R of every draw; the pivot is not kept."""
    pivot = v.isel(chain=0, draw=-1).to_numpy().astype(np.float64)
    for _ in range(refinements):
        R = _nearest(v, pivot)
        pivot = sum(
            np.einsum("dpk,dkl->pl", block, R[c, first : first + len(block)], optimize=True)
            for c, first, block in _blocks(v)
        ) / (v.sizes["chain"] * v.sizes["draw"])
    axes = np.linalg.svd(pivot, full_matrices=False)[2].T
    pivot = pivot @ axes
    largest = np.abs(pivot).argmax(axis=0)
    return _nearest(v, pivot * np.where(pivot[largest, np.arange(pivot.shape[1])] < 0, -1.0, 1.0))


def _nearest(v: xr.DataArray, pivot: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "chain draw k k"]:
    """argmin over orthogonal R of |v R - pivot|: U W' of the singular value decomposition U D W' of v' pivot."""
    k = v.sizes["factor"]
    R = np.empty((v.sizes["chain"], v.sizes["draw"], k, k))
    for c, first, block in _blocks(v):
        U, _, Wt = np.linalg.svd(np.einsum("dpk,pl->dkl", block, pivot, optimize=True))
        R[c, first : first + len(block)] = U @ Wt
    return R


def _turned(v: xr.DataArray, R: Float[np.ndarray, "chain draw k k"]) -> Float[np.ndarray, "chain draw p k"]:
    out = np.empty(v.shape, v.dtype)
    for c, first, block in _blocks(v):
        out[c, first : first + len(block)] = block @ R[c, first : first + len(block)]
    return out


def _blocks(v: xr.DataArray) -> Iterator[tuple[int, int, Float[np.ndarray, "draw p k"]]]:
    """(chain, first draw, draws in double precision), as many as fit in :data:`AT_ONCE`."""
    some = max(1, AT_ONCE // max(1, v.sizes["feature"] * v.sizes["factor"]))
    for c in range(v.sizes["chain"]):
        for first in range(0, v.sizes["draw"], some):
            yield c, first, v[c, first : first + some].to_numpy().astype(np.float64)


def _r_hat(v: xr.DataArray) -> xr.DataArray:
    from arviz_stats import rhat

    from bayesfm.diagnostics import halved

    return rhat(halved(v.to_dataset(name="v")))["v"]
