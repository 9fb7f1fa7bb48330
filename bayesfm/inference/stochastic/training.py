"""Epochs: order of rows, early stopping on held-out rows, history, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfm.design import Design
from bayesfm.inference.progress import ProgressBar
from bayesfm.inference.stochastic.batches import Rows
from bayesfm.inference.stochastic.learner import Learner, Score
from bayesfm.inference.stochastic.options import EpochProgress
from bayesfm.priors import Hyper

__all__ = ["HeldOut", "History", "split_rows", "train"]

SCALES_FROM = 0.25
"""Part of the epochs with scales as they are. Re-estimated from where parameters start they would be thought tiny, and
factors be pruned before they have learned anything (on ML-100k two of eight were left)."""


class HeldOut(NamedTuple):
    """Rows that nothing is learned from, to stop by; levels that training never saw are allowed."""

    design: Design
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"] | None = None
    row_data: Mapping[str, Any] | None = None


@dataclass
class History:
    """What happened, epoch by epoch.

    Attributes
    ----------
    epoch, objective, held_out_log_density, held_out_rmse, seconds : list
        One entry per epoch; held-out entries only with held-out rows, RMSE only where y has a mean. ``objective`` is
        the log joint density or the evidence lower bound as seen in passing, every batch before its step; ``seconds``
        since the start.
    best_epoch : int
        The epoch whose parameters were kept.
    """

    epoch: list[int] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    held_out_log_density: list[float] = field(default_factory=list)
    held_out_rmse: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0

    def as_dict(self) -> dict[str, list[Any]]:
        """Plain lists by name, those without entries left out."""
        names = ("epoch", "objective", "held_out_log_density", "held_out_rmse", "seconds")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


class _Snapshot(NamedTuple):
    """Parameters of the best epoch; what optimisers remember is not kept."""

    score: float
    params: jax.Array
    dense: dict[str, Any]
    hyper_w: Hyper
    hyper_v: Hyper


def train(
    learner: Learner,
    source: Rows,
    held_out: Rows | None,
    update_scales: bool,
    label: str = "minibatches",
) -> History:
    """Epochs over the rows, until there are enough or held-out rows are predicted no better.

    The learner then has the parameters of the epoch that predicted held-out rows best, or those of the last epoch.
    Patience begins where scales are updated, and half-way down a falling learning rate: long steps say little of where
    short ones will lead.
    """
    options, history, best = learner.options, History(), None
    began = time.perf_counter()
    n = source.design.num_rows
    first_scales = max(1, round(SCALES_FROM * options.num_epochs)) if update_scales else 0
    patient_until = max(first_scales, options.num_epochs // 2 if options.rate_falls else 0)
    steps_of_epoch = -(-n // learner.batcher.batch_size)
    num_steps = learner.steps + options.num_epochs * steps_of_epoch
    with ProgressBar(options.progress, options.num_epochs, 0, "epoch") as bar:
        for epoch in range(1, options.num_epochs + 1):
            start = time.perf_counter()
            order = learner.order(epoch, n) if options.shuffle else np.arange(n)
            objective = sum(value for _, value in learner.run(source, order, num_steps))
            rate = n / (time.perf_counter() - start)
            if update_scales and epoch >= first_scales:
                learner.update_scales()
            score = None if held_out is None else learner.score(held_out)
            _record(history, epoch, objective, score, time.perf_counter() - began)
            if score is not None and (best is None or score.log_density > best.score):
                best, history.best_epoch = _snapshot(learner, score.log_density), epoch
            seen = EpochProgress(epoch, options.num_epochs, objective, *_both(score), rate)
            bar.show(epoch, label, _shown(seen, n))
            stop = options.callback is not None and options.callback(seen)
            since = epoch - max(history.best_epoch, patient_until)
            if stop or (best is not None and since >= options.patience):
                break
    learner.check_finite()
    if best is None:
        history.best_epoch = history.epoch[-1]
    else:
        _restore(learner, best)
    return history


def _both(score: Score | None) -> tuple[float | None, float | None]:
    return (None, None) if score is None else (score.log_density, score.rmse)


def _record(history: History, epoch: int, objective: float, score: Score | None, seconds: float) -> None:
    history.epoch.append(epoch)
    history.objective.append(objective)
    history.seconds.append(seconds)
    if score is not None:
        history.held_out_log_density.append(score.log_density)
        if score.rmse is not None:
            history.held_out_rmse.append(score.rmse)


def _shown(seen: EpochProgress, num_rows: int) -> dict[str, str]:
    shown = {"rows/s": f"{seen.rows_per_second:.3g}", "loss": f"{-seen.objective / num_rows:.4f}"}
    if seen.held_out_log_density is not None:
        shown["held-out"] = f"{seen.held_out_log_density:.4f}"
    return shown


def _snapshot(learner: Learner, score: float) -> _Snapshot:
    """A copy: the next step writes into the learner's own arrays."""
    params = jnp.copy(learner.state.table[:, : learner.rule.width])
    dense = jax.tree.map(jnp.copy, learner.state.dense)
    return _Snapshot(score, params, dense, learner.hyper_w, learner.hyper_v)


def _restore(learner: Learner, best: _Snapshot) -> None:
    table = learner.state.table.at[:, : learner.rule.width].set(best.params)
    learner.state = learner.state._replace(table=table, dense=best.dense)
    learner.hyper_w, learner.hyper_v = best.hyper_w, best.hyper_v


def split_rows(held_out: float, num_rows: int, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to hold out, at random, each in their order."""
    count = round(held_out * num_rows)
    if not 0 < count < num_rows:
        raise ValueError(f"held_out={held_out} leaves no rows on one side: there are {num_rows}")
    out = np.zeros(num_rows, bool)
    out[np.random.default_rng(seed).choice(num_rows, count, replace=False)] = True
    return np.flatnonzero(~out), np.flatnonzero(out)
