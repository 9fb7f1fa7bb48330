"""The compiled kernels against loops in NumPy, for every instruction set that the machine has."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.special import erfinv

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.inference import chains
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import default_spec
from tests.inference.holding import elimination_order, root_in, update_field

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="built without a C++ compiler"),
    pytest.mark.usefixtures("full_optimisation"),  # the kernels are compared with the programs that users run
]

SIZES = [1, 2, 4, 5, 8, 9, 15, 16, 17, 18, 33, 40, 65]
"""K = rank + 1 around the widths of vectors, tiles and the switch from registers to memory."""


as_table = jax.jit(native.as_table)


class FieldCase(NamedTuple):
    ptr: np.ndarray
    row: np.ndarray
    omega: np.ndarray
    r: np.ndarray
    group: np.ndarray
    precision: np.ndarray
    mean: np.ndarray
    noise: np.ndarray
    theta: np.ndarray
    tables: list[np.ndarray]
    codes: list[np.ndarray]


def field_case(K: int, num_tables: int, dtype: type, m: int = 37, n: int = 700) -> FieldCase:
    """A field whose first feature has no rows, one has most; a tenth of the rows have none of its features."""
    rng = np.random.default_rng([K, num_tables])
    code = np.where(rng.random(n) < 0.5, 5, rng.integers(1, m + m // 9, n))
    order = np.argsort(code, kind="stable").astype(np.int32)
    ptr = np.searchsorted(code[order], np.arange(m + 1)).astype(np.int32)
    row = order[: ptr[-1]].copy()  # with nothing behind it that a sanitizer would let pass
    tables, codes = [], []
    for t in range(num_tables):
        with jax.enable_x64():
            Q = jnp.asarray(0.3 * rng.normal(size=(K - 1, 20 + t)), dtype)
            tables.append(np.asarray(as_table(Q)))
        codes.append(rng.integers(0, 20 + t, len(row)).astype(np.int32))
    omega = rng.uniform(0, 2, n) * (rng.random(n) < 0.9)
    group = np.sort(rng.integers(0, 3, m)).astype(np.int32)
    rows = [np.asarray(a, dtype) for a in (omega, rng.normal(size=n))]
    prior = [rng.uniform(0.5, 2, (K, 3)), rng.normal(size=(K, 3))]
    features = [np.asarray(a, dtype) for a in (*prior, rng.normal(size=(K, m)), rng.normal(size=(K, m)))]
    return FieldCase(ptr, row, *rows, group, *features, tables, codes)


def naive_field(c: FieldCase, last: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One feature after the other in float64."""
    order = elimination_order(range(len(c.theta)), last)
    theta, r, K = c.theta.astype(float), c.r.astype(float), len(c.theta)
    precision, mean = c.precision[:, c.group], c.mean[:, c.group]
    for j in range(theta.shape[1]):
        own = slice(c.ptr[j], c.ptr[j + 1])
        rows = c.row[own]
        q = sum(t[code[own]].astype(float) for t, code in zip(c.tables, c.codes, strict=True))
        h = np.concatenate([np.ones((len(rows), 1)), q[:, : K - 1]], axis=1)
        G = h.T @ (c.omega[rows, None] * h)
        P = np.diag(precision[:, j]).astype(float) + G
        b = precision[:, j] * mean[:, j] + G @ theta[:, j] + h.T @ (c.omega[rows] * r[rows])
        new = np.linalg.solve(P, b) + root_in(order, P, c.noise[:, j])
        r[rows] -= h @ (new - theta[:, j])
        theta[:, j] = new
    return theta, r


def run_field(c: FieldCase, last: int = 0) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64():
        theta, r = jax.jit(update_field, static_argnames="last")(*c, last=last)
        return np.asarray(theta), np.asarray(r)


