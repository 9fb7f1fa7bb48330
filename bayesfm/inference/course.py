"""Where a run of chains is, what comes next, and when it is done.

Everything here is a function of the number of sweeps and of the draws, so that the size of pieces, an interruption and
a resumption leave no trace; only a limit in seconds ends a run by the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bayesfm.inference.convergence import MIN_DRAWS, Judgement, judge
from bayesfm.inference.identified import Identified
from bayesfm.inference.options import ChainOptions

__all__ = ["Course", "Piece", "Trace", "draws_per_kept"]

FIRST_LOOK = 50
"""Sweeps, where warm-up is shorter."""
LOOKS_PER_DOUBLING = 3
MAX_RHAT_TO_GO_ON = 1.05
"""Above it chains have not come to where they are going: it stands for some twenty effective draws per half-chain."""


class Piece(NamedTuple):
    """What to do next: so many draws of so many sweeps, each of which stands for so many (0 in warm-up)."""

    draws: int
    sweeps: int
    weight: int


def draws_per_kept(draws: int, capacity: int) -> int:
    """The power of two of which every so many-th draw is kept, where there is room for ``capacity``.

    Examples
    --------
    >>> from bayesfm.inference.course import draws_per_kept
    >>> [draws_per_kept(draws, 100) for draws in (0, 100, 101, 200, 201, 1600)]
    [1, 1, 2, 2, 4, 16]
    """
    return 1 << max(0, -(-draws // capacity) - 1).bit_length()


@dataclass
class Trace:
    """The identified scalars of the draws that are kept, chain by chain: all that a run looks at.

    Attributes
    ----------
    law : Identified
        What is identified.
    capacity : int
        Draws per chain that there is room for.
    sources : tuple of str
        Sites and statistics that the scalars are made of.
    """

    law: Identified
    capacity: int
    sources: tuple[str, ...]
    _values: np.ndarray | None = None

    def append(self, draws: Mapping[str, np.ndarray], first: int) -> None:
        """Draws ``first``, ``first + 1``, ... of all chains."""
        new = self.law({name: draws[name] for name in self.sources})
        if self._values is None:
            self._values = np.empty((len(new), self.capacity, new.shape[2]))
        self._values[:, first : first + new.shape[1]] = new

    def halve(self, kept: int) -> None:
        """Drop every other of ``kept`` draws, the first among them."""
        if self._values is not None:
            self._values[:, : kept // 2] = self._values[:, 1:kept:2].copy()

    def judge(self, kept: int) -> Judgement | None:
        """What the first ``kept`` draws say; None if they are too few to say anything."""
        if kept < MIN_DRAWS or self._values is None:
            return None
        return judge(self._values[:, :kept])


@dataclass
class Course:
    """Sweeps and draws that are done, per chain; whether there are more to come.

    Attributes
    ----------
    options : ChainOptions
        What was asked for.
    trace : Trace or None
        For a run that finds out for itself when it is done.
    restarts : bool
        Whether such a run may take its draws for warm-up. A kernel that adapts in a warm-up of fixed length may not.
    sweeps, draws : int
        Done, warm-up included; draws since then, of which every ``draws_per_kept``-th is there.
    judged : Judgement or None
        The last look.
    stopped_by : str or None
        Why the run is over: "target", "max_sweeps", "max_seconds" or "callback".
    """

    options: ChainOptions
    trace: Trace | None = None
    restarts: bool = True
    sweeps: int = 0
    draws: int = 0
    judged: Judgement | None = None
    stopped_by: str | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def warming_up(self) -> bool:
        """Whether the next sweep is one of those that are thrown away in any case."""
        return self.sweeps < self.options.num_warmup

    @property
    def warmup(self) -> int:
        """Sweeps thrown away."""
        return max(self.options.num_warmup, self.sweeps - self.draws * self.options.thin)

    @property
    def per_kept(self) -> int:
        """Draws for one that is there."""
        return draws_per_kept(self.draws, self.options.capacity)

    @property
    def kept(self) -> int:
        """Draws that are there."""
        return self.draws // self.per_kept

    @property
    def halving(self) -> bool:
        """Whether every other draw has to go before the next one comes."""
        return draws_per_kept(self.draws + 1, self.options.capacity) > self.per_kept

    def next_piece(self, room: int, sweeps: int) -> Piece | None:
        """About so many ``sweeps``, and no more draws than there is room for; None if the run is over."""
        if self.stopped_by is not None:
            return None
        if self.warming_up:  # one draw that nobody keeps
            return Piece(1, min(sweeps, self.options.num_warmup - self.sweeps), 0)
        per_kept = draws_per_kept(self.draws + 1, self.options.capacity)
        step = per_kept * self.options.thin
        left = (self.options.num_sweeps - self.sweeps) // step
        if left == 0:
            return None
        count = min(room, max(1, sweeps // step), left, self.options.capacity - self.draws // per_kept)
        if self.trace is not None:
            count = min(count, -(-(self._next_look() - self.sweeps) // step))
        return Piece(count, step, per_kept)

    def done(self, piece: Piece) -> None:
        """Count a piece."""
        self.sweeps += piece.draws * piece.sweeps
        self.draws += piece.draws * piece.weight

    def look(self) -> bool:
        """At the draws, if it is time to: whether they are to be taken for warm-up, and the chains to begin anew."""
        if self.trace is None or self.draws == 0:
            return False
        step = self.per_kept * self.options.thin
        at_end = self.next_piece(1, 1) is None
        late = self._late()
        if not (at_end or late or self._passed(step, LOOKS_PER_DOUBLING)):
            return False
        self.judged = self.trace.judge(self.kept)
        if self.judged is None:
            return False
        if self.judged.enough(self.options.wanted_ess):
            self.stopped_by = "target"
        elif at_end:
            self.stopped_by = "max_sweeps"
        elif late:
            self.stopped_by = "max_seconds"
        elif self._passed(step, 1) and self._still_on_the_way(self.judged):
            self.draws = 0
            return True
        return False

    def _still_on_the_way(self, judged: Judgement) -> bool:
        """Whether the draws are rather warm-up, and there are as many sweeps left to make up for them."""
        early = 2 * self.sweeps <= self.options.max_sweeps
        return self.restarts and early and judged.worst_rhat > MAX_RHAT_TO_GO_ON

    def record(self) -> dict[str, object]:
        """What a run that found out for itself says of its length."""
        if self.trace is None:
            return {}
        return {
            "num_warmup": int(self.warmup),
            "num_samples": int(self.kept),
            "thin": int(self.per_kept * self.options.thin),
            "num_sweeps": int(self.sweeps),
            "target_ess": float(self.options.target_ess),
            "stopped_by": self.stopped_by,
        }

    def _late(self) -> bool:
        limit = self.options.max_seconds
        return limit is not None and time.perf_counter() - self.began > limit

    def _look_at(self, j: int, per_doubling: int) -> int:
        return math.ceil(max(self.options.num_warmup, FIRST_LOOK) * 2.0 ** (j / per_doubling))

    def _next_look(self) -> int:
        """The first number of sweeps after those that are done at which it is time for a look."""
        j = 0
        while self._look_at(j, LOOKS_PER_DOUBLING) <= self.sweeps:
            j += 1
        return self._look_at(j, LOOKS_PER_DOUBLING)

    def _passed(self, step: int, per_doubling: int) -> bool:
        """Whether one of the looks fell into the last ``step`` sweeps."""
        j = 0
        while (at := self._look_at(j, per_doubling)) <= self.sweeps - step:
            j += 1
        return at <= self.sweeps
