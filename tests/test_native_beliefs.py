"""The kernels of coordinate ascent against loops in NumPy, for every instruction set that the machine has."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from tests.test_native import SIZES, FieldCase, field_case
from tests.test_native_tables import close, tolerance

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="built without a C++ compiler"),
    pytest.mark.usefixtures("full_optimisation"),
]


class Beliefs(NamedTuple):
    """Of the features of one unit: means (m, K), covariances (m, K, K)."""

    mean: np.ndarray
    cov: np.ndarray

    def with_nobody(self) -> Beliefs:
        """And a feature of zeros, which is certain."""
        return Beliefs(*(np.concatenate([x, np.zeros_like(x[:1])]) for x in self))

    def arrays(self, dtype: type) -> tuple[jax.Array, jax.Array]:
        """As the kernels have them, features in the last axis."""
        return jnp.asarray(self.mean.T, dtype), jnp.asarray(np.moveaxis(self.cov, 0, -1), dtype)


def beliefs(rng: np.random.Generator, m: int, K: int) -> Beliefs:
    A = rng.normal(size=(m, K, K + 2)) / np.sqrt(K)
    return Beliefs(0.3 * rng.normal(size=(m, K)), 0.1 * A @ A.transpose(0, 2, 1))


def others_of(c: FieldCase, K: int) -> list[Beliefs]:
    """About the other units of a case."""
    rng = np.random.default_rng([K, len(c.tables)])
    return [beliefs(rng, int(code.max()), K).with_nobody() for code in c.codes]


def spread_of_rest(m: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a row's other features (F, K), (F, K, K): mean and covariance of Q, and its covariance with their eta."""
    q, C = m[:, 1:].sum(axis=0), S[:, 1:, 1:].sum(axis=0)
    # eta = sum w + sum over pairs of <v, v'>: by v_f its derivative is at the mean q - m_f, and only f covaries with f.
    with_eta = sum(S_f[1:, 0] + S_f[1:, 1:] @ (q - m_f[1:]) for m_f, S_f in zip(m, S, strict=True))
    return q, C, with_eta


class Ascent(NamedTuple):
    mean: np.ndarray
    cov: np.ndarray
    log_det: np.ndarray
    r: np.ndarray
    condition: float


def naive_update(c: FieldCase, others: list[Beliefs]) -> Ascent:
    """One feature after the other in float64, from the sums over its rows."""
    theta, r = c.theta.astype(float), c.r.astype(float)
    precision, mean = (x[:, c.group].astype(float) for x in (c.precision, c.mean))
    covs, condition = [], 1.0
    for j in range(theta.shape[1]):
        P, b = np.diag(precision[:, j]), precision[:, j] * (mean[:, j] - theta[:, j])
        rows = []
        for e in range(c.ptr[j], c.ptr[j + 1]):
            n = c.row[e]
            here = [(x.mean[code[e]], x.cov[code[e]]) for x, code in zip(others, c.codes, strict=True)]
            q, C, with_eta = spread_of_rest(*(np.stack(x) for x in zip(*here, strict=True)))
            h = np.append(1.0, q)
            P = P + c.omega[n] * np.outer(h, h)
            P[1:, 1:] += c.omega[n] * C
            b = b + c.omega[n] * r[n] * h
            b[1:] -= c.omega[n] * (with_eta + C @ theta[1:, j])
            rows.append((n, h))
        covs.append(np.linalg.inv(P))
        condition = max(condition, float(np.linalg.cond(P)))
        step = covs[-1] @ b
        for n, h in rows:
            r[n] -= h @ step
        theta[:, j] += step
    cov = np.stack(covs, axis=-1)
    return Ascent(theta, cov, np.linalg.slogdet(np.stack(covs))[1], r, condition)


def run(c: FieldCase, others: list[Beliefs], dtype: type) -> tuple[jax.Array, ...]:
    means, spreads = [], []
    for x in others:
        mean, spread = tables_of(*x.arrays(dtype))
        means.append(mean)
        spreads.append(spread)
    arrays = jax.tree.map(jnp.asarray, c)
    rows = arrays.ptr, arrays.row, arrays.omega, arrays.r, arrays.group
    return native.update_beliefs(
        *rows, arrays.precision, arrays.mean, arrays.theta, means, spreads, arrays.codes
    )


