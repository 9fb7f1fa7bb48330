"""Factors in one orientation: v of all draws and chains turned to one pivot; means and R-hat of v then make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm._checks import check_count
from bayesfm.factors import blocks_of_draws, factors_of, posterior_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["align", "align_factors", "split_r_hat"]


def align(model: Any, *, refinements: int = 2, which: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Turn v of every draw by the rotation or reflection that brings it nearest to one pivot (orthogonal Procrustes).

    A factorization machine knows v through inner products alone: v R with an orthogonal R is the same function, and
    draws of v differ by such an R without disagreeing. The pivot is the last draw, then the mean of the aligned draws,
    ``refinements`` times. Its factors are turned to its principal axes: the first has the largest sum of squares, and
    the largest mean of every factor is positive.

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior, whose draws of ``v`` have been kept.
    refinements : int, default=2
        How often the pivot is replaced by the mean.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Returns
    -------
    xarray.Dataset
        ``v`` (chain, draw, feature, factor), its group means ``mu_v`` if they are there, turned alike, and ``r_hat``
        (feature, factor) of v, of halves of the chain if there is one. Scales of single factors (``lambda_v``) have no
        counterpart: they belong to axes, not to the function. The attribute ``max_r_hat`` is the largest.

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
    posterior = posterior_of(model)["posterior"].dataset
    v, R = align_factors(factors_of(model, which), refinements)
    aligned = xr.Dataset({"v": v})
    for name in posterior.data_vars:
        dims = posterior[name].dims
        if str(name).startswith("mu_") and "factor" in dims and "feature" not in dims:
            mu = posterior[name].sel(dict(which or {})).transpose("chain", "draw", ..., "factor")
            aligned[name] = mu.copy(data=_means_turned(mu.to_numpy(), R).astype(mu.dtype))
    aligned["r_hat"] = split_r_hat(aligned["v"])
    return aligned.assign_attrs(max_r_hat=float(aligned["r_hat"].max()))


def _means_turned(
    mu: Float[np.ndarray, "chain draw *G k"], R: Float[np.ndarray, "chain draw k k"]
) -> Float[np.ndarray, "chain draw *G k"]:
    """Group means, of all groups or of one, times the rotation of their draw."""
    return mu @ R if mu.ndim == R.ndim else (mu[..., None, :] @ R)[..., 0, :]


def align_factors(
    v: xr.DataArray, refinements: int = 2
) -> tuple[xr.DataArray, Float[np.ndarray, "chain draw k k"]]:
    """The same for v alone, or for some features of it; with the rotation of every draw.

    Parameters
    ----------
    v : xarray.DataArray
        (chain, draw, feature, factor).
    refinements : int, default=2
        How often the pivot is replaced by the mean.

    Returns
    -------
    v : xarray.DataArray
        v R of every draw.
    R : array of shape (chain, draw, k, k)
    """
    R = _rotations(v, refinements)
    return v.copy(data=_turned(v, R)), R


def _rotations(v: xr.DataArray, refinements: int) -> Float[np.ndarray, "chain draw k k"]:
    """R of every draw; the pivot is not kept."""
    pivot = v.isel(chain=0, draw=-1).to_numpy().astype(np.float64)
    for _ in range(refinements):
        R = _nearest(v, pivot)
        pivot = sum(
            np.einsum("dpk,dkl->pl", block, R[c, first : first + len(block)], optimize=True)
            for c, first, block in blocks_of_draws(v)
        ) / (v.sizes["chain"] * v.sizes["draw"])
    axes = np.linalg.svd(np.linalg.qr(pivot, mode="r"))[2].T  # k of them, even where features are fewer
    pivot = pivot @ axes
    largest = np.abs(pivot).argmax(axis=0)
    return _nearest(v, pivot * np.where(pivot[largest, np.arange(pivot.shape[1])] < 0, -1.0, 1.0))


def _nearest(v: xr.DataArray, pivot: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "chain draw k k"]:
    """argmin over orthogonal R of |v R - pivot|: U W' of the singular value decomposition U D W' of v' pivot."""
    k = v.sizes["factor"]
    R = np.empty((v.sizes["chain"], v.sizes["draw"], k, k))
    for c, first, block in blocks_of_draws(v):
        U, _, Wt = np.linalg.svd(np.einsum("dpk,pl->dkl", block, pivot, optimize=True))
        R[c, first : first + len(block)] = U @ Wt
    return R


def _turned(v: xr.DataArray, R: Float[np.ndarray, "chain draw k k"]) -> Float[np.ndarray, "chain draw p k"]:
    out = np.empty(v.shape, v.dtype)
    for c, first, block in blocks_of_draws(v):
        out[c, first : first + len(block)] = block @ R[c, first : first + len(block)]
    return out


def split_r_hat(v: xr.DataArray) -> xr.DataArray:
    """R-hat of every number of (chain, draw, ...), of halves of the chain if there is one."""
    from arviz_stats import rhat

    from bayesfm.diagnostics import halved

    return rhat(halved(v.to_dataset(name="v")))["v"]
