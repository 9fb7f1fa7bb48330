"""MovieLens-100k beside PyPI ``myfm``, in one process on one split: accuracy, effective samples per second.

    python -m benchmarks.movielens --data-home FOLDER [--ranks 8 16 32 64] [--parts accuracy ess blocks]

``FOLDER`` holds ``ml-100k.zip``. myfm runs as its documentation has it: one-hot user and item, grouped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from arviz_stats.base import array_stats
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import norm

from bayesfm import native
from bayesfm.datasets import load_movielens_100k
from bayesfm.design import TableEncoder
from bayesfm.inference import chains
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import default_spec
from benchmarks.machine import describe, table
from benchmarks.samplers import Problem, burst_of_myfm, run_myfm, sweeper

WARMUP, KEPT = 112, 400


class Data(NamedTuple):
    """One split, for both packages."""

    train: Problem
    X_test: sparse.csr_array
    y_test: np.ndarray


def load(data_home: str | None, split: str) -> Data:
    """Read a split."""
    train, test = load_movielens_100k(split, data_home=data_home)
    encoder = TableEncoder(categorical=["user", "item"])
    design = encoder.fit_transform(train[["user", "item"]])
    groups = [block.num_features for block in design.blocks]
    y, y_test = (part["rating"].to_numpy(float) for part in (train, test))
    X_test = encoder.transform(test[["user", "item"]]).to_csr()
    return Data(Problem("ML-100k", design, design.to_csr(), y, groups), X_test, y_test)


def fm_eta(X: sparse.csr_array, w0: float, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The FM equation in float64."""
    return w0 + X @ w + 0.5 * ((X @ v) ** 2 - X.multiply(X) @ v**2).sum(axis=1)


def scores(eta: np.ndarray, alpha: np.ndarray, y: np.ndarray) -> list[object]:
    """RMSE, MAE, coverage of 90 % intervals (mean +- 1.645 sd), mean log predictive density; draws come first."""
    mean, sd = eta.mean(axis=0), np.sqrt(eta.var(axis=0) + np.mean(1 / alpha))
    density = logsumexp(norm.logpdf(y, eta, 1 / np.sqrt(alpha)[:, None]), axis=0) - np.log(len(eta))
    covered = np.abs(y - mean) <= norm.ppf(0.95) * sd
    rmse = np.sqrt(np.mean((y - mean) ** 2))
    return [f"{x:.4f}" for x in (rmse, np.mean(np.abs(y - mean)), covered.mean(), density.mean())]


def run_bayesfm(data: Data, rank: int, seed: int, **kwargs: object) -> dict[str, np.ndarray]:
    """Sites of one chain, (draw, ...)."""
    options = chains.ChainOptions(num_warmup=WARMUP, num_samples=KEPT, num_chains=1, progress=False)
    spec = default_spec(data.train.y, rank)
    draws = gibbs(jax.random.key(seed), spec, data.train.design, data.train.y, options=options, **kwargs)
    return {name: x[0] for name, x in draws.sites.items()}


def etas(X: sparse.csr_array, sites: dict[str, np.ndarray]) -> np.ndarray:
    """Eta of the rows of X for every draw."""
    return np.array([fm_eta(X, *draw) for draw in zip(sites["w0"], sites["w"], sites["v"], strict=True)])


def accuracy(data: Data, rank: int, seeds: int) -> None:
    """RMSE, MAE, coverage, log predictive density of both, 512 sweeps with 112 of warm-up.

    Items that the training part never saw count as zero in both packages here, so that the samplers are compared and
    not the treatment of cold rows.
    """
    rows: list[list[object]] = []
    for seed in range(seeds):
        sites = run_bayesfm(data, rank, seed)
        rows.append(["bayesfm", seed, *scores(etas(data.X_test, sites), sites["alpha"], data.y_test)])
        samples, alpha, _ = run_myfm(data.train, rank, WARMUP + KEPT, KEPT, seed)
        eta = np.array([fm_eta(data.X_test, s.w0, s.w, s.V) for s in samples])
        rows.append(["myfm", seed, *scores(eta, alpha[-len(eta) :], data.y_test)])
    print(f"\nAccuracy, rank {rank}, {WARMUP + KEPT} sweeps, the last {KEPT} kept\n")
    print(table(["package", "seed", "RMSE", "MAE", "90 % coverage", "log predictive density"], rows))


def ess(x: np.ndarray) -> float:
    """Bulk effective sample size of one chain."""
    return float(array_stats.ess(np.asarray(x)[None], method="bulk"))


