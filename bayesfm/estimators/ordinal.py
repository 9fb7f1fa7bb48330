"""The factorization machine for ordered classes: stars, grades, Likert scales."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassifierMixin

from bayesfm._checks import check_choice
from bayesfm.design import Design
from bayesfm.estimators.classes import ClassProbabilities
from bayesfm.likelihoods import Likelihood, OrdinalLogit, OrdinalProbit
from bayesfm.model import ModelSpec

__all__ = ["FMOrdinal"]


MAX_LEVELS = 100
"""Distinct numbers with fractions that are taken for ordered classes: more of them are a real response."""


class FMOrdinal(ClassifierMixin, ClassProbabilities):
    """Bayesian factorization machine for ordered classes.

    A latent variable around eta falls between cut-points, which are sampled with everything else: distances between
    classes are learned, and every row has a distribution over the classes.

    Parameters
    ----------
    rank : int, optional
        Number of factors of the pairwise interactions; by default 8, or that of ``spec``.
    likelihood : {"probit", "logit"} or Likelihood, optional
        Latent noise: normal (the default), or logistic, for any ``inference`` but "gibbs" and "cavi".
    prior_w, prior_v, inference, engine_options, spec, groups, categorical, numeric, num_warmup, num_samples
        As in :class:`FMRegressor`, like num_chains, thin, target_ess, max_sweeps, max_seconds, max_draws, factor_block,
        kernels, chain_method, keep, predict_rows, progress, callback, checkpoint, resume, draws_on_disk, warm_start and
        random_state.

    Attributes
    ----------
    classes_ : array of shape (c,)
        Labels in their order.
    posterior_, model_, spec_, encoder_, streams_, fit_info_, n_features_in_, feature_names_in_
        As in :class:`FMRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bayesfm import FMOrdinal
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"user": rng.integers(0, 8, 300), "item": rng.integers(0, 6, 300)})
    >>> y = np.clip(np.round(3 + rng.normal(size=8)[X["user"]] + 0.5 * rng.normal(size=300)), 1, 5)
    >>> model = FMOrdinal(rank=0, num_samples=4000, random_state=0).fit(X, y, classes=[1, 2, 3, 4, 5])
    >>> model.predict(X, decision="mean").shape
    (300,)
    """

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {"probit": OrdinalProbit, "logit": OrdinalLogit}

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, classes: Any = None) -> Self:
        """Sample the posterior.

        Parameters
        ----------
        X : DataFrame, sparse or dense matrix, Design, or list of Block; n rows
            As in :meth:`FMRegressor.fit`.
        y : array-like of shape (n,)
            Labels, of any type that sorts; numbers with fractions (half stars) where there are at most 100 of them and
            fewer than half as many as rows, or where ``classes`` names them.
        sample_weight : array-like of shape (n,), optional
            0 or 1 for Gibbs sampling.
        classes : sequence, optional
            All classes in increasing order, those that do not occur in y among them; by default the sorted labels of y.

        Returns
        -------
        object
            The estimator itself.
        """
        self._declared = None if classes is None else np.asarray(classes)
        return super().fit(X, y, sample_weight)

    def _declare_classes(self, classes: Any) -> None:
        """All labels in their order, which has to be a sorted one here."""
        super()._declare_classes(classes)
        if np.asarray(classes).tolist() != self.classes_.tolist():
            raise ValueError(
                "classes of partial_fit must be in sorted order, lowest first: give the labels numbers that sort; got "
                f"{np.asarray(classes).tolist()}"
            )

    def _takes_fractions(self, y: np.ndarray) -> bool:
        if self._declared is not None:
            return True
        return len(np.unique(y)) <= min(MAX_LEVELS, len(y) // 2)

    def _as_response(self, y: Any, reset: bool) -> Float[np.ndarray, " n"]:
        codes = super()._as_response(y, reset)
        if reset and self._declared is not None:
            labels, place = self.classes_, {x: i for i, x in enumerate(self._declared.tolist())}
            unknown = [x for x in labels.tolist() if x not in place]
            if unknown or len(place) < len(self._declared):
                raise ValueError(f"classes must name every label of y once; y has {unknown or labels}")
            self.classes_ = self._declared
            return np.array([place[x] for x in labels.tolist()], np.float64)[codes.astype(int)]
        if not reset:
            return codes
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must have two classes at least, got one class only: {self.classes_.tolist()[0]!r} (where the first "
                "chunk of a stream has one, partial_fit(X, y, classes=[...]) names them all)"
            )
        return codes

    def _make_spec(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
        row_data: dict[str, np.ndarray],
    ) -> ModelSpec:
        spec = super()._make_spec(design, y, weight, row_data)
        likelihood = spec.likelihood
        assert isinstance(likelihood, OrdinalProbit | OrdinalLogit)
        if likelihood.num_classes != len(self.classes_):
            raise ValueError(
                f"the likelihood has num_classes={likelihood.num_classes}, y has the {len(self.classes_)} classes "
                f"{self.classes_.tolist()}: name all classes in fit(..., classes=...)"
            )
        return spec

    def _make_likelihood(
        self,
        kind: type[Likelihood],
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
    ) -> Likelihood:
        return kind(num_classes=len(self.classes_))  # type: ignore[call-arg]

    def predict(self, X: Any, decision: str = "mode") -> np.ndarray:
        """One value for every row.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        decision : {"mode", "median", "mean"}, default="mode"
            The most probable class, the median class, or the mean of the classes' values (which have to be numbers):
            what is best under 0-1 loss, absolute and squared error.

        Returns
        -------
        array of shape (n,)
        """
        check_choice("decision", decision, ("mode", "median", "mean"))
        p = self.predict_proba(X)
        assert isinstance(p, np.ndarray)
        if decision == "mode":
            return self.classes_[np.argmax(p, axis=1)]
        if decision == "median":
            return self.classes_[np.argmax(np.cumsum(p, axis=1) >= 0.5, axis=1)]
        if self.classes_.dtype.kind not in "iuf":
            raise ValueError(f"decision='mean' needs classes that are numbers, got {self.classes_[:3]}")
        return p @ self.classes_.astype(np.float64)
