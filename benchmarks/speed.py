"""Milliseconds per sweep beside PyPI ``myfm``: whole sweeps, draws stored, in alternating bursts of equal seconds.

    python -m benchmarks speed --data-home FOLDER [--problems ml-100k ml-1m ml-10m text] [--ranks 8 32] [--pin]

``FOLDER`` holds ``ml-100k.zip`` and ``20news-bydate.parquet``. ``--pin`` keeps the process on one core.
"""

from __future__ import annotations

import argparse
import os


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--problems", nargs="+", default=["ml-100k"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kernels", nargs="+", default=["native", "xla"])
    args = parser.parse_args(argv)
    if args.pin:
        os.sched_setaffinity(0, {0})  # before JAX and NumPy start their threads

    from bayesfm import native
    from benchmarks import roofline
    from benchmarks.machine import describe, table
    from benchmarks.problems import PROBLEMS
    from benchmarks.samplers import alternate, burst_of_myfm, sweeper

    ways = [way for way in args.kernels if way == "xla" or native.available()]
    cores = roofline.cores()
    peak, bandwidth = roofline.peak(cores), roofline.bandwidth(cores)
    print(describe("myfm", "numpy"))
    print(
        f"on {cores} core(s): {peak / 1e9:.0f} G multiply-adds/s, {bandwidth / 1e9:.1f} GB/s; kernels {native.isa()}"
    )
    rows: list[list[object]] = []
    for name in args.problems:
        problem = PROBLEMS[name](args.data_home)
        keep = "all" if problem.design.num_features < 50_000 else "hyper"
        for rank in args.ranks:
            made = {way: sweeper(problem, rank, kernels=way, keep=keep) for way in ways}
            runs = {way: run for way, (run, _) in made.items()}
            ours, theirs = alternate(runs, burst_of_myfm(problem, rank), args.seconds, args.rounds)
            work, moved = roofline.sweep_multiply_adds(problem, rank), roofline.sweep_bytes(problem, rank)
            for way, seconds in ours.items():
                share = f"{100 * work / seconds / peak:.0f} / {100 * moved / seconds / bandwidth:.0f}"
                ms = [f"{1e3 * x:.3g}" for x in (seconds, theirs)]
                ready = f"{made[way][1]:.1f}"
                rows.append([problem.name, rank, way, *ms, f"{theirs / seconds:.1f}", share, ready])
                print(rows[-1], flush=True)
    head = ["data", "rank", "kernels", "bayesfm, ms", "myfm, ms", "ratio", "% of peak / bandwidth"]
    print(f"\nMilliseconds per sweep on {cores} core(s)\n")
    print(table([*head, "seconds to the first draw"], rows))


if __name__ == "__main__":
    main()
