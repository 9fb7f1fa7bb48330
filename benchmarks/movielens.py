"""MovieLens-100k beside PyPI ``myfm``, in one process on one split: accuracy, speed, effective samples per second.

    python -m benchmarks.movielens --data-home FOLDER [--ranks 8 16 32 64] [--parts accuracy speed ess blocks]

``FOLDER`` holds ``ml-100k.zip``. myfm runs as its documentation has it: one-hot user and item, grouped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable

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
from bayesfm.inference.gibbs.run import gibbs, gibbs_kernel
from bayesfm.model import default_spec
from benchmarks.machine import describe, table

WARMUP, KEPT = 112, 400


class Data:
    """One split, for both packages."""

    def __init__(self, data_home: str | None, split: str) -> None:
        train, test = load_movielens_100k(split, data_home=data_home)
        encoder = TableEncoder(categorical=["user", "item"])
        self.design = encoder.fit_transform(train[["user", "item"]])
        self.test_design = encoder.transform(test[["user", "item"]])
        self.X, self.X_test = self.design.to_csr(), self.test_design.to_csr()
        self.y = train["rating"].to_numpy(float)
        self.y_test = test["rating"].to_numpy(float)
        self.groups = [block.num_features for block in self.design.blocks]


def fm_eta(X: sparse.csr_array, w0: float, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The FM equation in float64."""
    return w0 + X @ w + 0.5 * ((X @ v) ** 2 - X.multiply(X) @ v**2).sum(axis=1)


def run_myfm(
    data: Data, rank: int, sweeps: int, kept: int, seed: int
) -> tuple[list, np.ndarray, list[float]]:
    """Samples, noise precision of every sweep, and the clock after every sweep."""
    import myfm

    clock: list[float] = []

    def tick(*_: object) -> tuple[bool, None]:
        clock.append(time.perf_counter())
        return False, None

    fm = myfm.MyFMRegressor(rank=rank, random_seed=seed)
    X = sparse.csr_matrix(data.X)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        fm.fit(X, data.y, n_iter=sweeps, n_kept_samples=kept, group_shapes=data.groups, callback=tick)
    alpha = np.array([h.alpha for h in fm.history_.hypers])
    return fm.predictor_.samples, alpha, clock


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
    spec = default_spec(data.y, rank)
    draws = gibbs(jax.random.key(seed), spec, data.design, data.y, options=options, **kwargs)
    return {name: x[0] for name, x in draws.sites.items()}


def etas(data: Data, X: sparse.csr_array, sites: dict[str, np.ndarray]) -> np.ndarray:
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
        rows.append(["bayesfm", seed, *scores(etas(data, data.X_test, sites), sites["alpha"], data.y_test)])
        samples, alpha, _ = run_myfm(data, rank, WARMUP + KEPT, KEPT, seed)
        eta = np.array([fm_eta(data.X_test, s.w0, s.w, s.V) for s in samples])
        rows.append(["myfm", seed, *scores(eta, alpha[-len(eta) :], data.y_test)])
    print(f"\nAccuracy, rank {rank}, {WARMUP + KEPT} sweeps, the last {KEPT} kept\n")
    print(table(["package", "seed", "RMSE", "MAE", "90 % coverage", "log predictive density"], rows))


def sweeper(
    data: Data, rank: int, factor_block: int | str = "auto", kernels: str = "auto"
) -> tuple[Callable[[int], float], float]:
    """A function that runs some sweeps (draws stored, as in a fit) and returns seconds; seconds until it was ready."""
    began = time.perf_counter()
    spec = default_spec(data.y, rank)
    kernel, _ = gibbs_kernel(spec, data.design, data.y, factor_block=factor_block, kernels=kernels)
    options = chains.ChainOptions(num_warmup=0, num_samples=20, num_chains=1, progress=False)
    keys = jax.random.split(jax.random.key(1), 1)
    carry = chains._start_all(kernel, keys)
    shapes = jax.eval_shape(lambda c: kernel.report(c.state), jax.tree.map(lambda x: x[0], carry))
    loop = {"carry": carry, "buffer": chains._new_buffer(shapes, options), "done": 0}
    _, advance, _ = chains._plan(options)

    def run(count: int) -> float:
        start = time.perf_counter()
        loop["carry"], loop["buffer"] = advance(
            kernel, loop["carry"], keys, loop["buffer"], loop["done"], count, 1, True
        )
        jax.block_until_ready(loop["carry"])
        loop["done"] += count
        return time.perf_counter() - start

    run(1)
    return run, time.perf_counter() - began


