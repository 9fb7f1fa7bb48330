"""The scikit-learn face: ``fit``, ``predict`` with a standard deviation, intervals, and the posterior behind them."""

from __future__ import annotations

import json
import numbers
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from bayesfm._checks import check_choice, check_finite
from bayesfm.design import Design, DesignEncoder
from bayesfm.design.encoding import _kind_of
from bayesfm.inference.chains import ChainOptions, Progress
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import ModelSpec, default_spec

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from arviz_stats.utils import ELPDData

    from bayesfm.predictive import PredictiveMoments

__all__ = ["FMRegressor"]

type Seed = int | np.random.RandomState | np.random.Generator | None

DEFAULT_RANK = 8


def _gibbs(
    estimator: _FactorizationMachine,
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None,
    streams: Mapping[str, Design],
) -> Draws:
    return gibbs(
        key,
        spec,
        design,
        y,
        weight=weight,
        options=estimator._chain_options(),
        factor_block=estimator.factor_block,
        keep=estimator.keep,
        streams=streams,
    )


ENGINES: dict[str, Callable[..., Draws]] = {"gibbs": _gibbs}
"""Name -> engine, a function of (estimator, key, spec, design, y, weight, streams)."""


class _FactorizationMachine(BaseEstimator):
    """What factorization machines of every likelihood share; see :class:`FMRegressor` for the parameters."""

    def __init__(
        self,
        rank: int = DEFAULT_RANK,
        *,
        inference: str = "gibbs",
        spec: ModelSpec | None = None,
        groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        categorical: Sequence[str] | None = None,
        numeric: Sequence[str] | None = None,
        num_warmup: int = 200,
        num_samples: int = 500,
        num_chains: int = 2,
        thin: int = 1,
        factor_block: int | str = "auto",
        chain_method: str = "auto",
        keep: str | Sequence[str] = "all",
        predict_rows: Mapping[str, Any] | None = None,
        progress: bool = False,
        callback: Callable[[Progress], Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        draws_on_disk: bool = False,
        random_state: Seed = None,
    ) -> None:
        self.rank = rank
        self.inference = inference
        self.spec = spec
        self.groups = groups
        self.categorical = categorical
        self.numeric = numeric
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.thin = thin
        self.factor_block = factor_block
        self.chain_method = chain_method
        self.keep = keep
        self.predict_rows = predict_rows
        self.progress = progress
        self.callback = callback
        self.checkpoint = checkpoint
        self.resume = resume
        self.draws_on_disk = draws_on_disk
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
            See :class:`~bayesfm.design.DesignEncoder`. In a DataFrame **integer columns are ids**; in a matrix every
            column is a number.
        y : array-like of shape (n,)
            Response: finite real numbers.
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
        """
        check_choice("inference", self.inference, ENGINES)
        self._chain_options()
        y = self._check_y(y)
        encoder = DesignEncoder(self.categorical, self.numeric, self.groups)
        design = encoder.fit_transform(self._check_X(X, reset=True))
        check_consistent_length(np.empty(design.num_rows), y)
        streams = self._encode_streams(encoder)
        design, y, weight = _drop_weightless(design, y, sample_weight)
        spec = self._make_spec(y, weight)
        draws = ENGINES[self.inference](self, _key(self.random_state), spec, design, y, weight, streams)
        if draws.num_draws == 0:
            raise RuntimeError("the callback stopped the run in its warm-up: there is no draw to predict with")
        self._remember(draws, spec, encoder, design, y, weight)
        return self

    def _chain_options(self) -> ChainOptions:
        if self.resume and self.random_state is None:
            raise ValueError("resume=True needs the random_state of the interrupted run, got None: give it a number")
        return ChainOptions(
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            thin=self.thin,
            num_chains=self.num_chains,
            chain_method=self.chain_method,
            progress=self.progress,
            callback=self.callback,
            checkpoint=self.checkpoint,  # type: ignore[arg-type]
            resume=self.resume,
            draws_on_disk=self.draws_on_disk,
        )

    def _make_spec(self, y: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"] | None) -> ModelSpec:
        if self.spec is None:
            return default_spec(y, self.rank, weight)
        if not isinstance(self.spec, ModelSpec):
            raise TypeError(f"spec must be a ModelSpec or None, got {self.spec!r}")
        rank = self.spec.predictor.rank
        if self.rank not in (DEFAULT_RANK, rank):
            raise ValueError(f"rank={self.rank} contradicts the rank {rank} of spec: leave rank out, it comes with spec")
        return self.spec

    def _check_X(self, X: Any, reset: bool) -> Any:
        """X as the encoder takes it; feature names and their number as scikit-learn wants them checked."""
        X = _with_string_names(X)
        kind = _kind_of(X)
        if kind == "matrix":
            return validate_data(self, X, reset=reset, accept_sparse="csr", dtype="numeric")
        if kind == "table" or reset:
            validate_data(self, X, reset=reset, skip_check_array=True)
        return X
