"""What the moves along invisible directions give: effective draws per 1,000 sweeps on MovieLens-100k, and their price.

    python -m benchmarks mixing --data-home FOLDER [--rank 8] [--draws 4000]

Labels and signs of factors are free once the factors are rotated, so that draws of a single factor become independent
for a cheap reason. The rows "in order of size" do not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from arviz_stats.base import array_stats

from bayesfm.inference import chains
from bayesfm.inference.gibbs import moves
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import default_spec
from benchmarks.machine import describe, table
from benchmarks.movielens import load
from benchmarks.samplers import Problem, sweeper

CHAINS = 2
SITES = ["w0", "alpha", "eta", "mu_w", "lambda_w", "mu_v", "lambda_v"]


@contextmanager
def only(shifts: bool, rotation: bool) -> Iterator[None]:
    """Sweeps that are traced in here leave the other moves out."""
    theirs: dict[str, Callable[..., Any]] = {
        "invariant_moves": moves.invariant_moves,
        "rotate": sweep_module.rotate,
    }
    if not shifts:
        sweep_module.invariant_moves = lambda key, state, spec, layout: state
    if not rotation:
        sweep_module.rotate = lambda key, theta, spec, layout: theta
    jax.clear_caches()
    try:
        yield
    finally:
        for name, move in theirs.items():
            setattr(sweep_module, name, move)
        jax.clear_caches()


SAMPLERS = {
    "full conditionals alone": (False, False),
    "with shifts and rescaling": (True, False),
    "and with rotations": (True, True),
}


def effective(x: np.ndarray) -> np.ndarray:
    """Bulk ESS per 1,000 draws of every element of x, (chain, draw, ...): within a chain, averaged over chains."""
    own = [array_stats.ess(chain[None], chain_axis=0, draw_axis=1) for chain in np.asarray(x, np.float64)]
    return np.atleast_1d(np.mean(own, axis=0)) * 1000 / x.shape[1]


def mixing(problem: Problem, rank: int, draws: int, moved: tuple[bool, bool]) -> dict[str, str]:
    """Smallest and median ESS per 1,000 sweeps of every quantity."""
    options = chains.ChainOptions(num_warmup=500, num_samples=draws, num_chains=CHAINS, progress=False)
    spec = default_spec(problem.y, rank)
    with only(*moved):
        sites = gibbs(jax.random.key(1), spec, problem.design, problem.y, options=options, keep=SITES).sites
    values: dict[str, np.ndarray] = {name: np.asarray(x) for name, x in sites.items()}
    values |= {f"lambda_w[{g}]": values["lambda_w"][..., i] for i, g in enumerate(("user", "item"))}
    values["lambda_v in order of size"] = np.sort(values["lambda_v"], axis=-1)
    values["abs(mu_v) in order of size"] = np.sort(np.abs(values["mu_v"]), axis=-1)
    values["length of mu_v"] = (values["mu_v"] ** 2).sum(axis=-1)
    del values["lambda_w"]
    found = {name: effective(x) for name, x in values.items()}
    return {
        name: f"{x.min():.0f} / {np.median(x):.0f}" if x.size > 1 else f"{x[0]:.0f}"
        for name, x in found.items()
    }


def price(problem: Problem, rank: int, rounds: int = 25, count: int = 60) -> dict[str, float]:
    """Milliseconds per sweep of each sampler, interleaved: the median, and that of the ratio to the first."""
    runs = {}
    for name, moved in SAMPLERS.items():
        with only(*moved):
            runs[name], _ = sweeper(problem, rank)
            runs[name](2)
    ms: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(count // 6)
            ms[name].append(1e3 * run(count) / count)
    first = np.array(ms[next(iter(ms))])
    return {name: float(np.median(np.array(x) / first)) for name, x in ms.items()}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--draws", type=int, default=4_000)
    args = parser.parse_args(argv)
    print(describe())
    problem = load(args.data_home, "ua").train
    found = {name: mixing(problem, args.rank, args.draws, moved) for name, moved in SAMPLERS.items()}
    times = price(problem, args.rank)
    print(f"\nML-100k, rank {args.rank}: ESS per 1,000 sweeps within a chain, smallest / median element\n")
    rows: list[list[object]] = [[q, *[x[q] for x in found.values()]] for q in next(iter(found.values()))]
    rows.append(["time of a sweep", *[f"{x:.2f}" for x in times.values()]])
    print(table(["quantity", *SAMPLERS], rows))


if __name__ == "__main__":
    main()
