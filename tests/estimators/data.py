"""One small data set in every form, so that a worker compiles the sampler once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from bayesfm.design import Design
from bayesfm.estimators import FMRegressor
from bayesfm.inference.draws import Draws
from bayesfm.model import ModelSpec, site_dims

USERS, ITEMS = ["ann", "bob", "cat", "dan", "eve", "flo"], [10, 11, 12, 13, 14]
QUICK = {"num_warmup": 30, "num_samples": 40, "num_chains": 2, "random_state": 0}
"""Enough sweeps to have draws, far too few to believe them."""


def ratings() -> tuple[pd.DataFrame, np.ndarray]:
    """Every user rates every item twice: 60 rows, the two halves alike."""
    rng = np.random.default_rng(0)
    user, item = np.tile(np.repeat(USERS, len(ITEMS)), 2), np.tile(ITEMS, 2 * len(USERS))
    effects = dict(zip(USERS, rng.normal(size=len(USERS)), strict=True))
    y = 3.0 + np.array([effects[u] for u in user]) + 0.3 * (item - 12) + 0.5 * rng.normal(size=len(user))
    return pd.DataFrame({"user": user, "item": item}), y


def matrix(n: int = 30, p: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Small whole numbers, all of them exact in every dtype, a third of them zero, and a linear response."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (n, p)).astype(float)
    return X, X @ np.linspace(1.0, -1.0, p) + rng.normal(size=n)


def quick(**options: Any) -> FMRegressor:
    return FMRegressor(**{"rank": 2, **QUICK, **options})


def sites(model: FMRegressor) -> dict[str, np.ndarray]:
    """All draws, as plain arrays."""
    return {str(name): x.to_numpy() for name, x in model.posterior_["posterior"].data_vars.items()}


def assert_same_draws(a: FMRegressor, b: FMRegressor) -> None:
    """Bit for bit."""
    ours, theirs = sites(a), sites(b)
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        np.testing.assert_array_equal(x, theirs[name], err_msg=name)


def random_engine(
    estimator: FMRegressor,
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: np.ndarray,
    *,
    weight: np.ndarray | None,
    row_data: Mapping[str, np.ndarray],
    options: Any,
    streams: Mapping[str, Design],
    stream_row_data: Mapping[str, Mapping[str, np.ndarray]],
) -> Draws:
    """An engine that compiles nothing: numbers of the right shapes, and alpha near one."""
    rng = np.random.default_rng(0)
    sizes = {
        "group": len(design.group_names),
        "factor": spec.predictor.rank,
        "feature": design.num_features,
        "probe": 1,
        "cutpoint": getattr(spec.likelihood, "num_classes", 2) - 1,
    }
    dims: dict[str, Sequence[str]] = {**site_dims(spec), "eta": ("probe",)}
    lead = (options.num_chains, options.num_samples)
    drawn = {name: rng.normal(size=lead + tuple(sizes[d] for d in own)) for name, own in dims.items()}
    drawn = {name: np.exp(x) if name.startswith(("alpha", "lambda")) else x for name, x in drawn.items()}
    info = {"engine": "random", "num_rows": len(y)}
    return Draws(drawn, dict(dims), {"lp": rng.normal(size=lead)}, np.zeros(1, int), {}, info)
