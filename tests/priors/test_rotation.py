"""Rotations of the factors: pairs, orthogonality, and the density along a circle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from bayesfm.priors import Features, NormalGamma
from bayesfm.priors.rotation import MAX_ROUNDS, SquareSums, draw_rotation, rounds_of_pairs
from tests.statistics import alarms, assert_no_alarm, ks


@pytest.mark.parametrize("k", [2, 3, 4, 7, 8, 9])
def test_every_pair_meets_once_and_no_factor_twice_in_a_round(k: int) -> None:
    rounds = rounds_of_pairs(k)
    assert sorted(tuple(sorted(pair)) for pair in rounds.reshape(-1, 2)) == list(combinations(range(k), 2))
    assert all(len(set(pairs.ravel())) == pairs.size for pairs in rounds)


def random_sums(G: int, k: int, seed: int = 0) -> jax.Array:
    x = jax.random.normal(jax.random.key(seed), (G, k, k))
    return x @ jnp.swapaxes(x, 1, 2)


@pytest.mark.parametrize("k", [2, 5, 2 * MAX_ROUNDS + 3])
def test_it_is_a_rotation_in_every_group_alike(k: int) -> None:
    R = draw_rotation(jax.random.key(1), random_sums(3, k), jnp.array([3.0, 10.0, 0.0]), 0.5)
    # A product of as many rotations as there are rounds, each right to a few roundings per element.
    tolerance = 4 * k * MAX_ROUNDS * np.finfo(np.float32).eps
    np.testing.assert_allclose(R @ R.T, np.eye(k), rtol=0, atol=tolerance)
    assert np.abs(R - np.eye(k)).max() > 0.01


def rotations(angle: np.ndarray) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.moveaxis(np.array([[c, -s], [s, c]]), (0, 1), (-2, -1))


def turned(S: np.ndarray, angle: np.ndarray) -> np.ndarray:
    Q = rotations(angle)
    return np.einsum("...fa,gfh,...hb->...gab", Q, S, Q, optimize=True)


def density(S: np.ndarray, degrees: np.ndarray, rate: float, angle: np.ndarray) -> np.ndarray:
    """Of each angle, as the formula stands, in float64; they add up to one."""
    diagonal = np.diagonal(turned(S, angle), axis1=-2, axis2=-1)
    log = -0.5 * (degrees[:, None] * np.log(rate + diagonal)).sum(axis=(1, 2))
    p = np.exp(log - log.max())
    return p / p.sum()


@pytest.mark.parametrize(("size", "wrong"), [(30.0, False), (30.0, True), (1e7, False)])
def test_angles_have_the_density_along_the_circle(size: float, wrong: bool) -> None:
    """From draws of the density ten steps lead to draws of it; degrees that are 1.5 times too large are noticed."""
    S = np.asarray(random_sums(2, 2, seed=3), np.float64) * size
    degrees, rate, number = np.array([1.0, 0.6]) * size, 0.5 * size, 8_000
    fine = np.linspace(-np.pi, np.pi, 1_000_001)[:-1]
    rng = np.random.default_rng(0)
    start, fresh = rng.choice(fine, (2, number), p=density(S, degrees, rate, fine))

    def step(carry: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        R, S = carry
        Q = draw_rotation(key, S, jnp.asarray(degrees * (1.5 if wrong else 1.0)), rate)
        return (R @ Q, jnp.einsum("fa,gfh,hb->gab", Q, S, Q)), None

    def run(key: jax.Array, R: jax.Array, S: jax.Array) -> jax.Array:
        R = lax.scan(step, (R, S), jax.random.split(key, 10))[0][0]
        return jnp.arctan2(R[1, 0], R[0, 0])

    with jax.enable_x64():  # ten steps, the S of each computed from the one before
        keys = jax.random.split(jax.random.key(4), number)
        end = np.asarray(
            jax.jit(jax.vmap(run))(keys, jnp.asarray(rotations(start)), jnp.asarray(turned(S, start)))
        )
    quantities = {"angle": lambda x: np.mod(x, np.pi / 2), "sign": lambda x: np.cos(x - 0.1), "label": np.sin}
    p_values = ks(*({name: of(x) for name, of in quantities.items()} for x in (end, fresh)))
    assert bool(alarms(p_values)) == wrong, p_values


def test_float32_angles_of_many_features_are_as_wide_as_they_should_be() -> None:
    S = np.asarray(random_sums(2, 2, seed=3), np.float64) * 1e7
    degrees, rate = np.array([1e7, 6e6]), 5e6
    fine = np.linspace(0, np.pi / 2, 1_000_001)
    p = density(S, degrees, rate, fine)
    mode = fine[p.argmax()]
    sd = np.sqrt(p @ (fine - mode) ** 2)
    at_mode = jnp.asarray(turned(S, mode), jnp.float32)
    keys = jax.random.split(jax.random.key(5), 4_000)
    R = jax.vmap(lambda key: draw_rotation(key, at_mode, jnp.asarray(degrees, jnp.float32), rate))(keys)
    angle = np.asarray(jnp.arctan2(R[:, 1, 0], R[:, 0, 0]), np.float64)
    step = np.mod(angle + np.pi / 4, np.pi / 2) - np.pi / 4
    # From the mode of a normal density a slice step is uniform on +- sd sqrt(2 E), E exponential.
    rng = np.random.default_rng(1)
    expected = rng.uniform(-1, 1, 100_000) * sd * np.sqrt(2 * rng.exponential(size=100_000))
    assert_no_alarm({"step": float(stats.ks_2samp(step, expected).pvalue)})


RIGHT = NormalGamma.rotation

BUGS: dict[str, Callable[[NormalGamma, jax.Array, SquareSums], jax.Array]] = {
    "degrees of the prior left out": lambda prior, key, sums: RIGHT(replace(prior, a0=0.01), key, sums),
    "degrees of the features left out": lambda prior, key, sums: RIGHT(
        prior, key, sums._replace(number=sums.number * 0.01)
    ),
    "rate left out": lambda prior, key, sums: RIGHT(replace(prior, b0=1e-3), key, sums),
    "the other way round": lambda prior, key, sums: RIGHT(prior, key, sums).T,
}
GROUP = np.repeat([0, 1], [8, 4])


def rotated_and_drawn(prior: NormalGamma, key: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(v, lambda) after a rotation and a draw of the hyperparameters."""
    key_turn, key_hyper = jax.random.split(key)
    number = jnp.bincount(GROUP, length=2).astype(v.dtype)
    mean = jnp.stack([v[g == GROUP].mean(axis=0) for g in (0, 1)])
    away = v - mean[GROUP]
    scatter = jnp.stack([away[g == GROUP].T @ away[g == GROUP] for g in (0, 1)])
    v = v @ prior.rotation(key_turn, SquareSums(number, mean, scatter))
    mean = jnp.stack([v[g == GROUP].mean(axis=0) for g in (0, 1)])
    squares = jnp.stack([((v - mean[GROUP])[g == GROUP] ** 2).sum(axis=0) for g in (0, 1)])
    hyper = prior.update(key_hyper, {}, Features(v, jnp.asarray(GROUP), number, mean, squares))
    return v, hyper["lambda"]


