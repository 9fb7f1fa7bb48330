"""Values and gradients of the sorted path, against the plain path, the naive loop and finite differences of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bayesfm.design import arrays as arrays_module
from bayesfm.design import gradient as gradient_module
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.gradient import Chunks, GradientArrays
from bayesfm.predictors import FM
from tests import designs, reference
from tests.design.strategies import naive_rows


def effect_and_gradient(
    arrays: DesignArrays, rank: int, theta: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Value of the row effects, and their gradient in the direction g."""
    value, pull = jax.vjp(lambda t: arrays.row_effect(FM(rank), t), theta)
    return value, pull(g)[0]


pulled_back = jax.jit(effect_and_gradient, static_argnums=1)


def random_theta(p: int, rank: int, seed: int = 0) -> jax.Array:
    _, w, v = designs.random_parameters(np.random.default_rng(seed), p, rank)
    return FM(rank).join(jnp.asarray(w), jnp.asarray(v))


def naive_gradient(X: np.ndarray, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
    """sum_n g_n d eta_n / d theta_j, row by row and feature by feature."""
    out = np.zeros_like(theta)
    for row in range(len(X)):
        for j in range(X.shape[1]):
            out[:, j] += g[row] * reference.derivative(X, theta[1:].T, row, j)
    return out


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_values_and_gradients_are_those_of_the_naive_loop(
    kind: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in tiles of few places."""
    monkeypatch.setattr(gradient_module, "TILE", 5)
    design = designs.make(kind)
    with jax.enable_x64():
        theta = random_theta(design.num_features, rank)
        g = jnp.asarray(np.random.default_rng(1).normal(size=design.num_rows))
        value, gradient = pulled_back(GradientArrays.from_design(design, np.float64), rank, theta, g)
        X = naive_rows(design)
        np.testing.assert_allclose(
            value,
            reference.eta(X, 0.0, np.asarray(theta[0]), np.asarray(theta[1:].T)),
            rtol=1e-12,
            atol=1e-12,
        )
        np.testing.assert_allclose(
            gradient, naive_gradient(X, np.asarray(theta), np.asarray(g)), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("size", [1, 6])
def test_tiles_of_rows_do_not_show(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    design = designs.make("everything")
    with jax.enable_x64():
        theta, g = random_theta(design.num_features, 2), jnp.arange(1.0, 1 + designs.N)
        expected = pulled_back(DesignArrays.from_design(design, np.float64), 2, theta, g)
        monkeypatch.setattr(arrays_module, "ROWS_AT_ONCE", size)
        found = jax.jit(effect_and_gradient, static_argnums=1)(
            GradientArrays.from_design(design, np.float64), 2, theta, g
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_under_vmap_and_in_float32() -> None:
    design = designs.make("everything")
    arrays, g = GradientArrays.from_design(design), jnp.arange(1.0, 1 + designs.N)
    thetas = jnp.stack([random_theta(design.num_features, 2, seed) for seed in range(3)])
    batched = jax.jit(jax.vmap(lambda t: effect_and_gradient(arrays, 2, t, g)))(thetas)
    singly = jax.jit(lambda ts: lax.map(lambda t: effect_and_gradient(arrays, 2, t, g), ts))(thetas)
    for a, b in zip(batched, singly, strict=True):
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * np.finfo(np.float32).eps * scale)


def test_unseen_levels_have_gradients_too() -> None:
    design = designs.make("field with gaps")
    with jax.enable_x64():
        theta = random_theta(design.num_features + 2, 2)
        g = jnp.asarray(np.random.default_rng(1).normal(size=design.num_rows))
        plain, ours = (
            pulled_back(kind.from_design(design, np.float64), 2, theta, g)
            for kind in (DesignArrays, GradientArrays)
        )
        np.testing.assert_allclose(ours[0], plain[0], rtol=1e-13)
        np.testing.assert_allclose(ours[1], plain[1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tile", [1, 7, 1 << 16])
def test_chunks_hold_every_place_once_under_its_owner(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_module, "TILE", tile)
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 9, 200)
    owner[owner == 4] = 5  # an owner without places
    owner[rng.random(200) < 0.3] = 8
    chunks = Chunks.of(owner, 9)
    place = np.swapaxes(np.asarray(chunks.place), 1, 2).reshape(len(chunks.owner), -1)
    real = place < 200
    assert sorted(place[real]) == list(range(200))
    np.testing.assert_array_equal(owner[place[real]], np.repeat(np.asarray(chunks.owner), real.sum(axis=1)))
    assert np.all(np.diff(chunks.owner) >= 0)


def test_no_scatter_is_left_that_is_not_sorted() -> None:
    """What this module is for: in the gradient of every kind of block at once."""
    design = designs.make("everything")
    theta, g = random_theta(design.num_features, 2), jnp.ones(designs.N)

    def scatters(kind: type[DesignArrays]) -> list[bool]:
        arrays = kind.from_design(design)
        text = str(pulled_back.lower(arrays, 2, theta, g).compiler_ir("stablehlo"))
        return [
            "indices_are_sorted = true" in op.split("({")[0] for op in text.split('"stablehlo.scatter"')[1:]
        ]

    assert not all(scatters(DesignArrays))
    ours = scatters(GradientArrays)
    assert ours
    assert all(ours)
