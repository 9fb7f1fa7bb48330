"""Draws of v for everything that reads them: from a fitted estimator or a posterior, by the names of features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["blocks_of_draws", "close_names", "factors_of", "field_of", "find_features", "posterior_of"]

AT_ONCE = 1 << 24
"""Numbers of v that are worked on at once: 128 MiB in double precision."""
LOOKED_AT = 300
"""Names that are compared letter by letter with one that is not there."""


def posterior_of(model: Any) -> xr.DataTree:
    """The posterior of a fitted estimator, or the posterior itself.

    Raises
    ------
    TypeError
        If it is neither, or the estimator has not been fitted.
    """
    import xarray as xr

    tree = model if isinstance(model, xr.DataTree) else getattr(model, "posterior_", None)
    if isinstance(tree, xr.DataTree):
        return tree
    hint = ", which has not been fitted: call fit first" if hasattr(model, "fit") else ""
    if hasattr(model, "steps"):
        hint = ": the estimator is its last step, pipeline[-1]"
    raise TypeError(f"model must be a fitted estimator or a posterior (DataTree), got {_kind(model)}{hint}")


def _kind(x: object) -> str:
    return type(x).__name__


def factors_of(model: Any, which: Mapping[str, Any] | None = None) -> xr.DataArray:
    """v of all draws, (chain, draw, feature, factor), not yet read where it is on disk.

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Raises
    ------
    ValueError
        If there are no draws of v, or one of several has to be named.
    """
    posterior = posterior_of(model)["posterior"].dataset
    if "v" not in posterior or posterior.sizes.get("factor", 0) == 0:
        raise ValueError(
            "there are no draws of v in this posterior: fit a model of rank 1 or more, and keep v (keep='all')"
        )
    v = posterior["v"].transpose("chain", "draw", ..., "feature", "factor")
    chosen = dict(which or {})
    for dim in v.dims[2:-2]:
        labels = v[dim].to_numpy().tolist()
        if dim not in chosen:
            raise ValueError(f"this model has one v per {dim}: choose with which={{{dim!r}: {labels[0]!r}}}")
        if chosen[dim] not in labels:
            raise ValueError(f"which[{dim!r}] must be one of {labels}, got {chosen[dim]!r}")
        v = v.isel({dim: labels.index(chosen.pop(dim))})
    if chosen:
        raise ValueError(f"which names {sorted(chosen)}, but v of this model has no such dimension")
    return v


def find_features(v: xr.DataArray, names: Sequence[str], argument: str = "features") -> Int[np.ndarray, " m"]:
    """Places of features, by name.

    Parameters
    ----------
    v : xarray.DataArray
        With the dimension feature.
    names : sequence of m strings
        Distinct names.
    argument : str
        What errors call them.

    Raises
    ------
    TypeError
        If they are no strings.
    ValueError
        If a name is unknown (close ones are listed), is given twice, or belongs to two features.
    """
    known = v["feature"].to_numpy()
    wrong = next((x for x in names if not isinstance(x, str)), None)
    if isinstance(names, str) or wrong is not None:
        raise TypeError(
            f"{argument} must be names of features, a list of str; got {names if wrong is None else wrong!r}"
        )
    place = {name: j for j, name in enumerate(known)}
    missing = [name for name in names if name not in place]
    if missing:
        close = close_names(missing[0], known)
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"names look like {known[0]!r}"
        raise ValueError(f"{argument}: there is no feature {missing[0]!r} among {len(known):,}; {hint}")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{argument} names {twice!r} twice")
    if len(place) < len(known):
        for name in names:
            if np.count_nonzero(known == name) > 1:
                raise ValueError(f"{argument}: several features have the name {name!r}")
    return np.array([place[name] for name in names], dtype=np.int64)


def close_names(name: str, known: Sequence[str] | np.ndarray, n: int = 5) -> list[str]:
    """The known names most like a given one; quick among hundreds of thousands."""
    suffix = [x for x in known if x.endswith(f"={name}")][:n]
    wanted = _pairs(name)

    def shared(x: str) -> float:
        own = _pairs(x)
        return -len(wanted & own) / max(1, len(wanted | own))

    likely = sorted(known, key=shared)[:LOOKED_AT]
    return list(dict.fromkeys([*suffix, *get_close_matches(name, likely, n=n, cutoff=0.5)]))[:n]


def _pairs(name: str) -> set[str]:
    padded = f" {name.lower()} "
    return {padded[i : i + 2] for i in range(len(padded) - 1)}


def field_of(model: Any) -> Int[np.ndarray, " p"]:
    """Which one-hot column of the table each feature is a level of; -1 where it is none, or not known to be one.

    Two levels of one field never share a row: their inner product enters no prediction.
    """
    tree = posterior_of(model)
    encoder = json.loads(tree.attrs.get("encoder", "null")) or {}
    columns = (encoder.get("table") or {}).get("columns", [])
    fields = {c["name"] for c in columns if c["levels"] is not None}
    blocks = json.loads(tree.attrs["design_schema"])["blocks"] if "design_schema" in tree.attrs else []
    if not fields or not blocks:
        return np.full(tree["posterior"].sizes["feature"], -1)
    return np.concatenate(
        [np.full(len(b["feature_names"]), i if b["name"] in fields else -1) for i, b in enumerate(blocks)]
    )


def blocks_of_draws(v: xr.DataArray) -> Iterator[tuple[int, int, Float[np.ndarray, "draw p k"]]]:
    """(chain, first draw, draws in double precision), as many as fit in :data:`AT_ONCE`."""
    some = max(1, AT_ONCE // max(1, v.sizes["feature"] * v.sizes["factor"]))
    for c in range(v.sizes["chain"]):
        for first in range(0, v.sizes["draw"], some):
            yield c, first, v[c, first : first + some].to_numpy().astype(np.float64)
