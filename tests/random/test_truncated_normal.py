from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import erfcx, log_ndtr

from bayesfm.random import truncated_normal
from bayesfm.random.tails import mills_ratio, uniform_pair
from bayesfm.random.truncated_normal import _NARROW, _quantile
from tests.random.references import truncated_cdf, uniform_tests
from tests.statistics import assert_no_alarm

INF = math.inf

# mean, lower, upper
CASES = [
    (0.0, -INF, INF),
    (0.0, 0.0, INF),
    (1.5, 0.0, INF),
    (-5.0, 0.0, INF),
    (-40.0, 0.0, INF),
    (-1e6, 0.0, INF),
    (-1e15, 0.0, INF),
    (5.5, -INF, 0.0),
    (40.0, -INF, 0.0),
    (1e17, -INF, 0.0),
    (3.0, -INF, 2.5),
    (0.25, -1.0, 0.5),
    (0.0, -8.0, 9.0),
    (0.0, -0.5, INF),
    (2.0, 7.0, 8.0),
    (-2.0, -8.0, -7.5),
    (0.0, -0.015625, 0.0234375),
    (0.0, -0.0078125, 0.015625),
    (-3.0, 0.0, 0.03125),
    (0.0, -1.52587890625e-5, 3.0517578125e-5),
    (-3.0, 0.0, 6.103515625e-5),
    (-40.0, 0.0, 0.0625),
    (-40.0, 0.0, 9.765625e-4),
    (-1e4, 0.0, 9.765625e-4),
    (60.0, -9.765625e-4, 0.0),
]

DTYPES = ["float32", "float64"]


def error_of_cdf(dtype: str) -> float:
    """What is left out where an interval counts as narrow; some roundings over the mass of one that just does not."""
    width = _NARROW[dtype]
    return width**2 / 130 + 4 * np.finfo(dtype).eps / (width * stats.norm.pdf(0))


def draws(cases: list[tuple[float, ...]], size: int, dtype: str, seed: int) -> np.ndarray:
    arguments = [jnp.asarray(np.array(cases)[:, [i]] * np.ones(size), dtype) for i in range(3)]
    return np.asarray(jax.jit(truncated_normal)(jax.random.key(seed), *arguments), np.float64)