@pytest.mark.parametrize(
    "bug", [None, *(pytest.param(bug, marks=[pytest.mark.slow] * ("left" in bug)) for bug in BUGS)]
)
def test_prior_stays_under_rotations(bug: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the prior of (lambda, mu, v) ten moves lead to the prior; planted bugs are caught."""
    if bug is not None:
        monkeypatch.setattr(NormalGamma, "rotation", BUGS[bug])
    prior, k, number = NormalGamma(a0=4.0, b0=1.5, beta0=0.5), 3, 20_000

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        lam = rng.gamma(prior.a0 / 2, 2 / prior.b0, (number, 2, k))
        mu = rng.normal(size=lam.shape) / np.sqrt(prior.beta0 * lam)
        return mu[:, GROUP] + rng.normal(size=(number, len(GROUP), k)) / np.sqrt(lam[:, GROUP]), lam

    def run(key: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        def move(
            carry: tuple[jax.Array, jax.Array], key: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            return rotated_and_drawn(prior, key, carry[0]), None

        return lax.scan(move, (v, jnp.zeros((2, k))), jax.random.split(key, 10))[0]

    def quantities(v: np.ndarray, lam: np.ndarray) -> dict[str, np.ndarray]:
        v, lam = np.asarray(v, np.float64), np.asarray(lam, np.float64)
        share = (v[:, :8] ** 2).sum(axis=1)
        share = share / share.sum(axis=1, keepdims=True)
        out = {f"log lambda {i}": x for i, x in enumerate(np.log(lam).reshape(number, -1).T)}
        out |= {f"share of factor {f}": share[:, f] for f in range(k)}
        out |= {"largest share": share.max(axis=1), "spread of lambda": np.log(lam[:, 0]).std(axis=1)}
        return out | {
            "v": v[:, 0, 0],
            "across": np.arctan2(v[:, 0, 0], v[:, 1, 1]),
            "pair": v[:, 0, 0] * v[:, 8, 0],
        }

    rng = np.random.default_rng(7)
    start, fresh = draw(rng), draw(rng)
    keys = jax.random.split(jax.random.key(8), number)
    after = jax.jit(jax.vmap(run))(keys, jnp.asarray(start[0], jnp.float32))
    p_values = ks(quantities(*after), quantities(*fresh))
    if bug is None:
        assert_no_alarm(p_values)
    else:
        assert alarms(p_values), p_values


def test_sums_that_are_not_finite_come_to_an_end() -> None:
    R = draw_rotation(jax.random.key(1), jnp.full((1, 3, 3), jnp.nan), jnp.ones(1), 1.0)
    assert R.shape == (3, 3)
