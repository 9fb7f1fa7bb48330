from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import sums
from bayesfm.sums import FOLD, inner, total, totals_by_group

pytestmark = pytest.mark.usefixtures("full_optimisation")  # an optimiser may take a sum in another order

EPS = np.finfo(np.float32).eps


@pytest.mark.parametrize(
    "n", [0, 1, 2, FOLD - 1, FOLD, FOLD + 1, 3 * FOLD, FOLD**2, FOLD**2 + 1, 5 * FOLD**3 + 7]
)
def test_total_has_every_term_once(n: int) -> None:
    x = np.random.default_rng(n).integers(-9, 10, n)  # integers: float32 adds them without error
    assert float(total(jnp.asarray(x, jnp.float32))) == x.sum()


@pytest.mark.parametrize("n", [0, 1, FOLD, FOLD + 1, 3 * FOLD + 5, FOLD**2 + 1, 5 * FOLD**3 + 7])
def test_total_of_terms_made_of_several_arrays(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y, z = (rng.integers(-9, 10, n).astype(np.float32) for _ in range(3))
    got = total(jnp.asarray(x), jnp.asarray(y), jnp.asarray(z), of=lambda x, y, z: x * (y - z) + 1)
    assert float(got) == (x * (y - z) + 1).sum()


def test_error_of_total_grows_with_the_logarithm() -> None:
    x = np.full(2_000_003, 0.1, np.float32)  # equal terms: the roundings of a running sum all go one way
    exact = math.fsum(x.tolist())
    # In every level at most FOLD roundings, those of a plain loop; left over are less than FOLD terms per level.
    levels = math.ceil(math.log(len(x), FOLD)) + 1
    worst = levels * FOLD * EPS / 2
    assert abs(float(total(jnp.asarray(x))) - exact) / exact < worst
    running = float(np.cumsum(x)[-1])
    assert abs(running - exact) / exact > worst  # what a running sum would do


@pytest.mark.parametrize(
    ("shape", "axis"), [((3,), 0), ((0, 3), 0), ((1, 4), 0), ((5, 2, 3), 0), ((5, 2, 3), 1), ((4, 0), 1)]
)
def test_inner(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, shape).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(inner(jnp.asarray(a), jnp.asarray(b), axis), (a * b).sum(axis))


def test_inner_broadcasts() -> None:
    a, b = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.arange(3.0, dtype=np.float32)[None]
    np.testing.assert_array_equal(inner(jnp.asarray(a), jnp.asarray(b), axis=1), (a * b).sum(1))


def test_total_uses_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "FOLD", 4)
    assert float(total(jnp.arange(101.0))) == 5050


@pytest.mark.parametrize(("n", "num_groups"), [(1, 3), (40, 3), (5 * sums.RUN + 7, 3), (30, 40)])
def test_totals_by_group(n: int, num_groups: int) -> None:
    rng = np.random.default_rng(n)
    x, group = rng.integers(-9, 10, (n, 2)), rng.integers(0, num_groups, n)
    got = totals_by_group(jnp.asarray(x, jnp.float32), jnp.asarray(group), num_groups)
    expected = [np.bincount(group, column, num_groups) for column in x.T]
    np.testing.assert_array_equal(got, np.transpose(expected))


def test_totals_of_large_groups_keep_their_digits() -> None:
    n = 2_000_003
    x, group = np.full(n, 0.1, np.float32), np.arange(n) % 2  # equal terms: roundings all go one way
    exact = [math.fsum(x[group == g].tolist()) for g in (0, 1)]
    error = np.abs(np.asarray(totals_by_group(jnp.asarray(x), jnp.asarray(group), 2)) - exact) / exact
    assert error.max() < (sums.RUN + n / sums.RUN) * EPS / 2  # of two running sums
    assert np.abs(np.cumsum(x[::2])[-1] - exact[0]) / exact[0] > 1e-3  # what one running sum would do
