"""The code of docs/building-blocks.md runs, and its posteriors find what the data were made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.statistics import assert_no_alarm, level, mcse, named, z_test

# Half a minute of compiling; test_term.py and test_numpyro_block.py are the quick ones.
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "building-blocks.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Every block of code, one after the other; the names afterwards."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def posterior_test(draws: np.ndarray, truth: np.ndarray | float) -> np.ndarray:
    """p-values of the truth under a normal posterior, whose mean is known up to its Monte Carlo standard error."""
    draws = np.asarray(draws, np.float64)
    error = np.stack([mcse(x[None]) for x in draws.reshape(len(draws), -1).T]).reshape(draws.shape[1:])
    return z_test(draws.mean(axis=0) - truth, np.hypot(draws.std(axis=0), error))


def test_the_season_is_found(page: dict[str, Any]) -> None:
    assert_no_alarm(named("bend", posterior_test(page["curve"], page["season"])))
    assert np.min(posterior_test(page["curve"], 0.0)) < level(1)


def test_the_season_is_found_by_minibatches(page: dict[str, Any]) -> None:
    assert page["step"]._cache_size() == 1
    assert_no_alarm(named("bend", posterior_test(page["learned"]["bend"], page["season"])))
    assert np.min(posterior_test(page["learned"]["bend"], 0.0)) < level(1)


def test_regressions_are_found(page: dict[str, Any]) -> None:
    truth = page["worth"] + page["style"] @ page["user_v"].mean(axis=0)
    found = named("by user", posterior_test(page["by_user"], truth))
    assert_no_alarm(found | named("sigma", posterior_test(page["draws"]["sigma"], 0.5)))
    assert np.all(posterior_test(page["by_user"], 0.0) < level(1))


def test_films_without_ratings_are_predicted(page: dict[str, Any]) -> None:
    truth = page["affinity"](page["who"], page["what"])
    assert_no_alarm(named("eta", posterior_test(page["cold"], truth)))
    # What is not known of a film is far less than what films differ by.
    assert np.mean(page["cold"].var(axis=0)) < 0.5 * truth.var()
