"""The factorization machine for labels without order, of two classes or more."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags

from bayesfm.design import Design
from bayesfm.estimators.classes import ClassProbabilities
from bayesfm.inference.draws import Draws
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Categorical, Likelihood
from bayesfm.model import ModelSpec

__all__ = ["FMClassifier"]


class FMClassifier(ClassifierMixin, ClassProbabilities):
    """Bayesian factorization machine for classes, with probabilities that know what the data do not say.

    Two classes: ``P(y = classes_[1]) = F(eta)``, with F logistic or normal, and eta as in :class:`FMRegressor`.
    More: ``P(y = classes_[c])`` is proportional to ``exp(eta_c)``, with an FM of its own for every class but the first,
    whose eta is zero. Dimension ``class`` of the posterior names the others. Classes with an order are for
    :class:`FMOrdinal`.

    Parameters
    ----------
    rank : int, optional
        Number of factors of the pairwise interactions; by default 8, or that of ``spec``.
    likelihood : {"logit", "probit"} or Likelihood, optional
        Link: logistic (the default; any row weights; softmax for more than two classes), or normal (two classes, row
        weights of 0 and 1 only).
    prior_w, prior_v, inference, engine_options, spec, groups, categorical, numeric, num_warmup, num_samples
        As in :class:`FMRegressor`, like num_chains, thin, target_ess, max_sweeps, max_seconds, max_draws, factor_block,
        kernels, chain_method, keep, predict_rows, progress, callback, checkpoint, resume, draws_on_disk, warm_start and
        random_state.

    Attributes
    ----------
    classes_ : array of shape (c,)
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
    >>> model = FMClassifier(rank=2, num_samples=2000, random_state=0).fit(X, y)
    >>> model.classes_.tolist(), model.predict_proba(X).shape
    (['no', 'yes'], (300, 2))
    """

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {"logit": BernoulliLogit, "probit": BernoulliProbit}

    MORE_LIKELIHOODS: ClassVar[tuple[type[Likelihood], ...]] = (Categorical,)

    def _as_response(self, y: Any, reset: bool) -> Float[np.ndarray, " n"]:
        codes = super()._as_response(y, reset)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must have two classes, got one class only: {self.classes_.tolist()[0]!r} (where the first chunk of "
                "a stream has one, partial_fit(X, y, classes=[...]) names them all)"
            )
        return codes

    def _make_spec(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
        row_data: dict[str, np.ndarray],
    ) -> ModelSpec:
        given = self.likelihood if self.spec is None else self.spec.likelihood
        count = given.num_classes if isinstance(given, Categorical) else 2
        if isinstance(given, Likelihood) and count != len(self.classes_):
            raise ValueError(
                f"{given!r} is for {count} classes, y has {len(self.classes_)}: {self.classes_[:5].tolist()}"
                f"{', ...' * (len(self.classes_) > 5)}. Leave the likelihood out, or give "
                f"Categorical(num_classes={len(self.classes_)})"
            )
        return super()._make_spec(design, y, weight, row_data)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.likelihood != "probit"
        return tags

    def _make_likelihood(
        self,
        kind: type[Likelihood],
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
    ) -> Likelihood:
        if len(self.classes_) == 2:
            return kind.for_response(y, weight)
        if kind is BernoulliProbit:
            raise ValueError(
                "Only binary classification is supported here: likelihood='probit' is for two classes, y has "
                f"{len(self.classes_)}: leave likelihood out (softmax), use FMOrdinal if they have an order, or wrap "
                "the estimator in sklearn.multiclass.OneVsRestClassifier"
            )
        return Categorical(num_classes=len(self.classes_))

    def _remember(self, draws: Draws, spec: ModelSpec, *data: Any) -> None:
        super()._remember(draws, spec, *data)
        if isinstance(spec.likelihood, Categorical) and self.classes_.dtype.kind in "iuUO":
            posterior = self.posterior_["posterior"].dataset
            labels = self.classes_[1:].astype("O") if self.classes_.dtype.kind == "U" else self.classes_[1:]
            self.posterior_["posterior"].dataset = posterior.assign_coords({"class": labels})

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of every row.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows

        Returns
        -------
        array of shape (n,)
        """
        log_odds = self.decision_function(X)
        return self.classes_[(log_odds > 0).astype(int) if log_odds.ndim == 1 else log_odds.argmax(axis=1)]

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n c"]:
        """Log odds of the second class; of more than two classes, the log probability of each.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows

        Returns
        -------
        array of shape (n,), or (n, c) in the order of ``classes_``
        """
        p = self.predict_proba(X)
        assert isinstance(p, np.ndarray)
        log_p = np.log(np.maximum(p, np.finfo(p.dtype).tiny))
        return log_p[:, 1] - log_p[:, 0] if len(self.classes_) == 2 else log_p
