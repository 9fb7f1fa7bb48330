"""Options of runs that find out for themselves when they are done; those of all runs are in test_chains.py."""

from __future__ import annotations

from typing import Any

import pytest

from bayesfm.inference.options import ChainOptions


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_samples": "many"}, ValueError, "num_samples must be an integer >= 1 or 'auto', got 'many'"),
        ({"target_ess": 0}, ValueError, "target_ess must be > 0"),
        ({"target_ess": "400"}, TypeError, "target_ess must be a real number"),
        ({"max_sweeps": 0}, ValueError, "max_sweeps must be >= 1"),
        ({"max_sweeps": 1e4}, TypeError, "max_sweeps must be an integer"),
        (
            {"max_sweeps": 215, "thin": 2},
            ValueError,
            "8 draws after num_warmup=200, 216 sweeps at thin=2; got 215",
        ),
        ({"max_seconds": 0.0}, ValueError, "max_seconds must be > 0"),
        ({"max_draws": 1}, ValueError, "max_draws must be >= 2"),
        (
            {"max_draws": 399},
            ValueError,
            "max_draws=399 is too few for 400 effective draws in 2 chain.*least 400",
        ),
        (
            {"max_draws": 199, "num_chains": 8},
            ValueError,
            "too few for 800 effective draws in 8 chain.*least 200",
        ),
    ],
)
def test_silly_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChainOptions(**{"num_samples": "auto", **options})


@pytest.mark.parametrize(
    ("name", "value"), [("target_ess", 300), ("max_sweeps", 100), ("max_seconds", 1.0), ("max_draws", 400)]
)
def test_a_fixed_length_has_no_use_for_them(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} is for num_samples='auto'.*got num_samples=500"):
        ChainOptions(**{name: value})  # type: ignore[arg-type]


def test_room_follows_what_is_asked_for() -> None:
    assert ChainOptions(num_samples=77).capacity == 77
    assert ChainOptions(num_samples="auto").capacity == 1000
    assert ChainOptions(num_samples="auto", num_chains=1).capacity == 1600
    assert ChainOptions(num_samples="auto", target_ess=1500).capacity == 3000
    assert ChainOptions(num_samples="auto", max_draws=501).capacity == 500


def test_identity_of_a_run() -> None:
    """All that changes a draw; how long a call may take does not."""
    runs = [
        ChainOptions(num_samples="auto", **more)  # type: ignore[arg-type]
        for more in ({}, {"target_ess": 401}, {"max_sweeps": 999}, {"max_draws": 800}, {"thin": 2})
    ]
    assert len({str(options.identity("sequential")) for options in (*runs, ChainOptions())}) == 6
    assert runs[0].identity("x") == ChainOptions(num_samples="auto", max_seconds=9.0).identity("x")
    assert set(ChainOptions().identity("x")) == {
        "num_warmup",
        "num_samples",
        "thin",
        "num_chains",
        "chain_method",
    }
