"""Leave-one-out densities: all rows at once beside ``arviz_stats``, which takes them one by one; and memory."""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Sequence

import numpy as np

from bayesfm.psis import leave_one_out

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loo", description=__doc__)
    parser.add_argument("--rows", type=int, default=90_570)
    parser.add_argument("--draws", type=int, default=800)
    parser.add_argument("--share", type=float, default=0.02, help="of the rows that arviz_stats is given")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    log_lik = np.empty((options.rows, options.draws), np.float32)
    for row in range(
        0, options.rows, 10_000
    ):  # of a normal response, the mean of which is known to a tenth of its sd
        part = log_lik[row : row + 10_000]
        away = rng.normal(size=(len(part), 1)) + 0.3 * rng.normal(size=part.shape)
        part[:] = -0.5 * away**2 - 0.9
    few = max(1, int(options.share * options.rows))
    before = _peak()
    ours, theirs, apart = [], [], 0.0
    for _ in range(options.repeats):
        start = time.perf_counter()
        found = leave_one_out(log_lik)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        known = _by_arviz(log_lik[:few])
        theirs.append((time.perf_counter() - start) * options.rows / few)
        apart = max(np.abs(found.elpd[:few] - known[0]).max(), np.abs(found.pareto_k[:few] - known[1]).max())
    print(
        "| rows x draws | bayesfm, s | arviz_stats, s (from a share) | ratio | largest difference | memory, GB |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    print(
        f"| {options.rows:,} x {options.draws} | {min(ours):.2f} | {min(theirs):.0f} | "
        f"{min(theirs) / min(ours):.0f} | {apart:.1e} | {_peak() - before:.2f} |"
    )


def _by_arviz(log_lik: np.ndarray) -> np.ndarray:
    from arviz_stats.base import array_stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        elpd, k, _ = array_stats.loo(log_lik.astype(np.float64)[:, None], r_eff=1.0)
    return np.array([elpd, k])


def _peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
