"""What estimators of class labels share: labels, probabilities, credible sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from bayesfm._checks import check_probability
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.estimators.inputs import check_bool, encode_labels

__all__ = ["ClassProbabilities"]


class ClassProbabilities(FactorizationMachine):
    """Methods of estimators with ``classes_``."""

    classes_: np.ndarray

    def _as_response(self, y: Any, reset: bool) -> Float[np.ndarray, " n"]:
        if not reset:
            check_is_fitted(self, "classes_")
        return encode_labels(self, y, reset, fractions=self._takes_fractions)

    def _declare_classes(self, classes: Any) -> None:
        """All labels, known before the first rows."""
        self.classes_ = np.unique(column_or_1d(np.asarray(classes)))
        if len(self.classes_) < max(2, np.size(classes)):
            raise ValueError(
                f"classes must name two labels at least, each once; got {np.asarray(classes).tolist()}"
            )

    def _takes_fractions(self, y: np.ndarray) -> bool:
        """Whether floats are labels here also where they are not whole."""
        return False

    def predict_proba(
        self, X: Any, return_std: bool = False
    ) -> Float[np.ndarray, "n c"] | tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
        """Probability of every class, the uncertainty of the parameters averaged over.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        return_std : bool, default=False
            Also return the standard deviation of each probability over the posterior: how well it is known.

        Returns
        -------
        probabilities : array of shape (n, c)
            Columns in the order of ``classes_``; each row sums to one.
        sd : array of shape (n, c)
            If ``return_std``.
        """
        from bayesfm.predictive import predictive_probabilities, probability_sds

        check_bool("return_std", return_std)
        design = self._encode(X)
        codes = np.arange(len(self.classes_))
        p = predictive_probabilities(self.model_, design, codes)
        p = p / p.sum(axis=1, keepdims=True)
        return (p, probability_sds(self.model_, design, codes)) if return_std else p

    def predict_set(self, X: Any, prob: float = 0.9) -> Bool[np.ndarray, "n c"]:
        """Smallest set of classes that the label falls into with at least the given probability.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        prob : float, default=0.9
            Probability in (0, 1).

        Returns
        -------
        array of shape (n, c)
            True for the classes in the set, in the order of ``classes_``.
        """
        prob = check_probability("prob", prob)
        p = self.predict_proba(X)
        assert isinstance(p, np.ndarray)
        order = np.argsort(-p, axis=1, kind="stable")
        before = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1) - np.take_along_axis(
            p, order, axis=1
        )
        out = np.zeros(p.shape, bool)
        np.put_along_axis(out, order, before < prob, axis=1)
        return out
