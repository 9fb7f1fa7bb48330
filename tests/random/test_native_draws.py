"""The kernels that draw, beside the JAX code whose random bits they use, for every instruction set of the machine."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from bayesfm.random import polya_gamma, truncated_normal
from tests.random.references import truncated_cdf
from tests.random.test_polya_gamma import (
    TILTS,
    distribution_tests,
    moment_tests,
    share_around_the_cut_test,
)
from tests.random.test_truncated_normal import CASES
from tests.statistics import assert_no_alarm

pytestmark = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")

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
