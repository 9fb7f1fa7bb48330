"""Effective samples per second on MovieLens-100k: Gibbs under every likelihood, and NUTS.

    python -m benchmarks engines --data-home FOLDER [--sweeps 1000] [--iterations 100]

One chain each. Gibbs is timed warm, by itself; NUTS from the first to the last of its draws, after a warm-up that
started at a short Gibbs run.
"""

from __future__ import annotations

import argparse
import time
import warnings

import jax
import numpy as np

from bayesfm import gibbs, nuts
from bayesfm.design import Design
from bayesfm.inference.chains import ChainOptions, Progress
from bayesfm.inference.draws import Draws
from benchmarks.likelihoods import Model, models
from benchmarks.machine import describe, table
from benchmarks.movielens import ess
from benchmarks.samplers import Problem, sweeper

__all__ = ["main"]

PARAMETERS = ("alpha", "df", "cutpoints", "concentration")


def efficiency(draws: Draws, seconds: float) -> list[str]:
    """Per draw and per second: eta (median of the probed rows), and the slowest parameter of the likelihood."""
    eta = float(np.median([ess(x) for x in draws.sites["eta"][0].T]))
    own = [
        x
        for name in PARAMETERS
        if name in draws.sites
        for x in draws.sites[name][0].reshape(draws.num_draws, -1).T
    ]
    least = min((ess(x) for x in own), default=float("nan"))
    return [f"{x:.0f}" for x in (eta, least, eta / seconds, least / seconds)]


def by_gibbs(name: str, model: Model, design: Design, rank: int, sweeps: int) -> list[object]:
    """Milliseconds per sweep and effective samples of one likelihood."""
    problem = Problem(name, design, design.to_csr(), model.y, [])
    run, _ = sweeper(problem, rank, spec=model.spec, row_data=model.row_data)
    each = float(np.median([run(100) / 100 for _ in range(9)]))
    options = ChainOptions(num_warmup=200, num_samples=sweeps, num_chains=1, progress=False)
    draws = gibbs(jax.random.key(0), model.spec, design, model.y, row_data=model.row_data, options=options)
    return ["Gibbs", name, sweeps, f"{100 * each:.2f}", *efficiency(draws, each * sweeps)]


def by_nuts(name: str, model: Model, design: Design, iterations: int) -> list[object]:
    """The same of NUTS, centred: every user and item has many ratings."""
    clock: list[tuple[int, float]] = []

    def tick(seen: Progress) -> None:
        if not seen.warming_up:
            clock.append((seen.sweep, time.perf_counter()))

    options = ChainOptions(
        num_warmup=iterations, num_samples=iterations, num_chains=1, progress=False, callback=tick
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hundred draws have not converged, and the table says so
        draws = nuts(
            jax.random.key(0),
            model.spec,
            design,
            model.y,
            row_data=model.row_data,
            options=options,
            parametrization="centred",
        )
    (first, began), (last, ended) = clock[0], clock[-1]
    each = (ended - began) / (last - first)
    print(f"{name}: {draws.stats['n_steps'].mean():.0f} gradients per iteration", flush=True)
    return ["NUTS", name, iterations, f"{100 * each:.2f}", *efficiency(draws, each * iterations)]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=100)
    args = parser.parse_args(argv)
    print(describe("numpyro"))
    design, _, own = models(args.data_home, args.rank)
    rows = []
    for name, model in own.items():
        rows.append(by_gibbs(name, model, design, args.rank, args.sweeps))
        print(*rows[-1], flush=True)
    if args.iterations:
        for name in ("Gaussian", "ordinal probit"):
            rows.append(by_nuts(name, own[name], design, args.iterations))
            print(*rows[-1], flush=True)
    header = ["engine", "likelihood", "draws", "seconds per 100", "ESS eta", "ESS of the slowest parameter"]
    print()
    print(table([*header, "ESS/s eta", "ESS/s of that parameter"], rows))


if __name__ == "__main__":
    main()
