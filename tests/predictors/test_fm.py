from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays, table_arrays
from bayesfm.predictors import FM
from tests import designs, reference
from tests.design.strategies import designs as any_designs
from tests.design.strategies import naive_rows

EPS = np.finfo(np.float32).eps


def rounding_of_eta(X: np.ndarray, w0: float, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bound on the float32 error of eta of every row: roundings of a row times the magnitude of its terms."""
    X, w, v = np.abs(X), np.abs(w), np.abs(v)
    operations = 8 * (1 + v.shape[1]) * (1 + (X > 0).sum(axis=1))
    magnitude = abs(w0) + X @ w + ((X @ v) ** 2).sum(axis=1)
    return EPS * operations * magnitude


def fast_eta(design: Design, w0: float, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    parameters = [jnp.asarray(a, jnp.float32) for a in (w0, w, v)]
    return np.asarray(jax.jit(FM(v.shape[1]).eta)(DesignArrays.from_design(design), *parameters))


def float32_values(*arrays: np.ndarray | float) -> list[np.ndarray]:
    """Rounded to float32, as float64: what the fast path is given."""
    return [np.asarray(a, np.float32).astype(np.float64) for a in arrays]


def assert_eta_is_naive(design: Design, X: np.ndarray, rank: int) -> None:
    rng = np.random.default_rng(1)
    w0, w, v = float32_values(*designs.random_parameters(rng, X.shape[1], rank))
    (X,) = float32_values(X)
    expected = reference.eta(X, float(w0), w, v)
    error = np.abs(fast_eta(design, float(w0), w, v) - expected)
    assert np.all(error <= rounding_of_eta(X, float(w0), w, v))


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_eta_is_the_double_loop(kind: str, rank: int) -> None:
    design = designs.make(kind)
    assert_eta_is_naive(design, naive_rows(design), rank)


@settings(max_examples=25)
@given(any_designs(), st.integers(0, 2))
def test_eta_of_any_design(design: Design, rank: int) -> None:
    assert_eta_is_naive(design, naive_rows(design), rank)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_summarize_is_the_double_loop(rank: int) -> None:
    rng = np.random.default_rng(2)
    (X,) = float32_values(designs.sparse_values(rng, 7, 5))
    _, w, v = float32_values(*designs.random_parameters(rng, 5, rank))
    fm = FM(rank)
    table = table_arrays(designs.sparse.csr_array(X))
    s = fm.summarize(table, fm.join(jnp.asarray(w, jnp.float32), jnp.asarray(v, jnp.float32)))
    expected = reference.summary(X, w, v)
    bound = np.concatenate([rounding_of_eta(X, 0.0, w, v)[None], 8 * EPS * (np.abs(X) @ np.abs(v)).T])
    assert s.shape == (rank + 1, 7)
    assert np.all(np.abs(np.asarray(s) - expected) <= bound)


def test_a_row_with_one_feature_has_no_pairs() -> None:
    X = np.array([[0.1, 0.0], [0.0, -0.7]], np.float32)
    theta = jnp.asarray([[0.3, 1.0], [123.456, 0.1], [0.777, 1e3]], jnp.float32)
    E = FM(2).summarize(table_arrays(designs.sparse.csr_array(X)), theta)[0]
    np.testing.assert_array_equal(E, X.sum(axis=1) * theta[0])


@pytest.fixture
def row() -> dict[str, np.ndarray]:
    """One row of six features, rank 3, in float64."""
    rng = np.random.default_rng(3)
    return {"x": rng.normal(size=6), "w": rng.normal(size=6), "v": rng.normal(size=(6, 3))}


def eta_of_row(x: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
    q = x @ v
    return x @ w + 0.5 * jnp.sum(q**2 - (x**2) @ (v**2))


def naive_summary(row: dict[str, np.ndarray], own: list[int]) -> jnp.ndarray:
    return jnp.asarray(reference.summary(row["x"][None, own], row["w"][own], row["v"][own])[:, 0])


def test_combine_adds_the_pairs_across(row: dict[str, np.ndarray]) -> None:
    with jax.enable_x64():
        s, t = naive_summary(row, [0, 1, 4]), naive_summary(row, [2, 3, 5])
        both = FM(3).combine(s, t)
        np.testing.assert_allclose(both, naive_summary(row, list(range(6))), rtol=1e-13)
        np.testing.assert_allclose(FM(3).combine(t, s), both, rtol=1e-13)
        np.testing.assert_array_equal(FM(3).combine(s, jnp.zeros(4)), s)


def test_derivative_is_the_gradient(row: dict[str, np.ndarray]) -> None:
    with jax.enable_x64():
        x, w, v = (jnp.asarray(row[name]) for name in ("x", "w", "v"))
        grad_w, grad_v = jax.grad(eta_of_row, argnums=(1, 2))(x, w, v)
        for j in range(6):
            q_others = x @ v - x[j] * v[j]
            h = FM(3).derivative(q_others, x[j])
            np.testing.assert_allclose(h, jnp.concatenate([grad_w[j, None], grad_v[j]]), rtol=1e-12)
            np.testing.assert_allclose(h, reference.derivative(row["x"][None], row["v"], 0, j), rtol=1e-12)


def moved(row: dict[str, np.ndarray], j: int, delta: np.ndarray) -> dict[str, np.ndarray]:
    w, v = row["w"].copy(), row["v"].copy()
    w[j] += delta[0]
    v[j] += delta[1:]
    return {**row, "w": w, "v": v}


def test_step_is_the_change_of_the_summary(row: dict[str, np.ndarray]) -> None:
    delta, j, own = np.array([0.3, -1.0, 0.2, 2.0]), 1, [0, 1, 4]
    with jax.enable_x64():
        u = naive_summary(row, [0, 4])[1:]
        change = naive_summary(moved(row, j, delta), own) - naive_summary(row, own)
        np.testing.assert_allclose(
            FM(3).step(u, row["x"][j], jnp.asarray(delta)), change, rtol=1e-12, atol=1e-14
        )


def test_pull_back_is_the_transpose_of_step(row: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(4)
    A, g, u = rng.normal(size=(4, 4)), rng.normal(size=4), rng.normal(size=3)
    with jax.enable_x64():
        M = jax.jacobian(lambda delta: FM(3).step(jnp.asarray(u), row["x"][2], delta))(jnp.zeros(4))
        P, b = FM(3).pull_back(jnp.asarray(u), row["x"][2], jnp.asarray(A @ A.T), jnp.asarray(g))
        np.testing.assert_allclose(P, M.T @ A @ A.T @ M, rtol=1e-12)
        np.testing.assert_allclose(b, M.T @ g, rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
def test_every_operation_takes_trailing_axes(rank: int) -> None:
    """Axes behind the first are lanes: each lane is computed by itself."""
    fm, K, lanes = FM(rank), rank + 1, (2, 3)
    keys = jax.random.split(jax.random.key(0), 6)
    s, t, delta, g = (jax.random.normal(k, (K, *lanes)) for k in keys[:4])
    x = jax.random.normal(keys[4], lanes)
    G = jax.random.normal(keys[5], (K, K, *lanes))
    G = G + jnp.swapaxes(G, 0, 1)
    for i in np.ndindex(lanes):
        here = (slice(None), *i)
        np.testing.assert_array_equal(fm.combine(s, t)[here], fm.combine(s[here], t[here]))
        np.testing.assert_array_equal(fm.derivative(s[1:], x)[here], fm.derivative(s[1:][here], x[i]))
        np.testing.assert_array_equal(fm.step(s[1:], x, delta)[here], fm.step(s[1:][here], x[i], delta[here]))
        P, b = fm.pull_back(s[1:], x, G, g)
        P_lane, b_lane = fm.pull_back(s[1:][here], x[i], G[(slice(None), *here)], g[here])
        np.testing.assert_array_equal(P[(slice(None), *here)], P_lane)
        np.testing.assert_array_equal(b[here], b_lane)


def test_split_and_join() -> None:
    theta = jnp.arange(12.0).reshape(3, 4)
    parts = FM(2).split(theta)
    assert parts["w"].shape == (4,)
    assert parts["v"].shape == (4, 2)
    np.testing.assert_array_equal(FM(2).join(**parts), theta)


@pytest.mark.parametrize(
    ("rank", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError), ("8", TypeError)]
)
def test_rank_is_a_count(rank: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="rank must be"):
        FM(rank)  # type: ignore[arg-type]


def test_numbers_are_leaves_and_rank_is_structure() -> None:
    assert jax.tree.leaves(FM(3)) == []
    assert jax.tree.structure(FM(3)) != jax.tree.structure(FM(4))
    assert FM(3).width == 4
