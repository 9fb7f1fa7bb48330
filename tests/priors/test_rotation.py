"""Rotations of the factors: pairs, orthogonality, and the density along a circle."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from bayesfm import native
from bayesfm.priors import Features, NormalGamma
from bayesfm.priors import rotation as rotation_module
from bayesfm.priors.rotation import MAX_ROUNDS, TRIES, SquareSums, draw_rotation, rounds_of_pairs
from bayesfm.random import compiled
from tests.statistics import alarms, assert_no_alarm, ks

NEEDS_KERNELS = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
ON_KERNELS = (NEEDS_KERNELS, pytest.mark.on_kernels)


@pytest.mark.parametrize("k", [2, 3, 4, 7, 8, 9])
def test_every_pair_meets_once_and_no_factor_twice_in_a_round(k: int) -> None:
    rounds = rounds_of_pairs(k)
    assert sorted(tuple(sorted(pair)) for pair in rounds.reshape(-1, 2)) == list(combinations(range(k), 2))
    assert all(len(set(pairs.ravel())) == pairs.size for pairs in rounds)


def random_sums(G: int, k: int, seed: int = 0) -> jax.Array:
    x = jax.random.normal(jax.random.key(seed), (G, k, k))
    return x @ jnp.swapaxes(x, 1, 2)


class Turns(NamedTuple):
    """What a rotation is made of."""

    R: np.ndarray
    S: np.ndarray
    degrees: np.ndarray
    rate: np.ndarray
    pairs: np.ndarray
    u: np.ndarray


def some_turns(k: int, G: int, tries: int = TRIES) -> Turns:
    """Sums of different size, from groups that say nothing to those that leave narrow slices."""
    rng = np.random.default_rng([k, G])
    x = rng.normal(size=(G, k, k + 3)) * (10.0 ** rng.uniform(-1, 3, G))[:, None, None]
    pairs = rounds_of_pairs(k)[:MAX_ROUNDS]
    u = rng.random((*pairs.shape[:2], 3 + tries))
    degrees = 10.0 ** rng.uniform(-1, 3, G)
    return Turns(np.eye(k)[rng.permutation(k)], x @ np.swapaxes(x, 1, 2), degrees, np.array(0.7), pairs, u)


def by_loops(turns: Turns) -> np.ndarray:
    """One pair, one point and one group after the other, with the density as docs/math.md has it."""
    R, S, k = turns.R, turns.S, len(turns.R)
    for (a, b), u in zip(turns.pairs.reshape(-1, 2), turns.u.reshape(-1, turns.u.shape[-1]), strict=True):

        def plane(angle: float, a: int = a, b: int = b) -> np.ndarray:
            Q = np.eye(k)
            Q[np.ix_([a, b], [a, b])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            return Q

        def log_density(angle: float, a: int = a, b: int = b, S: np.ndarray = S) -> float:
            Q = plane(angle, a, b)
            out = 0.0
            for degrees, own in zip(turns.degrees, S, strict=True):
                turned = Q.T @ own @ Q
                out -= 0.5 * degrees * (np.log(turns.rate + turned[a, a]) + np.log(turns.rate + turned[b, b]))
            return out

        height = log_density(0.0) + np.log(1 - u[0])
        low, high = -np.pi / 2 * u[1], np.pi / 2 * (1 - u[1])
        chosen = 0.0
        for place in u[3:]:
            angle = low + (high - low) * place
            if log_density(angle) >= height:
                chosen = angle
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
        Q = plane(chosen + np.pi / 2 * np.floor(4 * u[2]))
        R, S = R @ Q, Q.T @ S @ Q
    return R


@pytest.mark.parametrize("G", [1, 20])
@pytest.mark.parametrize("k", [2, 3, 8, 17])
@pytest.mark.parametrize(
    "way",
    [rotation_module.turn_pairs, pytest.param(native.turn_pairs, marks=ON_KERNELS)],
    ids=["xla", "kernel"],
)
def test_turns_by_loops(way: Callable, k: int, G: int) -> None:
    turns = some_turns(k, G)
    with jax.enable_x64():
        R = jax.jit(way)(*map(jnp.asarray, turns))
    # What rounding leaves of a sum of logarithms times degrees, up to 1e3 * log(1e6), moves no point over the edge.
    np.testing.assert_allclose(R, by_loops(turns), rtol=0, atol=1e-10)


@pytest.mark.parametrize("way", ["xla", pytest.param("kernel", marks=ON_KERNELS)])
def test_turns_without_a_point_in_the_slice_stay(way: str) -> None:
    """With few points that happens: the angle is a multiple of a quarter turn."""
    turns = some_turns(2, 3, tries=1)._replace(degrees=np.full(3, 1e6))
    function = rotation_module.turn_pairs if way == "xla" else native.turn_pairs
    R = np.asarray(
        function(*(jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32) for x in turns))
    )
    np.testing.assert_array_equal(np.sort(np.abs(R), axis=0), [[0, 0], [1, 1]])


def batch_turned(way: Callable, k: int, G: int, dtype: type) -> np.ndarray:
    """A batch of two, which share the degrees."""
    with jax.enable_x64():
        members = [some_turns(k, G), some_turns(k, G)._replace(S=some_turns(k, G + 1).S[:G])]
        R, S, degrees, rate, pairs, u = (
            jnp.asarray(x, jnp.int32 if x[0].dtype.kind == "i" else dtype)
            for x in (np.stack(both) for both in zip(*members, strict=True))
        )
        batched = jax.vmap(way, (0, 0, None, None, None, 0))
        return np.asarray(jax.jit(batched)(R, S, degrees[0], rate[0], pairs[0], u))


@cache
def batch_turned_by_xla(k: int, G: int, dtype: type) -> np.ndarray:
    """What every instruction set is compared with."""
    return batch_turned(rotation_module.turn_pairs, k, G, dtype)


@NEEDS_KERNELS
@pytest.mark.on_kernels
class TestKernel:
    """Beside the XLA code on the same numbers."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("k", "G"), [(2, 1), (7, 5), (8, 33), (64, 2)])
    def test_beside_xla(self, k: int, G: int, dtype: type, isa: str) -> None:
        ours, xla = batch_turned(native.turn_pairs, k, G, dtype), batch_turned_by_xla(k, G, dtype)
        # As many turns as there are rounds for every number, a few roundings each.
        np.testing.assert_allclose(ours, xla, rtol=0, atol=16 * MAX_ROUNDS * np.finfo(dtype).eps)

    def test_keys_of_the_kernels_lead_there(self) -> None:
        S, degrees = random_sums(3, 8), jnp.array([3.0, 10.0, 0.0])
        key = jax.random.key(1)
        text = str(jax.make_jaxpr(draw_rotation)(compiled(key), S, degrees, 0.5))
        assert "bayesfm_rotation_f32" in text
        np.testing.assert_allclose(
            draw_rotation(compiled(key), S, degrees, 0.5),
            draw_rotation(key, S, degrees, 0.5),
            atol=16 * MAX_ROUNDS * np.finfo(np.float32).eps,
        )

    @pytest.mark.parametrize(
        ("changed", "shape", "what"),
        [
            ("R", (3, 2), "R must be square"),
            ("S", (2, 3, 2), "S has the wrong shape"),
            ("degrees", (3,), "degrees has the wrong shape"),
            ("pairs", (1, 1, 3), "pairs has the wrong shape"),
            ("u", (1, 2, 35), "u has the wrong shape"),
            ("u", (3, 1, 2), "u must have three columns"),
        ],
    )
    def test_other_shapes_are_refused(self, changed: str, shape: tuple[int, ...], what: str) -> None:
        turns = some_turns(3, 2)
        arrays = {
            k: jnp.asarray(x, jnp.int32 if k == "pairs" else jnp.float32) for k, x in turns._asdict().items()
        }
        arrays[changed] = jnp.zeros(shape, arrays[changed].dtype)
        with pytest.raises(jax.errors.JaxRuntimeError, match=what):
            jax.block_until_ready(inspect.unwrap(native.turn_pairs)(**arrays))


@pytest.mark.parametrize("k", [2, 2 * MAX_ROUNDS + 3])
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


@pytest.mark.parametrize(
    "key_of", [lambda key: key, pytest.param(compiled, marks=NEEDS_KERNELS)], ids=["xla", "kernel"]
)
@pytest.mark.parametrize(("size", "wrong"), [(30.0, False), (30.0, True), (1e7, False)])
def test_angles_have_the_density_along_the_circle(size: float, wrong: bool, key_of: Callable) -> None:
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
        keys = key_of(jax.random.split(jax.random.key(4), number))
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
    prior, k, number = NormalGamma(a0=4.0, b0=1.5, beta0=0.5), 3, 10_000

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
