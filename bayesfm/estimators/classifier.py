"""The factorization machine for labels of two classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags

from bayesfm.estimators.classes import ClassProbabilities
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Likelihood

__all__ = ["FMClassifier"]


class FMClassifier(ClassifierMixin, ClassProbabilities):
    """Bayesian factorization machine for two classes, with probabilities that know what the data do not say.

    ``P(y = classes_[1]) = F(eta)``, with F logistic or normal, and eta as in :class:`FMRegressor`.

    Parameters
    ----------
    rank : int, optional
        Number of factors of the pairwise interactions; by default 8, or that of ``spec``.
    likelihood : {"logit", "probit"} or Likelihood, optional
        Link: logistic (the default; any row weights), or normal (row weights of 0 and 1 only).
    inference, engine_options, spec, groups, categorical, numeric, num_warmup, num_samples, num_chains, thin, kernels
        As in :class:`FMRegressor`, like factor_block, chain_method, keep, predict_rows, progress, callback, checkpoint,
        resume, draws_on_disk and random_state.

    Attributes
    ----------
    classes_ : array of shape (2,)
        Labels, sorted.
    posterior_, model_, spec_, encoder_, streams_, fit_info_, n_features_in_, feature_names_in_
        As in :class:`FMRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bayesfm import FMClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"user": rng.integers(0, 8, 300), "item": rng.integers(0, 6, 300)})
    >>> y = np.where(rng.normal(size=8)[X["user"]] + rng.normal(size=300) > 0, "yes", "no")
    >>> model = FMClassifier(rank=2, random_state=0).fit(X, y)
    >>> model.classes_.tolist(), model.predict_proba(X).shape
    (['no', 'yes'], (300, 2))
    """

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {"logit": BernoulliLogit, "probit": BernoulliProbit}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _as_response(self, y: Any, reset: bool) -> Float[np.ndarray, " n"]:
        codes = super()._as_response(y, reset)
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported: y has the "
                f"{len(self.classes_)} classes {self.classes_[:5]}; for unordered classes wrap the estimator in "
                "sklearn.multiclass.OneVsRestClassifier, for ordered ones use FMOrdinal"
            )
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes, got one class only: {self.classes_.tolist()[0]!r}")
        return codes

    def predict(self, X: Any) -> np.ndarray:
        """The more probable label of every row.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows

        Returns
        -------
        array of shape (n,)
        """
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"]:
        """Log odds of the second class.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows

        Returns
        -------
        array of shape (n,)
        """
        p = self.predict_proba(X)
        assert isinstance(p, np.ndarray)
        tiny = np.finfo(p.dtype).tiny
        return np.log(np.maximum(p[:, 1], tiny)) - np.log(np.maximum(p[:, 0], tiny))
