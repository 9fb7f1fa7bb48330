"""Options of the minibatch engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import optax

from bayesfm._checks import check_choice, check_count, check_positive
from bayesfm.inference.stochastic.optimisers import DEFAULT_RATES, named_optimiser

__all__ = ["EpochProgress", "MinibatchOptions"]

SCHEDULES = ("cosine", "constant")
LAST_RATE = 0.01
"""Where the cosine ends, as a part of where it begins."""


class EpochProgress(NamedTuple):
    """What a callback sees after an epoch.

    ``objective`` is the log joint density of a point, or the evidence lower bound, as seen in passing: every batch
    before its step. Held-out scores are None where nothing is held out.
    """

    epoch: int
    num_epochs: int
    objective: float
    held_out_log_density: float | None
    held_out_rmse: float | None
    rows_per_second: float


@dataclass(frozen=True)
class MinibatchOptions:
    """How rows are passed over.

    Parameters
    ----------
    num_epochs : int
        Passes over the rows, at most.
    batch_size : int, optional
        Rows of a step. By default a power of two near n/128, from 64 to 8192.
    optimiser : {"adam", "adagrad", "sgd"} or optax.GradientTransformation
        Every feature has one of its own, which takes a step when a batch touches the feature; see
        ``inference/stochastic/optimisers.py``. What an optax transformation counts or norms is thus of one feature;
        it brings its own learning rate, unless one is given.
    learning_rate : float or callable, optional
        A number, or a function of the number of the step (an optax schedule). For "adam" and "adagrad" in units of what
        parameters are expected to be, by default 0.05 and 0.3; for "sgd" plain, of the objective per row, by default 1.
    schedule : {"cosine", "constant"}
        What becomes of a number: it falls to a hundredth over all epochs, or stays.
    shuffle : bool
        Draw the order of the rows anew in every epoch.
    patience : int, optional
        With held-out rows: epochs without a better held-out density after which to stop, counted from the middle of a
        falling learning rate. By default 3.
    progress : bool
        Show a bar.
    callback : callable, optional
        Called with :class:`EpochProgress` after every epoch; a true answer stops the run.
    """

    num_epochs: int = 20
    batch_size: int | None = None
    optimiser: str | optax.GradientTransformation = "adam"
    learning_rate: float | Callable[[int], Any] | None = None
    schedule: str = "cosine"
    shuffle: bool = True
    patience: int = 3
    progress: bool = True
    callback: Callable[[EpochProgress], Any] | None = None

    def __post_init__(self) -> None:
        check_count("num_epochs", self.num_epochs, minimum=1)
        check_count("patience", self.patience, minimum=1)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size, minimum=1)
        if isinstance(self.optimiser, str):
            check_choice("optimiser", self.optimiser, DEFAULT_RATES)
        elif not isinstance(self.optimiser, optax.GradientTransformation):
            raise TypeError(
                f"optimiser must be one of {', '.join(map(repr, DEFAULT_RATES))} or an optax.GradientTransformation; "
                f"got {self.optimiser!r}"
            )
        if self.learning_rate is not None and not callable(self.learning_rate):
            check_positive("learning_rate", self.learning_rate)
        check_choice("schedule", self.schedule, SCHEDULES)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {self.callback!r}")

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimiser of a feature."""
        return named_optimiser(self.optimiser) if isinstance(self.optimiser, str) else self.optimiser

    @property
    def scale_free(self) -> bool:
        """Whether steps do not know the size of the gradient, and are taken in units of the parameters."""
        return self.optimiser in ("adam", "adagrad")

    def size_of_batch(self, num_rows: int) -> int:
        """Rows of a step."""
        if self.batch_size is not None:
            return min(self.batch_size, num_rows)
        return min(num_rows, int(np.clip(1 << (num_rows // 128).bit_length(), 64, 8192)))

    @property
    def rate_falls(self) -> bool:
        """Whether the learning rate falls over the epochs."""
        constant = callable(self.learning_rate) or self.schedule == "constant"
        return not constant and isinstance(self.optimiser, str)

    def rate(self, step: int, num_steps: int | None) -> float:
        """Learning rate of a step, of so many if that is known."""
        if callable(self.learning_rate):
            return float(self.learning_rate(step))
        rate = self.learning_rate
        if rate is None:
            rate = DEFAULT_RATES[self.optimiser] if isinstance(self.optimiser, str) else 1.0
        if num_steps is None or not self.rate_falls:
            return rate
        falls = 0.5 * (1 + np.cos(np.pi * min(step / num_steps, 1.0)))
        return float(rate * (LAST_RATE + (1 - LAST_RATE) * falls))
