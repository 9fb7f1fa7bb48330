"""Leave-one-out needs the very data of the fit, of which the posterior keeps no copy: what can be checked is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy import sparse

from bayesfm.design import Design
from bayesfm.mixture import FittedModel

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_draws", "check_fitted_data"]

MIN_DRAWS = 25
"""The generalized Pareto distribution is fitted to a fifth of the draws, five at least."""

ROUNDING = 256
"""Of a sum, in eps times its terms: the sampler's running sums were up to 5 off."""


def check_draws(tree: xr.DataTree) -> None:
    """Raise for a point, and warn of an approximation.

    The weights divide the posterior by what a row has told it. Of draws that are too narrow they take away too little:
    approximations come out better than the posterior itself (``notebooks/02_engines.ipynb``).
    """
    from bayesfm.diagnostics import ApproximationWarning, has_chains

    if has_chains(tree):
        return
    info = json.loads(tree.attrs["inference"])
    engine = info["engine"]
    if info.get("point", False):
        raise ValueError(
            f"loo needs draws from the posterior, and inference={engine!r} gives a point: fit with 'gibbs' or "
            "'nuts', or hold rows out"
        )
    warnings.warn(
        f"loo takes the draws of inference={engine!r} for draws from the posterior, and flatters approximations that "
        "are too narrow: compare engines by held-out rows, models by loo under 'gibbs' or 'nuts'",
        ApproximationWarning,
        skip_file_prefixes=(str(Path(__file__).parents[1]),),
    )


def check_fitted_data(
    tree: xr.DataTree,
    model: FittedModel,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None,
    row_data: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Raise ValueError, naming what is wrong, unless this is what was fitted and there are draws enough."""
    if model.num_draws < MIN_DRAWS:
        raise ValueError(
            f"loo needs at least {MIN_DRAWS} draws over all chains, got {model.num_draws}: raise num_samples"
        )
    fitted = tree["observed_data"]["y"].to_numpy()
    constant = tree["constant_data"]
    known = constant["weight"].to_numpy() if "weight" in constant else np.ones(len(fitted))
    if len(y) != len(fitted):
        raise ValueError(
            "loo needs the X, y and sample_weight of fit, but there are "
            f"{len(y)} rows of weight above zero, {len(fitted)} when fitted"
        )
    if not np.array_equal(known, np.ones(len(y)) if weight is None else weight):
        raise ValueError(
            "loo needs the X, y and sample_weight of fit, but sample_weight is not what was fitted"
        )
    if not np.array_equal(fitted, y.astype(fitted.dtype)):
        raise ValueError("loo needs the X, y and sample_weight of fit, but y is not what was fitted")
    for name, default in model.spec.likelihood.row_data.items():
        own = (row_data or {}).get(name, np.full(len(y), default))
        seen = constant[name].to_numpy() if name in constant else np.full(len(y), default)
        if not np.array_equal(own, seen):
            raise ValueError(f"loo needs the {name} of fit: give it as row_data={{{name!r}: ...}}")
    centre = model.spec.likelihood.centre(fitted, known)
    _check_rows(tree, model, design, centre)


def _check_rows(tree: xr.DataTree, model: FittedModel, design: Design, centre: float) -> None:
    """The first draw of every chain gives eta at the probe rows as the fit did, but for rounding."""
    rank = model.spec.predictor.rank
    has_intercept = model.spec.intercept is not None
    model.require([*(["w0"] if has_intercept else []), "w", *(["v"] if rank else [])])
    posterior = tree["posterior"].dataset
    if "eta" not in posterior:
        return
    X = sparse.csr_array(
        design.take(tree["constant_data"]["probe_rows"].to_numpy()).to_csr(), dtype=np.float64
    )
    used = np.unique(X.indices)
    X = X[:, used]
    for chain in range(model.num_chains):
        w = np.asarray(model.sites["w"][chain, 0])[..., used]
        w0 = np.asarray(model.sites["w0"][chain, 0]) if has_intercept else np.zeros(w.shape[:-1])
        v = np.asarray(model.sites["v"][chain, 0])[..., used, :] if rank else np.zeros((*w.shape, 0))
        eps, known = np.finfo(w.dtype).eps, np.asarray(posterior["eta"][chain, 0])
        wrong = np.zeros(X.shape[0], bool)
        for output in np.ndindex(w.shape[:-1]):
            own = float(w0[output]), w[output].astype(np.float64), v[output].astype(np.float64)
            eta, size = _eta(X, *own, centre)
            wrong |= np.abs(eta - known[output]) > ROUNDING * eps * size
        if np.any(wrong):
            raise ValueError(
                f"loo needs the X, y and sample_weight of fit, but X is not what was fitted: {wrong.sum()} of "
                f"{len(wrong)} rows looked at have another linear predictor; rows must be the same in the same order"
            )


def _eta(
    X: sparse.csr_array, w0: float, w: np.ndarray, v: np.ndarray, centre: float
) -> tuple[Float[np.ndarray, " probe"], Float[np.ndarray, " probe"]]:
    """Rendle's lemma 3.1 for one draw, and the size of its terms, on which its rounding depends."""
    eta = w0 + X @ w + 0.5 * ((X @ v) ** 2 - X**2 @ v**2).sum(axis=1)
    size = abs(w0 - centre) + abs(X) @ np.abs(w) + ((abs(X) @ np.abs(v)) ** 2).sum(axis=1)
    return eta, size