@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("K", SIZES)
def test_field_in_float64(K: int, num_tables: int, isa: str) -> None:
    case = field_case(K, num_tables, np.float64)
    for last in {0, (K - 1) // 2, max(0, K - 2)}:
        for got, expected in zip(run_field(case, last), naive_field(case, last), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("num_tables", [1, 2])
@pytest.mark.parametrize("K", [2, 9, 17, 33])
def test_features_with_few_rows(K: int, num_tables: int, isa: str) -> None:
    """Groups of features with up to 1, 2, 4 and 8 rows go by their rows instead of by sums over them."""
    case = field_case(K, num_tables, np.float64, m=70, n=230)
    order = np.argsort(np.diff(case.ptr), kind="stable")
    rows = [np.arange(case.ptr[j], case.ptr[j + 1]) for j in order]
    count = np.array([len(x) for x in rows])
    assert set(count[count <= 8]) >= {0, 1, 2, 3, 4}
    own, ptr = np.concatenate(rows), np.append(0, np.cumsum(count)).astype(np.int32)
    case = case._replace(ptr=ptr, row=case.row[own], codes=[code[own] for code in case.codes])
    for last in {0, max(0, K - 2)}:
        for got, expected in zip(run_field(case, last), naive_field(case, last), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)


def test_the_last_factor_must_be_one() -> None:
    case = jax.tree.map(jnp.asarray, field_case(3, 1, np.float32))
    for last in (-1, 2):
        with pytest.raises(jax.errors.JaxRuntimeError, match="last must be a factor"):
            jax.block_until_ready(update_field(*case, last=last))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_integrated_features(dtype: type, isa: str) -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 2, 3], [70, 1, 300]).astype(np.int32)
    c, d = rng.gamma(0.3, 5.0, group.size), 3 * rng.normal(size=group.size)
    before, at = rng.gamma(2.0, 1.0, (2, 4))
    new, old = at[group], before[group]
    t, s, e = c / (new + c), new / (new + c), d / (new + c)
    rise = 0.5 * (np.log(new / (new + c)) - np.log(old / (old + c)) + d**2 / (new + c) - d**2 / (old + c))
    terms = [t, t * t, t * t * s, e, t * e, t * e * s, e * e, e * e * s, rise]
    expected = [np.bincount(group, x, minlength=4) for x in terms]
    scale = np.array([np.bincount(group, np.abs(x), minlength=4).max() for x in terms])
    with jax.enable_x64():
        c, d, before, at = (jnp.asarray(x, dtype) for x in (c, d, before, at))
        got = np.asarray(native.scale_sums(c, d, jnp.asarray(group), before, at))
    assert got.dtype == dtype
    error = np.abs(got - np.array(expected)).max(axis=1)
    assert np.all(error <= 16 * np.finfo(dtype).eps * scale)  # each term has a handful of roundings


@pytest.mark.parametrize("K", SIZES)
def test_field_in_float32(K: int, isa: str) -> None:
    """Rounding: n eps in the sums, times the condition of P, which the priors keep below 1e3."""
    case = field_case(K, 1, np.float32)
    eps = np.finfo(np.float32).eps
    for got, expected in zip(run_field(case), naive_field(case), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e3 * eps * max(1.0, np.abs(expected).max()))


def test_inputs_are_left_alone() -> None:
    case = field_case(5, 1, np.float32)
    arrays = jax.tree.map(jnp.asarray, case)
    update_field(*arrays)
    np.testing.assert_array_equal(arrays.theta, case.theta)
    np.testing.assert_array_equal(arrays.r, case.r)


def test_a_lost_prior_does_not_break_the_solve(isa: str) -> None:
    """Two factors that the data cannot tell apart, at 1e8 times the prior's precision."""
    case = field_case(3, 1, np.float32)
    table = case.tables[0].copy()
    table[:, 1] = table[:, 0] = 1.0
    theta, r = run_field(case._replace(tables=[table], omega=np.full_like(case.omega, 1e8)))
    assert np.all(np.isfinite(theta))
    assert np.all(np.isfinite(r))


