"""Every engine from ten thousand to ten million rows: seconds, peak memory, accuracy and coverage.

    python -m benchmarks sizes [--rows 10000 100000 1000000 10000000] [--rank 8] [--engines gibbs cavi ...]

Ratings of two fields with three factors and noise of standard deviation 0.5; n rows of n^(5/7) users and
n^(4/7) items, the latter with a long tail, so that ten million rows have 100,000 users and 10,000 items. Another 10,000
rows are held out. Engines as ``FMRegressor`` has them by default, but for the numbers of draws below. Every fit is made
in a process of its own: its seconds include compiling, and the peak counts everything the process ever held. "again" is
a second fit in the same process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd

from bayesfm import ConvergenceWarning, FMRegressor
from benchmarks.machine import describe, peak_memory_gb, table
from benchmarks.problems import three_factors

__all__ = ["main"]

HELD_OUT = 10_000
NOISE = 0.5
LONG = 120.0  # seconds: what took longer is not fitted again
CHAIN = {"num_warmup": 100, "num_samples": 100, "num_chains": 1}
ENGINES: dict[str, dict[str, Any]] = {
    "gibbs": CHAIN,
    "nuts": CHAIN,
    "map": {},
    "laplace": {"num_samples": 100},
    "cavi": {"num_samples": 100},
    "stochastic_map": {},
    "svi": {"num_samples": 100},
}
HEADER = [
    "rows",
    "engine",
    "seconds, first",
    "again",
    "peak, GB",
    "RMSE / noise",
    "log density",
    "90 % coverage",
]


def levels(rows: int) -> tuple[int, int]:
    """Users and items of so many rows."""
    return round(rows ** (5 / 7)), round(rows ** (4 / 7))


def data(rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """``rows`` to learn from, then those held out."""
    users, items = levels(rows)
    user, item, y = three_factors(rows + HELD_OUT, users, items, noise=NOISE)
    return pd.DataFrame({"user": user, "item": item}), y


def fit(engine: str, rows: int, rank: int) -> list[object]:
    """One engine in this process."""
    X, y = data(rows)
    seconds: list[float] = []
    while not seconds or (len(seconds) < 2 and seconds[0] < LONG):
        model = FMRegressor(rank, inference=engine, random_state=0, **ENGINES[engine])
        start = time.perf_counter()
        model.fit(X[:rows], y[:rows])
        seconds.append(time.perf_counter() - start)
        peak = peak_memory_gb()
    X_test, y_test = X[rows:], y[rows:]
    rmse = np.sqrt(np.mean((model.predict(X_test) - y_test) ** 2))
    low, high = model.predict_interval(X_test, 0.9).T
    density = np.mean(model.log_predictive_density(X_test, y_test))
    covered = np.mean((low <= y_test) & (y_test <= high))
    again = f"{seconds[1]:.2f}" if len(seconds) > 1 else ""
    scores = [f"{rmse / NOISE:.3f}", f"{density:.3f}", f"{covered:.3f}"]
    return [rows, engine, f"{seconds[0]:.1f}", again, f"{peak:.2f}", *scores]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds of a process; larger sizes are left out"
    )
    parser.add_argument(
        "--here", action="store_true", help="the first engine and size alone, in this process"
    )
    args = parser.parse_args(argv)
    if args.here:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred draws; the scores are looked at
            print(table(["x"], [fit(args.engines[0], args.rows[0], args.rank)]).splitlines()[-1])
        return
    print(describe("numpy", "optax"), table(HEADER, []), sep="\n\n", flush=True)
    too_long = set()
    for rows in args.rows:
        for engine in (x for x in args.engines if x not in too_long):
            command = [sys.executable, "-m", "benchmarks", "sizes", "--here", "--rank", str(args.rank)]
            command += ["--rows", str(rows), "--engines", engine]
            try:
                run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=args.limit)
                print(run.stdout.strip().splitlines()[-1], flush=True)
            except subprocess.TimeoutExpired:
                too_long.add(engine)
                print(f"| {rows} | {engine} | more than {args.limit:.0f} |", flush=True)


if __name__ == "__main__":
    main()
