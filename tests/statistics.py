"""Statistical comparisons, with one rate of false alarms for the whole suite.

Every statistical test gets the same share of :data:`FALSE_ALARM` and shares it out over its comparisons (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from arviz_stats.base import array_stats
from scipy import stats

FALSE_ALARM = 1e-3
"""Probability that a correct package fails at least one statistical test of the suite."""

NUM_TESTS = 250
"""Statistical tests (runs of a test function) in the suite, at most."""


def level(num_comparisons: int) -> float:
    """Threshold of p-values in a test with that many comparisons."""
    return FALSE_ALARM / (NUM_TESTS * num_comparisons)


def alarms(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values below the threshold, smallest first."""
    threshold = level(len(p_values))
    return {name: p for name, p in sorted(p_values.items(), key=lambda item: item[1]) if not p >= threshold}


def assert_no_alarm(p_values: Mapping[str, float]) -> None:
    """Fail with the names of all comparisons whose p-value is too small (or NaN); ``pytest -rP`` shows the smallest."""
    name = min(p_values, key=p_values.__getitem__)
    print(f"{len(p_values)} comparisons, smallest p-value {p_values[name]:.1e} ({name})")
    found = alarms(p_values)
    assert not found, f"p-values below {level(len(p_values)):.1e}: " + ", ".join(
        f"{name} {p:.1e}" for name, p in found.items()
    )


def ks(sample: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Two-sample Kolmogorov-Smirnov p-values of all quantities, each an array of independent values."""
    assert sample.keys() == reference.keys()
    return {name: _ks(sample[name], reference[name]) for name in sample}


def _ks(a: np.ndarray, b: np.ndarray) -> float:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    return float(stats.ks_2samp(a, b, method="asymp").pvalue)


def ks_exact(sample: np.ndarray, distribution: stats.rv_continuous) -> float:
    """One-sample Kolmogorov-Smirnov p-value of independent values against a frozen SciPy distribution."""
    return float(stats.kstest(np.asarray(sample, np.float64), distribution.cdf).pvalue)


def mcse(draws: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean over the first two axes (chain, draw)."""
    return np.asarray(
        array_stats.mcse(np.asarray(draws, np.float64), chain_axis=0, draw_axis=1, method="mean")
    )


def z_test(difference: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Two-sided p-values of differences that should be zero."""
    return 2 * stats.norm.sf(np.abs(difference) / standard_error)


def means_test(draws: np.ndarray, expected: np.ndarray | float) -> np.ndarray:
    """Two-sided p-values of "the mean is as expected" for (chain, draw, ...) of many independent chains.

    The standard error is that of the chain means, which are independent whatever the autocorrelation; with C chains
    their t-statistic has C - 1 degrees of freedom.
    """
    means = np.asarray(draws, np.float64).mean(axis=1)
    return np.asarray(stats.ttest_1samp(means, expected, axis=0).pvalue)


def same_means_test(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two-sided p-values of "both have one mean", as :func:`means_test` (Welch)."""
    means_a, means_b = (np.asarray(x, np.float64).mean(axis=1) for x in (a, b))
    return np.asarray(stats.ttest_ind(means_a, means_b, axis=0, equal_var=False).pvalue)


def uniform_ranks_test(ranks: np.ndarray, num_ranks: int, num_bins: int) -> float:
    """Chi-square p-value of ranks 0, ..., num_ranks - 1 being equally likely; ``num_bins`` divides ``num_ranks``."""
    assert num_ranks % num_bins == 0
    counts = np.bincount(ranks * num_bins // num_ranks, minlength=num_bins)
    return float(stats.chisquare(counts).pvalue)


def named(name: str, p_values: np.ndarray) -> dict[str, float]:
    """An array of p-values as a mapping, ``name[i, j]``."""
    p_values = np.asarray(p_values)
    if not p_values.ndim:
        return {name: float(p_values)}
    return {f"{name}{list(i)}": float(p_values[i]) for i in np.ndindex(p_values.shape)}
