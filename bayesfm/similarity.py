"""What the factors say of features: which are alike, and which pairs go together; with intervals.

Inner products and cosines of v are the same in every rotation of the factors: draws need no alignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bayesfm._checks import check_choice, check_count, check_probability
from bayesfm.factors import blocks_of_draws, factors_of, field_of, find_features

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["interactions", "nearest_features"]

MOST_FEATURES = 4096
"""Among which all pairs are looked at."""
TIES = 1e-9
"""Cosines that differ by less are equal."""


def nearest_features(
    model: Any,
    feature: str,
    n: int = 10,
    *,
    prob: float = 0.9,
    among: Sequence[str] | None = None,
    which: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Features whose factors point the same way as those of one feature, by posterior cosine similarity.

    Memory is bounded by the features plus ``n`` times the draws: a hundred thousand features are no matter.

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior, with draws of v.
    feature : str
        Name of the feature, for instance ``"film=Alien"``.
    n : int, default=10
        How many features.
    prob : float, default=0.9
        Probability of the equal-tailed intervals.
    among : sequence of str, optional
        Features to choose from; by default all.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Returns
    -------
    pandas.DataFrame
        One row per feature, the largest mean first: ``mean`` cosine similarity, its interval (``eti90_lb``,
        ``eti90_ub``), ``prob_nearest``, the share of draws in which no other is nearer, and ``prob_top``, the share in
        which fewer than n are. Features that tie all count. A feature whose v is zero has similarity 0.

    Raises
    ------
    ValueError
        If there is no such feature; names that are close are listed.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import ChainOptions, default_spec, design_from_matrix, gibbs, nearest_features
    >>> from bayesfm.posterior import to_datatree
    >>> X, y = np.eye(4), np.array([1.0, 2.0, 4.0, 3.0])
    >>> design, spec = design_from_matrix(X, feature_names=["a", "b", "c", "d"]), default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, num_chains=2, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> nearest_features(tree, "a", n=2).columns.tolist()
    ['mean', 'eti90_lb', 'eti90_ub', 'prob_nearest', 'prob_top']
    """
    n, prob = check_count("n", n, minimum=1), check_probability("prob", prob)
    v = factors_of(model, which)
    j = int(find_features(v, [feature], "feature")[0])
    others = np.arange(v.sizes["feature"]) if among is None else find_features(v, among, "among")
    others = others[others != j]
    if len(others) == 0:
        raise ValueError("among names no feature but the one whose neighbours are looked for")
    n = min(n, len(others))
    mean, nearest, top = _similar_on_average(v, j, others, n)
    best = np.argsort(-mean, kind="stable")[:n]
    # A second pass for the few: intervals of all would need all draws of all.
    draws = np.concatenate(
        [_cosines(block[:, others[best]], block[:, j]) for _, _, block in blocks_of_draws(v)]
    )
    return _table(
        {"feature": v["feature"].to_numpy()[others[best]]},
        {"mean": mean[best], **_interval(draws, prob), "prob_nearest": nearest[best], "prob_top": top[best]},
        prob,
    )


