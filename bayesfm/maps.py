"""A map of features: their factors in one orientation, in the two directions in which they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesfm._checks import check_count
from bayesfm.alignment import align_factors, split_r_hat
from bayesfm.factors import factors_of, find_features

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["feature_map"]


def feature_map(
    model: Any,
    features: Sequence[str],
    *,
    refinements: int = 2,
    which: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Posterior of the places of features on a plane.

    v of the chosen features is turned in every draw by the rotation or reflection that brings it nearest to a
    reference, the last draw and then the mean (orthogonal Procrustes, see :func:`bayesfm.align`); the plane is that of
    the first two principal axes of the posterior means. The spread that remains is that of the places relative to each
    other and to the origin, all that the model knows; it depends on which features are chosen.

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior, with draws of v, of rank 2 or more.
    features : sequence of m strings
        Names of features, 3 or more.
    refinements : int, default=2
        How often the reference is replaced by the mean of the aligned draws.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Returns
    -------
    xarray.Dataset
        ``position`` (feature, axis), the posterior mean; ``covariance`` (feature, axis, other_axis) over draws, zero if
        there is one; ``explained`` (axis), shares of the axes in the sum of squares of the means around their centre;
        ``origin`` (axis), where v = 0 lies; ``r_hat`` (feature, axis). Attributes: ``num_chains``, ``num_draws`` and
        ``alignment``, in words.

    Raises
    ------
    ValueError
        If a feature is unknown, there are too few, or the rank is below 2.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import ChainOptions, default_spec, design_from_matrix, feature_map, gibbs
    >>> from bayesfm.posterior import to_datatree
    >>> X, y = np.eye(4), np.array([1.0, 2.0, 4.0, 3.0])
    >>> design, spec = design_from_matrix(X, feature_names=["a", "b", "c", "d"]), default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, num_chains=2, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> feature_map(tree, ["a", "b", "c"])["position"].shape
    (3, 2)
    """
    import xarray as xr

    check_count("refinements", refinements, minimum=0)
    v = factors_of(model, which)
    v = v.isel(feature=find_features(v, features)).load()
    if v.sizes["feature"] < 3 or v.sizes["factor"] < 2:
        raise ValueError(
            f"a map needs 3 features of rank 2 or more; got {v.sizes['feature']} of rank {v.sizes['factor']}"
        )
    aligned, _ = align_factors(v.astype(np.float64), refinements)
    mean = aligned.mean(("chain", "draw")).to_numpy()
    centre = mean.mean(axis=0)
    _, size, Wt = np.linalg.svd(mean - centre, full_matrices=False)
    axes = Wt[:2].T
    position = (mean - centre) @ axes
    signs = np.where(position[np.abs(position).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    axes = axes * signs
    places = (aligned.to_numpy() - centre) @ axes
    deviation = places - position * signs
    num_draws = v.sizes["chain"] * v.sizes["draw"]
    covariance = np.einsum("cdpa,cdpb->pab", deviation, deviation) / max(1, num_draws - 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # what never moved has no R-hat
        r_hat = split_r_hat(xr.DataArray(places, dims=("chain", "draw", "feature", "axis")))
    how = f"v of {len(position)} features in each of {num_draws} draws turned to one reference (orthogonal Procrustes)"
    return xr.Dataset(
        {
            "position": (("feature", "axis"), position * signs),
            "covariance": (("feature", "axis", "other_axis"), covariance),
            "explained": ("axis", (size**2 / max(np.sum(size**2), np.finfo(float).tiny))[:2]),
            "origin": ("axis", -centre @ axes),
            "r_hat": (("feature", "axis"), r_hat.to_numpy()),
        },
        coords={"feature": aligned["feature"].to_numpy(), "axis": [0, 1], "other_axis": [0, 1]},
        attrs={"num_chains": v.sizes["chain"], "num_draws": num_draws, "alignment": how},
    )