def case_values(dtype: str) -> list[tuple[float, ...]]:
    return [tuple(float(x) for x in case) for case in np.asarray(CASES, dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_distribution(dtype: str) -> None:
    """All draws, and those of the lowest and the highest hundredth by themselves."""
    with jax.enable_x64(dtype == "float64"):
        x = draws(CASES, 200_000, dtype, 1)
    p_values = {}
    for row, (mean, lower, upper) in zip(x, case_values(dtype), strict=True):
        assert np.isfinite(row).all()
        assert (row >= lower).all()
        assert (row <= upper).all()
        p_values |= uniform_tests(f"{mean}, {lower}, {upper}", truncated_cdf(row, lower, upper, mean))
    assert_no_alarm(p_values)


def test_many_draws_beyond_the_reach_of_others() -> None:
    """A million draws at 5.5 and at 40 standard deviations, where float32 has no distribution function left."""
    cases = [(-5.5, 0.0, INF), (40.0, -INF, 0.0)]
    p_values = {}
    for row, (mean, lower, upper) in zip(draws(cases, 1_000_000, "float32", 2), cases, strict=True):
        p_values[f"{mean}"] = stats.kstest(truncated_cdf(row, lower, upper, mean), "uniform").pvalue
    assert_no_alarm(p_values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantiles(dtype: str) -> None:
    """Beside the distribution function in float64, from 1e-9 to 1 - 1e-9."""
    tail = np.logspace(-9, math.log10(0.5), 200)
    levels = np.concatenate([tail, 1 - tail[::-1]])
    complements = np.concatenate([1 - tail, tail[::-1]])
    with jax.enable_x64(dtype == "float64"):
        for mean, lower, upper in case_values(dtype):
            u, v = levels, complements
            if abs(upper - mean) < abs(lower - mean):  # outwards from the nearer bound
                u, v = v, u
            arguments = [jnp.full(len(u), value, dtype) for value in (mean, lower, upper)]
            x = np.asarray(_quantile(jnp.asarray(u, dtype), jnp.asarray(v, dtype), *arguments), np.float64)
            spacing = np.spacing(np.abs(np.asarray(x, dtype))).astype(np.float64)
            below, above = (truncated_cdf(x + s * spacing, lower, upper, mean) for s in (-1, 1))
            error = np.maximum(np.maximum(below - levels, levels - above), 0)
            assert error.max() < error_of_cdf(dtype), (mean, lower, upper)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_quantiles(dtype: str) -> None:
    """Tail probabilities have a small relative error, down to 1e-9."""
    v = np.logspace(-9, math.log10(0.4), 100)
    with jax.enable_x64(dtype == "float64"):
        for a in (-INF, -1.0, 0.0, 1.5, 5.0, 40.0):
            mean, lower = (0.0, a) if a == -INF else (-a, 0.0)
            arguments = [jnp.full(len(v), value, dtype) for value in (mean, lower, INF)]
            x = np.asarray(
                _quantile(jnp.asarray(1 - v, dtype), jnp.asarray(v, dtype), *arguments), np.float64
            )
            log_tail = log_ndtr(mean - x) - log_ndtr(mean - lower)
            # The exponential -log v has its rounding, x one, times the hazard; and each some more on the way.
            bound = 8 * np.finfo(dtype).eps * (1 - np.log(v) + np.abs(x) * (1 + x - mean))
            bound += 4 * np.finfo(np.float64).eps * abs(log_ndtr(mean - lower))  # of the reference
            assert (np.abs(log_tail - np.log(v)) < bound).all(), a


def test_mean_inside_a_wide_interval_reaches_both_tails() -> None:
    x = draws([(0.0, -30.0, 40.0)], 1_000_000, "float32", 3)[0]
    assert_no_alarm({"ks": stats.kstest(x, "norm").pvalue})
    assert x.min() < -4.5
    assert x.max() > 4.5


def test_always_finite_and_inside() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    scale = 10.0 ** rng.integers(-30, 30, (3, n))
    mean, a, b = (scale * rng.normal(size=(3, n))).astype(np.float32)
    lower, upper = np.minimum(a, b), np.maximum(a, b)
    lower[::5], upper[::7] = -INF, INF
    upper[::11] = lower[::11]
    x = np.asarray(truncated_normal(jax.random.key(0), mean, lower, upper))
    kept = ~((lower == -INF) & (upper == -INF))
    assert np.isfinite(x[kept]).all()
    assert (x[kept] >= lower[kept]).all()
    assert (x[kept] <= upper[kept]).all()


def test_one_point_and_none() -> None:
    x = truncated_normal(
        jax.random.key(0), jnp.zeros(3), jnp.array([2.0, 2.0, 0.0]), jnp.array([2.0, 1.0, jnp.nan])
    )
    np.testing.assert_array_equal(x, [2.0, np.nan, np.nan])


def test_shapes_and_types() -> None:
    def shape_and_type(*arguments: object) -> tuple[tuple[int, ...], np.dtype]:
        out = jax.eval_shape(lambda: truncated_normal(jax.random.key(0), *arguments))
        return out.shape, out.dtype

    assert shape_and_type(jnp.zeros((3, 1)), 0, jnp.ones(4)) == ((3, 4), jnp.float32)
    assert shape_and_type(0, 1, 2) == ((), jnp.float32)
    with jax.enable_x64():
        assert shape_and_type(jnp.zeros(3), 0, jnp.inf) == ((3,), jnp.float64)
        assert shape_and_type(jnp.zeros(3, jnp.float32), 0, jnp.inf) == ((3,), jnp.float32)
    assert truncated_normal(jax.random.key(0), jnp.zeros(0), 1, 2).shape == (0,)


def test_vmap_is_a_loop() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    means = jnp.linspace(-9.0, 9.0, 3)
    together = jax.vmap(lambda k, m: truncated_normal(k, jnp.full(50, m), 0.0, jnp.inf))(keys, means)
    one_by_one = [
        truncated_normal(k, jnp.full(50, m), 0.0, jnp.inf) for k, m in zip(keys, means, strict=True)
    ]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mills_ratio(dtype: str) -> None:
    x = np.concatenate([[0.0], np.logspace(-6, 15, 5000)]).astype(dtype)
    exact = math.sqrt(math.pi / 2) * erfcx(x.astype(np.float64) / math.sqrt(2))
    with jax.enable_x64(dtype == "float64"):
        error = np.abs(np.asarray(mills_ratio(jnp.asarray(x)), np.float64) / exact - 1)
    fitted = {"float32": 1.3e-8, "float64": 1.1e-15}[dtype]
    assert (
        error.max() < fitted + 8 * np.finfo(dtype).eps
    )  # the last steps of the polynomial, both divisions, erfcx itself


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_pair(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        u, v = (np.asarray(x) for x in uniform_pair(jax.random.key(0), (100_000,), np.dtype(dtype)))
    assert u.dtype == v.dtype == dtype
    assert (u > 0).all()
    assert (v > 0).all()
    assert (u <= 1).all()
    np.testing.assert_allclose(u + v, 1, rtol=0, atol=np.finfo(dtype).eps)
    assert_no_alarm({"u": stats.kstest(u, "uniform").pvalue})
