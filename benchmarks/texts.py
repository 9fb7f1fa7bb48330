"""Text: 20 Newsgroups and SMS spam by mode and by draws, beside logistic regression, myfm and modern-fm.

    python -m benchmarks texts --data-home FOLDER [--data indicators tf-idf SMS] [--only "logistic"]

What is chosen (strengths of ridges, epochs) is chosen within the training part, by log-loss over its folds; scores are
those of the held-out part. ``FOLDER`` holds ``20news-bydate.parquet`` and ``sms.tsv.gz``.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from bayesfm import ConvergenceWarning, Fixed, FMClassifier, HalfT
from bayesfm.likelihoods import BernoulliLogit
from benchmarks.likelihoods import spam
from benchmarks.machine import describe, table
from benchmarks.problems import newsgroups, row_length

__all__ = ["main"]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""C of logistic regression: one over the precision of w."""
TOLERANCE = 1e-8
"""Of logistic regression: by default it stops well before its minimum on tf-idf (log-loss .1230 in place of .1159)."""
OF_FACTORS = 300.0
"""Precision of v over that of w."""
POWERS = (1.0, 1.5, 2.0)
"""How fast the prior of a word narrows with the documents that have it: its deviation is idf to that power."""
CHAIN = {"num_warmup": 200, "num_samples": 400, "random_state": 0}


class Data(NamedTuple):
    """A text in two parts."""

    X: sparse.csr_array
    X_test: sparse.csr_array
    y: np.ndarray
    y_test: np.ndarray


class Kind(NamedTuple):
    """A model with settings to choose from, and the folds of the training part that choose."""

    name: str
    settings: list[tuple[str, Any]]
    folds: int = 1


class Idf(NamedTuple):
    """The group of every word, and the idf of each of them."""

    groups: list[str]
    of_group: dict[str, float]


class MyFM(ClassifierMixin, BaseEstimator):
    """myfm's Gibbs sampler of the probit model, at its defaults."""

    def __init__(self, rank: int = 5, n_iter: int = 600) -> None:
        self.rank, self.n_iter = rank, n_iter

    def fit(self, X: sparse.csr_array, y: np.ndarray) -> MyFM:
        """Two thirds of the sweeps are kept."""
        import myfm

        self.chain_ = myfm.MyFMGibbsClassifier(rank=self.rank, random_seed=0)
        kept = 2 * self.n_iter // 3
        self.chain_.fit(sparse.csr_matrix(X, dtype=float), y > 0, n_iter=self.n_iter, n_kept_samples=kept)
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X: sparse.csr_array) -> np.ndarray:
        """Of both classes."""
        p = self.chain_.predict_proba(sparse.csr_matrix(X, dtype=float))
        return np.column_stack([1 - p, p])


class ModernFM(ClassifierMixin, BaseEstimator):
    """modern-fm by Adam."""

    def __init__(self, rank: int = 5, l2: float = 1e-5, epochs: int = 10) -> None:
        self.rank, self.l2, self.epochs = rank, l2, epochs

    def fit(self, X: sparse.csr_array, y: np.ndarray) -> ModernFM:
        """Batches of 64 rows."""
        import modern_fm

        self.model_ = modern_fm.FMClassifier(
            n_factors=self.rank,
            optimizer="adam",
            learning_rate=0.003,
            max_iter=self.epochs,
            batch_size=64,
            l2_linear=self.l2,
            l2_factors=self.l2,
            random_state=0,
        ).fit(sparse.csr_matrix(X, dtype=float), (y > 0).astype(int))
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X: sparse.csr_array) -> np.ndarray:
        """Of both classes."""
        return np.asarray(self.model_.predict_proba(sparse.csr_matrix(X, dtype=float)))


def mode(rank: int, precision: float, idf: Idf | None = None, power: float = 0.0) -> FMClassifier:
    """The mode under a ridge; that of v is :data:`OF_FACTORS` times as strong.

    With ``idf`` every group of words has its own, of the precision times idf^(-2 power).
    """
    options: dict[str, Any] = {"prior_w": Fixed(precision=precision)}
    options["prior_v"] = Fixed(precision=OF_FACTORS * precision)
    if idf is not None:
        by_group = {group: precision * x ** (-2 * power) for group, x in idf.of_group.items()}
        options = {
            "groups": idf.groups,
            "prior_w": {group: Fixed(precision=x) for group, x in by_group.items()},
            "prior_v": {group: Fixed(precision=OF_FACTORS * x) for group, x in by_group.items()},
        }
    settings = {"shrinkage": 1.0, "optimiser": "lbfgs"}
    return FMClassifier(rank, inference="map", engine_options=settings, random_state=0, **options)


def by_frequency(X: sparse.csr_array) -> Idf:
    """Words in groups by how many documents have them, four to a doubling; the rarest word's idf is 1."""
    n, number = X.shape[0], np.maximum(np.bincount(X.indices, minlength=X.shape[1]), 1)
    octave = np.floor(4 * np.log2(number)).astype(int)
    present, group = np.unique(octave, return_inverse=True)
    idf = 1 + np.log((1 + n) / (1 + 2 ** (present / 4)))
    names = [f"{g:02d}" for g in range(len(present))]
    return Idf([names[g] for g in group], dict(zip(names, (idf / idf.max()).tolist(), strict=True)))