@pytest.mark.parametrize("num_units", [1, 2, 4])
@pytest.mark.parametrize("K", [1, 2, 9, 17, 40])
def test_linear_predictor(K: int, num_units: int, isa: str) -> None:
    rng = np.random.default_rng(K)
    n = 10_000  # more than one part
    summaries = [rng.normal(size=(K, 7 + t)) for t in range(num_units)]
    codes = [rng.integers(0, 7 + t, n).astype(np.int32) for t in range(num_units)]
    at_rows = [s[:, c] for s, c in zip(summaries, codes, strict=True)]
    pairs = [a[1:] * b[1:] for i, a in enumerate(at_rows) for b in at_rows[i + 1 :]]
    expected = 0.3 + sum(s[0] for s in at_rows) + sum(p.sum(0) for p in pairs)
    with jax.enable_x64():
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-4)):
            E = [jnp.asarray(s[0], dtype) for s in summaries]
            Q = [as_table(jnp.asarray(s[1:], dtype)) for s in summaries]
            eta = native.linear_predictor(jnp.asarray(0.3, dtype), E, Q, [jnp.asarray(c) for c in codes])
            assert eta.dtype == dtype
            np.testing.assert_allclose(eta, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ptr": np.zeros(3, np.int32)}, "group has the wrong shape"),
        ({"omega": np.ones(3, np.float32)}, "r has the wrong shape"),
        ({"mean": np.ones((5, 2), np.float32)}, "mean has the wrong shape"),
        ({"noise": np.ones((2, 2), np.float32)}, "noise has the wrong shape"),
        ({"tables": [], "codes": []}, "a table and a code are needed"),
        ({"tables": [np.ones((20, 3), np.float32)]}, "multiple of 64 bytes"),
        ({"codes": [np.zeros(2, np.int32)]}, "a code has the wrong shape"),
        ({"tables": [np.ones((20, 16))]}, "a table has the wrong element type"),
    ],
)
def test_wrong_shapes_are_refused(changes: dict, message: str) -> None:
    unchecked = inspect.unwrap(update_field)  # the check of annotations would refuse some of these earlier
    with jax.enable_x64():
        case = jax.tree.map(jnp.asarray, field_case(5, 1, np.float32)._replace(**changes))
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(unchecked(*case))


@pytest.mark.parametrize(
    ("rank", "dtype", "stride"),
    [
        (0, np.float32, 4),
        (3, np.float32, 4),
        (5, np.float32, 8),
        (16, np.float32, 16),
        (17, np.float32, 32),
        (1, np.float64, 2),
        (3, np.float64, 4),
        (8, np.float64, 8),
        (9, np.float64, 16),
        (33, np.float64, 40),
    ],
)
def test_rows_of_tables_fit_vectors(rank: int, dtype: type, stride: int) -> None:
    assert native.table_stride(rank, dtype) == stride
    with jax.enable_x64():
        Q = jnp.arange(2.0 * rank, dtype=dtype).reshape(rank, 2) + 1
        table = np.asarray(native.as_table(Q))
    assert table.shape == (2, stride)
    np.testing.assert_array_equal(table[:, :rank], Q.T)
    assert not np.any(table[:, rank:])


def columns_case(K: int, dtype: type, n: int = 300, p: int = 60) -> dict[str, np.ndarray]:
    """A sparse matrix of runs of up to twenty columns that share no row, one of them without entries."""
    rng = np.random.default_rng(K)
    ptr, row, ends = [0], [], []
    while len(ptr) <= p:
        size = min(int(rng.integers(1, 20)), p + 1 - len(ptr))
        own = np.array_split(rng.permutation(n)[: int(rng.integers(size, n))], size)
        own[0] = own[0][:0]
        row += [np.sort(rows) for rows in own]
        ptr += list(ptr[-1] + np.cumsum([len(rows) for rows in own]))
        ends.append(len(ptr) - 1)
    z = ptr[-1]
    real = {
        "value": rng.normal(size=z),
        "omega": rng.uniform(0, 2, n),
        "r": rng.normal(size=n),
        "precision": rng.uniform(0.5, 2, (K, 3)),
        "mean": rng.normal(size=(K, 3)),
        "noise": rng.normal(size=(K, p)),
        "theta": 0.3 * rng.normal(size=(K, p)),
        "Q": 0.3 * rng.normal(size=(n, K - 1)),
    }
    whole = {"ptr": np.array(ptr), "row": np.concatenate(row), "ends": np.array(ends)}
    whole["group"] = np.sort(rng.integers(0, 3, p))
    return {k: v.astype(np.int32) for k, v in whole.items()} | {k: v.astype(dtype) for k, v in real.items()}


