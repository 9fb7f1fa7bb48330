"""Wide sparse data: a stream of ten million rows over a million hashed columns, and text by mode and by draws.

    python -m benchmarks wide [--parts stream text] [--rows 10000000] [--data-home FOLDER]

The stream comes from a Parquet folder that is written first, chunk by chunk (eight columns of ids are eight hashed
columns of ones): it is read, hashed and learned from, each timed on its own. Text: 20 Newsgroups ("comp.*" against the
rest, a third held out with seed 42); what is chosen is chosen within the training part. ``FOLDER`` holds
``20news-bydate.parquet``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from bayesfm import ConvergenceWarning, FMClassifier, HashedFields, iter_dataset
from benchmarks.machine import describe, peak_memory_gb, table
from benchmarks.problems import newsgroups

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


def mode(rank: int, precision_w: np.ndarray, groups: list[str] | None = None) -> FMClassifier:
    """The mode under a ridge of given precision per group; that of v is :data:`OF_FACTORS` times as strong."""
    scales = {
        "mu_w": np.zeros_like(precision_w),
        "lambda_w": precision_w,
        "mu_v": np.zeros((len(precision_w), rank)),
        "lambda_v": np.repeat(OF_FACTORS * precision_w[:, None], rank, axis=1),
    }
    options = {"scales": scales, "shrinkage": 1.0, "scale_iterations": 1, "optimiser": "lbfgs"}
    return FMClassifier(rank, inference="map", engine_options=options, groups=groups, random_state=0)


def by_frequency(X: sparse.csr_array) -> tuple[list[str], np.ndarray]:
    """Words in groups by how many documents have them, four to a doubling; and the groups' idf, 1 at most.

    The groups are in the order of their first words, as those of a fit.
    """
    n, number = X.shape[0], np.maximum(np.bincount(X.indices, minlength=X.shape[1]), 1)
    octave = np.floor(4 * np.log2(number)).astype(int)
    present, first, group = np.unique(octave, return_index=True, return_inverse=True)
    idf = 1 + np.log((1 + n) / (1 + 2 ** (present / 4)))
    return [f"{g:02d}" for g in group], (idf / idf.max())[np.argsort(first)]


STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""C of logistic regression: one over the precision of w."""
TOLERANCE = 1e-8
"""Of logistic regression: by default it stops well before its minimum on tf-idf (log-loss .1230 in place of .1159)."""
OF_FACTORS = 300.0
"""Precision of v over that of w."""


POWERS = (1.0, 1.5, 2.0)
"""How fast the prior of a word narrows with the documents that have it: its deviation is idf to that power."""


def candidates(rank: int, X: sparse.csr_array, name: str) -> dict[str, list[tuple[str, Any]]]:
    """Models by kind, each with settings of which the training part chooses."""
    models: dict[str, list[tuple[str, Any]]] = {
        "logistic regression": [
            (f"C = {C:g}", LogisticRegression(C=C, tol=TOLERANCE, max_iter=20_000)) for C in STRENGTHS
        ],
        f"FM, rank {rank}, mode": [
            (f"precisions {1 / C:.3g}, {OF_FACTORS / C:.3g}", mode(rank, np.full(1, 1 / C)))
            for C in STRENGTHS
        ],
    }
    if name == "indicators":  # tf-idf says it with its columns
        groups, idf = by_frequency(X)
        models[f"FM, rank {rank}, mode, prior by frequency"] = [
            (f"precisions {1 / C:.3g} idf^-{2 * a:g}", mode(rank, idf ** (-2 * a) / C, groups))
            for a in POWERS
            for C in STRENGTHS[-4:]
        ]
    return models


def text(data_home: str | None, rank: int, only: str) -> None:
    """Raw indicators and tf-idf of the same columns: log-loss by folds, then all scores on the held-out third."""
    X, X_test, y, y_test = newsgroups(data_home)
    weights = TfidfTransformer().fit(X)
    matrices = {"indicators": (X, X_test), "tf-idf": (weights.transform(X), weights.transform(X_test))}
    rows: list[list[object]] = []
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    for name, (A, B) in matrices.items():
        A, B = sparse.csr_array(A), sparse.csr_array(B)
        for kind, models in candidates(rank, A, name).items():
            if only not in kind:
                continue
            losses = [by_folds(model, A, y, folds) for _, model in models]
            settings, best = models[int(np.argmin(losses))]
            start = time.perf_counter()
            p = best.fit(A, y).predict_proba(B)[:, 1]
            seconds = time.perf_counter() - start
            own = (
                roc_auc_score(y_test, p),
                f1_score(y_test, p > 0.5, average="weighted"),
                log_loss(y_test, p),
            )
            rows.append([name, kind, settings, *[f"{x:.4f}" for x in own], f"{seconds:.1f}"])
            print(rows[-1], flush=True)
    print(
        "\n20 Newsgroups\n\n"
        + table(["columns", "model", "chosen", "AUC", "F1", "log-loss", "seconds"], rows)
    )


def by_folds(model: Any, X: sparse.csr_array, y: np.ndarray, folds: list) -> float:
    """Mean log-loss; the first fold alone for models that take long."""
    used = folds if isinstance(model, LogisticRegression) else folds[:1]
    return float(np.mean([log_loss(y[b], model.fit(X[a], y[a]).predict_proba(X[b])[:, 1]) for a, b in used]))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=["stream", "text"], default=["stream", "text"])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--only", default="", help="of the models of text, those whose names contain this")
    parser.add_argument("--data-home", default=None)
    args = parser.parse_args(argv)
    print(describe("scikit-learn", "numpy"), flush=True)
    if "stream" in args.parts:
        stream(args.rows, args.rank)
    if "text" in args.parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            text(args.data_home, 5, args.only)
