"""What is measured: sweeps of ours, warm and one chain, and of PyPI ``myfm``."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from scipy import sparse

from bayesfm.design import Design
from bayesfm.inference import chains
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.model import ModelSpec, default_spec

__all__ = ["Problem", "alternate", "burst_of_myfm", "burst_of_ordered_probit", "run_myfm", "sweeper"]


@dataclass(frozen=True)
class Problem:
    """One data set, for both packages: a design and the same matrix, with the number of features of every group."""

    name: str
    design: Design
    X: sparse.csr_array
    y: np.ndarray
    groups: list[int]


def run_myfm(
    problem: Problem, rank: int, sweeps: int, kept: int, seed: int = 0
) -> tuple[list, np.ndarray, list[float]]:
    """Samples, noise precision of every sweep, and the clock after every sweep."""
    import myfm

    clock: list[float] = []

    def tick(*_: object) -> tuple[bool, None]:
        clock.append(time.perf_counter())
        return False, None

    fm = myfm.MyFMRegressor(rank=rank, random_seed=seed)
    X = sparse.csr_matrix(problem.X)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        fm.fit(X, problem.y, n_iter=sweeps, n_kept_samples=kept, group_shapes=problem.groups, callback=tick)
    alpha = np.array([h.alpha for h in fm.history_.hypers])
    return fm.predictor_.samples, alpha, clock


def burst_of_myfm(problem: Problem, rank: int) -> Callable[[int], list[float]]:
    """A function that runs some sweeps and returns the seconds of each but the first."""
    return lambda count: list(np.diff(run_myfm(problem, rank, count + 1, 1)[2]))


def burst_of_ordered_probit(problem: Problem, rank: int) -> Callable[[int], list[float]]:
    """The same of its ordered probit, for classes 0, 1, ...: iterations with one Metropolis step of the cut-points."""
    import myfm

    X = sparse.csr_matrix(problem.X)

    def burst(count: int) -> list[float]:
        clock: list[float] = []

        def tick(*_: object) -> tuple[bool, None]:
            clock.append(time.perf_counter())
            return False, None

        fm = myfm.MyFMOrderedProbit(rank=rank, random_seed=0)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            fm.fit(
                X,
                problem.y.astype(int),
                n_iter=count + 1,
                n_kept_samples=1,
                group_shapes=problem.groups,
                callback=tick,
            )
        return list(np.diff(clock))

    return burst


def sweeper(
    problem: Problem,
    rank: int,
    factor_block: int | str = "auto",
    kernels: str = "auto",
    keep: str = "all",
    spec: ModelSpec | None = None,
    row_data: Mapping[str, Any] | None = None,
) -> tuple[Callable[[int], float], float]:
    """A function that runs some sweeps (draws stored, as in a fit) and returns seconds; seconds until it was ready."""
    began = time.perf_counter()
    spec = spec or default_spec(problem.y, rank)
    kernel, _ = gibbs_kernel(
        spec,
        problem.design,
        problem.y,
        row_data=row_data,
        factor_block=factor_block,
        kernels=kernels,
        keep=keep,
    )
    options = chains.ChainOptions(num_warmup=0, num_samples=20, num_chains=1, progress=False)
    keys = jax.random.split(jax.random.key(1), 1)
    carry = chains._start_all(kernel, keys)
    shapes = jax.eval_shape(lambda c: kernel.report(c.state), jax.tree.map(lambda x: x[0], carry))
    loop = {"carry": carry, "buffer": chains._new_buffer(shapes, options), "done": 0}
    capacity = jax.tree.leaves(loop["buffer"])[0].shape[1]
    _, advance, _ = chains._plan(options)

    def run(count: int) -> float:
        start = time.perf_counter()
        for first in range(0, count, capacity):
            some = min(capacity, count - first)
            loop["carry"], loop["buffer"] = advance(
                kernel, loop["carry"], keys, loop["buffer"], loop["done"], some, 1, True
            )
            loop["done"] += some
        jax.block_until_ready(loop["carry"])
        return time.perf_counter() - start

    run(1)
    return run, time.perf_counter() - began


def alternate(
    ours: dict[str, Callable[[int], float]],
    theirs: Callable[[int], list[float]] | None,
    seconds: float,
    rounds: int,
) -> tuple[dict[str, float], float]:
    """Median seconds per sweep in alternating bursts of about the same length in seconds.

    Equal in seconds, not in sweeps: a core that has been idle needs some tenths of a second to come up to speed, which
    would otherwise be charged to whoever runs the shorter burst.
    """
    per_sweep = {name: run(3) / 3 for name, run in ours.items()}
    counts = {name: max(2, round(seconds / s)) for name, s in per_sweep.items()}
    their_count = max(2, round(seconds / float(np.median(theirs(2))))) if theirs else 0
    seen: dict[str, list[float]] = {name: [] for name in ours}
    their_seen: list[float] = []
    for _ in range(rounds):
        for name, run in ours.items():
            seen[name].append(run(counts[name]) / counts[name])
        if theirs:
            their_seen.append(float(np.median(theirs(their_count))))
    medians = {name: float(np.median(x)) for name, x in seen.items()}
    return medians, float(np.median(their_seen)) if theirs else np.nan