def naive_columns(c: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One column after the other in float64."""
    theta, r, Q = (c[name].astype(float) for name in ("theta", "r", "Q"))
    precision, mean = (c[name].astype(float)[:, c["group"]] for name in ("precision", "mean"))
    for j in range(theta.shape[1]):
        own = slice(c["ptr"][j], c["ptr"][j + 1])
        rows, x = c["row"][own], c["value"][own].astype(float)
        h = x[:, None] * np.concatenate(
            [np.ones((len(rows), 1)), Q[rows] - x[:, None] * theta[1:, j]], axis=1
        )
        G = h.T @ (c["omega"][rows, None] * h)
        b = precision[:, j] * mean[:, j] + G @ theta[:, j] + h.T @ (c["omega"][rows] * r[rows])
        L = np.linalg.cholesky(np.diag(precision[:, j]) + G)
        delta = np.linalg.solve(L.T, np.linalg.solve(L, b) + c["noise"][:, j]) - theta[:, j]
        r[rows] -= h @ delta
        Q[rows] += x[:, None] * delta[1:]
        theta[:, j] += delta
    return theta, r, Q


@pytest.mark.parametrize("K", SIZES)
def test_columns(K: int, isa: str) -> None:
    for dtype in (np.float64, np.float32):
        case = columns_case(K, dtype)
        expected = naive_columns(case)
        with jax.enable_x64():
            Q = as_table(case["Q"].T)
            arrays = jax.tree.map(jnp.asarray, {**case, "Q": Q})
            got = [np.asarray(x) for x in native.update_columns(**arrays)]
        got[2] = got[2][:, : K - 1]
        for a, b in zip(got, expected, strict=True):
            if dtype == np.float64:
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
            else:  # runs one after the other, each with the rounding of test_field_in_float32
                scale = len(case["ends"]) * max(1.0, float(np.max(np.abs(b), initial=0)))
                np.testing.assert_allclose(a, b, rtol=0, atol=1e3 * np.finfo(dtype).eps * scale)


def short_columns(K: int, longest: int, dtype: type, decades: float) -> dict[str, np.ndarray]:
    """Columns of so many rows at most, some of weight zero, in runs of up to forty; prior precisions over decades."""
    rng = np.random.default_rng([K, longest])
    n, sizes = 40 * max(1, longest), [1, 40, 3, 17]
    case = columns_case(K, dtype, n, p := sum(sizes))
    lengths = rng.integers(0, longest + 1, p)
    lengths[[0, 1]] = longest
    lengths[-1] = 0
    of_runs = np.split(lengths, np.cumsum(sizes)[:-1])
    rows = [rng.permutation(n)[: own.sum()] for own in of_runs]
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    omega = case["omega"] * (rng.random(n) < 0.8)
    return case | {
        "ptr": ptr.astype(np.int32),
        "row": np.concatenate(rows).astype(np.int32),
        "ends": np.cumsum(sizes).astype(np.int32),
        "value": rng.normal(size=ptr[-1]).astype(dtype),
        "omega": omega.astype(dtype),
        "precision": (10.0 ** rng.uniform(-decades, 1, (K, 3))).astype(dtype),
    }


@pytest.mark.parametrize("longest", [0, 1, 2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("K", [1, 2, 3, 6, 9, 10, 17, 33])
def test_short_columns(K: int, longest: int, isa: str) -> None:
    """As many rows as the draw without a Gram matrix takes, and one more; the same draws as by naive algebra."""
    for dtype, decades in ((np.float64, 2.0), (np.float32, 0.5)):
        case = short_columns(K, longest, dtype, decades)
        expected = naive_columns(case)
        with jax.enable_x64():
            Q = as_table(case["Q"].T)
            arrays = jax.tree.map(jnp.asarray, {**case, "Q": Q})
            got = [np.asarray(x) for x in native.update_columns(**arrays)]
        got[2] = got[2][:, : K - 1]
        for a, b in zip(got, expected, strict=True):
            # Of the largest number, with the condition of the systems: what the rows say over the weakest prior.
            scale = max(1.0, float(np.max(np.abs(b), initial=0))) * max(1, longest) * 10**decades
            np.testing.assert_allclose(a, b, rtol=0, atol=1e3 * np.finfo(dtype).eps * scale)


def test_long_runs_of_columns_are_shared_out_with_the_same_result() -> None:
    """Runs beyond the threshold of the thread pool, beside short ones."""
    rng = np.random.default_rng(0)
    n, K, m = 40_000, 4, 500
    owner = rng.integers(0, m, n)
    long = np.argsort(owner, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=m))])
    ptr = np.concatenate([ptr, ptr[-1] + np.arange(5, 26, 5)]).astype(np.int32)
    p = len(ptr) - 1
    with jax.enable_x64():
        c = {
            "ptr": ptr,
            "row": np.concatenate([long, rng.permutation(n)[:25]]).astype(np.int32),
            "value": rng.normal(size=ptr[-1]),
            "ends": np.array([m, p], np.int32),
            "omega": rng.uniform(0, 2, n),
            "r": rng.normal(size=n),
            "Q": rng.normal(size=(n, K - 1)),
            "group": np.zeros(p, np.int32),
            "precision": np.ones((K, 1)),
            "mean": np.zeros((K, 1)),
            "noise": rng.normal(size=(K, p)),
            "theta": 0.1 * rng.normal(size=(K, p)),
        }
        arrays = jax.tree.map(jnp.asarray, {**c, "Q": as_table(c["Q"].T)})
        theta, r, Q = native.update_columns(**arrays)
        for a, b in zip((theta, r, np.asarray(Q)[:, : K - 1]), naive_columns(c), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("K", [1, 2, 5, 9, 17, 40])
def test_summaries(K: int, isa: str) -> None:
    rng = np.random.default_rng(K)
    X = sparse.random_array((50, 30), density=0.2, rng=rng).tocsr()
    X.data[:] = rng.normal(size=X.nnz)
    theta = rng.normal(size=(K, 30))
    Q = X @ theta[1:].T
    E = X @ theta[0] + 0.5 * (Q**2 - X.power(2) @ theta[1:].T ** 2).sum(axis=1)
    with jax.enable_x64():
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
            arrays = X.indptr, X.indices.astype(np.int32), X.data.astype(dtype), theta.astype(dtype)
            got_E, got_Q = native.summarize(*map(jnp.asarray, arrays))
            np.testing.assert_allclose(got_E, E, rtol=tolerance, atol=10 * tolerance)
            np.testing.assert_allclose(got_Q[:, : K - 1], Q, rtol=tolerance, atol=10 * tolerance)
            assert not np.any(got_Q[:, K - 1 :])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_group_moments(dtype: type, isa: str) -> None:
    """A group without features, one of one, one far from zero and longer than a block of sums."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), [100, 0, 1, 20_003]).astype(np.int32)
    theta = rng.normal(1e3, 1.0, (3, len(group)))
    with jax.enable_x64():
        mean, scatter = (
            np.asarray(x) for x in native.group_moments(jnp.asarray(theta, dtype), jnp.asarray(group), 4)
        )
    exact = theta.astype(dtype).astype(float)
    for g in range(4):
        own = exact[:, group == g]
        centre = own.mean(axis=1) if own.size else np.zeros(3)
        np.testing.assert_allclose(mean[:, g], centre, rtol=64 * np.finfo(dtype).eps)  # 64 in a lane
        # The mean is rounded to eps * 1000; what that adds to the scatter, count * (eps * 1000)^2, is nothing.
        expected = ((own - centre[:, None]) ** 2).sum(axis=1)
        np.testing.assert_allclose(scatter[:, g], expected, rtol=1e3 * np.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [0, 1, 3, 4, 9, 33])
def test_group_scatter(k: int, dtype: type, isa: str) -> None:
    """A group without features, one of one, one longer than a part; far from zero, and from its own mean."""
    rng = np.random.default_rng(k)
    group = np.repeat(np.arange(4), [515, 0, 1, 20_003]).astype(np.int32)
    theta = rng.normal(30, 1.0, (2, k + 1, len(group))).astype(dtype)
    centre = rng.normal(30, 1.0, (k, 4)).astype(dtype)
    with jax.enable_x64():
        of_batch = jax.vmap(native.group_scatter, in_axes=(0, None, None))
        got = np.asarray(of_batch(*map(jnp.asarray, (theta, group, centre))))
    assert got.shape == (2, 4, k, k)
    for b, g in np.ndindex(2, 4):
        away = theta[b, 1:, group == g].T.astype(float) - centre[:, [g]]
        # What is added up in a lane before it is flushed, 128 numbers at most, and the rounding of x - centre.
        size = (away**2).sum(axis=1)
        bound = 128 * np.finfo(dtype).eps * np.sqrt(np.outer(size, size)) + 1e-30
        assert np.all(np.abs(got[b, g] - away @ away.T) <= bound)


def test_groups_of_a_scatter_out_of_range_are_refused() -> None:
    for group in ([0, 2], [-1, 0]):
        arguments = jnp.ones((3, 2)), jnp.asarray(group, jnp.int32), jnp.zeros((2, 2))
        with pytest.raises(jax.errors.JaxRuntimeError, match="a group is out of range"):
            jax.block_until_ready(inspect.unwrap(native.group_scatter)(*arguments))


def test_a_single_row_that_says_much_more_than_the_prior() -> None:
    """In float32, where the Gram matrix has lost the prior: the draw is that of float64."""
    K, p = 33, 20
    rng = np.random.default_rng(0)
    case = {
        "ptr": np.arange(p + 1),
        "row": np.arange(p),
        "value": np.ones(p),
        "ends": np.array([p]),
        "omega": np.full(p, 1e7),
        "r": rng.normal(size=p),
        "Q": rng.normal(size=(p, K - 1)),
        "group": np.zeros(p, int),
        "precision": np.ones((K, 1)),
        "mean": np.zeros((K, 1)),
        "noise": rng.normal(size=(K, p)),
        "theta": np.zeros((K, p)),
    }
    case = {k: x.astype(np.int32 if x.dtype.kind == "i" else np.float32) for k, x in case.items()}
    expected = naive_columns(case)[0]
    Q = as_table(case["Q"].T)
    got = np.asarray(native.update_columns(**jax.tree.map(jnp.asarray, {**case, "Q": Q}))[0])
    # What the row determines is right to a rounding of r; the other directions are the prior's.
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=64 * np.finfo(np.float32).eps * np.abs(expected).max()
    )