def speed(data: Data, ranks: list[int], rounds: int = 9, burst: int = 20) -> None:
    """Milliseconds per sweep of both, warm, in alternating bursts."""
    rows: list[list[object]] = []
    ways = ["native", "xla"] if native.available() else ["xla"]
    for rank in ranks:
        runs = {way: sweeper(data, rank, kernels=way) for way in ways}
        ours, theirs = {way: [] for way in ways}, []
        for _ in range(rounds):
            for way, (run, _) in runs.items():
                ours[way].append(run(burst) / burst * 1e3)
            theirs += list(np.diff(run_myfm(data, rank, burst, 1, 0)[2]) * 1e3)
        b = float(np.median(theirs))
        for way, (_, ready) in runs.items():
            a = float(np.median(ours[way]))
            rows.append([rank, way, f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}", f"{ready:.1f}"])
    print("\nMilliseconds per sweep, one chain, medians of alternating bursts\n")
    head = ["rank", "kernels", "bayesfm", "myfm", "ratio", "seconds to the first draw (layout, compile)"]
    print(table(head, rows))


def ess(x: np.ndarray) -> float:
    """Bulk effective sample size of one chain."""
    return float(array_stats.ess(np.asarray(x)[None], method="bulk"))


def ess_per_second(data: Data, ranks: list[int], sweeps: int = 1000) -> None:
    """Effective samples per second of sampling, of eta at 300 training rows (median) and of alpha."""
    probes = np.sort(np.random.default_rng(0).choice(len(data.y), 300, replace=False))
    X = data.X[probes]
    rows: list[list[object]] = []
    for rank in ranks:
        options = chains.ChainOptions(num_warmup=WARMUP, num_samples=sweeps, num_chains=1, progress=False)
        ways = [("auto", "auto"), ("auto", "xla"), (1, "xla")]
        for block, way in ways if native.available() else ways[1:]:
            run, _ = sweeper(data, rank, block, way)
            seconds = np.median([run(20) / 20 for _ in range(5)]) * sweeps
            draws = gibbs(
                jax.random.key(0),
                default_spec(data.y, rank),
                data.design,
                data.y,
                options=options,
                factor_block=block,
                kernels=way,
            )
            eta = etas(data, X, {name: x[0] for name, x in draws.sites.items()})
            both = float(np.median([ess(e) for e in eta.T])), ess(draws.sites["alpha"][0])
            name = f"bayesfm, {draws.info['kernels']}, block {draws.info['factor_block']}"
            rows.append([rank, name, *[f"{e:.0f}" for e in both], *[f"{e / seconds:.0f}" for e in both]])
        samples, alpha, clock = run_myfm(data, rank, WARMUP + sweeps, sweeps, 0)
        seconds = np.median(np.diff(clock)) * sweeps
        eta = np.array([fm_eta(X, s.w0, s.w, s.V) for s in samples])
        both = float(np.median([ess(e) for e in eta.T])), ess(alpha[-sweeps:])
        rows.append([rank, "myfm", *[f"{e:.0f}" for e in both], *[f"{e / seconds:.0f}" for e in both]])
    print(f"\nEffective samples of {sweeps} sweeps\n")
    print(table(["rank", "sampler", "ESS eta", "ESS alpha", "ESS/s eta", "ESS/s alpha"], rows))


def blocks(data: Data, ranks: list[int]) -> None:
    """Milliseconds per sweep by the number of factors drawn jointly."""
    rows: list[list[object]] = []
    for rank in ranks:
        for size in [b for b in (1, 2, 4, 8, 12, 16, 32, 64) if b <= rank]:
            for way in ["native", "xla"] if native.available() else ["xla"]:
                run, ready = sweeper(data, rank, size, way)
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
            fake = type("D", (), {"design": design, "y": y})
            runs[name] = sweeper(fake, rank, kernels=way)[0]  # type: ignore[arg-type]
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
    parts = ["accuracy", "speed", "ess", "blocks", "relations"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:3])
    args = parser.parse_args(argv)
    print(describe("myfm", "numpy"))
    data = Data(args.data_home, args.split)
    if "accuracy" in args.parts:
        accuracy(data, 8, args.seeds)
    if "speed" in args.parts:
        speed(data, args.ranks)
    if "ess" in args.parts:
        ess_per_second(data, [r for r in args.ranks if r <= 32])
    if "blocks" in args.parts:
        blocks(data, args.ranks)
    if "relations" in args.parts:
        relations(args.data_home)


if __name__ == "__main__":
    main()