def _similar_on_average(
    v: xr.DataArray, j: int, others: Int[np.ndarray, " m"], n: int
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Mean cosine, and shares of draws in which a feature is the nearest, or one of the n nearest."""
    mean, nearest, top = np.zeros((3, len(others)))
    for _, _, block in blocks_of_draws(v):
        cosines = _cosines(block, block[:, j])[:, others]
        ordered = np.partition(cosines, (-n, -1), axis=1)
        mean += cosines.sum(axis=0)
        nearest += np.sum(cosines >= ordered[:, -1:] - TIES, axis=0)
        top += np.sum(cosines >= ordered[:, [-n]] - TIES, axis=0)
    draws = v.sizes["chain"] * v.sizes["draw"]
    return mean / draws, nearest / draws, top / draws


def _cosines(v: Float[np.ndarray, "d m k"], u: Float[np.ndarray, "d k"]) -> Float[np.ndarray, "d m"]:
    """Zero where one of the two has no length."""
    products = np.einsum("dmk,dk->dm", v, u)
    lengths = np.sqrt(np.einsum("dmk,dmk->dm", v, v) * np.einsum("dk,dk->d", u, u)[:, None])
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def interactions(
    model: Any,
    features: Sequence[str] | None = None,
    others: Sequence[str] | None = None,
    *,
    n: int = 20,
    prob: float = 0.9,
    by: str = "mean",
    max_features: int = 200,
    which: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Pairs of features with the strongest interaction <v_i, v_j>, what a pair of ones adds to the linear predictor.

    Two levels of one column of a table never meet in a row; such pairs are left out (of designs made by hand it is not
    known which blocks are one-hot: give ``others``).

    Parameters
    ----------
    model : estimator or xarray.DataTree
        A fitted estimator, or a posterior, with draws of v.
    features : sequence of str, optional
        Features of which pairs are made; by default the ``max_features`` with the largest mean square of v.
    others : sequence of str, optional
        Then pairs have one feature of each list.
    n : int, default=20
        How many pairs.
    prob : float, default=0.9
        Probability of the equal-tailed intervals.
    by : {"mean", "certainty"}, default="mean"
        Largest absolute posterior mean first, or largest ratio of it to the posterior standard deviation.
    max_features : int, default=200
        See ``features``.
    which : mapping, optional
        For models with several factorization machines the label of one, ``{"class": 2}``.

    Returns
    -------
    pandas.DataFrame
        One row per pair: names ``first`` and ``second``, ``mean``, ``sd``, interval (``eti90_lb``, ``eti90_ub``) and
        ``prob_positive``.

    Raises
    ------
    ValueError
        If a name is unknown, or more than 4,096 features are to be paired.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import ChainOptions, default_spec, design_from_matrix, gibbs, interactions
    >>> from bayesfm.posterior import to_datatree
    >>> X, y = np.eye(4), np.array([1.0, 2.0, 4.0, 3.0])
    >>> design, spec = design_from_matrix(X, feature_names=["a", "b", "c", "d"]), default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, num_chains=2, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> sorted(interactions(tree, ["a", "b"], ["c"])["first"])
    ['a', 'b']
    """
    n, prob = check_count("n", n, minimum=1), check_probability("prob", prob)
    check_choice("by", by, ("mean", "certainty"))
    if features is None and others is not None:
        raise ValueError("others without features: name both lists")
    v = factors_of(model, which)
    left = _longest(v, max_features) if features is None else find_features(v, features)
    right = left if others is None else find_features(v, others, "others")
    for name, rows in (("features", left), ("others", right)):
        if len(rows) > MOST_FEATURES:
            raise ValueError(f"{name} must be at most {MOST_FEATURES:,} features, got {len(rows):,}")
    mean, sd = _products(v, left, right)
    strength = np.abs(mean)
    if by == "certainty":  # of what is known exactly, or of a single draw, still the largest first
        strength = strength / np.maximum(sd, 1e-9 * np.max(strength) + np.finfo(float).tiny)
    strength[~_may_meet(left, right, field_of(model))] = -1.0
    order = np.argsort(-strength, axis=None, kind="stable")[:n]
    i, j = np.unravel_index(order[strength.flat[order] >= 0], strength.shape)
    if len(i) == 0:
        raise ValueError("there is no pair: all features are levels of one column, or only one was named")
    used = np.concatenate([left[i], right[j]])
    draws = np.concatenate(
        [np.einsum("dmk,dmk->dm", *np.split(block[:, used], 2, axis=1)) for _, _, block in blocks_of_draws(v)]
    )
    names = v["feature"].to_numpy()
    numbers = {"mean": mean[i, j], "sd": sd[i, j], **_interval(draws, prob)}
    labels = {"first": names[left[i]], "second": names[right[j]]}
    return _table(
        {"pair": np.arange(len(i))}, {**labels, **numbers, "prob_positive": (draws > 0).mean(axis=0)}, prob
    )


def _longest(v: xr.DataArray, count: int) -> Int[np.ndarray, " m"]:
    """Features with the largest posterior mean of |v|^2, in the order of the design."""
    count = check_count("max_features", count, minimum=2)
    size = sum(np.einsum("dpk,dpk->p", block, block) for _, _, block in blocks_of_draws(v))
    return np.sort(np.argsort(-size, kind="stable")[:count])


def _products(
    v: xr.DataArray, left: Int[np.ndarray, " a"], right: Int[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, "a b"], Float[np.ndarray, "a b"]]:
    """Posterior mean and standard deviation of <v_i, v_j>; deviations are from the first draw, so that none is lost."""
    start = v[0, 0].to_numpy().astype(np.float64)
    shift = start[left] @ start[right].T
    total, square = np.zeros((2, *shift.shape))
    for _, _, block in blocks_of_draws(v):
        for draw in block:
            product = draw[left] @ draw[right].T - shift
            total += product
            square += product**2
    draws = v.sizes["chain"] * v.sizes["draw"]
    variance = (square - total**2 / draws) / max(1, draws - 1)
    return shift + total / draws, np.sqrt(np.maximum(variance, 0.0))


def _may_meet(
    left: Int[np.ndarray, " a"], right: Int[np.ndarray, " b"], field: Int[np.ndarray, " p"]
) -> Bool[np.ndarray, "a b"]:
    """Pairs that count: of two features, of two columns, and once."""
    mine, theirs = field[left][:, None], field[right][None]
    ok = (left[:, None] != right) & ((mine < 0) | (mine != theirs))
    seen_before = np.isin(left, right)[:, None] & np.isin(right, left) & (left[:, None] > right)
    return ok & ~seen_before


def _interval(draws: Float[np.ndarray, "d m"], prob: float) -> dict[str, Float[np.ndarray, " m"]]:
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    name = f"eti{100 * prob:g}"
    return {f"{name}_lb": low, f"{name}_ub": high}


def _table(index: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], prob: float) -> pd.DataFrame:
    import xarray as xr

    (dim,) = index
    table = xr.Dataset({name: (dim, x) for name, x in columns.items()}, coords=index).to_dataframe()
    table.attrs["prob"] = prob
    return table
