"""When a run looks at its draws, what it keeps of them, and when it is over."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from bayesfm.inference.convergence import judge
from bayesfm.inference.course import Course, Trace, draws_per_kept
from bayesfm.inference.identified import Identified
from bayesfm.inference.options import ChainOptions
from bayesfm.model import ModelSpec

AUTO: dict[str, Any] = {"num_samples": "auto", "num_warmup": 100, "max_draws": 400, "max_sweeps": 6000}
MANY = 10**9
NORMAL = np.random.default_rng(0).normal(size=20_000)


def mixing(sweeps: np.ndarray) -> np.ndarray:
    """Two chains that agree: a function of the number of the sweep."""
    return np.stack([NORMAL[sweeps + shift] for shift in (0, 9000)])


def drifting_until(sweep: int) -> Any:
    """Chains that come from afar, and are there by then."""

    def draws(sweeps: np.ndarray) -> np.ndarray:
        return mixing(sweeps) + 20.0 * np.maximum(0.0, 1.0 - sweeps / sweep)

    return draws


def drifting_for_ever(sweeps: np.ndarray) -> np.ndarray:
    return mixing(sweeps) + 0.01 * sweeps


def new_course(restarts: bool = True, **options: Any) -> Course:
    chosen = ChainOptions(**{**AUTO, **options})
    return Course(chosen, Trace(Identified(ModelSpec()), chosen.capacity, ("lp",)), restarts)


def run(
    course: Course, chain: Any, room: int = MANY, sweeps: int = MANY, looks: list[int] | None = None
) -> list[int]:
    """The numbers of the sweeps whose draws are there in the end; the last sweep of a piece is reported."""
    assert course.trace is not None
    kept: list[int] = []
    while (piece := course.next_piece(room, sweeps)) is not None:
        if course.halving:
            course.trace.halve(course.kept)
            kept = kept[1::2]
        at = course.sweeps + piece.sweeps * (1 + np.arange(piece.draws))
        was_warmup = course.warming_up
        course.done(piece)
        if not was_warmup:
            kept += at.tolist()
            course.trace.append({"lp": chain(at)}, course.kept - piece.draws)
        last = course.judged
        anew = course.look()
        if looks is not None and course.judged is not last:
            looks.append(course.sweeps)
        if anew:
            kept = []
        assert len(kept) == course.kept <= course.options.capacity
    return kept


def test_every_other_draw_is_dropped_when_there_are_too_many() -> None:
    for capacity in (4, 10):
        kept: list[int] = []
        for draw in range(1, 200):
            if draws_per_kept(draw, capacity) > draws_per_kept(draw - 1, capacity):
                kept = kept[1::2]
            if draw % draws_per_kept(draw, capacity) == 0:
                kept.append(draw)
            assert capacity // 2 <= len(kept) <= capacity or draw < capacity
            assert np.ptp(np.diff([0, *kept])) == 0
            assert len(kept) == draw // draws_per_kept(draw, capacity)


def test_a_run_of_fixed_length_is_as_long_as_was_asked_for() -> None:
    course = Course(ChainOptions(num_warmup=7, num_samples=12, thin=3))
    seen = []
    while (piece := course.next_piece(5, 9)) is not None:
        seen.append(tuple(piece))
        course.done(piece)
        assert not course.halving or course.draws == 12
        assert not course.look()
    assert seen == [(1, 7, 0), *[(3, 3, 1)] * 4]
    assert (course.sweeps, course.draws, course.kept, course.warmup) == (43, 12, 12, 7)
    assert course.record() == {}


def test_a_run_is_over_when_it_is_done() -> None:
    course = new_course()
    kept = run(course, mixing)
    record = course.record()
    assert record["stopped_by"] == "target"
    assert record["num_warmup"] == 100
    assert record["num_samples"] == len(kept) < 1000
    assert record["num_sweeps"] == kept[-1]
    assert course.judged is not None
    assert course.judged.enough(400)


def test_warmup_is_as_long_as_the_chains_are_on_their_way() -> None:
    course = new_course()
    kept = run(course, drifting_until(350))
    assert course.warmup == 400 == kept[0] - 1
    assert course.stopped_by == "target"
    fixed = new_course(restarts=False)
    kept = run(fixed, drifting_until(350))
    assert fixed.warmup == 100
    assert fixed.sweeps > course.sweeps  # what came before has to be outweighed


@pytest.mark.parametrize("chain", [mixing, drifting_until(350), drifting_for_ever])
@pytest.mark.parametrize("options", [{}, {"thin": 3}, {"num_warmup": 0}, {"num_warmup": 33, "thin": 7}])
def test_pieces_leave_no_trace(chain: Any, options: dict[str, Any]) -> None:
    options = {**options, "max_sweeps": 2000}
    whole, looks = new_course(**options), list[int]()
    kept = run(whole, chain, looks=looks)
    for room, sweeps in ((1, 1), (7, MANY), (MANY, 50)):
        course = new_course(**options)
        looks_here: list[int] = []
        assert run(course, chain, room, sweeps, looks_here) == kept
        assert looks_here == looks
        assert course.record() == whole.record()


def test_looks_are_three_to_a_doubling() -> None:
    looks: list[int] = []
    run(new_course(max_sweeps=1000), drifting_for_ever, looks=looks)
    assert looks == [126, 159, 200, 252, 318, 400, 504, 635, 800, 1000]
    looks = []
    run(new_course(max_sweeps=300, num_warmup=0), drifting_for_ever, looks=looks)
    assert looks == [50, 63, 80, 100, 126, 159, 200, 252, 300]


def test_what_is_judged_is_what_is_kept() -> None:
    course = new_course(max_sweeps=3000)
    kept = run(course, drifting_for_ever)
    assert course.per_kept == 8
    assert course.judged is not None
    judged = judge(drifting_for_ever(np.array(kept))[..., None])
    assert (course.judged.rhat, course.judged.bulk, course.judged.tail) == (
        judged.rhat,
        judged.bulk,
        judged.tail,
    )


def test_at_the_limit_it_is_over_even_so() -> None:
    course = new_course(max_sweeps=1999)
    kept = run(course, drifting_for_ever)
    assert course.stopped_by == "max_sweeps"
    assert course.warmup == 800  # a warm-up of 1600 would leave less than it took
    step = kept[1] - kept[0]
    assert 1999 - step < course.sweeps <= 1999
    assert kept[-1] == course.sweeps


def test_done_at_the_limit_is_done() -> None:
    """The last draws are judged whether or not it is time for a look."""
    needed = new_course()
    run(needed, mixing)
    course = new_course(max_sweeps=needed.sweeps + 1)
    run(course, mixing)
    assert course.stopped_by == "target"
    short = new_course(max_sweeps=250)
    run(short, mixing)
    assert short.stopped_by == "max_sweeps"
    assert short.judged is not None
    assert len(short.judged.rhat) == 1


def test_time_ends_a_run_that_has_draws() -> None:
    course = new_course(max_seconds=1e-9)
    kept = run(course, drifting_for_ever, 1, 1)
    assert course.stopped_by == "max_seconds"
    assert len(kept) == 8
    course = new_course(max_seconds=3600.0)
    run(course, drifting_for_ever, 1, 500)
    assert course.stopped_by == "max_sweeps"
    assert time.perf_counter() - course.began < 3600


def test_a_course_goes_on_where_it_was() -> None:
    """From sweeps and draws alone; a run that was over is over."""
    whole = new_course()
    kept = run(whole, drifting_until(350))
    again = new_course()
    again.sweeps, again.draws = whole.sweeps, whole.draws
    assert again.trace is not None
    assert again.warmup == whole.warmup
    again.trace.append({"lp": drifting_until(350)(np.array(kept))}, 0)
    assert not again.look()
    assert again.next_piece(MANY, MANY) is None
    assert again.record() == whole.record()
