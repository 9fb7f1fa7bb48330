from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from bayesfm.random import gamma_sums, polya_gamma
from bayesfm.random.gamma_sums import STRAIGHT, TERMS, _mean, _remainder, _scales
from bayesfm.random.polya_gamma import CUT, _ratio, _ratio_whole
from tests.random.references import (
    cdf_by_inversion,
    log_characteristic,
    moments,
    polya_gamma_cdf,
    polya_gamma_cdf_by_series,
    uniform_tests,
)
from tests.statistics import assert_no_alarm, z_test

TILTS = [0.0, 0.5, -2.0, 3.1, 3.2, -5.0, 12.0, 30.0, 50.0]
"""Values of c; at pi the proposals change from one normal tail to two."""

# b, c
SHAPES = [
    (0.05, 1.0),
    (0.5, 0.0),
    (0.5, -8.0),
    (0.9, 3.0),
    (1.0, 1.0),
    (1.5, 0.5),
    (1.5, 20.0),
    (2.0, 0.0),
    (2.0, 12.0),
    (2.0, 13.0),
    (3.0, -5.0),
    (7.3, 2.0),
    (20.0, 1.0),
    (400.0, 3.0),
    (1e4, 0.5),
    (1e4, 50.0),
]

DTYPES = ["float32", "float64"]


def draws_of_one(size: int, dtype: str, seed: int) -> np.ndarray:
    c = jnp.asarray(np.array(TILTS)[:, None] * np.ones(size), dtype)
    return np.asarray(jax.jit(partial(polya_gamma, b=1))(jax.random.key(seed), c=c), np.float64)


def draws_of_shapes(size: int, dtype: str, seed: int) -> np.ndarray:
    b, c = (jnp.asarray(np.array(SHAPES)[:, [i]] * np.ones(size), dtype) for i in range(2))
    return np.asarray(jax.jit(polya_gamma)(jax.random.key(seed), b, c), np.float64)


def moment_tests(name: str, omega: np.ndarray, b: float, c: float) -> dict[str, float]:
    """Mean, variance, and the Laplace transform at one over the mean."""
    n = len(omega)
    mean, variance = moments(b, c)
    t = 1 / mean
    laplace = math.exp(float(np.real(log_characteristic(np.array(1j * t), b, c))))
    centred = omega - mean
    transformed = np.exp(-t * omega)
    return {
        f"{name} mean": float(z_test(centred.mean(), math.sqrt(variance / n))),
        f"{name} variance": float(z_test((centred**2).mean() - variance, (centred**2).std() / math.sqrt(n))),
        f"{name} laplace": float(z_test(transformed.mean() - laplace, transformed.std() / math.sqrt(n))),
    }


def distribution_tests(name: str, omega: np.ndarray, b: float, c: float) -> dict[str, float]:
    return uniform_tests(name, polya_gamma_cdf(b, c)(omega))


def share_around_the_cut_test(omega: list[np.ndarray]) -> float:
    """Share of PG(1, 0) where the envelope is above the density, by half a per cent at most."""
    low, high = 0.145, 0.177
    counts = [np.count_nonzero((x > low) & (x < high)) for x in omega]
    total = sum(x.size for x in omega)
    share = float(np.diff(polya_gamma_cdf_by_series(np.array([low, high]), 1.0, 0.0))[0])
    return float(z_test(sum(counts) / total - share, math.sqrt(share * (1 - share) / total)))


