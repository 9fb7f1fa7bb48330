"""The kernels of relation blocks against loops in NumPy, for every instruction set that the machine has."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from bayesfm import native
from tests.test_native import FieldCase, field_case

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="built without a C++ compiler"),
    pytest.mark.usefixtures("full_optimisation"),
]

P_COLUMNS = 21


class Information(NamedTuple):
    """Gram matrix and gradient of the data rows of every block row, and their derivatives h."""

    G: np.ndarray
    g: np.ndarray
    h: list[tuple[np.ndarray, np.ndarray]]


def naive_information(c: FieldCase, K: int) -> Information:
    """sum omega h h' and sum omega h r, h = (1, q of all other units)."""
    m = len(c.ptr) - 1
    G, g, h = np.zeros((m, K, K)), np.zeros((m, K)), []
    for j in range(m):
        own = slice(c.ptr[j], c.ptr[j + 1])
        rows = c.row[own]
        q = sum(t[code[own]].astype(float) for t, code in zip(c.tables, c.codes, strict=True))
        h_j = np.concatenate([np.ones((len(rows), 1)), q[:, : K - 1]], axis=1)
        G[j] = h_j.T @ (c.omega[rows, None] * h_j)
        g[j] = h_j.T @ (c.omega[rows] * c.r[rows])
        h.append((rows, h_j))
    return Information(G, g, h)


def packed(x: Information) -> np.ndarray:
    """As the kernels keep it: the lower triangle by rows, then the gradient."""
    K = x.g.shape[1]
    lower = np.tril_indices(K)
    return np.concatenate([x.G[:, lower[0], lower[1]], x.g], axis=1)


def naive_table(
    x: Information, X: sparse.csc_array, Q: np.ndarray, prior: dict[str, np.ndarray], theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Feature after feature: a draw given all others, and how far the summaries (E, Q) of the block rows have moved.

    And the largest condition number of a precision matrix.
    """
    K, p = theta.shape
    condition = 1.0
    theta, Q, moved = theta.copy(), Q.copy(), np.zeros((K, Q.shape[1]))
    for j in range(p):
        own = slice(X.indptr[j], X.indptr[j + 1])
        rows, values = X.indices[own], X.data[own]
        group = prior["group"][j]
        precision = np.diag(prior["precision"][:, group])
        b = prior["precision"][:, group] * prior["mean"][:, group]
        derivatives = []
        for n, value in zip(rows, values, strict=True):
            A = value * np.eye(K)  # of (E, Q) by theta_j
            A[0, 1:] = value * (Q[:, n] - value * theta[1:, j])
            derivatives.append(A)
            precision = precision + A.T @ x.G[n] @ A
            b = b + A.T @ (x.g[n] - x.G[n] @ moved[:, n]) + A.T @ x.G[n] @ A @ theta[:, j]
        condition = max(condition, float(np.linalg.cond(precision)))
        L = np.linalg.cholesky(precision)
        new = np.linalg.solve(L.T, np.linalg.solve(L, b) + prior["noise"][:, j])
        for n, A in zip(rows, derivatives, strict=True):
            change = A @ (new - theta[:, j])
            moved[:, n] += change
            Q[:, n] += change[1:]
        theta[:, j] = new
    return theta, moved, condition


def tolerance(dtype: str, condition: float) -> float:
    """Of the largest number: 1e-10, and in float32 rounding, of sums and times the condition of the worst P."""
    return 1e-10 if dtype == "float64" else float(np.finfo(np.float32).eps) * max(10.0, condition)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("K", [1, 2, 5, 9, 16, 17, 33, 65])
def test_a_sweep_over_a_table(K: int, num_tables: int, dtype: str, isa: str) -> None:
    """Information of block rows, draws of their features, and residuals after it."""
    rng = np.random.default_rng(K)
    with jax.enable_x64():
        c = field_case(K, num_tables, np.dtype(dtype).type)
        near = [jnp.asarray(x) for x in (c.ptr, c.row)]
        omega, r = jnp.asarray(c.omega), jnp.asarray(c.r)
        others = [jnp.asarray(t) for t in c.tables], [jnp.asarray(code) for code in c.codes]
        naive = naive_information(c, K)
        information = native.row_information(*near, omega, r, K, *others)
        close(information, packed(naive), tolerance(dtype, 1.0))

        m = len(c.ptr) - 1
        X = sparse.csc_array(sparse.random_array((m, P_COLUMNS), density=0.3, rng=rng))
        X.sort_indices()
        X.data = rng.normal(size=X.nnz)
        Q, theta = 0.3 * rng.normal(size=(K - 1, m)), 0.3 * rng.normal(size=(K, P_COLUMNS))
        prior = {
            "group": np.sort(rng.integers(0, 3, P_COLUMNS)).astype(np.int32),
            "precision": rng.uniform(0.5, 2.0, (K, 3)),
            "mean": rng.normal(size=(K, 3)),
            "noise": rng.normal(size=(K, P_COLUMNS)),
        }
        values = [jnp.asarray(x, dtype) for x in (X.data, packed(naive), Q, *list(prior.values())[1:], theta)]
        group = jnp.asarray(prior["group"])
        ptr, row = (jnp.asarray(x.astype(np.int32)) for x in (X.indptr, X.indices))
        new, moved = native.update_table(ptr, row, *values[:3], group, *values[3:])
        expected, expected_moved, condition = naive_table(naive, X, Q, prior, theta)
        close(new, expected, tolerance(dtype, condition))
        close(moved, expected_moved, tolerance(dtype, condition))

        after = c.r.astype(float)
        for j, (rows, h) in enumerate(naive.h):
            after[rows] -= h @ expected_moved[:, j]
        close(
            native.move_residual(*near, r, jnp.asarray(expected_moved, dtype), *others),
            after,
            tolerance(dtype, 1.0),
        )
        assert new.dtype == moved.dtype == dtype


def close(found: jax.Array | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Relative to the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