def ess_per_second(data: Data, ranks: list[int], seeds: int, sweeps: int = 1000) -> None:
    """Effective samples per second of sampling, of eta at 300 training rows (median) and of alpha.

    A chain's effective sample size is itself uncertain by a tenth: means over chains with their standard errors.
    Sweeps are timed in turns, so that all samplers meet the same machine.
    """
    probes = np.sort(np.random.default_rng(0).choice(len(data.train.y), 300, replace=False))
    for rank in ranks:
        names, found = [], []
        bursts: list[Callable[[], float]] = []
        ways = [("auto", "auto"), ("auto", "xla"), (1, "xla")]
        for block, way in ways if native.available() else ways[1:]:
            run, _ = sweeper(data.train, rank, block, way)
            bursts.append(partial(lambda run: run(100) / 100, run))
            names.append(f"bayesfm, {way if way != 'auto' else 'native'}, block {block}")
            found.append(ess_of_bayesfm(data, rank, block, way, seeds, sweeps, probes))
        myfm = burst_of_myfm(data.train, rank)
        bursts.append(lambda burst=myfm: float(np.median(burst(10))))
        names.append("myfm")
        found.append(ess_of_myfm(data, rank, seeds, sweeps, probes))
        seconds = np.median([[burst() for burst in bursts] for _ in range(9)], axis=0) * sweeps
        rows = []
        for name, both, time in zip(names, found, seconds, strict=True):
            means, errors = both.mean(axis=0), both.std(axis=0, ddof=1) / len(both) ** 0.5
            spread = [f"{m:.0f} ± {e:.0f}" for m, e in zip(means, errors, strict=True)]
            rates = [
                f"{m / time:.0f} ({m / time / (o / seconds[-1]):.1f}x)"
                for m, o in zip(means, found[-1].mean(0), strict=True)
            ]
            rows.append([rank, name, f"{time / sweeps * 1e3:.2f}", *spread, *rates])
        print(f"\nEffective samples of {sweeps} sweeps, mean of {seeds} chains with its standard error\n")
        print(
            table(["rank", "sampler", "ms a sweep", "ESS eta", "ESS alpha", "ESS/s eta", "ESS/s alpha"], rows)
        )


def ess_of_bayesfm(
    data: Data, rank: int, block: int | str, kernels: str, seeds: int, sweeps: int, probes: np.ndarray
) -> np.ndarray:
    """ESS of eta and of alpha, chain by chain."""
    options = chains.ChainOptions(num_warmup=WARMUP, num_samples=sweeps, num_chains=1, progress=False)
    X, out = data.train.X[probes], []
    for seed in range(seeds):
        draws = gibbs(
            jax.random.key(seed),
            default_spec(data.train.y, rank),
            data.train.design,
            data.train.y,
            options=options,
            factor_block=block,
            kernels=kernels,
        )
        eta = etas(X, {name: x[0] for name, x in draws.sites.items()})
        out.append((np.median([ess(e) for e in eta.T]), ess(draws.sites["alpha"][0])))
    return np.array(out)


def ess_of_myfm(data: Data, rank: int, seeds: int, sweeps: int, probes: np.ndarray) -> np.ndarray:
    """The same of myfm."""
    X, out = data.train.X[probes], []
    for seed in range(seeds):
        samples, alpha, _ = run_myfm(data.train, rank, WARMUP + sweeps, sweeps, seed)
        eta = np.array([fm_eta(X, s.w0, s.w, s.V) for s in samples])
        out.append((np.median([ess(e) for e in eta.T]), ess(alpha[-sweeps:])))
    return np.array(out)


def blocks(data: Data, ranks: list[int]) -> None:
    """Milliseconds per sweep by the number of factors drawn jointly."""
    rows: list[list[object]] = []
    for rank in ranks:
        for size in [b for b in (1, 2, 4, 8, 12, 16, 32, 64) if b <= rank]:
            for way in ["native", "xla"] if native.available() else ["xla"]:
                run, ready = sweeper(data.train, rank, size, way)
                ms = np.median([run(10) / 10 for _ in range(7)]) * 1e3
                rows.append([rank, size, way, f"{ms:.2f}", f"{ready:.1f}"])
    print("\nMilliseconds per sweep by factor block\n")
    print(
        table(["rank", "factors drawn jointly", "kernels", "ms per sweep", "seconds to the first draw"], rows)
    )


def relations(data_home: str | None) -> None:
    """Cost of side information in relation blocks, against the plain model."""
    from benchmarks.side_information import designs

    rows: list[list[object]] = []
    for rank, way in [(r, w) for w in ("native", "xla") if w == "xla" or native.available() for r in (8, 16)]:
        runs = {}
        for name, (design, y) in designs(data_home).items():
            problem = Problem(name, design, design.to_csr(), y, [])
            runs[name] = sweeper(problem, rank, kernels=way)[0]
        ms = {name: [] for name in runs}
        for _ in range(9):
            for name, run in runs.items():
                ms[name].append(run(10) / 10 * 1e3)
        median = {name: float(np.median(x)) for name, x in ms.items()}
        for name, value in median.items():
            rows.append([rank, way, name, f"{value:.2f}", f"{value / median['plain']:.2f}"])
    print("\nSide information, ms per sweep\n")
    print(table(["rank", "kernels", "design", "ms per sweep", "times plain"], rows))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--split", default="ua")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parts = ["accuracy", "ess", "blocks", "relations"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:2])
    args = parser.parse_args(argv)
    print(describe("myfm", "numpy"))
    data = load(args.data_home, args.split)
    if "accuracy" in args.parts:
        accuracy(data, 8, args.seeds)
    if "ess" in args.parts:
        ess_per_second(data, [r for r in args.ranks if r <= 32], max(args.seeds, 2))
    if "blocks" in args.parts:
        blocks(data, args.ranks)
    if "relations" in args.parts:
        relations(args.data_home)


if __name__ == "__main__":
    main()
