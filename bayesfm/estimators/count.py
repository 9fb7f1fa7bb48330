"""The factorization machine for counts."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from bayesfm._checks import check_probability
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.estimators.inputs import check_row_data_lengths
from bayesfm.likelihoods import Likelihood, NegativeBinomial, Poisson

__all__ = ["FMCount"]

MOST = 1 << 20
"""Longest list of counts whose probabilities are looked at for an interval."""


class FMCount(RegressorMixin, FactorizationMachine):
    """Bayesian factorization machine for counts: ``E[y] = exposure exp(eta)``.

    Parameters
    ----------
    rank : int, optional
        Number of factors of the pairwise interactions; by default 8, or that of ``spec``.
    likelihood : {"negative_binomial", "poisson"} or Likelihood, optional
        Overdispersed counts (the default), or Poisson, for any ``inference`` but "gibbs" and "cavi".
    prior_w, prior_v, inference, engine_options, spec, groups, categorical, numeric, num_warmup, num_samples
        As in :class:`FMRegressor`, like num_chains, thin, target_ess, max_sweeps, max_seconds, max_draws, factor_block,
        kernels, chain_method, keep, predict_rows, progress, callback, checkpoint, resume, draws_on_disk, warm_start and
        random_state; ``predict_rows`` are taken
        with exposure one.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bayesfm import FMCount
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"user": rng.integers(0, 8, 300)})
    >>> hours = rng.uniform(1, 5, 300)
    >>> y = rng.poisson(hours * np.exp(0.5 * rng.normal(size=8))[X["user"]])
    >>> model = FMCount(rank=0, num_samples=2000, random_state=0).fit(X, y, exposure=hours)
    >>> model.predict(X, exposure=hours).shape
    (300,)
    """

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {
        "negative_binomial": NegativeBinomial,
        "poisson": Poisson,
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, exposure: Any = None) -> Self:
        """Sample the posterior.

        Parameters
        ----------
        X : DataFrame, sparse or dense matrix, Design, or list of Block; n rows
            As in :meth:`FMRegressor.fit`.
        y : array-like of shape (n,)
            Whole numbers, none below zero.
        sample_weight : array-like of shape (n,), optional
            A row of weight c counts as c equal rows.
        exposure : array-like of shape (n,), optional
            How long, how large, how often a row was looked at: the mean is proportional to it. Above zero.

        Returns
        -------
        object
            The estimator itself.
        """
        return self._fit(X, y, sample_weight, {"exposure": exposure})

    def predict(self, X: Any, exposure: Any = None) -> Float[np.ndarray, " n"]:
        """Mean count; without ``exposure`` the rate, the mean count at exposure one.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        exposure : array-like of shape (n,), optional

        Returns
        -------
        array of shape (n,)
        """
        from bayesfm.predictive import predictive_moments

        design = self._encode(X)
        rows = check_row_data_lengths({"exposure": exposure}, design.num_rows)
        return predictive_moments(self.model_, design, rows).mean

    def predict_interval(self, X: Any, prob: float = 0.9, exposure: Any = None) -> Int[np.ndarray, "n 2"]:
        """Shortest interval of counts that y falls into with at least the given probability.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        prob : float, default=0.9
            Probability in (0, 1).
        exposure : array-like of shape (n,), optional

        Returns
        -------
        array of shape (n, 2)
            Lowest and highest count, both inside.

        Raises
        ------
        ValueError
            If counts in the hundred thousands are to be expected: their distribution is as good as continuous.
        """
        from bayesfm.predictive import predictive_moments, predictive_probabilities

        prob = check_probability("prob", prob)
        design = self._encode(X)
        rows = check_row_data_lengths({"exposure": exposure}, design.num_rows)
        moments = predictive_moments(self.model_, design, rows)
        # Chebyshev: less than (1 - prob) / 2 is beyond.
        top = np.ceil(moments.mean + moments.sd * np.sqrt(2 / (1 - prob))) + 1
        out = np.empty((design.num_rows, 2), np.int64)
        order = np.argsort(top, kind="stable")
        for part in np.array_split(order, -(-len(order) // 256)):
            most = int(1 << int(np.ceil(np.log2(top[part[-1]] + 1))))
            if not most <= MOST:
                raise ValueError(
                    f"counts up to {top[part[-1]]:.3g} are to be expected: take sample_predictive instead"
                )
            own = {name: x[part] for name, x in rows.items()}
            p = predictive_probabilities(self.model_, design.take(part), np.arange(most), own)
            out[part] = _shortest(p, prob)
        return out


def _shortest(p: Float[np.ndarray, "n c"], prob: float) -> Int[np.ndarray, "n 2"]:
    """First and last count of the shortest run whose probabilities add up to ``prob``."""
    out = np.empty((len(p), 2), np.int64)
    for i, row in enumerate(p):
        F = np.concatenate([[0.0], np.cumsum(row)])
        end = np.searchsorted(F, F[:-1] + prob - 1e-9)  # rounding in the sum
        length = np.where(end < len(F), end - np.arange(len(row)), len(F) + 1)
        first = int(np.argmin(length))
        out[i] = first, min(int(end[first]) - 1, len(row) - 1)
    return out