def dependence_tests(omega: np.ndarray) -> dict[str, float]:
    """Rank correlation of rows that follow each other, and of neighbours within a row."""
    ranks = stats.rankdata(omega[:, :30_000], axis=1)
    rows = {f"rows {i}": stats.pearsonr(ranks[i], ranks[i + 1]).pvalue for i in range(len(ranks) - 1)}
    return rows | {f"neighbours {i}": stats.pearsonr(row[1:], row[:-1]).pvalue for i, row in enumerate(ranks)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_trial(dtype: str) -> None:
    size = 300_000 if dtype == "float32" else 60_000
    with jax.enable_x64(dtype == "float64"):
        omega = draws_of_one(size, dtype, 1)
    assert np.isfinite(omega).all()
    assert (omega > 0).all()
    p_values = {}
    for row, c in zip(omega, TILTS, strict=True):
        p_values |= moment_tests(f"{c}", row, 1.0, c)
        # The series takes time: some of the draws will do.
        p_values |= distribution_tests(f"{c}", row[:50_000], 1.0, c)
    assert_no_alarm(p_values | dependence_tests(omega))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_any_shape(dtype: str) -> None:
    size = 60_000 if dtype == "float32" else 30_000
    with jax.enable_x64(dtype == "float64"):
        omega = draws_of_shapes(size, dtype, 2)
    assert np.isfinite(omega).all()
    assert (omega >= 0).all()
    p_values = {}
    for row, (b, c) in zip(omega, SHAPES, strict=True):
        p_values |= moment_tests(f"{b}, {c}", row, b, c) | distribution_tests(f"{b}, {c}", row, b, c)
    assert_no_alarm(p_values | dependence_tests(omega))


def test_proposals_are_rejected_where_they_have_to_be() -> None:
    draw = jax.jit(partial(polya_gamma, b=1, c=jnp.zeros(5_000_000)))
    assert_no_alarm(
        {"cut": share_around_the_cut_test([np.asarray(draw(jax.random.key(i))) for i in range(5)])}
    )


def test_whole_shapes_are_the_same_law() -> None:
    n = 200_000
    omega = np.asarray(polya_gamma(jax.random.key(3), jnp.full(n, 3), jnp.full(n, 1.5)), np.float64)
    assert_no_alarm(moment_tests("3", omega, 3.0, 1.5) | distribution_tests("3", omega, 3.0, 1.5))


def test_finite_for_any_tilt_and_shape() -> None:
    tilts = np.concatenate([[0.0], np.logspace(-30, 15, 300)])
    c = jnp.asarray(np.concatenate([tilts, -tilts]), jnp.float32)
    b = jnp.array([[1e-30], [1e-3], [0.3], [1.7], [40.0], [1e4], [1e6]])
    for omega in (polya_gamma(jax.random.key(0), 1, c), polya_gamma(jax.random.key(0), b, c)):
        assert np.isfinite(omega).all()
        assert (np.asarray(omega) >= 0).all()


def test_far_tilts_concentrate() -> None:
    """omega is inverse Gaussian with mean 1 / (2 |c|) and variance 1 / (2 |c|^3)."""
    c = jnp.full(10_000, 1e4)
    omega = np.asarray(polya_gamma(jax.random.key(0), 1, c), np.float64)
    standard = (omega * 2e4 - 1) * math.sqrt(1e4 / 2)
    error = np.finfo(np.float32).eps * math.sqrt(1e4 / 2)
    assert error < 1e-5
    reference = stats.invgauss(mu=2 / 1e4, scale=1e4 / 2)  # of the mean one
    assert_no_alarm({"ks": stats.kstest(standard / math.sqrt(1e4 / 2) + 1, reference.cdf).pvalue})


def test_no_trials_and_no_shape() -> None:
    b, c = jnp.array([0.0, -1.0, jnp.nan, 2.0]), jnp.array([1.0, 1.0, 1.0, jnp.nan])
    np.testing.assert_array_equal(polya_gamma(jax.random.key(0), b, c), [0, np.nan, np.nan, np.nan])
    b = jnp.array([0, -1, 0, 2])
    np.testing.assert_array_equal(polya_gamma(jax.random.key(0), b, c), [0, np.nan, 0, np.nan])
    np.testing.assert_array_equal(np.isnan(polya_gamma(jax.random.key(0), 1, c)), np.isnan(c))


def test_shapes_and_types() -> None:
    key = jax.random.key(0)

    def shape_and_type(b: object, c: object) -> tuple[tuple[int, ...], np.dtype]:
        out = jax.eval_shape(lambda: polya_gamma(key, b, c))
        return out.shape, out.dtype

    assert shape_and_type(jnp.ones((3, 1)), jnp.zeros(4)) == ((3, 4), jnp.float32)
    assert shape_and_type(1, 0.0) == ((), jnp.float32)
    assert shape_and_type(2.5, 0) == ((), jnp.float32)
    with jax.enable_x64():
        assert shape_and_type(1, jnp.zeros(3)) == ((3,), jnp.float64)
        assert shape_and_type(jnp.ones(3, int), jnp.zeros(3, jnp.float32)) == ((3,), jnp.float32)
    for b in (1, 2.5):
        assert polya_gamma(key, b, jnp.zeros((2, 0))).shape == (2, 0)


def test_vmap_is_a_loop() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    tilts = jnp.linspace(0.0, 9.0, 3)
    together = jax.vmap(lambda k, c: polya_gamma(k, 2.5, jnp.full(500, c)))(keys, tilts)
    one_by_one = [polya_gamma(k, 2.5, jnp.full(500, c)) for k, c in zip(keys, tilts, strict=True)]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4)


@pytest.mark.parametrize("h", [1e-3, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0])
def test_density_is_below_the_envelope(h: float) -> None:
    """And their ratio is what a proposal is accepted with."""
    x = np.concatenate([np.linspace(0.01, CUT, 200), np.linspace(CUT, 7.0, 400)[1:]])
    n = np.arange(60)[:, None]
    log_weight = np.log((2 * n + h) / h) + gammaln(n + h) - gammaln(h) - gammaln(n + 1) - 2 * n * (n + h) / x
    A = ((-1.0) ** n * np.exp(log_weight)).sum(axis=0)
    log_L = -1.5 * np.log(x) - h * h / (2 * x)
    log_beyond = -1.5 * math.log(CUT) - h * h / (2 * CUT) - math.pi**2 / 8 * (x - CUT)
    ratio = A * np.exp(log_L - np.where(x < CUT, log_L, log_beyond))
    error = 1e-15 / np.exp(-(math.pi**2) / 8 * x)  # A is a difference of numbers around one
    assert (ratio < 1 + error).all()
    assert (ratio > 0).all()
    with jax.enable_x64():
        assert (np.abs(np.asarray(_ratio(jnp.asarray(x), jnp.asarray(h))) - ratio) < 4 * error).all()
        if h == 1:
            assert (np.abs(np.asarray(_ratio_whole(jnp.asarray(x))) - ratio) < 4 * error).all()