@jax.jit
def tables_of(mean: jax.Array, cov: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the means and of the spreads, without those of the feature of zeros, which the kernel adds."""
    return native.as_table(mean[1:]), native.spread_table(mean[:, :-1], cov[..., :-1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("K", SIZES)
def test_beliefs_about_a_field(K: int, num_tables: int, dtype: str, isa: str) -> None:
    """Of features with many rows, one, and none; some rows have none of the other units' features."""
    with jax.enable_x64():
        c = field_case(K, num_tables, np.dtype(dtype).type)
        others = others_of(c, K)
        expected = naive_update(c, others)
        mean, cov, log_det, r = run(c, others, np.dtype(dtype).type)
    bound = tolerance(dtype, expected.condition)
    close(mean, expected.mean, bound)
    close(cov, expected.cov, bound)
    close(log_det, expected.log_det, bound)
    close(r, expected.r, bound)
    assert mean.dtype == cov.dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("K", SIZES)
def test_table_of_spreads(K: int, dtype: str, isa: str) -> None:
    """C by its triangle, cov(v, w), A, the mean of v, a, t: written down feature by feature; the last row is zero."""
    x = beliefs(np.random.default_rng(K), 37, K)
    with jax.enable_x64():
        table = np.asarray(native.spread_table(*x.arrays(np.dtype(dtype).type)), float)
    assert table.shape[1] == native.spread_stride(K - 1, np.dtype(dtype))
    lower = np.tril_indices(K - 1)
    for row, m, S in zip(table, x.mean, x.cov, strict=False):
        V, s, v = S[1:, 1:], S[1:, 0], m[1:]
        a = S[0, 0] - 2 * s @ v + v @ V @ v
        expected = np.concatenate([V[lower], s, s - V @ v, v, [a, np.sum(V * V)]])
        close(row[: len(expected)], expected, tolerance(dtype, K))  # t adds up K^2 squares
        assert not row[len(expected) :].any()
    assert not table[-1].any()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_units", [1, 2, 4])
@pytest.mark.parametrize("K", SIZES)
def test_variance_of_rows(K: int, num_units: int, dtype: str, isa: str) -> None:
    """Of eta, by the law of total variance over features: unit after unit integrated out."""
    rng, n = np.random.default_rng([K, num_units]), 101
    units = [beliefs(rng, 11 + u, K) for u in range(num_units)]
    codes = [rng.integers(0, 12 + u, n).astype(np.int32) for u in range(num_units)]
    with jax.enable_x64():
        arrays = [x.arrays(np.dtype(dtype).type) for x in units]
        spreads = [native.spread_table(*x) for x in arrays]
        found = native.row_variances(arrays[0][0], spreads, [jnp.asarray(code) for code in codes])
    expected = np.zeros(n)
    for i in range(n):
        mean, cov, var = np.zeros(K - 1), np.zeros((K - 1, K - 1)), 0.0  # of Q so far, and of eta
        with_eta = np.zeros(K - 1)
        for x, code in zip((x.with_nobody() for x in units), codes, strict=True):
            m, S = x.mean[code[i]], x.cov[code[i]]
            V, s, v = S[1:, 1:], S[1:, 0], m[1:]
            # eta' = eta + w + <Q, v>, with (w, v) independent of (Q, eta).
            var += 2 * with_eta @ v + v @ cov @ v + S[0, 0] + 2 * s @ mean + mean @ V @ mean + np.sum(cov * V)
            with_eta = with_eta + cov @ v + s + V @ mean
            mean, cov = mean + v, cov + V
        expected[i] = var
    close(found, expected, tolerance(dtype, 10.0 * K))


def test_a_batch_is_its_members() -> None:
    """Two fields that differ in their residuals, in one call."""
    c = field_case(5, 2, np.float32)
    others = others_of(c, 5)
    residuals = np.stack([c.r, 2 * c.r + 1])
    one_by_one = [run(c._replace(r=r), others, np.float32) for r in residuals]
    arrays = [x.arrays(np.float32) for x in others]
    tables = [native.as_table(mean[1:]) for mean, _ in arrays]
    spreads = [native.spread_table(mean[:, :-1], cov[..., :-1]) for mean, cov in arrays]
    a = jax.tree.map(jnp.asarray, c)

    def update(r: jax.Array) -> tuple[jax.Array, ...]:
        own = a.precision, a.mean, a.theta, tables, spreads, a.codes
        return native.update_beliefs(a.ptr, a.row, a.omega, r, a.group, *own)

    together = jax.vmap(update)(jnp.asarray(residuals))
    for got, *expected in zip(together, *one_by_one, strict=True):
        np.testing.assert_array_equal(got, np.stack(expected))


def test_wrong_shapes_are_refused() -> None:
    """By the kernels themselves, which nothing else stands before."""
    c = field_case(3, 1, np.float32)
    others = others_of(c, 3)
    mean, cov = others[0].arrays(np.float32)
    a, table = jax.tree.map(jnp.asarray, c), native.as_table(mean[1:])
    spread = native.spread_table(mean[:, :-1], cov[..., :-1])
    rows = a.ptr, a.row, a.omega, a.r, a.group, a.precision, a.mean, a.theta
    for wrong, message in (
        (([table], [spread[:-1]], a.codes), "the spreads has the wrong shape"),
        (([table], [spread[:, :-4]], a.codes), "multiples of 64 bytes"),
        (([table], [spread], [a.codes[0][:-1]]), "a code has the wrong shape"),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(native.update_beliefs(*rows, *wrong))
    with pytest.raises(jax.errors.JaxRuntimeError, match="the covariances has the wrong shape"):
        jax.block_until_ready(native.spread_table(mean, cov[..., :-1]))
    with pytest.raises(jax.errors.JaxRuntimeError, match="hold what their rank asks for"):
        jax.block_until_ready(native.row_variances(jnp.zeros((9, 1)), [spread], [jnp.zeros(4, jnp.int32)]))
    with pytest.raises(ValueError, match="ptr must hold where things start"):
        native.update_beliefs(a.ptr[:0], *rows[1:], [table], [spread], a.codes)
