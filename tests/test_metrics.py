"""Scores against their definitions and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bayesfm.metrics import crps, interval_coverage, mae, mean_interval_width, mean_log_density, rmse

rng = np.random.default_rng(0)
Y, GUESS = rng.normal(size=(2, 9))
INTERVALS = np.sort(rng.normal(size=(9, 2)), axis=1)
COUNTS = np.array([0, 1, 2, 3, 1, 0, 2, 1, 1])


def test_definitions() -> None:
    inside = [low <= y <= high for y, (low, high) in zip(Y, INTERVALS, strict=True)]
    assert 0 < sum(inside) < 9
    assert rmse(Y, GUESS) == pytest.approx(
        np.sqrt(sum((y - g) ** 2 for y, g in zip(Y, GUESS, strict=True)) / 9)
    )
    assert mae(Y, GUESS) == pytest.approx(sum(abs(y - g) for y, g in zip(Y, GUESS, strict=True)) / 9)
    assert interval_coverage(Y, INTERVALS) == pytest.approx(sum(inside) / 9)
    assert mean_interval_width(INTERVALS) == pytest.approx(sum(high - low for low, high in INTERVALS) / 9)
    assert mean_log_density(Y) == pytest.approx(sum(Y) / 9)


@pytest.mark.parametrize(
    "score",
    [
        lambda i, c=None: rmse(Y[i], GUESS[i], c),
        lambda i, c=None: mae(Y[i], GUESS[i], c),
        lambda i, c=None: interval_coverage(Y[i], INTERVALS[i], c),
        lambda i, c=None: mean_interval_width(INTERVALS[i], c),
        lambda i, c=None: mean_log_density(Y[i], c),
        lambda i, c=None: crps(Y[i], np.stack([GUESS, Y])[:, i] + INTERVALS[i, 0], c),
    ],
    ids=["rmse", "mae", "coverage", "width", "log density", "crps"],
)
def test_a_weight_counts_rows(score) -> None:  # type: ignore[no-untyped-def]
    everything = np.arange(9)
    assert score(everything, COUNTS) == pytest.approx(score(np.repeat(everything, COUNTS)))
    assert score(everything, COUNTS) != pytest.approx(score(everything))


def test_ends_belong_to_the_interval() -> None:
    assert interval_coverage([1.0, 2.0], [[1.0, 1.5], [1.0, 2.0]]) == 1.0


def test_crps_of_a_normal_distribution() -> None:
    """Gneiting & Raftery (2007), equation 5 (with the sign turned): sigma (z (2 Phi - 1) + 2 phi - 1/sqrt(pi))."""
    y, S = np.array([-1.0, 0.3, 2.5]), 4000
    z = (y - 0.5) / 2.0
    exact = 2.0 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    scores = [crps(y, rng.normal(0.5, 2.0, (2, S // 2, 3))) for _ in range(20)]
    assert abs(np.mean(scores) - exact.mean()) < 4 * np.std(scores, ddof=1) / np.sqrt(20)


def test_crps_is_the_double_loop() -> None:
    draws = rng.normal(size=(5, 9))
    pairs = [np.abs(draws[s] - draws[t]) for s in range(5) for t in range(5) if s != t]
    expected = np.mean(np.abs(draws - Y)) - 0.5 * np.mean(pairs)
    assert crps(Y, draws) == pytest.approx(expected)


def test_minus_infinity_is_a_log_density() -> None:
    assert mean_log_density([-1.0, -np.inf]) == -np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse([1.0, 2.0], [1.0]), "prediction must have as many entries as y: expected 2, got 1"),
        (lambda: rmse([], []), "y must be one-dimensional and not empty"),
        (lambda: mae([[1.0]], [1.0]), r"y must be one-dimensional and not empty, got shape \(1, 1\)"),
        (lambda: mae([np.nan], [1.0]), "y must be finite"),
        (lambda: mae([1.0], [np.inf]), "prediction must be finite"),
        (lambda: rmse([1.0], [1.0], [-1.0]), "sample_weight must not be negative"),
        (lambda: rmse([1.0], [1.0], [0.0]), "not zero everywhere"),
        (lambda: rmse([1.0], [1.0], [1.0, 2.0]), "sample_weight must have 1 entries, got 2"),
        (lambda: interval_coverage([1.0], [1.0, 2.0]), r"intervals must have shape \(n, 2\)"),
        (lambda: interval_coverage([1.0], [[0.0, 1.0]] * 2), "one row per entry of y: expected 1, got 2"),
        (lambda: mean_interval_width([[2.0, 1.0]]), "lower ends that are not above"),
        (lambda: mean_interval_width([[np.nan, 1.0]]), "lower ends that are not above"),
        (lambda: mean_log_density([np.nan]), "without NaN"),
        (lambda: mean_log_density([np.inf]), "below infinity"),
        (lambda: crps([1.0], [[1.0]]), "two draws at least"),
        (lambda: crps([1.0], [[1.0, 2.0]] * 3), r"shape \(draws, n=1\)"),
        (lambda: crps([1.0], [[1.0], [np.nan]]), "draws must be finite"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
