"""The kernels that draw, beside the JAX code whose random bits they use, for every instruction set of the machine."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesfm import native
from bayesfm.random import gamma, polya_gamma, truncated_normal
from bayesfm.random.gamma_sums import sum_of_gammas
from tests.random.references import truncated_cdf, uniform_tests
from tests.random.test_polya_gamma import (
    TILTS,
    distribution_tests,
    moment_tests,
    share_around_the_cut_test,
)
from tests.random.test_truncated_normal import CASES
from tests.statistics import assert_no_alarm

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="built without a C++ compiler"),
    pytest.mark.usefixtures("full_optimisation"),  # the kernels are compared with the programs that users run
]

REJECTED = 1 / 1400
"""Share of rejected proposals for PG(1, 0), where it is largest."""


def truncated_arguments(size: int) -> list[jax.Array]:
    return [jnp.asarray(np.array(CASES)[:, [i]] * np.ones(size), jnp.float32) for i in range(3)]


def tilts(size: int) -> jax.Array:
    return jnp.asarray(np.array(TILTS)[:, None] * np.ones(size), jnp.float32)


def test_truncated_normals_are_those_of_jax(isa: str) -> None:
    key, arguments = jax.random.key(0), truncated_arguments(5_001)
    ours = np.asarray(truncated_normal(key, *arguments, native=True), np.float64)
    theirs = np.asarray(truncated_normal(key, *arguments), np.float64)
    mean, lower, upper = (np.asarray(x, np.float64) for x in arguments)
    assert (ours >= lower).all()
    assert (ours <= upper).all()
    # In units of the distribution function, by the density; what is left are the roundings of the numbers themselves.
    eps = np.finfo(np.float32).eps
    for row in range(len(CASES)):
        case = float(lower[row, 0]), float(upper[row, 0]), float(mean[row, 0])
        spacing = np.spacing(np.maximum(np.abs(ours[row]), np.abs(theirs[row])).astype(np.float32)).astype(
            float
        )
        low, high = np.minimum(ours[row], theirs[row]), np.maximum(ours[row], theirs[row])
        apart = truncated_cdf(np.maximum(high - spacing, low), *case) - truncated_cdf(low, *case)
        mass = min(case[1] - case[0], 1.0)
        assert apart.max() < 8 * eps / mass, CASES[row]


def test_polya_gammas_are_those_of_jax(isa: str) -> None:
    """But where the first proposal is rejected."""
    key, c = jax.random.key(0), tilts(20_001)
    ours = np.asarray(polya_gamma(key, 1, c, native=True), np.float64)
    theirs = np.asarray(polya_gamma(key, 1, c), np.float64)
    different = np.abs(ours / theirs - 1) > 64 * np.finfo(np.float32).eps
    assert different.mean() < 2 * REJECTED  # of 180,000
    assert different.any()


def test_polya_gammas_have_their_law(isa: str) -> None:
    omega = np.asarray(polya_gamma(jax.random.key(1), 1, tilts(100_000), native=True), np.float64)
    p_values = {}
    for row, c in zip(omega, TILTS, strict=True):
        p_values |= moment_tests(f"{c}", row, 1.0, c) | distribution_tests(f"{c}", row[:30_000], 1.0, c)
    assert_no_alarm(p_values)


def test_proposals_are_rejected_where_they_have_to_be() -> None:
    draw = partial(polya_gamma, b=1, c=jnp.zeros(5_000_000), native=True)
    assert_no_alarm(
        {"cut": share_around_the_cut_test([np.asarray(draw(jax.random.key(i))) for i in range(5)])}
    )


def test_what_is_rejected_is_drawn_again() -> None:
    """Among a million draws the rejected ones alone: they would be distributed otherwise if they were kept."""
    key, c = jax.random.key(2), jnp.zeros(1_000_000)
    ours = np.asarray(polya_gamma(key, 1, c, native=True), np.float64)
    theirs = np.asarray(polya_gamma(key, 1, c), np.float64)
    again = np.abs(ours / theirs - 1) > 1e-4
    assert_no_alarm(
        moment_tests("ours", ours[again], 1.0, 0.0) | moment_tests("theirs", theirs[again], 1.0, 0.0)
    )


def test_extremes(isa: str) -> None:
    c = jnp.asarray(
        np.concatenate([[0.0], np.logspace(-38, 15, 200), -np.logspace(-38, 15, 200)]), jnp.float32
    )
    omega = np.asarray(polya_gamma(jax.random.key(0), 1, c, native=True))
    assert np.isfinite(omega).all()
    assert (omega > 0).all()
    rng = np.random.default_rng(0)
    mean, a, b = (10.0 ** rng.integers(-30, 17, (3, 5_000)) * rng.normal(size=(3, 5_000))).astype(np.float32)
    lower, upper = np.minimum(a, b), np.maximum(a, b)
    lower[::5], upper[::7], upper[::11] = -np.inf, np.inf, lower[::11]
    bounded = ~((lower == -np.inf) & (upper == -np.inf))
    x = np.asarray(truncated_normal(jax.random.key(0), mean, lower, upper, native=True))
    assert np.isfinite(x[bounded]).all()
    assert (x >= lower).all()
    assert (x <= upper).all()


def test_nan_is_passed_on(isa: str) -> None:
    nan = jnp.array([jnp.nan, 1.0])
    np.testing.assert_array_equal(
        np.isnan(polya_gamma(jax.random.key(0), 1, nan, native=True)), [True, False]
    )
    for arguments in ((nan, 0.0, 2.0), (0.0, nan, 2.0), (0.0, 0.0, nan)):
        x = truncated_normal(jax.random.key(0), *arguments, native=True)
        np.testing.assert_array_equal(np.isnan(x), [True, False])
    assert np.isnan(truncated_normal(jax.random.key(0), 0.0, 2.0, 1.0, native=True))


def test_numbers_do_not_depend_on_their_neighbours(isa: str) -> None:
    key, c = jax.random.key(3), tilts(9_000)[4]
    long = polya_gamma(key, 1, c, native=True)
    np.testing.assert_array_equal(polya_gamma(key, 1, c[:4_003], native=True), long[:4_003])
    arguments = [x[1] for x in truncated_arguments(9_000)]
    long = truncated_normal(key, *arguments, native=True)
    short = truncated_normal(key, *(x[:4_003] for x in arguments), native=True)
    np.testing.assert_array_equal(short, long[:4_003])


def test_vmap_is_a_loop() -> None:
    """With some operands that have no batch dimension."""
    keys, c = jax.random.split(jax.random.key(0), 3), tilts(2_000)[:3]
    means = jnp.linspace(-3.0, 3.0, 3)
    one = partial(polya_gamma, b=1, native=True)
    together = jax.vmap(lambda k, c: one(k, c=c))(keys, c)
    np.testing.assert_array_equal(together, [one(k, c=x) for k, x in zip(keys, c, strict=True)])
    np.testing.assert_array_equal(jax.vmap(lambda k: one(k, c=c[2]))(keys), [one(k, c=c[2]) for k in keys])

    def draw(key: jax.Array, mean: jax.Array) -> jax.Array:
        return truncated_normal(key, mean, jnp.zeros(700), jnp.inf, native=True)

    together = jax.vmap(draw)(keys, means)
    np.testing.assert_array_equal(together, [draw(k, m) for k, m in zip(keys, means, strict=True)])


def test_what_the_kernels_do_not_draw_takes_the_usual_way() -> None:
    rbg, c = jax.random.key(0, impl="rbg"), jnp.ones(5)
    np.testing.assert_array_equal(polya_gamma(rbg, 1, c, native=True), polya_gamma(rbg, 1, c))
    np.testing.assert_array_equal(truncated_normal(rbg, c, 0, 2, native=True), truncated_normal(rbg, c, 0, 2))
    key = jax.random.key(0)
    assert polya_gamma(key, 1, jnp.zeros((2, 0)), native=True).shape == (2, 0)
    assert native.can_draw(key, jnp.float32)
    assert not native.can_draw(key, jnp.float64)


GAMMA_SHAPES = jnp.asarray([0.1, 0.3, 0.99, 1.0, 1.5, 3.0, 30.0, 1e4])
SUM_SHAPES = [
    (1.0, 0.0),
    (1.2, 3.0),
    (1.7, 12.4),
    (2.0, 12.6),
    (3.3, 0.5),
    (12.0, 5.0),
    (400.5, 2.0),
    (5.0, 60.0),
]


def sum_arguments(size: int) -> list[jax.Array]:
    return [jnp.asarray(np.array(SUM_SHAPES)[:, [i]] * np.ones(size), jnp.float32) for i in range(2)]


def test_gammas_are_those_of_jax(isa: str) -> None:
    """But where the first proposal is rejected."""
    key, shape = jax.random.key(0), jnp.tile(GAMMA_SHAPES, (5_001, 1)).T
    ours, theirs = (np.asarray(gamma(key, shape, native=native), np.float64) for native in (True, False))
    # A small shape takes the power 1 / shape of a rounded uniform.
    eps = 64 * np.finfo(np.float32).eps * np.maximum(1, 1 / np.asarray(GAMMA_SHAPES))[:, None]
    different = np.abs(ours - theirs) > eps * theirs + np.finfo(np.float32).tiny
    assert different.mean() < 1 / 20
    assert different.any()


def test_sums_of_gammas_are_those_of_jax(isa: str) -> None:
    """But where one of the first proposals is rejected."""
    key, (b, c) = jax.random.key(0), sum_arguments(5_001)
    ours, theirs = (
        np.asarray(native.gamma_sums(key, b, c), float),
        np.asarray(sum_of_gammas(key, b, c), float),
    )
    different = np.abs(ours / theirs - 1) > 64 * np.finfo(np.float32).eps
    assert different.mean() < 4 / 20
    assert different.any()


def test_gammas_have_their_law(isa: str) -> None:
    """Those of every shape, and the ones by themselves whose first proposal was rejected."""
    size = 40_000
    shape = jnp.tile(GAMMA_SHAPES, (size, 1)).T
    x = np.asarray(gamma(jax.random.key(1), shape, native=True), np.float64)
    p_values = {}
    for row, a in zip(x, GAMMA_SHAPES.tolist(), strict=True):
        p_values |= uniform_tests(f"{a:g}", stats.gamma(a).cdf(row))
    assert_no_alarm(p_values)


def test_sums_of_gammas_have_their_law(isa: str) -> None:
    b, c = sum_arguments(60_000)
    omega = np.asarray(polya_gamma(jax.random.key(1), b, c, native=True), np.float64)
    p_values = {}
    for row, (shape, tilt) in zip(omega, SUM_SHAPES, strict=True):
        name = f"{shape}, {tilt}"
        p_values |= moment_tests(name, row, shape, tilt) | distribution_tests(name, row, shape, tilt)
    assert_no_alarm(p_values)


def test_small_and_large_shapes_side_by_side() -> None:
    """What is no larger than one is drawn by the rejection in JAX."""
    b = jnp.tile(jnp.asarray([0.4, 1.0, 1.0001, 7.5]), (40_000, 1)).T
    omega = np.asarray(polya_gamma(jax.random.key(4), b, jnp.full(b.shape, 1.5), native=True), np.float64)
    p_values = {}
    for row, shape in zip(omega, np.asarray(b[:, 0], float), strict=True):
        p_values |= moment_tests(f"{shape}", row, shape, 1.5) | distribution_tests(
            f"{shape}", row, shape, 1.5
        )
    assert_no_alarm(p_values)


def test_extreme_shapes(isa: str) -> None:
    shape = jnp.asarray(np.logspace(-30, 18, 400), jnp.float32)
    x = np.asarray(gamma(jax.random.key(0), shape, native=True))
    assert np.isfinite(x).all()
    assert (x >= 0).all()
    b, c = (x.ravel() for x in jnp.meshgrid(jnp.logspace(0, 9, 40), jnp.logspace(-30, 15, 40)))
    omega = np.asarray(polya_gamma(jax.random.key(0), b, c, native=True))
    assert np.isfinite(omega).all()
    assert (omega > 0).all()
    nan = jnp.asarray([jnp.nan, 2.0])
    for draw in (
        gamma(jax.random.key(0), nan, native=True),
        native.gamma_sums(jax.random.key(0), nan, jnp.ones(2)),
        native.gamma_sums(jax.random.key(0), jnp.full(2, 2.0), nan),
    ):
        np.testing.assert_array_equal(np.isnan(draw), [True, False])


def test_gammas_do_not_depend_on_their_neighbours(isa: str) -> None:
    key, shape = jax.random.key(3), jnp.linspace(0.5, 3.0, 9_000)
    long = gamma(key, shape, native=True)
    np.testing.assert_array_equal(gamma(key, shape[:4_003], native=True), long[:4_003])
    others = jnp.where(jnp.arange(9_000) % 3 == 0, shape, 1.0)
    np.testing.assert_array_equal(gamma(key, others, native=True)[::3], long[::3])


def test_vmap_of_gammas_is_a_loop() -> None:
    keys, shape = jax.random.split(jax.random.key(0), 3), jnp.linspace(1.0, 4.0, 3_000)
    tilts = jnp.stack([jnp.zeros(3_000), jnp.linspace(0, 20, 3_000), jnp.ones(3_000)])
    together = jax.vmap(lambda k: gamma(k, shape, native=True))(keys)
    np.testing.assert_array_equal(together, [gamma(k, shape, native=True) for k in keys])
    together = jax.vmap(lambda k, c: native.gamma_sums(k, shape, c))(keys, tilts)
    one_by_one = [native.gamma_sums(k, shape, c) for k, c in zip(keys, tilts, strict=True)]
    np.testing.assert_array_equal(together, one_by_one)