def logistic() -> Kind:
    """Logistic regression."""
    models = [(f"C = {C:g}", LogisticRegression(C=C, tol=TOLERANCE, max_iter=20_000)) for C in STRENGTHS]
    return Kind("logistic regression", models, folds=5)


def modes(rank: int, folds: int) -> Kind:
    """The mode under one ridge."""
    models = [(f"precisions {1 / C:.3g}, {OF_FACTORS / C:.3g}", mode(rank, 1 / C)) for C in STRENGTHS]
    return Kind(f"FM, rank {rank}, mode", models, folds)


def peers(rank: int) -> list[Kind]:
    """myfm, and modern-fm."""
    grid = [(l2, epochs) for l2 in (1e-6, 1e-5, 1e-4, 1e-3) for epochs in (5, 10, 20, 40)]
    modern = [(f"l2 = {l2:g}, {epochs} epochs", ModernFM(rank, l2, epochs)) for l2, epochs in grid]
    return [Kind(f"myfm, rank {rank}, Gibbs", [("", MyFM(rank))]), Kind(f"modern-fm, rank {rank}", modern)]


def indicators(data_home: str | None) -> tuple[Data, list[Kind]]:
    """20 Newsgroups, "comp.*" against the rest, a third held out with seed 42, indicators of hashed words."""
    data = Data(*newsgroups(data_home))
    idf, rank = by_frequency(data.X), 5
    frequency = [
        (f"precisions {1 / C:.3g} idf^-{2 * a:g}", mode(rank, 1 / C, idf, a))
        for a in POWERS
        for C in STRENGTHS[-4:]
    ]
    s, length = BernoulliLogit().expected_eta(data.y, None, {})[1], row_length(data.X)
    short = {"prior_w": HalfT(s / length, math.inf), "prior_v": HalfT(s**0.5 / length, math.inf)}
    draws = FMClassifier(rank, num_chains=1, **short, **CHAIN)
    return data, [
        logistic(),
        modes(rank, 1),
        Kind(f"FM, rank {rank}, mode, prior by frequency", frequency),
        Kind(f"FM, rank {rank}, Gibbs, half-normal scale over length of row", [("", draws)]),
        *peers(rank),
    ]


def tf_idf(data_home: str | None) -> tuple[Data, list[Kind]]:
    """The same columns, weighted."""
    X, X_test, y, y_test = newsgroups(data_home)
    weights = TfidfTransformer().fit(X)
    data = Data(*(sparse.csr_array(weights.transform(A)) for A in (X, X_test)), y, y_test)
    draws = FMClassifier(5, num_chains=1, **CHAIN)
    return data, [logistic(), modes(5, 1), Kind("FM, rank 5, Gibbs", [("", draws)]), *peers(5)]


def messages(data_home: str | None) -> tuple[Data, list[Kind]]:
    """SMS spam, tf-idf, a quarter held out with seed 1."""
    X, X_test, y, y_test = spam(data_home)
    data = Data(sparse.csr_array(X), sparse.csr_array(X_test), y.astype(float), y_test.astype(float))
    draws = [(f"rank {rank}", FMClassifier(rank, num_chains=4, **CHAIN)) for rank in (1, 4, 8)]
    return data, [logistic(), modes(4, 5), Kind("FM, Gibbs", draws, folds=5), *peers(4)]


SETS: dict[str, Callable[[str | None], tuple[Data, list[Kind]]]] = {
    "indicators": indicators,
    "tf-idf": tf_idf,
    "SMS": messages,
}


def scores(name: str, data_home: str | None, only: str) -> Iterator[list[object]]:
    """Of every model, with the settings that the folds choose."""
    data, kinds = SETS[name](data_home)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(data.X, data.y))
    for kind in kinds:
        if only not in kind.name:
            continue
        losses = [0.0]
        if len(kind.settings) > 1:
            losses = [by_folds(model, data, folds[: kind.folds]) for _, model in kind.settings]
        settings, best = kind.settings[int(np.argmin(losses))]
        start = time.perf_counter()
        p = best.fit(data.X, data.y).predict_proba(data.X_test)[:, 1]
        seconds = time.perf_counter() - start
        own = (
            roc_auc_score(data.y_test, p),
            f1_score(data.y_test, p > 0.5, average="weighted"),
            log_loss(data.y_test, p),
        )
        yield [name, kind.name, settings, *[f"{x:.4f}" for x in own], f"{seconds:.1f}"]


def by_folds(model: Any, data: Data, folds: list) -> float:
    """Mean log-loss."""
    X, y = data.X, data.y
    return float(
        np.mean([log_loss(y[b], clone(model).fit(X[a], y[a]).predict_proba(X[b])[:, 1]) for a, b in folds])
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--only", default="", help="models whose names contain this")
    parser.add_argument("--data-home", default=None)
    args = parser.parse_args(argv)
    print(describe("scikit-learn", "numpy", "myfm", "modern-fm"), flush=True)
    rows: list[list[object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name in args.data:
            for row in scores(name, args.data_home, args.only):
                rows.append(row)
                print(row, flush=True)
    header = ["columns", "model", "chosen", "AUC", "F1", "log-loss", "seconds"]
    print("\n" + table(header, rows))
