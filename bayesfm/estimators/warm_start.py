"""Where a fit starts that goes on from the last one: its last draws, features matched by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bayesfm.design import Design
from bayesfm.inference.draws import Draws
from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors import Prior, Sizes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["last_draws", "last_point"]

NORMALS = ("laplace", "cavi", "svi")
"""Engines whose draws are of normals around a point."""


def last_draws(tree: xr.DataTree, spec: ModelSpec, design: Design, num_chains: int) -> Draws:
    """The last draws of a posterior, one for every chain, as far as there are so many, else some of them again.

    Parameters
    ----------
    tree : xarray.DataTree
        The posterior.
    spec, design
        Model and training rows of the new fit. Features that the old one did not have are at the mean of their group.
    num_chains : int
        Chains to be started.

    Raises
    ------
    ValueError
        If groups of features are others than before, or sites are missing.
    """
    posterior = tree["posterior"].dataset
    have, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    chain = np.arange(num_chains) % have
    draw = draws - 1 - (np.arange(num_chains) // have) % draws
    sites = _for_design(posterior, spec, design, lambda x: x.to_numpy()[chain, draw])
    dims = site_dims(spec)
    return Draws({name: x[:, None] for name, x in sites.items()}, dims, {}, np.zeros(0, np.int64))


def last_point(tree: xr.DataTree, spec: ModelSpec, design: Design) -> dict[str, np.ndarray]:
    """w0, w and v of the last draw of the first chain.

    Of an approximation by normals the means, and standard deviations ``w_sd`` and ``v_sd``, NaN of new features.
    """
    posterior = tree["posterior"].dataset
    normal = json.loads(tree.attrs["inference"]).get("engine") in NORMALS

    def point(x: xr.DataArray) -> np.ndarray:
        return x.to_numpy().mean(axis=(0, 1))[None] if normal else x.to_numpy()[:1, -1]

    sites = _for_design(posterior, spec, design, point)
    out: dict[str, np.ndarray] = {name: sites[name][0] for name in ("w0", "w", "v") if name in sites}
    if normal:
        place = _places(posterior, design)
        for name, axis in (("w", -1), ("v", -2)):
            if name in posterior:
                sd = np.take(posterior[name].to_numpy().std(axis=(0, 1), dtype=np.float64), place, axis=axis)
                out[f"{name}_sd"] = np.where(
                    np.expand_dims(place, -1) < 0 if name == "v" else place < 0, np.nan, sd
                )
    return out


def _for_design(
    posterior: xr.Dataset, spec: ModelSpec, design: Design, chosen: Callable[[xr.DataArray], np.ndarray]
) -> dict[str, np.ndarray]:
    """The chosen values of all sites, (chain, ...), the features of the design in their order."""
    _check_groups(posterior, design)
    dims, rank = site_dims(spec), spec.predictor.rank
    absent = [name for name in dims if name not in posterior and (rank or name != "v")]
    if absent:
        raise ValueError(
            f"the last fit has no draws of {', '.join(absent)} to go on from: it was of another model, or did not keep "
            "them (keep='all'); set warm_start=False"
        )
    sites = {name: chosen(posterior[name]) for name in dims if name in posterior}
    before = sites["v"].shape[-1] if "v" in sites else 0
    if before != rank:
        raise ValueError(
            f"the last fit had rank {before}, this one has {rank}: set warm_start=False to begin anew"
        )
    place = _places(posterior, design)
    return (
        sites | _matched(sites, spec, np.asarray(design.groups), place) | _matched_local(sites, spec, place)
    )


def _check_groups(posterior: xr.Dataset, design: Design) -> None:
    if "group" not in posterior.coords:
        return
    before, now = posterior["group"].to_numpy().tolist(), list(map(str, design.group_names))
    if [str(x) for x in before] != now:
        raise ValueError(
            f"the last fit had the groups of features {before}, X has {now}: set warm_start=False to begin anew"
        )


def _places(posterior: xr.Dataset, design: Design) -> Int[np.ndarray, " p"]:
    """Number that every feature had, -1 of one that is new."""
    if "feature" not in posterior.coords:
        return np.arange(design.num_features)
    before = {str(name): j for j, name in enumerate(posterior["feature"].to_numpy())}
    return np.array([before.get(str(name), -1) for name in design.feature_names], np.int64)


def _matched(
    sites: dict[str, np.ndarray], spec: ModelSpec, groups: Int[np.ndarray, " p"], place: Int[np.ndarray, " p"]
) -> dict[str, np.ndarray]:
    """w and v, (chain, *L, p) and (chain, *L, p, k), in the new order."""
    new = place < 0
    out = {"w": sites["w"][..., place]}
    shape = out["w"].shape
    out["v"] = sites["v"][..., place, :] if "v" in sites else np.zeros((*shape, 0), out["w"].dtype)
    if new.any():
        w = _group_means(sites, spec.prior_w, "w", groups[new], (), shape[:-1])
        out["w"] = np.where(new, _spread_out(w, new, -1), out["w"])
        if spec.predictor.rank:
            v = _group_means(sites, spec.prior_v, "v", groups[new], (spec.predictor.rank,), shape[:-1])
            out["v"] = np.where(new[:, None], _spread_out(v, new, -2), out["v"])
    return out


def _matched_local(
    sites: dict[str, np.ndarray], spec: ModelSpec, place: Int[np.ndarray, " p"]
) -> dict[str, np.ndarray]:
    """Hyperparameters of single features, (chain, *L, p, *columns), in the new order; new ones where chains start."""
    out, new = {}, place < 0
    for x, prior, columns in (("w", spec.prior_w, ()), ("v", spec.prior_v, (spec.predictor.rank,))):
        names = [name for name in prior.local_names if f"{name}_{x}" in sites]
        start = prior.initial(Sizes(1, len(place), columns)) if names else {}
        wide = new.reshape(-1, *[1] * len(columns))
        for name in names:
            old = np.take(sites[f"{name}_{x}"], place, axis=-1 - len(columns))
            out[f"{name}_{x}"] = np.where(wide, np.asarray(start[name], old.dtype), old)
    return out


def _group_means(
    sites: dict[str, np.ndarray],
    prior: Prior,
    x: str,
    groups: Int[np.ndarray, " u"],
    columns: tuple[int, ...],
    lead: tuple[int, ...],
) -> np.ndarray:
    """Prior means of features of these groups, (*lead, u, *columns)."""
    hyper = {name: jnp.asarray(sites[f"{name}_{x}"]) for name in prior.hyper_names()}

    def mean(own: dict[str, Array]) -> Array:
        return prior.mean_new(prior.of_groups(own, jnp.asarray(groups), columns), (len(groups), *columns))

    if not hyper:
        return np.broadcast_to(np.asarray(mean({})), (*lead, len(groups), *columns))
    for _ in lead:
        mean = jax.vmap(mean)
    return np.asarray(mean(hyper))


def _spread_out(x: np.ndarray, new: np.ndarray, axis: int) -> np.ndarray:
    """At the places that are new, zeros elsewhere."""
    shape = list(x.shape)
    shape[axis] = len(new)
    out: Any = np.zeros(shape, x.dtype)
    out[(..., new) if axis == -1 else (..., new, slice(None))] = x
    return out
