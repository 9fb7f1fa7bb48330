"""Learning from rows as they come: ``partial_fit`` of estimators whose engine takes steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import jax
import numpy as np
from jaxtyping import Array, Key
from sklearn.utils.metaestimators import available_if

from bayesfm.design import Design, DesignEncoder
from bayesfm.estimators.engines import STOCHASTIC, independent_draws, new_learner
from bayesfm.estimators.inputs import Rows, check_rows, check_X, seed_key, seen_rows
from bayesfm.estimators.warm_start import last_point
from bayesfm.model import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

    from bayesfm.estimators.base import FactorizationMachine
    from bayesfm.estimators.inputs import Seed
    from bayesfm.inference.stochastic import Learner

__all__ = ["PartialFit", "Stream"]

FOLLOWS = ("posterior_", "model_", "encoder_", "spec_", "streams_", "fit_info_", "loss_history_")
"""Attributes that follow from the posterior."""


@dataclass
class Stream:
    """What learns, how rows reach it, and the rows that came last."""

    learner: Learner
    encoder: DesignEncoder
    spec: ModelSpec
    key: Key[Array, ""]
    last: Rows


def _takes_steps(estimator: Any) -> bool:
    if estimator.inference not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is for inference={' or '.join(map(repr, STOCHASTIC))}, which learn in steps; this is "
            f"{estimator.inference!r}"
        )
    return True


class PartialFit:
    """``partial_fit``; the posterior is made of what was learned when it is first asked for."""

    if TYPE_CHECKING:
        # What FactorizationMachine has besides; at run time these would hide its own.
        encoder_: DesignEncoder
        posterior_: xr.DataTree
        spec_: ModelSpec
        keep: str | Sequence[str]
        num_samples: int | str
        random_state: Seed
        categorical: Sequence[str] | None
        numeric: Sequence[str] | None
        groups: Any
        _as_response: Callable[..., Any]
        _check_options: Callable[[], Any]
        _declare_classes: Callable[[Any], None]
        _make_spec: Callable[..., ModelSpec]
        _remember: Callable[..., None]
        _row_data: Callable[..., dict[str, np.ndarray]]

    def __getattr__(self, name: str) -> Any:
        """Attributes that follow from a posterior that was not made yet."""
        if name in FOLLOWS and self.__dict__.get("_stream") is not None and "posterior_" not in self.__dict__:
            self._settle()
            if name in self.__dict__:
                return self.__dict__[name]
        if name == "partial_fit":
            _takes_steps(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Copies go on from the parameters alone: what the optimiser remembers stays behind."""
        if self.__dict__.get("_stream") is not None and "posterior_" not in self.__dict__:
            self._settle()
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {name: x for name, x in state.items() if name != "_stream"}

    @available_if(_takes_steps)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        classes: Any = None,
        levels: Mapping[str, Iterable[Any]] | None = None,
        row_data: Mapping[str, Any] | None = None,
    ) -> Self:
        """Learn from some more rows, once, in their order.

        The first call says what columns there are, where y is centred and how large parameters may be expected to be:
        let its rows be many and typical. After ``fit``, or after ``load``, learning goes on from there. Scales of the
        priors stay as they are (``engine_options={"scales": ...}`` sets them at the start).

        Parameters
        ----------
        X : of the kind seen before; n rows
            A level that is new adds nothing to its row, and nothing is learned of it: name all levels in the first
            call, or hash them.
        y : array-like of shape (n,)
            Response.
        sample_weight : array-like of shape (n,), optional
            A row of weight c counts as c equal rows.
        classes : sequence, optional
            In the first call of an estimator of labels: all of them, where these rows do not have them all.
        levels : mapping of str to sequence, optional
            In the first call, of a DataFrame: levels of columns that are yet to come.
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, what was expected and what came.
        FloatingPointError
            If steps were so long that the loss is no longer finite.
        """
        stream = self.__dict__.get("_stream")
        first = stream is None and "posterior_" not in self.__dict__
        if not first and (levels is not None or (classes is not None and not self._same_classes(classes))):
            raise ValueError(
                "levels and classes are for the first call of partial_fit: they are known by now"
            )
        encoder = self._first_encoder(X, levels) if first else (stream.encoder if stream else self.encoder_)
        design = encoder.transform(check_X(self, X, reset=first))
        y = self._first_response(y, classes) if first else self._as_response(y, reset=False)
        own = seen_rows(self._row_data(row_data, design), sample_weight)
        rows = Rows(*check_rows(self, design, y, sample_weight), own)
        if stream is None:
            stream = self._begin(encoder, rows, first)
        _warn_of_new_levels(design)
        stream.learner.partial_fit(rows.design, rows.y, weight=rows.weight, row_data=rows.row_data)
        stream.last = rows
        for name in FOLLOWS:
            self.__dict__.pop(name, None)
        self._stream = stream
        return self

    def _same_classes(self, classes: Any) -> bool:
        return hasattr(self, "classes_") and np.array_equal(np.asarray(classes), self.classes_)

    def _first_encoder(self, X: Any, levels: Mapping[str, Iterable[Any]] | None) -> DesignEncoder:
        self._check_options()
        encoder = DesignEncoder(self.categorical, self.numeric, self.groups)
        return encoder.fit(check_X(self, X, reset=True), levels=levels)

    def _first_response(self, y: Any, classes: Any) -> Any:
        """Of labels the codes, those that are named in ``classes`` known beforehand."""
        if classes is None:
            return self._as_response(y, reset=True)
        if not hasattr(self, "_declare_classes"):
            raise ValueError(
                f"classes are for estimators of labels, and {type(self).__name__} has none: leave it out"
            )
        self._declare_classes(classes)
        return self._as_response(y, reset=False)

    def _begin(self, encoder: DesignEncoder, rows: Rows, first: bool) -> Stream:
        """A learner at the start, or at the posterior of a fit or a file."""
        self._check_options()
        spec = self._make_spec(*rows) if first else self.spec_
        start = None if first else last_point(self.posterior_, spec, rows.design)
        key, key_draws = jax.random.split(seed_key(self.random_state))
        return Stream(
            new_learner(cast("FactorizationMachine", self), key, spec, rows, start),
            encoder,
            spec,
            key_draws,
            rows,
        )

    def _settle(self) -> None:
        """The posterior of what was learned, with the rows that came last."""
        stream = self._stream
        learner, last = stream.learner, stream.last
        count = independent_draws(self.num_samples)
        draws = learner.draws(stream.key, last.design, num_samples=count, keep=self.keep)
        self._remember(draws, stream.spec, last.design, last.y, last.weight, last.row_data, stream.encoder)


def _warn_of_new_levels(design: Design) -> None:
    new = {b.name: len(b.unseen) for b in design.blocks if len(b.unseen)}
    if new:
        counts = ", ".join(f"{count} of {name!r}" for name, count in new.items())
        warnings.warn(
            f"levels that are new ({counts}) add nothing to their rows, and nothing is learned of them: name all "
            "levels in the first call (partial_fit(..., levels={...})), or hash them",
            UserWarning,
            skip_file_prefixes=(str(Path(__file__).parents[1]),),
        )
