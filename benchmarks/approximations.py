"""Engines side by side on MovieLens-100k: accuracy, coverage and seconds of modes, approximations and chains.

    python -m benchmarks approximations --data-home FOLDER [--split ua] [--ranks 8 20]

Every engine of the package is run twice, the first time with its compilation, the second time without; NUTS once.
Seconds are those of ``fit``. Peers: the Gibbs and variational engines of myfm, and modern-fm, of which the settings and
the number of epochs that are best on the test set are shown. Peers are scored by their means alone.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from bayesfm import ConvergenceWarning, FMRegressor
from benchmarks.likelihoods import Split, movielens
from benchmarks.machine import describe, table

__all__ = ["main"]

SWEEPS = {"num_warmup": 112, "num_samples": 400, "num_chains": 1}
OURS: dict[str, dict[str, Any]] = {
    "mode, ALS": {"inference": "map"},
    "mode, L-BFGS": {"inference": "map", "engine_options": {"optimiser": "lbfgs"}},
    "mode, ALS, 25 iterations for scales": {"inference": "map", "engine_options": {"scale_iterations": 25}},
    "mode, ALS, 5 % held out": {"inference": "map", "engine_options": {"validation": 0.05}},
    "Laplace": {"inference": "laplace"},
    "mean field": {"inference": "cavi"},
    "mode by minibatches, Adam": {"inference": "stochastic_map"},
    "mode by minibatches, AdaGrad": {
        "inference": "stochastic_map",
        "engine_options": {"optimiser": "adagrad"},
    },
    "stochastic variational, 40 epochs": {"inference": "svi", "engine_options": {"num_epochs": 40}},
    "Gibbs": {"inference": "gibbs", **SWEEPS},
    "NUTS, 200 + 200 iterations": {
        "inference": "nuts",
        "num_warmup": 200,
        "num_samples": 200,
        "num_chains": 1,
    },
}


def scores(y: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, density: float) -> list[str]:
    """RMSE, mean log density, coverage of 90 % intervals."""
    rmse = np.sqrt(np.mean((np.clip(mean, 1, 5) - y) ** 2))
    covered = np.mean((low <= y) & (y <= high))
    return [f"{rmse:.4f}", f"{density:.4f}", f"{covered:.3f}"]


def ours(name: str, rank: int, data: Split) -> list[object]:
    """One of our engines."""
    X, y, X_test, y_test = data
    seconds = []
    for _ in range(1 if OURS[name]["inference"] == "nuts" else 2):
        model = FMRegressor(rank, random_state=0, **OURS[name])
        start = time.perf_counter()
        model.fit(X, y)
        seconds.append(time.perf_counter() - start)
    mean = model.predict(X_test)
    low, high = model.predict_interval(X_test, 0.9).T
    density = float(np.mean(model.log_predictive_density(X_test, y_test)))
    own = scores(y_test, mean, low, high, density)
    return [rank, f"bayesfm, {name}", *own, f"{seconds[0]:.1f}", "".join(f"{s:.2f}" for s in seconds[1:])]


def one_hot(X: pd.DataFrame, levels: dict[str, pd.Index]) -> sparse.csr_matrix:
    """Dummies of all levels of train and test."""
    blocks = []
    for column, index in levels.items():
        code = index.get_indexer(X[column])
        ones = np.ones(len(X), np.float32)
        blocks.append(sparse.csr_matrix((ones, (np.arange(len(X)), code)), shape=(len(X), len(index))))
    return sparse.hstack(blocks, format="csr")


def rmse_alone(y: np.ndarray, mean: np.ndarray) -> list[str]:
    """Scores of a point prediction: what noise it would have is not for us to say."""
    return [f"{np.sqrt(np.mean((np.clip(mean, 1, 5) - y) ** 2)):.4f}", "", ""]


def peers(rank: int, data: Split) -> list[list[object]]:
    """Gibbs and variational engines of myfm, and modern-fm, with normal noise added by hand."""
    import modern_fm
    import myfm

    X, y, X_test, y_test = data
    levels = {c: pd.Index(pd.concat([X[c], X_test[c]]).unique()) for c in X.columns}
    A, B = one_hot(X, levels), one_hot(X_test, levels)
    groups = [len(index) for index in levels.values()]
    out: list[list[object]] = []
    start = time.perf_counter()
    chain = myfm.MyFMGibbsRegressor(rank=rank, random_seed=0)
    chain.fit(A.astype(float), y, n_iter=512, n_kept_samples=400, group_shapes=groups)
    seconds = time.perf_counter() - start
    scored = rmse_alone(y_test, chain.predict(B.astype(float)))
    out.append([rank, "myfm, Gibbs", *scored, "", f"{seconds:.2f}"])
    start = time.perf_counter()
    variational = myfm.VariationalFMRegressor(rank=rank, random_seed=0)
    variational.fit(A.astype(float), y, n_iter=100, group_shapes=groups)
    seconds = time.perf_counter() - start
    scored = rmse_alone(y_test, variational.predict(B.astype(float)))
    out.append([rank, "myfm, variational", *scored, "", f"{seconds:.2f}"])
    best = modern(modern_fm, rank, A, y, B, y_test)
    return [*out, best]


def modern(modern_fm: Any, rank: int, A: Any, y: np.ndarray, B: Any, y_test: np.ndarray) -> list[object]:
    """The best of a small grid of modern-fm's settings, each at the iterations that are best on the test set."""
    found = []
    for l2 in (1e-3, 1e-2, 3e-2):
        for rate in (0.02, 0.05):
            for iterations in (5, 10, 20, 40):
                model = modern_fm.FMRegressor(
                    n_factors=rank,
                    learning_rate=rate,
                    max_iter=iterations,
                    batch_size=64,
                    l2_linear=l2,
                    l2_factors=l2,
                    random_state=0,
                )
                start = time.perf_counter()
                model.fit(A, (y - y.mean()).astype(np.float32))
                seconds = time.perf_counter() - start
                mean = np.asarray(model.predict(B), float) + y.mean()
                rmse = np.sqrt(np.mean((np.clip(mean, 1, 5) - y_test) ** 2))
                found.append((rmse, seconds, mean, f"l2 {l2:g}, rate {rate:g}, {iterations} epochs"))
    _, seconds, mean, settings = min(found, key=lambda x: x[0])
    return [rank, f"modern-fm ({settings})", *rmse_alone(y_test, mean), "", f"{seconds:.2f}"]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--split", default="ua")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 20])
    parser.add_argument("--engines", nargs="+", default=list(OURS))
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args(argv)
    print(describe("myfm", "numpy"), flush=True)
    rows: list[list[object]] = []
    data = movielens(args.data_home, args.split)
    for rank in args.ranks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for name in args.engines:
                rows.append(ours(name, rank, data))
                print(rows[-1], flush=True)
        for row in [] if args.no_peers else peers(rank, data):
            rows.append(row)
            print(row, flush=True)
    header = ["rank", "engine", "RMSE", "log density", "90 % coverage", "seconds, first", "seconds, again"]
    print("\n" + table(header, rows))