class TestStandardNormal:
    """Beside ``jax.random.normal``, whose bits it has."""

    def test_is_that_of_jax(self, isa: str) -> None:
        key = jax.random.key(5)
        ours = np.asarray(native.standard_normal(key, (7, 10_001), jnp.dtype("float32")), float)
        theirs = np.asarray(jax.random.normal(key, (7, 10_001)), float)
        # jax's own erf_inv is right to about 6e-6.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    def test_is_the_quantile_of_its_uniform(self, isa: str) -> None:
        """Right to a few units in the last place, in the tails, too."""
        key = jax.random.key(6)
        shape = (1_000_003,)
        ours = np.asarray(native.standard_normal(key, shape, jnp.dtype("float32")), float)
        bits = np.asarray(jax.random.bits(key, shape)).astype(np.uint64)
        u = np.maximum((bits >> np.uint64(9)) / 2.0**22 - 1 + 2.0**-24, -1 + 2.0**-24)
        exact = np.sqrt(2) * erfinv(u)
        assert np.abs(exact).max() > 4.5
        np.testing.assert_allclose(ours, exact, rtol=8 * np.finfo(np.float32).eps)

    def test_a_long_stream_begins_like_a_short_one(self) -> None:
        """Number i of a stream depends on i alone."""
        key = jax.random.key(7)
        long = native.standard_normal(key, (40_000,), jnp.dtype("float32"))
        np.testing.assert_array_equal(native.standard_normal(key, (17,), jnp.dtype("float32")), long[:17])

    def test_other_keys_and_types_are_those_of_jax(self) -> None:
        with jax.enable_x64():
            for key, dtype in (
                (jax.random.key(1), "float64"),
                (jax.random.key(1, impl="rbg"), "float32"),
            ):
                got = native.standard_normal(key, (3, 4), jnp.dtype(dtype))
                np.testing.assert_array_equal(got, jax.random.normal(key, (3, 4), dtype))


