"""Ten million rows of two fields: seconds to lay out, seconds per sweep, peak memory, draws of v not kept.

    python -m benchmarks.scale [--rows 10000000] [--rank 32]

Run it in a process of its own: the peak counts everything the process ever held.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.design.layout import build_layout
from bayesfm.inference.chains import ChainOptions, Progress
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import default_spec
from benchmarks.machine import describe, peak_memory_gb, table


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rank", type=int, default=32)
    args = parser.parse_args(argv)
    print(describe("numpy"), f"kernels: {native.isa() or 'xla'}", sep="\n")
    rng = np.random.default_rng(0)
    n = args.rows
    user = rng.integers(0, args.users, n, dtype=np.int32)
    item = (args.items * rng.random(n) ** 3).astype(np.int32)  # a long tail
    y = rng.normal(3.5, 1.0, n).astype(np.float32)
    design = Design(
        (
            Block.field("user", user, np.arange(args.users)),
            Block.field("item", item, np.arange(args.items)),
        )
    )
    before = peak_memory_gb()
    start = time.perf_counter()
    layout = build_layout(design, native=native.available())
    laid_out = time.perf_counter() - start
    after_layout = peak_memory_gb()
    del layout
    clock = [time.perf_counter()]
    sweeps = [0]

    def tick(progress: Progress) -> None:
        clock.append(time.perf_counter())
        sweeps.append(progress.sweep)

    options = ChainOptions(num_warmup=4, num_samples=4, num_chains=1, progress=False, callback=tick)
    gibbs(jax.random.key(0), default_spec(y, args.rank), design, y, options=options, keep="hyper")
    per_sweep = (clock[-1] - clock[1]) / (sweeps[-1] - sweeps[1])
    print(
        table(
            [
                "rows",
                "rank",
                "layout, s",
                "first 4 sweeps with compile, s",
                "s per sweep",
                "data, GB",
                "after layout, GB",
                "peak, GB",
            ],
            [
                [
                    n,
                    args.rank,
                    laid_out,
                    clock[1] - clock[0],
                    per_sweep,
                    before,
                    after_layout,
                    peak_memory_gb(),
                ]
            ],
        )
    )


if __name__ == "__main__":
    main()
