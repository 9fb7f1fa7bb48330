"""Minibatch engines: their front doors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_choice, check_count, check_probability
from bayesfm.design import Design
from bayesfm.inference.draws import Draws
from bayesfm.inference.problem import kept_sites
from bayesfm.inference.stochastic.batches import Rows, Totals
from bayesfm.inference.stochastic.learner import EXPECTATIONS, Learner
from bayesfm.inference.stochastic.options import MinibatchOptions
from bayesfm.inference.stochastic.results import draws_of
from bayesfm.inference.stochastic.training import HeldOut, split_rows, train
from bayesfm.model import ModelSpec

__all__ = ["Learned", "learn", "stochastic_map", "svi"]

SCALE_EPOCHS = 10
"""Epochs of an approximation that estimate the scales of a point; measured, see docs/engines.md."""


def stochastic_map(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: MinibatchOptions | None = None,
    scales: str | Mapping[str, Any] = "estimate",
    scale_epochs: int = SCALE_EPOCHS,
    start: Mapping[str, Any] | None = None,
    held_out: float | HeldOut | tuple[Any, ...] | None = None,
    keep: Sequence[str] | str = "all",
) -> Draws:
    """The mode of the joint density at given scales, by minibatches.

    Parameters
    ----------
    key : typed key
        ``jax.random.key(seed)``.
    spec : ModelSpec
        The model.
    design : Design
        n rows, p features.
    y : array of shape (n,)
        Response.
    weight : array of shape (n,), optional
        A row of weight c counts as c equal rows.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.
    options : MinibatchOptions, optional
        Epochs, batch size, optimiser, learning rate, progress.
    scales : "estimate", "prior" or mapping of str to array
        Hyperparameters of the priors: those that :func:`svi` finds in ``scale_epochs``; where the priors would start a
        chain, which hardly shrinks at all; or by site (``{"lambda_v": 4.0}``), each of the site's shape or of one that
        broadcasts to it, the others where the priors would start. They are fixed: the joint density has no mode in
        scales and parameters together, but grows without bound as scales vanish. Parameters of the likelihood are
        optimised.
    scale_epochs : int, default=10
        Epochs that estimate scales, of the same batches and by the same optimiser (measured, see docs/engines.md); by
        Adam where ``options.learning_rate`` is a function, whose steps are those of the point. They have a progress
        bar of their own, and ``options.callback`` does not see them.
    start : mapping of str to array, optional
        w0, w and v by site, as another engine found them; by default w = 0 and small random v.
    held_out : float or (design, y) or HeldOut, optional
        Rows to stop by: a fraction of the rows, drawn at random, or others. After every epoch they are scored by
        their mean log predictive density; the best parameters are kept.
    keep : "all", "hyper" or sequence of str
        Sites to return.

    Returns
    -------
    Draws
        One chain with one draw; ``info`` has the history of losses, seconds and rows per second.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was expected and what came.
    FloatingPointError
        If steps were so long that the loss is no longer finite.

    References
    ----------
    Robbins & Monro (1951), A stochastic approximation method, Annals of Mathematical Statistics 22. Kingma & Ba
    (2015), Adam: a method for stochastic optimization, ICLR. Duchi, Hazan & Singer (2011), Adaptive subgradient
    methods for online learning and stochastic optimization, JMLR 12.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.stochastic import MinibatchOptions, stochastic_map
    >>> from bayesfm.model import default_spec
    >>> design = Design([Block.field("user", np.array([0, 0, 1, 1]), ["ann", "bob"])])
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> options = MinibatchOptions(num_epochs=5, progress=False)
    >>> draws = stochastic_map(jax.random.key(0), default_spec(y, rank=1), design, y, options=options)
    >>> draws.sites["w"].shape
    (1, 1, 2)
    """
    rest: dict[str, Any] = {"weight": weight, "row_data": row_data, "options": options, "scales": scales}
    rest |= {"scale_epochs": scale_epochs, "start": start}
    return _fit(key, spec, design, y, "point", held_out, num_samples=1, keep=keep, **rest)


def svi(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: MinibatchOptions | None = None,
    scales: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    update_scales: bool = True,
    expectation: str = "auto",
    held_out: float | HeldOut | tuple[Any, ...] | None = None,
    num_samples: int = 100,
    statistics: bool = False,
    keep: Sequence[str] | str = "all",
) -> Draws:
    """A normal approximation of the posterior with independent w0, w and v, by stochastic variational inference.

    Means and log standard deviations follow stochastic gradients of the evidence lower bound. Parameters of the
    likelihood and hyperparameters are points: the former follow the same gradients, the latter are re-estimated after
    every epoch from expected sufficient statistics (variational EM), for normal-gamma priors in closed form. Standard
    deviations are those of parameters one at a time, all others held: too small where parameters are correlated.

    Parameters
    ----------
    key, spec, design, y, weight, row_data, options, start, held_out, keep
        As for :func:`stochastic_map`; ``start`` has the means.
    scales : mapping of str to array, optional
        Hyperparameters of the priors by site, to begin with.
    update_scales : bool
        Re-estimate them; otherwise they are fixed.
    expectation : {"auto", "samples", "moments"}
        The expected log-likelihood is estimated from one draw of the parameters per step ("samples"), or integrated
        over a normal eta of the right mean and variance ("moments"): exact for Gaussian noise and for any likelihood
        at rank 0, an approximation otherwise, without noise. "auto" takes "moments" where that is exact.
    num_samples : int
        Draws from the approximation.
    statistics : bool
        Log joint density, log-likelihood and training error of every draw: a pass over the rows for each.

    Returns
    -------
    Draws
        One chain; parameters of the likelihood and hyperparameters are the same in all draws. The statistic ``log_q``
        is the log density of a draw under the approximation.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As for :func:`stochastic_map`.

    References
    ----------
    Hoffman, Blei, Wang & Paisley (2013), Stochastic variational inference, JMLR 14. Kingma & Welling (2014),
    Auto-encoding variational Bayes, ICLR. Titsias & Lázaro-Gredilla (2014), Doubly stochastic variational Bayes for
    non-conjugate inference, ICML.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.stochastic import MinibatchOptions, svi
    >>> from bayesfm.model import default_spec
    >>> design = Design([Block.field("user", np.array([0, 0, 1, 1]), ["ann", "bob"])])
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> options = MinibatchOptions(num_epochs=5, progress=False)
    >>> draws = svi(jax.random.key(0), default_spec(y, rank=1), design, y, options=options, num_samples=10)
    >>> draws.sites["w"].shape
    (1, 10, 2)
    """
    check_choice("expectation", expectation, EXPECTATIONS[1:])
    for name, value in (("update_scales", update_scales), ("statistics", statistics)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    rest: dict[str, Any] = {"weight": weight, "row_data": row_data, "options": options, "scales": scales}
    return _fit(
        key,
        spec,
        design,
        y,
        expectation,
        held_out,
        num_samples=check_count("num_samples", num_samples, minimum=1),
        keep=keep,
        statistics=statistics,
        start=start,
        update_scales=update_scales,
        **rest,
    )


def _fit(
    key: Key[Array, ""],
    spec: ModelSpec,
    *given: Any,
    num_samples: int,
    keep: Any,
    statistics: bool = True,
    **rest: Any,
) -> Draws:
    kept = kept_sites(keep, spec)
    return learn(key, spec, *given, **rest).draws(num_samples, kept, statistics)


class Learned(NamedTuple):
    """A learner after its epochs, and what it takes to draw from what it found."""

    learner: Learner
    source: Rows
    design: Design
    key: Key[Array, ""]
    info: dict[str, Any]

    def draws(self, num_samples: int, kept: Sequence[str], statistics: bool) -> Draws:
        """Draws of these sites; with ``statistics`` a pass over the training rows for each."""
        source = self.source if statistics else None
        return draws_of(self.key, self.learner, self.design, num_samples, kept, self.info, source)


def learn(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    expectation: str,
    held_out: float | HeldOut | tuple[Any, ...] | None,
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: MinibatchOptions | None = None,
    scales: str | Mapping[str, Any] | None = None,
    scale_epochs: int = SCALE_EPOCHS,
    start: Mapping[str, Any] | None = None,
    update_scales: bool = False,
) -> Learned:
    """Split the rows, and learn from them in epochs; for those who want to go on with the learner.

    See :func:`stochastic_map` and :func:`svi`; ``expectation`` is "point" for the former.
    """
    options = MinibatchOptions() if options is None else options
    key_split, key_learner, key_draws = jax.random.split(key, 3)
    train_rows, others = _split(key_split, HeldOut(design, y, weight, row_data), held_out)
    n = train_rows.design.num_rows
    began = time.perf_counter()
    given = _given_scales(key_learner, spec, train_rows, options, scales, scale_epochs, start, expectation)
    seconds_for_scales = time.perf_counter() - began
    learner = Learner(
        key_learner,
        spec,
        train_rows.design,
        train_rows.y,
        weight=train_rows.weight,
        row_data=train_rows.row_data,
        expectation=expectation,
        options=options,
        scales=given,
        start=start,
        totals=Totals.of(train_rows.design),
    )
    source = learner.rows(*train_rows)
    began = time.perf_counter()
    history = train(learner, source, None if others is None else learner.rows(*others), update_scales)
    seconds = time.perf_counter() - began
    info = {
        "num_epochs": len(history.epoch),
        "best_epoch": history.best_epoch,
        "history": history.as_dict(),
        "objective": history.objective,
        "seconds": seconds,
        "seconds_for_scales": seconds_for_scales,
        "rows_per_second": n * len(history.epoch) / seconds,
    }
    return Learned(learner, source, design, key_draws, info)


def _given_scales(
    key: Key[Array, ""],
    spec: ModelSpec,
    rows: HeldOut,
    options: MinibatchOptions,
    scales: str | Mapping[str, Any] | None,
    scale_epochs: int,
    start: Mapping[str, Any] | None,
    expectation: str,
) -> Mapping[str, Any] | None:
    """Hyperparameters by site that a learner begins with; None for those that the priors begin with.

    Those of a point stay: unless told otherwise they are learned before, with an approximation.
    """
    num_epochs = check_count("scale_epochs", scale_epochs, minimum=1)
    if expectation != "point" or not isinstance(scales, str | None):
        return scales  # type: ignore[return-value]  # other than a mapping, it is refused by name
    scales = "estimate" if scales is None else scales
    check_choice("scales", scales, ("estimate", "prior"))
    unknown = spec.prior_w.hyper_names() or (spec.predictor.rank and spec.prior_v.hyper_names())
    if scales == "prior" or not unknown:
        return None
    options = replace(options, num_epochs=num_epochs, callback=None)
    if callable(options.learning_rate):  # it counts the steps that find the point
        options = replace(options, optimiser="adam", learning_rate=None)
    learner = Learner(
        key,
        spec,
        rows.design,
        rows.y,
        weight=rows.weight,
        row_data=rows.row_data,
        expectation="auto",
        options=options,
        start=start,
        totals=Totals.of(rows.design),
    )
    train(learner, learner.rows(*rows), None, True, label="scales")
    return learner.scales


def _split(
    key: Key[Array, ""], given: HeldOut, held_out: float | HeldOut | tuple[Any, ...] | None
) -> tuple[HeldOut, HeldOut | None]:
    """Rows to learn from, and rows to stop by."""
    if held_out is None:
        return given, None
    if isinstance(held_out, tuple):
        if not 2 <= len(held_out) <= 4 or not isinstance(held_out[0], Design):
            raise TypeError(
                "held_out must be a fraction, or (design, y), or HeldOut(design, y, weight, row_data)"
            )
        return given, HeldOut(*held_out)
    fraction = check_probability("held_out", held_out)
    seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
    parts = split_rows(fraction, given.design.num_rows, seed)
    mine, others = (_take(given, rows) for rows in parts)
    return mine, others


def _take(given: HeldOut, rows: np.ndarray) -> HeldOut:
    n = given.design.num_rows
    y = np.asarray(given.y)
    if y.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one value per row of the design; got {y.shape}")
    weight = None if given.weight is None else np.asarray(given.weight)[rows]
    row_data = {name: np.asarray(x)[rows] if np.ndim(x) else x for name, x in (given.row_data or {}).items()}
    return HeldOut(given.design.take(rows), y[rows], weight, row_data)
