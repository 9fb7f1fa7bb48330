"""Minibatch engines on ten million rows of two fields: rows per second, seconds per epoch, peak memory.

    python -m benchmarks stochastic [--rows 10000000] [--rank 32] [--seconds 60]

Every engine runs in a process of its own, since the peak counts everything the process ever held. What does not fit
into ``--seconds`` is extrapolated from the rows that did. Beside it the time of one dense Adam step on all parameters:
what a step would cost, on top of what its batch does, if optimisers were not lazy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesfm.design import Block, Design
from bayesfm.inference.stochastic import Learner, MinibatchOptions, Totals
from bayesfm.model import default_spec
from benchmarks.machine import describe, peak_memory_gb, table
from benchmarks.problems import three_factors

__all__ = ["main"]

ENGINES = {"map": "point", "svi": "moments", "svi, sampled": "samples"}
HEADER = [
    "engine",
    "rows",
    "rank",
    "batch",
    "first step, s",
    "epochs done",
    "rows per s",
    "s per epoch",
    "loss per row, first and last",
    "peak, GB",
]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of every engine, at most")
    parser.add_argument("--engine", choices=ENGINES, default=None, help="one engine, in this process")
    args = parser.parse_args(argv)
    if args.engine is not None:
        print(_row(args))
        return
    print(describe("numpy", "optax"))
    print(table(HEADER, []))
    own = sys.argv[1:] if argv is None else argv
    for engine in ENGINES:
        command = [sys.executable, "-m", "benchmarks", "stochastic", *own, "--engine", engine]
        run = subprocess.run([x for x in command if x], check=True, capture_output=True, text=True)
        print(run.stdout.strip(), flush=True)
    print(f"dense Adam, one step on all parameters: {1e3 * _dense_step(args):.3g} ms")


def _row(args: argparse.Namespace) -> str:
    """One engine: epochs until time is up."""
    design, y = _ratings(args)
    began = time.perf_counter()
    learner = Learner(
        jax.random.key(0),
        default_spec(y, args.rank),
        design,
        y,
        expectation=ENGINES[args.engine],
        options=MinibatchOptions(batch_size=args.batch_size, progress=False),
        totals=Totals.of(design),
    )
    source = learner.rows(design, y)
    clock, seen, losses = [time.perf_counter()], [0], []
    for epoch in range(args.epochs):
        for rows, value in learner.run(source, learner.order(epoch, args.rows)):
            clock.append(time.perf_counter())
            seen.append(seen[-1] + rows)
            losses.append(-value / rows)
            if clock[-1] - began > args.seconds:
                break
        else:
            continue
        break
    rate = (seen[-1] - seen[1]) / (clock[-1] - clock[1])
    cells = [args.engine, args.rows, args.rank, learner.batcher.batch_size, clock[1] - began]
    cells += [
        seen[-1] / args.rows,
        rate,
        args.rows / rate,
        f"{losses[0]:.4f}, {losses[-1]:.4f}",
        peak_memory_gb(),
    ]
    return table(["x"], [cells]).splitlines()[-1]


def _ratings(args: argparse.Namespace) -> tuple[Design, np.ndarray]:
    """Two fields."""
    user, item, y = three_factors(args.rows, args.users, args.items, noise=0.5)
    fields = {"user": (user, args.users), "item": (item, args.items)}
    return Design(tuple(Block.field(name, code, np.arange(m)) for name, (code, m) in fields.items())), y


def _dense_step(args: argparse.Namespace) -> float:
    """Seconds of an Adam update of a point's parameters, gradient given."""
    params = jnp.zeros((args.users + args.items, args.rank + 1))
    optimiser = optax.scale_by_adam()

    def step(
        params: jax.Array, state: optax.OptState, gradient: jax.Array
    ) -> tuple[jax.Array, optax.OptState]:
        moves, state = optimiser.update(gradient, state)
        return params - 0.01 * moves, state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state, gradient, seconds = optimiser.init(params), jnp.ones_like(params), []
    for _ in range(8):
        start = time.perf_counter()
        params, state = compiled(params, state, gradient)
        params.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[2:]))


if __name__ == "__main__":
    main()
