"""A row of weight c counts as c equal rows; a row of weight zero is not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from bayesfm.design import Block
from tests.estimators.data import assert_same_draws, matrix, quick, ratings, sites
from tests.statistics import assert_no_alarm, mcse, named, z_test

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

X, Y = matrix()
N = len(Y)
WEIGHT = np.random.default_rng(1).permutation(np.repeat([0.0, 1.0, 2.0], N // 3))
TWICE = np.repeat(np.arange(N), WEIGHT.astype(int))
"""Rows as the weights count them: N of them, too, so that one program serves both."""


@pytest.mark.parametrize(
    "weight", [np.ones(N), np.ones(N, int), [1.0] * N, 1.0], ids=["float", "int", "list", "number"]
)
def test_ones_are_no_weights(weight: Any) -> None:
    assert_same_draws(quick().fit(X, Y, sample_weight=weight), quick().fit(X, Y))


@pytest.mark.parametrize("kind", ["dense", "sparse", "blocks"])
def test_weight_zero_is_absence(kind: str) -> None:
    make = {"dense": np.asarray, "sparse": sparse.csr_array, "blocks": lambda x: [Block.create("X", x)]}[kind]
    kept = WEIGHT > 0
    y = np.where(kept, Y, 1e6)  # whatever stands there
    with_zeros = quick().fit(make(X), y, sample_weight=kept)
    without = quick().fit(make(X[kept]), Y[kept])
    assert_same_draws(with_zeros, without)
    assert with_zeros.spec_ == without.spec_


def test_weight_zero_is_absence_in_a_frame() -> None:
    frame, y = ratings()
    kept = np.arange(len(y)) < 30
    assert_same_draws(quick().fit(frame, y, sample_weight=kept), quick().fit(frame[kept], y[kept]))


def test_level_of_weight_zero_is_like_an_unseen_one() -> None:
    frame, y = ratings()
    absent = frame["user"] == "ann"
    model = quick().fit(frame, y, sample_weight=~absent)
    _, sd = model.predict(frame, return_std=True)
    assert sd[absent].min() > sd[~absent].max()


def test_weights_count_rows_in_law() -> None:
    """The property behind scikit-learn's check_sample_weight_equivalence, of independent runs."""
    a, b = runs(range(10), np.arange(N), WEIGHT), runs(range(10, 20), TWICE, None)
    p_values: dict[str, float] = {}
    for name in a:
        for moment in (1, 2):
            ours, theirs = a[name] ** moment, b[name] ** moment
            error = np.hypot(mcse(ours), mcse(theirs))
            p_values |= named(f"{name}^{moment}", z_test(ours.mean((0, 1)) - theirs.mean((0, 1)), error))
    assert_no_alarm(p_values)


def runs(seeds: Iterable[int], rows: np.ndarray, weight: np.ndarray | None) -> dict[str, np.ndarray]:
    """Draws of eta and alpha over 2 chains per seed, far apart, by the program that all tests use."""
    draws: dict[str, list[np.ndarray]] = {"eta": [], "log alpha": []}
    for seed in seeds:
        model = quick(num_warmup=200, thin=50, random_state=seed).fit(X[rows], Y[rows], sample_weight=weight)
        draws["eta"].append(model.expected_draws(X))
        draws["log alpha"].append(np.log(sites(model)["alpha"]))
    return {name: np.concatenate(x) for name, x in draws.items()}


def test_weights_do_matter() -> None:
    heavy = np.where(np.arange(N) < 5, 50.0, 1.0)
    weighted, plain = (quick().fit(X, Y, sample_weight=w) for w in (heavy, None))
    error = lambda model: np.mean((model.predict(X[:5]) - Y[:5]) ** 2)  # noqa: E731
    assert error(weighted) < error(plain)
