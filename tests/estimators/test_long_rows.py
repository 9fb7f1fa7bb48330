"""A row with 50,000 entries among short ones, under every engine."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse

from bayesfm import ApproximationWarning, ConvergenceWarning, DivergenceWarning, FMRegressor
from bayesfm.estimators.engines import ENGINES

LONG = 50_000
FEW = {"num_samples": 3}
GIVEN = {"scales": "prior", "scale_iterations": 1, "max_iterations": 20}
QUICK: dict[str, dict] = {
    "gibbs": {"num_warmup": 2, "num_chains": 1, **FEW},
    "nuts": {"num_warmup": 3, "num_chains": 1, "engine_options": {"max_tree_depth": 3}, **FEW},
    "map": {"engine_options": GIVEN},
    "laplace": {"engine_options": GIVEN, **FEW},
    "cavi": {"engine_options": {"max_iterations": 2}, **FEW},
    "stochastic_map": {"engine_options": {"num_epochs": 2}},
    "svi": {"engine_options": {"num_epochs": 2}, **FEW},
}


SLOW = ("nuts", "map", "laplace", "cavi")
"""Much to compile; and mean-field passes by XLA draw the features of the long row one after the other."""


def rows() -> tuple[sparse.csr_array, np.ndarray]:
    """Row 0 has every column, scaled to length one; the others have one to five of the first hundred and ones."""
    rng = np.random.default_rng(0)
    n = 80
    short = sparse.random_array((n, LONG), density=0.0, rng=rng).tolil()
    for i in range(1, n):
        short[i, rng.choice(100, rng.integers(1, 6), replace=False)] = 1.0
    short[0] = rng.choice([-1.0, 1.0], LONG) / np.sqrt(LONG)
    return sparse.csr_array(short), rng.normal(size=n)


def test_every_engine_is_asked() -> None:
    assert set(QUICK) == set(ENGINES)


@pytest.mark.usefixtures("full_optimisation")  # steps of one feature, 50,000 to a pass
@pytest.mark.parametrize(
    "inference", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in QUICK]
)
def test_a_long_row(inference: str) -> None:
    """It is learned from and predicted, with all of its entries."""
    X, y = rows()
    model = FMRegressor(rank=2, inference=inference, random_state=0, progress=False, **QUICK[inference])
    with warnings.catch_warnings():
        for category in (ApproximationWarning, ConvergenceWarning, DivergenceWarning):  # of so few steps
            warnings.simplefilter("ignore", category)
        model.fit(X, y)
    eta = model.expected_draws(X)
    sites = model.posterior_["posterior"]
    first = {name: np.asarray(sites[name][0, 0]) for name in ("w0", "w", "v")}
    assert np.isfinite(eta).all()
    rounding = LONG * np.finfo(np.float32).eps  # of a sum of so many, one after the other
    np.testing.assert_allclose(eta.reshape(-1, len(y))[0], eta_of(X, **first), rtol=rounding, atol=1e-4)


def eta_of(X: sparse.csr_array, w0: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """By half of the square of sums less the sum of squares, in float64: the pairs of a long row are a billion."""
    w, v = w.astype(float), v.astype(float)
    return w0 + X @ w + 0.5 * np.sum((X @ v) ** 2 - X.power(2) @ v**2, axis=1)
