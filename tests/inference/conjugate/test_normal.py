from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.conjugate import normal
from bayesfm.inference.conjugate.normal import draw, information, pack, sum_by_owner, unpack
from tests.statistics import assert_no_alarm, named, z_test

DIMENSIONS = [1, 2, 5]


@pytest.fixture(params=["unrolled", "lapack"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both sides of UNROLLED."""
    monkeypatch.setattr(normal, "UNROLLED", 17 if request.param == "unrolled" else 0)
    return request.param


@pytest.mark.parametrize("D", DIMENSIONS)
def test_information_is_the_loop_over_rows(D: int, path: str) -> None:
    rng = np.random.default_rng(D)
    L, C = 3, 4
    h, omega, r = rng.normal(size=(D, L, C)), rng.uniform(0, 2, (L, C)), rng.normal(size=(L, C))
    omega[1, 2] = 0.0
    with jax.enable_x64():
        G, g = unpack(information(jnp.asarray(h), jnp.asarray(omega), jnp.asarray(r)), D)
        for c in range(C):
            expected_G, expected_g = np.zeros((D, D)), np.zeros(D)
            for row in range(L):
                expected_G += omega[row, c] * np.outer(h[:, row, c], h[:, row, c])
                expected_g += omega[row, c] * r[row, c] * h[:, row, c]
            np.testing.assert_allclose(G[..., c], expected_G, rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(g[..., c], expected_g, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("lanes", [(), (3,), (2, 3)])
@pytest.mark.parametrize("D", DIMENSIONS)
def test_unpack_inverts_pack(D: int, lanes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(D)
    G, g = rng.normal(size=(D, D, *lanes)).astype(np.float32), rng.normal(size=(D, *lanes)).astype(np.float32)
    G = G + np.swapaxes(G, 0, 1)
    packed = pack(jnp.asarray(G), jnp.asarray(g))
    assert packed.shape == (D * (D + 1) // 2 + D, *lanes)
    back_G, back_g = unpack(packed, D)
    np.testing.assert_array_equal(back_G, G)
    np.testing.assert_array_equal(back_g, g)


def test_sum_by_owner() -> None:
    packed = np.arange(10.0).reshape(2, 5)
    owner = np.array([0, 0, 2, 2, 2])
    expected = np.array([[1, 11], [0, 0], [9, 24]])
    np.testing.assert_array_equal(sum_by_owner(jnp.asarray(packed), jnp.asarray(owner), 3), expected)


class System(NamedTuple):
    """J systems of D equations: P = diag(precision) + G, b = precision mean + G theta + g."""

    packed: np.ndarray
    theta: np.ndarray
    precision: np.ndarray
    mean: np.ndarray
    P: np.ndarray
    b: np.ndarray


def system(D: int, J: int) -> System:
    rng = np.random.default_rng(100 * D + J)
    factor = rng.normal(size=(J, D, D + 1))
    G, g = factor @ np.swapaxes(factor, 1, 2), rng.normal(size=(J, D))
    G[0], g[0] = 0.0, 0.0  # a feature without data: its prior
    theta, precision, mean = rng.normal(size=(D, J)), rng.uniform(0.1, 3.0, (D, J)), rng.normal(size=(D, J))
    i, j = np.tril_indices(D)
    P = G + np.stack([np.diag(precision[:, n]) for n in range(J)])
    b = np.stack([precision[:, n] * mean[:, n] + G[n] @ theta[:, n] + g[n] for n in range(J)])
    return System(np.concatenate([G[:, i, j], g], axis=1), theta, precision, mean, P, b)


def drawing(s: System) -> Callable[[np.ndarray], np.ndarray]:
    """The draw as a function of the noise; traced anew, so that what a test has patched counts."""
    given = [jnp.asarray(a) for a in (s.packed, s.theta, s.precision, s.mean)]
    compiled = jax.jit(lambda *arguments: draw(*arguments))
    return lambda noise: np.asarray(compiled(*given, jnp.asarray(noise)))


def run_draw(s: System, noise: np.ndarray) -> np.ndarray:
    return drawing(s)(noise)


@pytest.mark.parametrize("J", [1, 3, 8, 9])
@pytest.mark.parametrize("D", DIMENSIONS)
def test_draw_has_the_mean_and_the_covariance(
    D: int, J: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draw is affine in the noise: mean at zero noise, a root of the covariance at unit noises; J around BATCH."""
    monkeypatch.setattr(normal, "BATCH", 4)
    s = system(D, J)
    with jax.enable_x64():
        run = drawing(s)
        centre = run(np.zeros((D, J)))
        root = np.stack([run(np.eye(D)[d][:, None] * np.ones(J)) - centre for d in range(D)])  # (D, D, J)
    for j in range(J):
        np.testing.assert_allclose(centre[:, j], np.linalg.solve(s.P[j], s.b[j]), rtol=1e-10, atol=1e-12)
        covariance = root[:, :, j].T @ root[:, :, j]
        np.testing.assert_allclose(covariance, np.linalg.inv(s.P[j]), rtol=1e-10, atol=1e-12)


def test_draw_above_unrolled_is_the_draw_below(monkeypatch: pytest.MonkeyPatch) -> None:
    D, J = normal.UNROLLED, 5
    s = system(D, J)
    noise = np.random.default_rng(0).normal(size=(D, J))
    with jax.enable_x64():
        below = run_draw(s, noise)
        monkeypatch.setattr(normal, "UNROLLED", D - 1)
        np.testing.assert_allclose(run_draw(s, noise), below, rtol=1e-9, atol=1e-11)


def test_draws_are_in_float32(path: str) -> None:
    s = System(*(np.asarray(a, np.float32) for a in system(3, 6)))
    centre = run_draw(s, np.zeros((3, 6), np.float32))
    assert centre.dtype == np.float32
    for j in range(6):
        # Higham (2002), theorem 10.4: the relative error of a Cholesky solve is of the order of D eps cond(P).
        bound = 8 * 3 * np.finfo(np.float32).eps * np.linalg.cond(s.P[j].astype(np.float64))
        exact = np.linalg.solve(s.P[j].astype(np.float64), s.b[j].astype(np.float64))
        magnitude = np.linalg.norm(np.linalg.inv(s.P[j]), 2) * np.linalg.norm(np.abs(s.b[j]))
        assert np.linalg.norm(centre[:, j] - exact) <= bound * magnitude


def test_moments_of_random_draws() -> None:
    s, N = system(2, 3), 20_000
    noise = jax.random.normal(jax.random.key(0), (N, 2, 3))
    arguments = [jnp.asarray(a, jnp.float32) for a in (s.packed, s.theta, s.precision, s.mean)]
    draws = np.asarray(jax.jit(jax.vmap(lambda e: draw(*arguments, e)))(noise), np.float64)
    p_values = {}
    for j in range(3):
        mean, covariance = np.linalg.solve(s.P[j], s.b[j]), np.linalg.inv(s.P[j])
        error = draws[:, :, j] - mean
        p_values |= named(f"mean {j}", z_test(error.mean(axis=0), np.sqrt(np.diag(covariance) / N)))
        products = error[:, :, None] * error[:, None, :]
        spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / N)
        p_values |= named(f"covariance {j}", z_test(products.mean(axis=0) - covariance, spread))
    assert_no_alarm(p_values)


@pytest.mark.parametrize("scale", [1e9, 1e16])
def test_a_prior_lost_in_the_rounding_of_the_data_does_not_break_the_solve(scale: float, path: str) -> None:
    """G = scale * 1 1' + I: the data see only the sum of theta, and 1 + scale is scale in float32."""
    D, J = 3, 2
    G = np.full((D, D), scale, np.float32)
    i, j = np.tril_indices(D)
    packed = np.tile(np.concatenate([G[i, j], G.sum(1)]), (J, 1)).astype(
        np.float32
    )  # theta moves to sum to D
    ones, zeros = np.ones((D, J), np.float32), np.zeros((D, J), np.float32)
    noise = np.random.default_rng(0).normal(size=(D, J)).astype(np.float32)
    new = run_draw(System(packed, zeros, ones, zeros, zeros, zeros), noise)
    assert np.all(np.isfinite(new))
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(new.sum(0), D, rtol=0, atol=64 * D * eps * np.abs(new).max() + 4 * scale**-0.5)
