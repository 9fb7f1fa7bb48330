"""Which priors predict best? Mean log probability of held-out responses on ratings, messages, posts and lectures.

    python -m benchmarks priors --data-home FOLDER [--data SMS ...] [--priors "half-normal" ...] [--samples N]

``FOLDER`` holds ``ml-100k.zip``, ``InstEval.csv.gz``, ``sms.tsv.gz`` and ``20news-bydate.parquet``. All by Gibbs
sampling, one chain; scales are in units of what the default priors take for the size of w and v (``default_spec``).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from bayesfm.estimators import FMClassifier, FMOrdinal
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.likelihoods import BernoulliLogit, Likelihood, OrdinalProbit
from bayesfm.model import ModelSpec, default_spec
from bayesfm.priors import HalfT, Horseshoe, MultiplicativeGamma, NormalGamma, Prior
from benchmarks.likelihoods import lectures, movielens, spam
from benchmarks.machine import describe, table
from benchmarks.problems import newsgroups, row_length

__all__ = ["main"]


class Case(NamedTuple):
    """One data set and how it is modelled."""

    load: Callable[[str | None], tuple[Any, Any, np.ndarray, np.ndarray]]
    """X, X_test, y, y_test"""
    face: type[FactorizationMachine]
    likelihood: Callable[[np.ndarray], Likelihood]
    rank: int


def ratings(data_home: str | None) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    X, y, X_test, y_test = movielens(data_home, "ua")
    return X, X_test, y, y_test


def liked(data_home: str | None) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    X, X_test, y, y_test = ratings(data_home)
    return X, X_test, (y > 3).astype(float), (y_test > 3).astype(float)


def given(data_home: str | None) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    X, y, X_test, y_test = lectures(data_home)
    return X, X_test, y, y_test


CASES = {
    "ML-100k": Case(ratings, FMOrdinal, lambda y: OrdinalProbit(num_classes=5), 8),
    "ML-100k, liked": Case(liked, FMClassifier, lambda y: BernoulliLogit(), 8),
    "InstEval": Case(given, FMOrdinal, lambda y: OrdinalProbit(num_classes=5), 8),
    "SMS": Case(spam, FMClassifier, lambda y: BernoulliLogit(), 4),
    "20 Newsgroups": Case(newsgroups, FMClassifier, lambda y: BernoulliLogit(), 5),
}


def priors(s_w: float, s_v: float, length: float) -> dict[str, tuple[Prior, Prior]]:
    """Priors of w and v; s_w and s_v are the sizes that ``default_spec`` expects, length the norm of a row."""

    def half_t(df: float, times: float) -> tuple[Prior, Prior]:
        return HalfT(times * s_w, df), HalfT(times * s_v, df)

    default = NormalGamma(b0=s_w**2), NormalGamma(b0=s_v**2)
    return {
        "normal-gamma, a0 = 1 (default)": default,
        "normal-gamma, a0 = 4": (NormalGamma(4.0, 4 * s_w**2), NormalGamma(4.0, 4 * s_v**2)),
        "half-Cauchy": half_t(1.0, 1.0),
        "half-t, df = 3": half_t(3.0, 1.0),
        "half-normal": half_t(math.inf, 1.0),
        "half-normal, 0.3 times the scale": half_t(math.inf, 0.3),
        "half-normal, 0.1 times the scale": half_t(math.inf, 0.1),
        "half-normal, scale over length of row": half_t(math.inf, 1 / length),
        "horseshoe w": (Horseshoe(global_scale=0.1 * s_w, slab_scale=3 * s_w), default[1]),
        "multiplicative gamma v": (default[0], MultiplicativeGamma(scale=s_v)),
    }


def fitted(case: Case, spec: ModelSpec, X: Any, y: np.ndarray, samples: int) -> FactorizationMachine:
    """Gibbs, one chain, a third of the sweeps to warm up."""
    model = case.face(
        spec=spec, num_warmup=samples // 2, num_samples=samples, num_chains=1, random_state=0, progress=False
    )
    return model.fit(X, y)


def scores(case: Case, name: str, data: tuple[Any, Any, np.ndarray, np.ndarray], samples: int) -> list[str]:
    """Mean log probability of the held-out class, AUC of two classes, sd of eta in training, seconds."""
    X, X_test, y, y_test = data
    classes, codes = np.unique(y, return_inverse=True)
    spec = default_spec(codes.astype(float), case.rank, likelihood=case.likelihood(y))
    assert isinstance(spec.prior_w, NormalGamma)
    assert isinstance(spec.prior_v, NormalGamma)
    prior_w, prior_v = priors(spec.prior_w.b0**0.5, spec.prior_v.b0**0.5, row_length(X))[name]
    start = time.perf_counter()
    model = fitted(case, replace(spec, prior_w=prior_w, prior_v=prior_v), X, y, samples)
    p = model.predict_proba(X_test)
    seconds = time.perf_counter() - start
    log_p = np.log(p[np.arange(len(y_test)), np.searchsorted(classes, y_test)])
    error = log_p.std() / len(y_test) ** 0.5
    auc = f"{roc_auc_score(y_test, p[:, 1]):.4f}" if len(classes) == 2 else ""
    sd = model.posterior_["posterior"]["eta"].to_numpy().std(-1).mean()
    return [f"{log_p.mean():.4f}", f"{error:.4f}", auc, f"{sd:.2f}", f"{seconds:.0f}"]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(priors(1.0, 1.0, 1.0))
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--data", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--priors", nargs="+", choices=names, default=names)
    parser.add_argument("--samples", type=int, default=400)
    args = parser.parse_args(argv)
    print(describe("numpyro", "scikit-learn"), flush=True)
    for name in args.data:
        data = CASES[name].load(args.data_home)
        rows = []
        for prior in args.priors:
            rows.append([prior, *scores(CASES[name], prior, data, args.samples)])
            print(name, *rows[-1], flush=True)
        about = f"rank {CASES[name].rank}, length of a row {row_length(data[0]):.1f}"
        print(f"\n{name}, {about}, {args.samples} sweeps kept after half as many\n")
        print(
            table(
                ["priors", "mean log probability", "its standard error", "AUC", "sd of eta", "seconds"], rows
            )
        )


if __name__ == "__main__":
    main()
