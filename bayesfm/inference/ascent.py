"""The runner of engines that climb: iterations in jitted pieces, the host in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm._checks import check_count, check_finite
from bayesfm.inference.kernel import State
from bayesfm.inference.progress import ProgressBar

__all__ = ["Ascent", "AscentOptions", "AscentProgress", "Climber", "climb"]

PIECE = 10
"""Iterations between two looks of the host."""


@dataclass(frozen=True)
class AscentOptions:
    """How long to climb, and when to stop.

    Parameters
    ----------
    max_iterations : int
        At most so many iterations.
    tolerance : float
        Converged when the objective rises by less than this per row and iteration.
    patience : int
        With validation rows: stop after so many looks (one every ten iterations) without a better score. The best
        state is kept.
    progress : bool
        Show a bar.
    callback : callable, optional
        Called with an :class:`AscentProgress` after every look; a true answer stops the climb.
    """

    max_iterations: int = 500
    tolerance: float = 3e-6
    patience: int = 3
    progress: bool = True
    callback: Callable[[AscentProgress], Any] | None = None

    def __post_init__(self) -> None:
        check_count("max_iterations", self.max_iterations, minimum=1)
        check_count("patience", self.patience, minimum=1)
        if check_finite("tolerance", self.tolerance) < 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance!r}")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {self.callback!r}")


class AscentProgress(NamedTuple):
    """What a callback sees."""

    iteration: int
    max_iterations: int
    objective: float
    score: float | None


class Ascent(NamedTuple):
    """How a climb went.

    ``objective`` has its value before every iteration and at the end, ``scores`` the validation score at every look,
    after ``looked_at`` iterations.
    """

    objective: Float[np.ndarray, " iterations"]
    scores: Float[np.ndarray, " looks"]
    looked_at: Int[np.ndarray, " looks"]
    converged: bool
    iterations: int
    seconds: float


class Climber(Protocol):
    """What the runner asks of an engine, as a pytree."""

    def step(self, state: State) -> State:
        """One iteration."""
        ...

    def objective(self, state: State) -> Float[Array, ""]:
        """What is to rise."""
        ...

    def score(self, state: State) -> Float[Array, ""]:
        """How well the state predicts validation rows; not a number where there are none."""
        ...


def climb(climber: Climber, state: State, options: AscentOptions, num_rows: int) -> tuple[State, Ascent]:
    """Iterate until the objective no longer rises, the score no longer does, or the iterations are used up.

    Raises
    ------
    FloatingPointError
        If the objective leaves the finite numbers; the message names the last one that was.
    """
    began, done, since_best = time.perf_counter(), 0, 0
    objective: list[float] = []
    scores, looked_at = [], []
    best, best_score, converged = state, -np.inf, False
    with ProgressBar(options.progress, options.max_iterations, 0) as bar:
        while done < options.max_iterations and not converged:
            count = min(PIECE, options.max_iterations - done)
            state, history = _advance(climber, state, count)
            # Its first value is the last one of the piece before.
            objective = objective[:-1] + np.asarray(history, np.float64)[: count + 1].tolist()
            done += count
            _check(objective, done)
            score = float(_score(climber, state))
            rate = done / max(time.perf_counter() - began, 1e-9)
            bar.update(done, False, rate, {"objective": np.asarray(objective[-1:])})
            if np.isfinite(score):
                scores.append(score)
                looked_at.append(done)
                since_best = 0 if score > best_score else since_best + 1
                best, best_score = (state, score) if score > best_score else (best, best_score)
            rise = (objective[-1] - objective[-1 - count]) / count
            converged = rise < options.tolerance * num_rows or since_best >= options.patience
            if options.callback is not None:
                seen = AscentProgress(done, options.max_iterations, objective[-1], score if scores else None)
                if options.callback(seen):
                    break
    found = best if scores else state
    history = np.asarray(objective)
    seconds = time.perf_counter() - began
    return found, Ascent(history, np.asarray(scores), np.asarray(looked_at, int), converged, done, seconds)


def _check(objective: list[float], done: int) -> None:
    if np.isfinite(objective[-1]) and all(np.isfinite(objective[-PIECE:])):
        return
    finite = [x for x in objective if np.isfinite(x)]
    last = f"the last finite value was {finite[-1]:.6g}" if finite else "it was not finite at the start"
    raise FloatingPointError(
        f"the objective left the finite numbers by iteration {done}; {last}. Standardise columns of X with large "
        "values, or give priors with more weight on small scales"
    )


@jax.jit
def _advance(climber: Climber, state: State, count: Int[Array, ""]) -> tuple[State, Float[Array, " piece"]]:
    """``count`` iterations, with the objective before each of them and after the last."""

    def one(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, history = carry
        history = history.at[i].set(climber.objective(state))
        # In a branch of its own, so that the objective is compiled once.
        return lax.cond(i < count, climber.step, lambda state: state, state), history

    history = jnp.zeros_like(jax.eval_shape(climber.objective, state), shape=(PIECE + 1,))
    return lax.fori_loop(0, count + 1, one, (state, history))


_score = jax.jit(lambda climber, state: climber.score(state))