def test_a_batch_is_its_members() -> None:
    """Operands with a batch, without one, and two batches, one inside the other."""
    case = field_case(4, 2, np.float32)
    rng = np.random.default_rng(0)
    noises = jnp.asarray(rng.normal(size=(3, 2, *case.noise.shape)), jnp.float32)
    residuals = jnp.asarray(rng.normal(size=(3, *case.r.shape)), jnp.float32)
    last = jnp.asarray([0, 2, 1], jnp.int32)
    c = jax.tree.map(jnp.asarray, case)

    def first_half(r: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        prior = c.group, c.precision, c.mean
        return native.eliminate_field(c.ptr, c.row, c.omega, r, *prior, c.theta, last, c.tables, c.codes)

    def second_half(systems: jax.Array, known: jax.Array, last: jax.Array, noise: jax.Array) -> tuple:
        return native.substitute_field(
            c.ptr, c.row, c.r, systems, known, last, noise, c.theta, c.tables, c.codes
        )

    systems, corner = jax.jit(jax.vmap(first_half))(residuals, last)
    known = jnp.abs(corner) + 1
    draws = jax.jit(jax.vmap(jax.vmap(second_half, (None, None, None, 0))))(systems, known, last, noises)
    for i in range(3):
        own = jax.jit(first_half)(residuals[i], last[i])
        np.testing.assert_array_equal(systems[i], own[0])
        np.testing.assert_array_equal(corner[i], own[1])
        for j in range(2):
            single = jax.jit(second_half)(systems[i], known[i], last[i], noises[i, j])
            for batch, one in zip(draws, single, strict=True):
                np.testing.assert_array_equal(batch[i, j], one)


def test_a_batch_of_layouts_is_refused() -> None:
    case = jax.tree.map(jnp.asarray, field_case(4, 1, np.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="ptr must be the same for the whole batch"):
        jax.block_until_ready(
            jax.vmap(lambda ptr: update_field(*case._replace(ptr=ptr)))(jnp.stack([case.ptr] * 2))
        )


@pytest.mark.slow
def test_the_number_of_threads_does_not_show(tmp_path: Path) -> None:
    """One, two and four threads, in processes of their own, as XLA sizes its pool when it starts.

    A run stopped under one thread and resumed under four is the run that was not stopped.
    """
    folder = str(tmp_path / "run")
    kernels, whole = on_threads(2, "run_digest()")
    assert on_threads(1, f"run_digest({folder!r}, stop=3)")[0] == kernels
    assert on_threads(4, f"run_digest({folder!r}, resume=True)") == (kernels, whole)


def on_threads(threads: int, call: str) -> tuple[str, str]:
    """Hash of the kernels alone, and what a function of this module returns, in a process with a pool of that size."""
    program = f"""
    from tests.inference.holding import elimination_order, root_in, update_field
from tests.test_native import kernels_digest, num_threads, run_digest
    print(kernels_digest(), {call}, num_threads())
    """
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": "", "NPROC": str(threads)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    kernels, found, running = done.stdout.split()
    assert int(running) == (threads if TASKS.exists() else 0)
    return kernels, found


TASKS = Path("/proc/self/task")


def num_threads() -> int:
    """Threads of XLA's pool; 0 where there is no telling."""
    return sum("XLAEigen" in (task / "comm").read_text() for task in TASKS.glob("*"))


def kernels_digest() -> str:
    """Hash of a field that is large enough for several parts."""
    return digest(run_field(field_case(9, 1, np.float32, m=3000, n=40_000)))


def run_digest(checkpoint: str | None = None, stop: int | None = None, resume: bool = False) -> str:
    """Hash of whole sweeps over a field, long runs of columns and a relation block; stopped after ``stop`` sweeps."""
    rng = np.random.default_rng(0)
    n = 30_000
    x = sparse.random_array((n, 40), density=0.3, rng=rng).tocsr()
    design = Design(
        (
            Block.field("user", rng.integers(0, 900, n), np.arange(900)),
            Block.create("x", x),
            Block.create("side", rng.normal(size=(50, 6)), rng.integers(0, 50, n)),
        )
    )
    chains.PIECE_SECONDS = 0.0  # in a process of its own: after every sweep there is a checkpoint
    options = ChainOptions(
        num_warmup=2,
        num_samples=3,
        num_chains=1,
        progress=False,
        checkpoint=checkpoint,
        resume=resume,
        callback=None if stop is None else lambda progress: progress.sweep >= stop,
    )
    y = rng.normal(size=n)
    draws = gibbs(jax.random.key(0), default_spec(y, 5), design, y, options=options, kernels="native")
    return digest(draws.sites[name] for name in sorted(draws.sites))


def digest(arrays: Iterable[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def test_empty_pointers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python; and by every kernel, where lengths of features would follow from theirs."""
    none, x = jnp.zeros(0, jnp.int32), jnp.zeros(0)
    with pytest.raises(ValueError, match="ptr must hold where things start"):
        native.summarize(none, none, x, jnp.zeros((2, 1)))
    for room in (native.beliefs, native.features):
        monkeypatch.setattr(room, "check_pointers", lambda ptr: None)
    rows, table, features = jnp.zeros(4), jnp.zeros((4, 4)), jnp.zeros((2, 3))
    near = none, none, rows, rows
    rest = jnp.zeros(3, jnp.int32), *[jnp.zeros((2, 1))] * 2, features, features
    calls: dict[str, tuple] = {
        "eliminate_field": (*near, *rest[:3], features, rest[0][0], [table], [none]),
        "substitute_field": (
            *near[:2],
            rows,
            jnp.zeros((1, 3, 16)),
            jnp.zeros((5, 3)),
            rest[0][0],
            features,
            features,
            [table],
            [none],
        ),
        "update_beliefs": (*near, *rest[:3], features, [table], [jnp.zeros((4, 16))], [none]),
        "update_table": (none, none, x, jnp.zeros((3, 5)), jnp.zeros((1, 3)), *rest),
        "update_columns": (none, none, x, jnp.asarray([3]), rows, rows, table, *rest),
        "move_residual": (none, none, rows, features, [table], [none]),
    }
    for name, arguments in calls.items():
        with pytest.raises(jax.errors.JaxRuntimeError, match="ptr must hold where things start"):
            jax.block_until_ready(inspect.unwrap(getattr(native, name))(*arguments))


def test_a_theta_without_weights_is_refused() -> None:
    """K = 0: kernels step back from the row of w to those of v."""
    case = jax.tree.map(jnp.asarray, field_case(2, 1, np.float32))
    none = {name: getattr(case, name)[:0] for name in ("precision", "mean", "noise", "theta")}
    zero = jnp.asarray(0, jnp.int32)
    moved, wide = jnp.zeros((0, len(case.ptr) - 1)), jnp.zeros((len(case.tables[0]), 16))
    calls = {
        "eliminate_field": (*tuple(case._replace(**none))[:7], none["theta"], zero, case.tables, case.codes),
        "update_beliefs": (*tuple(case._replace(**none))[:7], none["theta"], case.tables, [wide], case.codes),
        "move_residual": (case.ptr, case.row, case.r, moved, case.tables, case.codes),
    }
    for name, arguments in calls.items():
        with pytest.raises(jax.errors.JaxRuntimeError, match="theta needs a row for w"):
            jax.block_until_ready(inspect.unwrap(getattr(native, name))(*arguments))


def test_other_types_and_sums_are_refused() -> None:
    with pytest.raises(TypeError, match="compute in float32 or float64, got float16"):
        native.group_moments(jnp.zeros((2, 3), jnp.float16), jnp.zeros(3, jnp.int32), 1)
    with pytest.raises(ValueError, match="terms must be one of counts, ordinal, student_t, got 'hinge'"):
        native.row_sums("hinge", *[jnp.zeros(3)] * 3, jnp.zeros(1))


def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """Where kernels are asked for, and in the report of versions."""
    (tmp_path / "other.so").write_bytes(b"no library")
    program = """
    import bayesfm
    from bayesfm import native
    try:
        native.available()
    except ImportError as error:
        print("named" if "other.so cannot be loaded" in str(error) else error)
    bayesfm.show_versions()
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={
            **os.environ,
            "BAYESFM_KERNELS": str(tmp_path / "other.so"),
            "PYTHONPATH": str(Path(native.__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("named")
    assert "unset BAYESFM_KERNELS" in run.stdout