def remainder(c: float) -> tuple[np.ndarray, float, float, float]:
    """Scales of the gammas that are drawn; shift, mean and shape parameter of the inverse Gaussian rest."""
    with jax.enable_x64():
        scales = np.array([float(s) for s in _scales(jnp.float64(c))])[: TERMS if c < STRAIGHT else 0]
        mean = float(_mean(jnp.float64(c))) - scales.sum()
        centre, shape = (float(x) for x in _remainder(jnp.asarray(c < STRAIGHT), jnp.float64(c)))
    return scales, mean - centre, centre, shape


@pytest.mark.parametrize("c", [0.0, 1e-3, 0.03, 1.0, 6.0, 12.4, 12.6, 40.0])
def test_remainder_has_the_cumulants_of_what_is_left_out(c: float) -> None:
    scales, shift, mean, shape = remainder(c)
    k = np.arange(len(scales), 400_000) + 0.5
    left = 1 / (2 * math.pi**2 * k**2 + c * c / 2)
    np.testing.assert_allclose(shift + mean, left.sum() + 1 / (2 * math.pi**2 * (k[-1] + 0.5)), rtol=1e-9)
    cumulants = [mean**3 / shape, 3 * mean**5 / shape**2]
    for j, ours, exact in zip((2, 3), cumulants, [(left**2).sum(), 2 * (left**3).sum()], strict=True):
        if len(scales):  # the next term of Euler-Maclaurin, relative to the integral, is largest for c = 0
            tolerance = 31 / 967680 * math.prod(range(2 * j, 2 * j + 5)) * (2 * j - 1) / TERMS**6
        else:  # of Poisson's the next term; the polynomials
            tolerance = 1e-8 + 16 * math.exp(-2 * c) * (1 + c + c * c) ** 2
        np.testing.assert_allclose(ours, exact, rtol=tolerance)


@pytest.mark.parametrize("m", [1, 1.5, 2, 8])
def test_error_of_the_sum_of_gammas(m: float) -> None:
    """What the documentation says of it, by Fourier inversion of both characteristic functions."""
    for c in (0.0, 2.0, 6.0, 10.0, 12.4, 12.6, 16.0):
        scales, shift, mean, shape = remainder(c)

        def log_phi(t: np.ndarray) -> np.ndarray:
            ratio = shape / mean  # noqa: B023  called before the next c
            rest = 1j * t * shift + ratio * (1 - np.sqrt(1 - 2j * mean**2 * t / shape))  # noqa: B023
            return m * (rest - sum(np.log(1 - 1j * t * scale) for scale in scales))  # noqa: B023

        centre, variance = moments(m, c)
        x = np.linspace(max(0, centre - 5 * math.sqrt(variance)), centre + 8 * math.sqrt(variance), 200)[1:]
        period = 2 * x[-1]
        ours = cdf_by_inversion(log_phi, x, period, 4000)
        exact = cdf_by_inversion(lambda t: log_characteristic(t, m, c), x, period, 4000)  # noqa: B023
        assert np.abs(ours - exact).max() < (1e-6 if c <= 2 else 2.1e-5 / math.sqrt(m))


def test_the_references_agree() -> None:
    for b, c in [(1.0, 0.0), (1.0, 10.0), (0.5, 0.0), (0.3, 3.0)]:
        mean, variance = moments(b, c)
        x = mean + math.sqrt(variance) * np.linspace(-1, 8, 20)
        x = x[x > 0]
        inverted = cdf_by_inversion(
            lambda t: log_characteristic(t, b, c),  # noqa: B023  called at once
            x,
            mean + 40 * math.sqrt(variance),
            40_000,
        )
        np.testing.assert_allclose(polya_gamma_cdf_by_series(x, b, c), inverted, rtol=0, atol=1e-10)


def test_more_is_rejected_than_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it takes several turns. Here half of the gammas are turned down by the toss of a coin."""
    attempt_all = gamma_sums.by_rejection

    def wasteful(key, attempt, parameters, one_in):  # type: ignore[no-untyped-def]
        def half(key, *p):  # type: ignore[no-untyped-def]
            x, rejected = attempt(key, *p)
            return x, rejected | jax.random.bernoulli(jax.random.fold_in(key, 12345), 0.5, x.shape)

        return attempt_all(key, half, parameters, one_in)

    monkeypatch.setattr(gamma_sums, "by_rejection", wasteful)
    n = 50_000
    omega = np.asarray(
        gamma_sums.sum_of_gammas(jax.random.key(6), jnp.full(n, 2.0), jnp.zeros(n)), np.float64
    )
    assert_no_alarm(moment_tests("2", omega, 2.0, 0.0) | distribution_tests("2", omega, 2.0, 0.0))
