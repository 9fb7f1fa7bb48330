"""Wide sparse data: a stream of ten million rows over a million hashed columns.

    python -m benchmarks wide [--rows 10000000] [--rank 8]

The stream comes from a Parquet folder that is written first, chunk by chunk (eight columns of ids are eight hashed
columns of ones): it is read, hashed and learned from, each timed on its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bayesfm import FMClassifier, HashedFields, iter_dataset
from benchmarks.machine import describe, peak_memory_gb, table

__all__ = ["main"]

CHUNK, FIELDS, LEVELS = 25_000, 8, 200_000


def write_stream(folder: Path, rows: int) -> None:
    """Clicks on a table of categories with long tails; two fields interact."""
    rng = np.random.default_rng(0)
    for number in range(-(-rows // CHUNK)):
        levels = (LEVELS * rng.random((CHUNK, FIELDS)) ** 4).astype(np.int64)
        parity = (levels[:, 0] + levels[:, 1]) % 2
        y = (rng.random(CHUNK) < np.where(parity == 1, 0.6, 0.2)).astype(np.int8)
        frame = pd.DataFrame({f"f{j}": levels[:, j] for j in range(FIELDS)} | {"click": y})
        frame.to_parquet(folder / f"part{number:05d}.parquet")


def stream(rows: int, rank: int) -> None:
    """Seconds of reading, hashing and learning; peak memory beside that of the parameters."""
    encoder = HashedFields(n_features=2**20, compact=False, keep_tokens=False)
    model = FMClassifier(
        rank, inference="stochastic_map", engine_options={"batch_size": 8192}, random_state=0
    )
    seconds = dict.fromkeys(("reading", "hashing", "learning"), 0.0)
    with tempfile.TemporaryDirectory() as name:
        write_stream(Path(name), rows)
        before, seen, first = peak_memory_gb(), 0, 0.0
        clock = time.perf_counter()
        for frame, y in iter_dataset(name, target="click", batch_rows=CHUNK):
            read = time.perf_counter()
            X = encoder.transform(frame)
            hashed = time.perf_counter()
            model.partial_fit(X, y, classes=None if seen else [0, 1])
            done = time.perf_counter()
            if seen:  # the first chunk compiles
                for part, took in zip(seconds, (read - clock, hashed - read, done - hashed), strict=True):
                    seconds[part] += took
            else:
                first = done - hashed
            seen += len(y)
            clock = time.perf_counter()
    counted = seen - CHUNK
    rates = [f"{counted / took:.3g}" for took in seconds.values()]
    parameters = 3 * 4 * 2**20 * (rank + 1) / 1e9  # with both moments of Adam
    print(f"\nA stream of {seen:,} rows, {FIELDS} hashed columns a row of 2^20, rank {rank}\n")
    header = [f"{part}, rows/s" for part in seconds]
    row = [
        *rates,
        f"{counted / sum(seconds.values()):.3g}",
        f"{first:.1f}",
        f"{peak_memory_gb() - before:.2f}",
    ]
    header += ["all, rows/s", "first chunk, s", "memory added, GB", "of it parameters and optimiser, GB"]
    print(table(header, [[*row, f"{parameters:.2f}"]]))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rank", type=int, default=8)
    args = parser.parse_args(argv)
    print(describe("scikit-learn", "numpy"), flush=True)
    stream(args.rows, args.rank)
