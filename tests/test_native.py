"""The compiled kernels against loops in NumPy, for every instruction set that the machine has."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native

pytestmark = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")

SIZES = [1, 2, 4, 5, 8, 9, 15, 16, 17, 18, 33, 40, 65]
"""K = rank + 1 around the widths of vectors, tiles and the switch from registers to memory."""


@pytest.fixture(params=native.ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    library = native._library()
    assert library is not None
    best = library.bayesfm_isa()
    if library.bayesfm_set_isa(native.ISAS.index(request.param)) < 0:
        pytest.skip(f"this machine has no {request.param}")
    assert native.isa() == request.param
    yield request.param
    library.bayesfm_set_isa(best)


class FieldCase(NamedTuple):
    ptr: np.ndarray
    row: np.ndarray
    omega: np.ndarray
    r: np.ndarray
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
    row = order[: ptr[-1]]
    tables, codes = [], []
    for t in range(num_tables):
        s = np.concatenate([np.full((1, 20 + t), float(t == 0)), 0.3 * rng.normal(size=(K - 1, 20 + t))])
        with jax.enable_x64():
            tables.append(np.asarray(native.as_table(jnp.asarray(s, dtype))))
        codes.append(rng.integers(0, 20 + t, len(row)).astype(np.int32))
    omega = rng.uniform(0, 2, n) * (rng.random(n) < 0.9)
    normals = [rng.normal(size=(K, m)) for _ in range(3)]
    arrays = [omega, rng.normal(size=n), rng.uniform(0.5, 2, (K, m)), *normals]
    return FieldCase(ptr, row, *(np.asarray(a, dtype) for a in arrays), tables, codes)


def naive_field(c: FieldCase) -> tuple[np.ndarray, np.ndarray]:
    """One feature after the other in float64."""
    theta, r, K = c.theta.astype(float), c.r.astype(float), len(c.theta)
    for j in range(theta.shape[1]):
        own = slice(c.ptr[j], c.ptr[j + 1])
        rows = c.row[own]
        h = sum(t[code[own]] for t, code in zip(c.tables, c.codes, strict=True))[:, :K].astype(float)
        G = h.T @ (c.omega[rows, None] * h)
        P = np.diag(c.precision[:, j]).astype(float) + G
        b = c.precision[:, j] * c.mean[:, j] + G @ theta[:, j] + h.T @ (c.omega[rows] * r[rows])
        L = np.linalg.cholesky(P)
        new = np.linalg.solve(L.T, np.linalg.solve(L, b) + c.noise[:, j])
        r[rows] -= h @ (new - theta[:, j])
        theta[:, j] = new
    return theta, r


def run_field(c: FieldCase) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64():
        theta, r = jax.jit(native.update_field)(*c)
        return np.asarray(theta), np.asarray(r)


@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("K", SIZES)
def test_field_in_float64(K: int, num_tables: int, isa: str) -> None:
    case = field_case(K, num_tables, np.float64)
    for got, expected in zip(run_field(case), naive_field(case), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)


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
    native.update_field(*arrays)
    np.testing.assert_array_equal(arrays.theta, case.theta)
    np.testing.assert_array_equal(arrays.r, case.r)


def test_a_lost_prior_does_not_break_the_solve(isa: str) -> None:
    """Two factors that the data cannot tell apart, at 1e8 times the prior's precision."""
    case = field_case(3, 1, np.float32)
    table = case.tables[0].copy()
    table[:, 2] = table[:, 1] = 1.0
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
            tables = [native.as_table(jnp.asarray(s, dtype)) for s in summaries]
            eta = native.linear_predictor(jnp.asarray(0.3, dtype), tables, [jnp.asarray(c) for c in codes])
            assert eta.dtype == dtype
            np.testing.assert_allclose(eta, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ptr": np.zeros(3, np.int32)}, "ptr must have m \\+ 1 entries"),
        ({"omega": np.ones(3, np.float32)}, "omega and r must have one entry per row"),
        ({"noise": np.ones((2, 2), np.float32)}, "precision, mean and noise must be"),
        ({"tables": [], "codes": []}, "a table and a code are needed"),
        ({"tables": [np.ones((20, 3), np.float32)]}, "multiple of 64 bytes"),
        ({"codes": [np.zeros(2, np.int32)]}, "codes must have one entry per row"),
        ({"tables": [np.ones((20, 16))]}, "tables and codes have the wrong type"),
    ],
)
def test_wrong_shapes_are_refused(changes: dict, message: str) -> None:
    unchecked = inspect.unwrap(
        native.update_field
    )  # the check of annotations would refuse some of these earlier
    with jax.enable_x64():
        case = jax.tree.map(jnp.asarray, field_case(5, 1, np.float32)._replace(**changes))
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(unchecked(*case))


def test_tables_are_padded_to_whole_vectors() -> None:
    s = jnp.arange(6.0).reshape(3, 2)
    table = np.asarray(native.as_table(s))
    assert table.shape == (2, 16)
    np.testing.assert_array_equal(table[:, :3], s.T)
    assert not np.any(table[:, 3:])


def test_batches_are_loops() -> None:
    case = field_case(4, 1, np.float32)
    noises = np.random.default_rng(0).normal(size=(3, *case.noise.shape)).astype(np.float32)
    arrays = jax.tree.map(jnp.asarray, case)
    theta, r = jax.vmap(lambda noise: native.update_field(*arrays._replace(noise=noise)))(jnp.asarray(noises))
    for i, noise in enumerate(noises):
        own = run_field(case._replace(noise=noise))
        np.testing.assert_array_equal(theta[i], own[0])
        np.testing.assert_array_equal(r[i], own[1])


def test_the_number_of_threads_does_not_show() -> None:
    """One thread and several, in processes of their own, as XLA sizes its pool when it starts."""
    program = """
    import numpy as np
    from tests.test_native import digest
    print(digest())
    """
    digests = set()
    for cores in {1, os.cpu_count() or 1}:
        pin = (
            f"import os; os.sched_setaffinity(0, range({cores}))\n"
            if hasattr(os, "sched_setaffinity")
            else ""
        )
        root = Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", pin + textwrap.dedent(program)],
            env={**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def digest() -> str:
    """Hash of a draw that is large enough for several parts."""
    arrays = run_field(field_case(9, 1, np.float32, m=3000, n=40_000))
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
