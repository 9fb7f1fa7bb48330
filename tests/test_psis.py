"""Leave-one-out by importance sampling, beside ArviZ on the same numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from bayesfm import psis
from bayesfm.psis import fit_pareto, leave_one_out, tail_length


def by_arviz(log_lik: np.ndarray, relative_ess: float = 1.0) -> np.ndarray:
    """elpd, Pareto k and p of every row, (3, n)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of divisions by the cutoff, where nothing is left of it
        rows = [array_stats.loo(row[None], r_eff=relative_ess) for row in log_lik]
    return np.array([[float(np.ravel(x)[0]) for x in row] for row in rows]).T


CASES = {
    "few draws": (lambda rng: rng.normal(size=(40, 100)), 1.0),
    "light tails": (lambda rng: -0.1 * rng.normal(size=(60, 800)) ** 2, 1.0),
    "heavy tails": (lambda rng: -0.5 * rng.standard_t(3, size=(60, 800)) ** 2, 1.0),
    "rows of all sizes": (lambda rng: -rng.gamma(1, 3, (60, 1)) * rng.normal(size=(60, 1000)) ** 2, 1.0),
    "correlated draws": (lambda rng: rng.normal(size=(60, 800)), 0.31),
    "ties": (lambda rng: -rng.poisson(3.0, size=(40, 400)).astype(float), 1.0),
    "far from zero": (lambda rng: -2000.0 + rng.normal(size=(40, 400)), 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_arviz(name: str) -> None:
    make, relative_ess = CASES[name]
    log_lik = make(np.random.default_rng(0))
    expected = by_arviz(log_lik, relative_ess)
    # Rounding of some hundred terms each, the values being up to a few thousand.
    for got, known in zip(leave_one_out(log_lik, relative_ess), expected, strict=True):
        np.testing.assert_allclose(got, known, rtol=1e-9, atol=1e-9)


def test_rows_are_done_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is beside them, and in single precision up to that."""
    log_lik = -np.random.default_rng(1).gamma(1.0, 1.0, (50, 400))
    together = leave_one_out(log_lik)
    single = leave_one_out(log_lik.astype(np.float32))
    monkeypatch.setattr(psis, "CHUNK", 3 * 400)
    for whole, parts, rough in zip(together, leave_one_out(log_lik), single, strict=True):
        np.testing.assert_array_equal(whole, parts)
        np.testing.assert_allclose(
            whole, rough, rtol=0, atol=1e-4
        )  # eps of float32 times what the fit makes of it


def test_a_row_that_cannot_be_takes_nothing_from_the_others() -> None:
    log_lik = np.random.default_rng(2).normal(size=(6, 200))
    alone = leave_one_out(log_lik)
    log_lik[2, 17] = -np.inf
    found = leave_one_out(log_lik)
    assert (found.elpd[2], found.pareto_k[2], found.p[2]) == (-np.inf, np.inf, np.inf)
    for x, before in zip(found, alone, strict=True):
        np.testing.assert_array_equal(np.delete(x, 2), np.delete(before, 2))


def test_a_flat_row_is_left_as_it_is() -> None:
    found = leave_one_out(np.full((2, 100), -1.5))
    np.testing.assert_allclose(found.elpd, -1.5)
    np.testing.assert_array_equal(found.pareto_k, -np.inf)
    np.testing.assert_allclose(found.p, 0.0, atol=1e-12)


def test_products_that_would_overflow() -> None:
    """Excesses over 200 orders of magnitude: the fit is that of the plain sum of logarithms."""
    x = np.sort(np.logspace(-200, 0, 84))[None]
    k, sigma = fit_pareto(x)
    expected = array_stats._gpdfit(x[0])
    np.testing.assert_allclose((k[0], sigma[0]), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.6])
def test_the_shape_of_samples_is_found(k: float) -> None:
    """The posterior mean is drawn towards 1/2 as by ten draws; its standard deviation is about (1 + k) / sqrt(M)."""
    M, repeats = 2000, 40
    x = np.sort(
        stats.genpareto.rvs(k, scale=2.0, size=(repeats, M), random_state=np.random.default_rng(0)), axis=1
    )
    got = fit_pareto(x)[0].mean()
    expected = (M * k + 10 * 0.5) / (M + 10)
    assert abs(got - expected) < 5 * (1 + k) / np.sqrt(M * repeats) + 2 / M


def test_lengths_of_tails() -> None:
    assert [tail_length(100), tail_length(225), tail_length(800), tail_length(800, 0.5)] == [20, 45, 84, 120]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="25 draws at least, got 24"):
        leave_one_out(np.zeros((2, 24)))
    with pytest.raises(ValueError, match="numbers or -inf"):
        leave_one_out(np.full((2, 100), np.nan))
    with pytest.raises(ValueError, match="relative_ess must be above zero, got 0"):
        leave_one_out(np.zeros((2, 1000)), 0)
