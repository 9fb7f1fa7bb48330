"""The runner of engines that climb, on a hill whose heights are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm._pytree import pytree
from bayesfm.inference.ascent import PIECE, AscentOptions, AscentProgress, climb


@pytree()
@dataclass(frozen=True)
class Hill:
    """-x^2, down by a share of the way in every step; scores are best at x = ``best``."""

    share: float
    best: float
    scored: bool | jax.Array = False

    def step(self, x: jax.Array) -> jax.Array:
        return (1 - self.share) * x

    def objective(self, x: jax.Array) -> jax.Array:
        return -x * x

    def score(self, x: jax.Array) -> jax.Array:
        return jnp.where(self.scored, -jnp.abs(x - self.best), jnp.nan)


def run(hill: Hill, **options: Any) -> Any:
    return climb(hill, jnp.asarray(8.0), AscentOptions(**{"progress": False, **options}), num_rows=10)


def test_history_has_every_iteration_once() -> None:
    state, ascent = run(Hill(0.5, 0.0), max_iterations=25, tolerance=0.0)
    np.testing.assert_allclose(ascent.objective, -(64.0 * 0.25 ** np.arange(26)), rtol=1e-5)
    assert float(state) == 8.0 * 0.5**25
    assert (ascent.iterations, len(ascent.scores)) == (25, 0)


def test_stops_when_it_hardly_rises() -> None:
    """By the mean rise of a piece, per row: 10 rows, so that 1e-3 means 1e-2."""
    _, ascent = run(Hill(0.5, 0.0), tolerance=1e-3)
    assert ascent.converged
    assert ascent.iterations == 2 * PIECE
    _, short = run(Hill(0.001, 0.0), max_iterations=PIECE)
    assert not short.converged


def test_the_best_score_is_kept() -> None:
    """x is nearest to 3 at the look after the second piece; patience says how many more there are."""
    hill = Hill(0.05, 3.0, scored=True)
    state, ascent = run(hill, max_iterations=1000, patience=2, tolerance=0.0)
    looks = 8.0 * 0.95 ** np.asarray(ascent.looked_at)
    best = int(np.argmin(np.abs(looks - 3.0)))
    np.testing.assert_allclose(float(state), looks[best], rtol=1e-5)
    assert len(looks) == best + 3
    assert ascent.converged


def test_a_callback_stops_it() -> None:
    seen: list[AscentProgress] = []
    _, ascent = run(Hill(0.01, 0.0), callback=lambda now: seen.append(now) or len(seen) == 2)
    assert [now.iteration for now in seen] == [PIECE, 2 * PIECE]
    assert ascent.iterations == 2 * PIECE
    assert seen[0].score is None


def test_numbers_that_are_none() -> None:
    """The message names the last height that was finite."""
    with pytest.raises(
        FloatingPointError, match=r"left the finite numbers by iteration 10; the last finite value was -\d"
    ):
        run(Hill(-1e3, 0.0), max_iterations=30)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_iterations": 0}, ValueError, "max_iterations"),
        ({"tolerance": -1.0}, ValueError, "tolerance must not be negative"),
        ({"patience": 0}, ValueError, "patience"),
        ({"callback": 3}, TypeError, "callback must be callable"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        AscentOptions(**options)
