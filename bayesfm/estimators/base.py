"""Fitting: what the estimators of all likelihoods share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from bayesfm._checks import check_choice
from bayesfm.design import Design, DesignEncoder
from bayesfm.estimators.engines import ENGINES, POINTS, check_engine
from bayesfm.estimators.files import Files
from bayesfm.estimators.inputs import (
    Rows,
    Seed,
    check_bool,
    check_keep,
    check_rows,
    check_X,
    seed_key,
    seen_rows,
    split_rows,
    warn_if_unscaled,
)
from bayesfm.estimators.names import FeatureNames
from bayesfm.estimators.predictions import Predictions
from bayesfm.estimators.streaming import PartialFit, Stream
from bayesfm.estimators.warm_start import last_draws, last_point
from bayesfm.inference.chains import ChainOptions, Progress
from bayesfm.inference.draws import Draws
from bayesfm.likelihoods import Likelihood
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictors import FM
from bayesfm.priors import Prior, as_prior, per_group

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["ENGINES", "FactorizationMachine"]

DEFAULT_RANK = 8
"""Where neither rank nor spec says otherwise."""


class FactorizationMachine(PartialFit, Predictions, Files, FeatureNames):
    """``fit`` and ``summary``; the parameters are explained where they meet a likelihood."""

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {}
    """What ``likelihood`` may name, the default first."""
    MORE_LIKELIHOODS: ClassVar[tuple[type[Likelihood], ...]] = ()
    """What it may be besides, as an object."""

    def __init__(
        self,
        rank: int | None = None,
        *,
        likelihood: str | Likelihood | None = None,
        prior_w: Prior | Mapping[str, Prior] | None = None,
        prior_v: Prior | Mapping[str, Prior] | None = None,
        inference: str = "gibbs",
        engine_options: Mapping[str, Any] | None = None,
        spec: ModelSpec | None = None,
        groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        categorical: Sequence[str] | None = None,
        numeric: Sequence[str] | None = None,
        num_warmup: int = 200,
        num_samples: int | str = 500,
        num_chains: int = 2,
        thin: int = 1,
        target_ess: float = 400,
        max_sweeps: int = 20_000,
        max_seconds: float | None = None,
        max_draws: int | None = None,
        factor_block: int | str = "auto",
        kernels: str = "auto",
        chain_method: str = "auto",
        keep: str | Sequence[str] = "all",
        predict_rows: Mapping[str, Any] | None = None,
        progress: bool = False,
        callback: Callable[[Progress], Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        draws_on_disk: bool = False,
        warm_start: bool = False,
        random_state: Seed = None,
    ) -> None:
        self.rank = rank
        self.likelihood = likelihood
        self.prior_w = prior_w
        self.prior_v = prior_v
        self.inference = inference
        self.engine_options = engine_options
        self.spec = spec
        self.groups = groups
        self.categorical = categorical
        self.numeric = numeric
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.thin = thin
        self.target_ess = target_ess
        self.max_sweeps = max_sweeps
        self.max_seconds = max_seconds
        self.max_draws = max_draws
        self.factor_block = factor_block
        self.kernels = kernels
        self.chain_method = chain_method
        self.keep = keep
        self.predict_rows = predict_rows
        self.progress = progress
        self.callback = callback
        self.checkpoint = checkpoint
        self.resume = resume
        self.draws_on_disk = draws_on_disk
        self.warm_start = warm_start
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Sample the posterior.

        Parameters
        ----------
        X : DataFrame, sparse or dense matrix, Design, or list of Block; n rows
            In a DataFrame **integer columns are ids** and become one-hot fields; in a matrix every column is a
            number. See :class:`~bayesfm.design.DesignEncoder`.
        y : array-like of shape (n,)
            Response, of the kind that the estimator is for.
        sample_weight : array-like of shape (n,), optional
            A row of weight c counts as c equal rows, a row of weight 0 not at all.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            Naming the argument or the option, what was expected and what came.
        RuntimeError
            If ``callback`` stopped the run in its warm-up: there is no draw to predict from.

        Warns
        -----
        ConvergenceWarning
            Where R-hat or the effective sample size say that the chains are too short.
        UserWarning
            Where a column of numbers has values in the hundreds or more, or below a thousandth: standardise it.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any, row_data: Mapping[str, Any] | None = None) -> Self:
        options = self._check_options()
        before = self._before()
        encoder = DesignEncoder(self.categorical, self.numeric, self.groups)
        design = encoder.fit_transform(check_X(self, X, reset=True))
        streams = self._encode_streams(encoder)
        y = self._as_response(y, reset=True)
        row_data = seen_rows(self._row_data(row_data, design), sample_weight)
        design, y, weight = check_rows(self, design, y, sample_weight)
        warn_if_unscaled(design)
        key = seed_key(self.random_state)
        (design, y, weight, row_data), held_out = self._validation(
            encoder, jax.random.fold_in(key, 1), Rows(design, y, weight, row_data)
        )
        spec = self._make_spec(design, y, weight, row_data)
        start = {} if before is None else {"start": self._start(before, spec, design)}
        draws = ENGINES[self.inference](
            self,
            key,
            spec,
            design,
            y,
            weight=weight,
            row_data=row_data,
            options=options,
            streams=streams,
            stream_row_data={name: self._row_data(None, rows) for name, rows in streams.items()},
            **({} if held_out is None else {"held_out": tuple(held_out)}),
            **start,
        )
        if draws.num_draws == 0:
            raise RuntimeError("callback stopped the run in its warm-up: there is no draw to predict from")
        learner = self.__dict__.pop("_learner", None)
        self._stream = None
        self._remember(draws, spec, design, y, weight, row_data, encoder)
        if learner is not None:
            self._stream = Stream(learner, encoder, spec, key, Rows(design, y, weight, row_data))
        return self

    def _before(self) -> tuple[xr.DataTree, Any] | None:
        """The posterior to go on from, and its classes."""
        if not self.warm_start or not hasattr(self, "posterior_"):
            return None
        return self.posterior_, getattr(self, "classes_", None)

    def _start(self, before: tuple[xr.DataTree, Any], spec: ModelSpec, design: Design) -> Any:
        tree, classes = before
        if classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"the last fit was of the classes {classes.tolist()}: set warm_start=False to begin anew"
            )
        if self.inference in POINTS:
            return last_point(tree, spec, design)
        return last_draws(tree, spec, design, self.num_chains)

    def _validation(
        self, encoder: DesignEncoder, key: Key[Array, ""], data: Rows
    ) -> tuple[Rows, Rows | None]:
        """Rows to learn from, and those of engine_options['validation']: a share of the rows, or rows of their own."""
        held = (self.engine_options or {}).get("validation")
        if held is None:
            return data, None
        if isinstance(held, float):
            return split_rows(key, held, data)
        if not isinstance(held, tuple) or len(held) not in (2, 3):
            raise TypeError(
                "engine_options['validation'] must be a share of the rows, a float, or (X, y) or "
                f"(X, y, sample_weight); got {type(held).__name__}"
            )
        X, y, sample_weight = (*held, None)[:3]
        design = encoder.transform(check_X(self, X, reset=False))
        row_data = seen_rows(self._row_data(None, design), sample_weight)
        checked = check_rows(self, design, self._as_response(y, reset=False), sample_weight)
        return data, Rows(*checked, row_data)

    def _as_response(self, y: Any, reset: bool) -> Any:
        """The response as the likelihood takes it; classifiers learn their labels here."""
        return y

    def _make_spec(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
        row_data: dict[str, np.ndarray],
    ) -> ModelSpec:
        groups = [str(name) for name in design.group_names]
        if self.spec is not None:
            return self.spec.for_groups(groups)
        rank = DEFAULT_RANK if self.rank is None else self.rank
        likelihood = self.likelihood
        if not isinstance(likelihood, Likelihood):
            kind = next(iter(self.LIKELIHOODS)) if likelihood is None else likelihood
            likelihood = self._make_likelihood(self.LIKELIHOODS[kind], design, y, weight)
        spec = default_spec(y, rank, weight, likelihood, row_data)
        priors: dict[str, Any] = {
            name: per_group(name, given, getattr(spec, name), groups) if isinstance(given, Mapping) else given
            for name, given in self._given_priors().items()
        }
        return replace(spec, **priors).for_groups(groups)

    def _given_priors(self) -> dict[str, Any]:
        priors = {"prior_w": self.prior_w, "prior_v": self.prior_v}
        return {name: prior for name, prior in priors.items() if prior is not None}

    def _make_likelihood(
        self,
        kind: type[Likelihood],
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
    ) -> Likelihood:
        return kind.for_response(y, weight)

    def _check_likelihood(self) -> None:
        likelihood, kinds = self.likelihood, (*self.LIKELIHOODS.values(), *self.MORE_LIKELIHOODS)
        given = type(likelihood) if isinstance(likelihood, Likelihood) else None
        if self.spec is not None:
            if likelihood is not None:
                raise ValueError(
                    "likelihood and spec were both given, and spec has a likelihood: leave one out"
                )
            given = type(self.spec.likelihood)
        elif given is None:
            check_choice("likelihood", likelihood, (None, *self.LIKELIHOODS))
        if given is not None and given not in kinds:
            fitting = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{type(self).__name__} takes likelihoods {fitting}; got {given.__name__}")

    def _check_priors(self) -> None:
        for name, prior in self._given_priors().items():
            as_prior(name, prior)
            if self.spec is not None:
                raise ValueError(f"{name} and spec were both given, and spec has a {name}: leave one out")

    def _check_options(self) -> ChainOptions:
        check_choice("inference", self.inference, ENGINES)
        parameters = signature(FactorizationMachine.__init__).parameters
        check_engine(self, {name: p.default for name, p in parameters.items()})
        self._check_rank()
        self._check_likelihood()
        self._check_priors()
        for name in ("progress", "resume", "draws_on_disk", "warm_start"):
            check_bool(name, getattr(self, name))
        check_keep(self.keep)
        if not isinstance(self.checkpoint, str | PathLike | None):
            raise TypeError(f"checkpoint must be the path of a folder or None, got {self.checkpoint!r}")
        if self.resume and self.random_state is None:
            raise ValueError("resume=True needs the random_state of the interrupted run, got None")
        return ChainOptions(**{f.name: getattr(self, f.name) for f in fields(ChainOptions)})

    def _check_rank(self) -> None:
        if self.rank is not None:
            FM(self.rank)
        if self.spec is None:
            return
        if not isinstance(self.spec, ModelSpec):
            raise TypeError(f"spec must be a ModelSpec or None, got {self.spec!r}")
        rank = self.spec.predictor.rank
        if self.rank not in (None, rank):
            raise ValueError(
                f"rank={self.rank!r} contradicts spec, whose rank is {rank}: leave rank out, and to compare ranks "
                "give one spec each"
            )

    def _encode_streams(self, encoder: DesignEncoder) -> dict[str, Design]:
        if self.predict_rows is None:
            return {}
        if not isinstance(self.predict_rows, Mapping):
            raise TypeError(f"predict_rows must map names to X, got {type(self.predict_rows).__name__}")
        wrong = [x for x in self.predict_rows if not isinstance(x, str) or not x or "/" in x]
        if wrong:
            raise ValueError(f"names in predict_rows must be strings without a slash, got {wrong[0]!r}")
        return {
            name: encoder.transform(check_X(self, X, reset=False)) for name, X in self.predict_rows.items()
        }

    def _remember(
        self,
        draws: Draws,
        spec: ModelSpec,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
        row_data: dict[str, np.ndarray],
        encoder: DesignEncoder,
    ) -> None:
        from bayesfm.diagnostics import warn_if_not_converged
        from bayesfm.posterior import to_datatree

        self._adopt(to_datatree(draws, spec, design, y, weight=weight, encoder=encoder, row_data=row_data))
        warn_if_not_converged(self.posterior_)

    def _adopt(self, tree: xr.DataTree) -> None:
        """Set the attributes that follow from the posterior: the same after ``fit`` and after ``load``."""
        from bayesfm.posterior import restore, restore_streams
        from bayesfm.predictive import PredictiveMoments

        model, encoder = restore(tree)
        if encoder is None:
            raise ValueError("this posterior was sampled without an encoder: use bayesfm.predictive with it")
        self.posterior_ = tree
        self.model_, self.encoder_ = model, encoder
        self.spec_ = model.spec
        self.n_features_in_ = encoder.n_features_in_
        self.streams_ = {name: PredictiveMoments(*m.pooled()) for name, m in restore_streams(tree).items()}
        self.fit_info_ = json.loads(tree.attrs["inference"])
        for name in ("objective", "elbo"):
            if name in self.fit_info_:
                self.loss_history_ = -np.asarray(self.fit_info_[name])

    def _encode(self, X: Any) -> Design:
        check_is_fitted(self, "posterior_")
        return self.encoder_.transform(check_X(self, X, reset=False))

    def summary(self, **options: Any) -> pd.DataFrame:
        """Mean, spread, R-hat and effective sample size of identified quantities: :func:`bayesfm.summary`."""
        from bayesfm.diagnostics import summary

        check_is_fitted(self, "posterior_")
        return summary(self.posterior_, **options)
