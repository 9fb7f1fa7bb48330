"""What the machine can do, and what a sweep needs: multiply-adds and bytes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, RowsUnit, TableUnit
from benchmarks.samplers import Problem

__all__ = ["bandwidth", "cores", "peak", "sweep_bytes", "sweep_multiply_adds"]


def peak(cores: int, seconds: float = 0.5) -> float:
    """Multiply-adds per second in float32: the best of a matrix product on every core."""
    size = 512
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)

    def one(_: int) -> float:
        out, best, end = np.empty_like(a), 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            np.matmul(a, b, out=out)
            best = max(best, size**3 / (time.perf_counter() - start))
        return best

    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(one, range(cores)))


def bandwidth(cores: int, size: int = 1 << 26) -> float:
    """Bytes per second of a copy that fits no cache, read and written bytes counted, all cores together."""
    parts = [np.zeros(size // cores, np.uint8) for _ in range(2 * cores)]

    def one(i: int) -> None:
        np.copyto(parts[2 * i], parts[2 * i + 1])

    best = 0.0
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(20):
            start = time.perf_counter()
            list(pool.map(one, range(cores)))
            best = max(best, 2 * size / (time.perf_counter() - start))
    return best


def sweep_multiply_adds(problem: Problem, rank: int) -> float:
    """Multiply-adds that a joint sweep cannot do without: half Gram matrices, residuals, eta, factorisations."""
    K = rank + 1
    per_row, per_feature = K * (K + 1) / 2 + 2 * K, K**3 / 6 + 2 * K**2
    total = 0.0
    for unit in build_layout(problem.design).units:
        assert not isinstance(unit, TableUnit), "relation blocks are not counted"
        entries = problem.X.nnz if isinstance(unit, RowsUnit) else problem.design.num_rows
        total += entries * (per_row + K) + len(unit.features) * per_feature
    return total


def sweep_bytes(problem: Problem, rank: int) -> float:
    """Bytes that a sweep has to bring from memory where no cache holds them: gathered factors twice, rows' numbers."""
    stride = 64 * -(-4 * rank // 64) if rank > 8 else 4 * max(4, 1 << max(0, rank - 1).bit_length())
    total = 0.0
    for unit in build_layout(problem.design).units:
        entries = problem.X.nnz if isinstance(unit, RowsUnit) else problem.design.num_rows
        # Two passes over codes, rows, residuals and factors, one over weights, and eta's gather of one unit.
        total += entries * (2 * (4 + 4 + 4 + stride) + 4 + 4 + stride * isinstance(unit, FieldUnit))
    return total


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
