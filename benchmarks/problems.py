"""The data sets of the speed benchmark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import train_test_split

from bayesfm.datasets import load_movielens_100k
from bayesfm.design import Block, Design, TableEncoder, design_from_matrix
from benchmarks.samplers import Problem

__all__ = ["PROBLEMS", "newsgroups", "row_length", "three_factors", "two_fields"]


def ml_100k(data_home: str | None) -> Problem:
    """MovieLens-100k, training part of the ua split: 90,570 ratings, 943 users, 1,680 movies."""
    train, _ = load_movielens_100k("ua", data_home=data_home)
    design = TableEncoder(categorical=["user", "item"]).fit_transform(train[["user", "item"]])
    return _problem("ML-100k", design, train["rating"].to_numpy(float))


def two_fields(name: str, rows: int, users: int, items: int) -> Problem:
    """Random ratings in the proportions of MovieLens: both margins with long tails, rows sorted by user."""
    rng = np.random.default_rng(0)
    user = np.sort((users * rng.random(rows) ** 2).astype(np.int32))
    item = (items * rng.random(rows) ** 3).astype(np.int32)
    fields = {"user": (user, users), "item": (item, items)}
    design = Design(tuple(Block.field(f, code, np.arange(m)) for f, (code, m) in fields.items()))
    return _problem(name, design, rng.normal(3.5, 1.0, rows))


def three_factors(
    rows: int, users: int, items: int, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, item and rating of every row: three factors and noise; items with a long tail."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, users, rows, dtype=np.int32)
    item = (items * rng.random(rows) ** 3).astype(np.int32)
    a, b = (rng.normal(size=(m, 3)).astype(np.float32) for m in (users, items))
    y = rng.normal(3.5, noise, rows).astype(np.float32)
    for f in range(3):
        y += 0.5 * a[user, f] * b[item, f]
    return user, item, y


class Text(NamedTuple):
    """Indicators of words, and whether a post is about computers; a third of the posts is held out."""

    X: sparse.csr_array
    X_test: sparse.csr_array
    y: np.ndarray
    y_test: np.ndarray


def newsgroups(data_home: str | None) -> Text:
    """20 Newsgroups, "comp.*" against the rest: hashed words of the training part, columns that occur."""
    assert data_home is not None, "20news-bydate.parquet is looked for in --data-home"
    posts = pd.read_parquet(Path(data_home) / "20news-bydate.parquet")
    posts = posts[posts["split"] == "train"]
    words = HashingVectorizer(
        n_features=2**20,
        analyzer=lambda post: [w for w in re.split(r"\s+", post) if len(w) > 3],
        binary=True,
        norm=None,
        alternate_sign=False,
    )
    X = sparse.csr_array(words.transform(posts["text"]))
    y = posts["group"].str.startswith("comp.").to_numpy(float)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.33, random_state=42)
    used = np.flatnonzero(np.asarray(X.sum(axis=0)).ravel())
    return Text(sparse.csr_array(X[:, used]), sparse.csr_array(X_test[:, used]), y, y_test)


def row_length(X: Any) -> float:
    """Root mean squared Euclidean norm of the rows; a table's columns are one-hot."""
    return float(np.mean(X.multiply(X).sum(axis=1)) ** 0.5) if sparse.issparse(X) else X.shape[1] ** 0.5


def text(data_home: str | None) -> Problem:
    """20 Newsgroups: what is learned from."""
    X, _, y, _ = newsgroups(data_home)
    return Problem("20 Newsgroups", design_from_matrix(X), X, y, [X.shape[1]])


def _problem(name: str, design: Design, y: np.ndarray) -> Problem:
    return Problem(name, design, design.to_csr(), y, [block.num_features for block in design.blocks])


PROBLEMS = {
    "ml-100k": ml_100k,
    "ml-1m": lambda data_home: two_fields("900,000 x (6,040 + 3,706)", 900_000, 6_040, 3_706),
    "ml-10m": lambda data_home: two_fields("9,000,000 x (69,878 + 10,677)", 9_000_000, 69_878, 10_677),
    "text": text,
}
