"""Likelihoods on real data: ratings as numbers, with outliers, as ordered classes; messages as spam or not.

    python -m benchmarks likelihoods --data-home FOLDER [--parts ratings lectures messages posts speed]

``FOLDER`` holds ``ml-100k.zip``, ``InstEval.csv.gz``, ``sms.tsv.gz`` and ``20news-bydate.parquet``. All of them by
Gibbs sampling, with the default priors.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from bayesfm.datasets import load_insteval, load_movielens_100k
from bayesfm.design import Design, TableEncoder
from bayesfm.estimators import FMClassifier, FMOrdinal, FMRegressor
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.likelihoods import (
    BernoulliLogit,
    BernoulliProbit,
    GroupwiseGaussian,
    Likelihood,
    NegativeBinomial,
    OrdinalProbit,
    StudentT,
)
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictive import predictive_cdf
from bayesfm.priors import HalfT
from benchmarks.machine import describe, table
from benchmarks.problems import newsgroups, row_length
from benchmarks.samplers import Problem, alternate, burst_of_ordered_probit, sweeper

OPTIONS: dict[str, Any] = {"num_warmup": 112, "num_samples": 400, "num_chains": 1, "random_state": 0}
STARS = np.arange(1, 6)
HEADER = [
    "split",
    "rank",
    "likelihood",
    "RMSE",
    "MAE of the median star",
    "log probability of the star",
]


def star_probabilities(model: FactorizationMachine, X: pd.DataFrame) -> np.ndarray:
    """Probabilities of 1 to 5 stars; of a continuous response those of the intervals around them."""
    if isinstance(model, FMOrdinal):
        p = model.predict_proba(X)
        assert isinstance(p, np.ndarray)
        return p
    design = model._encode(X)
    rows = model._row_data(None, design)
    cdf = [predictive_cdf(model.model_, design, np.full(len(X), edge), rows) for edge in STARS[:-1] + 0.5]
    return np.diff(np.array([np.zeros(len(X)), *cdf, np.ones(len(X))]), axis=0).T


type Split = tuple[pd.DataFrame, np.ndarray, pd.DataFrame, np.ndarray]


def movielens(data_home: str | None, split: str) -> Split:
    """Users and items of a split of ML-100k."""
    train, test = load_movielens_100k(split, data_home=data_home)
    columns = ["user", "item"]
    return train[columns], train["rating"].to_numpy(), test[columns], test["rating"].to_numpy()


def lectures(data_home: str | None) -> Split:
    """InstEval, a tenth held out: students, lecturers, departments and the rest, all as levels."""
    data = load_insteval(data_home).astype({"y": float})
    columns = ["s", "d", "dept", "studage", "lectage", "service"]
    train, test = train_test_split(data, test_size=0.1, random_state=0)
    return train[columns].astype(str), train["y"].to_numpy(), test[columns].astype(str), test["y"].to_numpy()


def ratings(name: str, data: Split, rank: int, group: str | None = None) -> list[list[object]]:
    """Scores of one split: RMSE of the mean, MAE of the median, log probability of the star, 90 % coverage.

    ``group`` is the column whose levels may have noise of their own. The standard deviation of the coverage over its
    levels comes last.
    """
    split, by_group = name, f"Gaussian, precision per {group}"
    X, y, X_test, y_test = data
    models: dict[str, FactorizationMachine] = {
        "Gaussian": FMRegressor(rank, **OPTIONS),
        "Student-t": FMRegressor(rank, likelihood="student_t", **OPTIONS),
        **({} if group is None else {by_group: FMRegressor(rank, noise_group=group, **OPTIONS)}),
        "ordinal probit": FMOrdinal(rank, **OPTIONS),
    }
    rows: list[list[object]] = []
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
        p = star_probabilities(model, X_test)
        mean = (
            model.predict(X_test, decision="mean") if isinstance(model, FMOrdinal) else model.predict(X_test)
        )
        median = 1 + np.argmax(np.cumsum(p, axis=1) >= 0.5, axis=1)
        density = np.log(p[np.arange(len(y_test)), y_test.astype(int) - 1]).mean()
        if isinstance(model, FMOrdinal):
            covered = model.predict_set(X_test, 0.9)[np.arange(len(y_test)), y_test.astype(int) - 1]
        else:
            low, high = model.predict_interval(X_test, 0.9).T
            covered = (low <= y_test) & (y_test <= high)
        rmse = np.sqrt(np.mean((mean - y_test) ** 2))
        scores = (rmse, np.mean(np.abs(median - y_test)), density, covered.mean())
        own = (
            []
            if group is None
            else [f"{pd.Series(covered).groupby(X_test[group].to_numpy()).mean().std():.3f}"]
        )
        rows.append([split, rank, name, *[f"{x:.4f}" for x in scores], *own, f"{seconds:.0f}"])
    return rows


def spam(data_home: str | None) -> tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray, np.ndarray]:
    """SMS spam, tf-idf, a quarter held out: X, X_test, y, y_test."""
    path = Path(data_home or ".") / "sms.tsv.gz"
    data = pd.read_csv(path, sep="\t", header=None, names=["label", "text"], quoting=csv.QUOTE_NONE)
    words = TfidfVectorizer(min_df=2, max_df=0.5).fit_transform(data["text"])
    y = (data["label"] == "spam").to_numpy()
    X, X_test, y, y_test = train_test_split(words.tocsr(), y, test_size=0.25, random_state=1)
    return X, X_test, y, y_test


def messages(data_home: str) -> list[list[object]]:
    """SMS spam, tf-idf, a quarter held out: AUC and log-loss."""
    X, X_test, y, y_test = spam(data_home)
    options = {**OPTIONS, "num_chains": 2}
    models: dict[str, Any] = {
        "logistic regression": LogisticRegression(),
        "FM logit, rank 4": FMClassifier(4, likelihood="logit", **options),
        "FM probit, rank 4": FMClassifier(4, likelihood="probit", **options),
        "FM probit, rank 10": FMClassifier(10, likelihood="probit", **options),
    }
    rows: list[list[object]] = []
    for name, model in models.items():
        start = time.perf_counter()
        p = model.fit(X, y).predict_proba(X_test)[:, 1]
        seconds = time.perf_counter() - start
        rows.append([name, f"{roc_auc_score(y_test, p):.4f}", f"{log_loss(y_test, p):.4f}", f"{seconds:.0f}"])
    return rows


def posts(data_home: str) -> list[list[object]]:
    """20 Newsgroups, computers against the rest, indicators of words: AUC and log-loss."""
    X, X_test, y, y_test = newsgroups(data_home)
    options = {"num_warmup": 200, "num_samples": 400, "num_chains": 1, "random_state": 0}
    s = BernoulliLogit().expected_eta(y, None, {})[1]
    length = row_length(X)
    short = {"prior_w": HalfT(s / length, math.inf), "prior_v": HalfT(s**0.5 / length, math.inf)}
    number = np.asarray(X.sum(axis=0)).ravel()  # of posts with the word
    by_number = np.minimum(np.log2(number), 9).astype(int).tolist()
    models: dict[str, Any] = {
        "logistic regression, C = 1": LogisticRegression(max_iter=1000),
        "logistic regression, C = 3": LogisticRegression(C=3.0, max_iter=1000),
        "FM logit, rank 5": FMClassifier(5, **options),
        "FM logit, rank 5, half-normal, scale over length of row": FMClassifier(5, **short, **options),
        "the same, words grouped by their number": FMClassifier(5, **short, groups=by_number, **options),
    }
    rows: list[list[object]] = []
    for name, model in models.items():
        start = time.perf_counter()
        p = model.fit(X, y).predict_proba(X_test)[:, 1]
        seconds = time.perf_counter() - start
        rows.append([name, f"{roc_auc_score(y_test, p):.4f}", f"{log_loss(y_test, p):.4f}", f"{seconds:.0f}"])
    return rows


class Model(NamedTuple):
    """A likelihood on ML-100k, with what it takes as response."""

    spec: ModelSpec
    y: np.ndarray
    row_data: dict[str, np.ndarray] | None


def models(data_home: str | None, rank: int) -> tuple[Design, np.ndarray, dict[str, Model]]:
    """ML-100k, ua: users and items, stars, and every likelihood that has a Gibbs sweep for them."""
    train, _ = load_movielens_100k("ua", data_home=data_home)
    design = TableEncoder(categorical=["user", "item"]).fit_transform(train[["user", "item"]])
    stars = train["rating"].to_numpy(float)
    liked = (stars > 3).astype(float)
    users = design.blocks[0]
    per_user = GroupwiseGaussian.for_response(stars, num_groups=users.num_features)
    cases: dict[str, tuple[Likelihood | None, np.ndarray, dict[str, np.ndarray] | None]] = {
        "Gaussian": (None, stars, None),
        "Gaussian, precision per user": (per_user, stars, {"noise_group": users.index}),
        "Student-t": (StudentT.for_response(stars), stars, None),
        "Bernoulli probit": (BernoulliProbit(), liked, None),
        "Bernoulli logit": (BernoulliLogit(), liked, None),
        "ordinal probit": (OrdinalProbit(num_classes=5), stars - 1, None),
        "negative binomial": (NegativeBinomial(), stars - 1, None),
    }
    return (
        design,
        stars,
        {
            name: Model(default_spec(y, rank, likelihood=likelihood, row_data=rows), y, rows)
            for name, (likelihood, y, rows) in cases.items()
        },
    )


def speed(data_home: str | None, rank: int = 8) -> list[list[object]]:
    """Milliseconds per sweep of each likelihood on ML-100k, and of myfm's ordered probit, interleaved."""
    design, stars, own = models(data_home, rank)
    X = design.to_csr()
    runs = {
        name: sweeper(Problem(name, design, X, model.y, []), rank, spec=model.spec, row_data=model.row_data)[
            0
        ]
        for name, model in own.items()
    }
    groups = [block.num_features for block in design.blocks]
    theirs = burst_of_ordered_probit(Problem("ordinal probit", design, X, stars - 1, groups), rank)
    seconds, of_myfm = alternate(runs, theirs, seconds=0.2, rounds=15)
    seconds["myfm, ordered probit"] = of_myfm
    return [[name, f"{1e3 * x:.2f}", f"{x / seconds['Gaussian']:.1f}"] for name, x in seconds.items()]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--splits", nargs="+", default=["ua"])
    parser.add_argument("--rank", type=int, default=8)
    parts = ["ratings", "lectures", "messages", "posts", "speed"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    args = parser.parse_args(argv)
    print(describe("numpyro", "scikit-learn", "myfm"))
    if "speed" in args.parts:
        print(f"\nML-100k, rank {args.rank}, ms per sweep\n")
        print(table(["likelihood", "ms per sweep", "times Gaussian"], speed(args.data_home, args.rank)))
    if "ratings" in args.parts:
        rows = [
            row
            for split in args.splits
            for row in ratings(split, movielens(args.data_home, split), args.rank, group="user")
        ]
        print("\nML-100k, 512 sweeps, the last 400 kept\n")
        print(table([*HEADER, "90 % coverage", "its sd over users", "seconds"], rows))
    if "lectures" in args.parts:
        print("\nInstEval, a tenth held out, 512 sweeps, the last 400 kept\n")
        rows = ratings("InstEval", lectures(args.data_home), args.rank)
        print(table([*HEADER, "90 % coverage", "seconds"], rows))
    if "posts" in args.parts:
        print("\n20 Newsgroups, computers or not, indicators of words, 400 sweeps after 200 of warm-up\n")
        print(table(["model", "AUC", "log-loss", "seconds"], posts(args.data_home)))
    if "messages" in args.parts:
        print("\nSMS spam, tf-idf, a quarter held out\n")
        print(table(["model", "AUC", "log-loss", "seconds"], messages(args.data_home)))


if __name__ == "__main__":
    main()
