"""Milliseconds per gradient of the log-likelihood: sorted sums beside what automatic differentiation makes of eta.

    python -m benchmarks gradient --data-home FOLDER [--ranks 8 16 32] [--problems ml-100k ...] [--rounds 15]

Value and gradient of sum_n (y_n - eta_n)^2 by w0, w and v in float32, in turns, medians. ``eta`` is the value alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bayesfm.design.arrays import DesignArrays
from bayesfm.design.gradient import GradientArrays
from bayesfm.predictors import FM
from benchmarks.machine import describe, table
from benchmarks.problems import PROBLEMS
from benchmarks.samplers import Problem

__all__ = ["main"]

type Sites = tuple[jax.Array, jax.Array, jax.Array]


def square(sites: Sites, arrays: DesignArrays, y: jax.Array, rank: int) -> jax.Array:
    """Sum of squared residuals."""
    return jnp.sum((y - FM(rank).eta(arrays, *sites)) ** 2)


value = jax.jit(square, static_argnums=3)
value_and_gradient = jax.jit(jax.value_and_grad(square), static_argnums=3)


def measure(problem: Problem, rank: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    rng = np.random.default_rng(0)
    p = problem.design.num_features
    sites = tuple(jnp.asarray(x, jnp.float32) for x in (0.0, rng.normal(size=p), rng.normal(size=(p, rank))))
    y = jnp.asarray(problem.y, jnp.float32)
    plain, ours = (kind.from_design(problem.design) for kind in (DesignArrays, GradientArrays))
    ways: dict[str, Callable[[], object]] = {
        "eta": lambda: value(sites, plain, y, rank),
        "plain": lambda: value_and_gradient(sites, plain, y, rank),
        "sorted": lambda: value_and_gradient(sites, ours, y, rank),
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            jax.block_until_ready(way())  # compiled, and its arrays in the caches
            began = time.perf_counter()
            jax.block_until_ready(way())
            seen[name].append(time.perf_counter() - began)
    return {name: float(np.median(x)) for name, x in seen.items()}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--problems", nargs="+", default=["ml-100k"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args(argv)
    print(describe("numpy"))
    rows: list[list[object]] = []
    for name in args.problems:
        problem = PROBLEMS[name](args.data_home)
        for rank in args.ranks:
            seconds = measure(problem, rank, args.rounds)
            ms = [f"{1e3 * seconds[way]:.3g}" for way in ("eta", "plain", "sorted")]
            rows.append([problem.name, rank, *ms, f"{seconds['plain'] / seconds['sorted']:.1f}"])
    print("\nMilliseconds\n")
    print(table(["data", "rank", "eta alone", "plain gradient", "sorted gradient", "ratio"], rows))


if __name__ == "__main__":
    main()
