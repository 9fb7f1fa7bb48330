"""What the tests of the estimators share."""

from __future__ import annotations

import warnings

import pytest

from bayesfm.diagnostics import ConvergenceWarning
from bayesfm.estimators import FMRegressor, base
from tests.estimators.data import quick, random_engine, ratings


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers for draws, where only what stands around them is looked at."""
    monkeypatch.setitem(base.ENGINES, "gibbs", random_engine)


@pytest.fixture(scope="package")
def fitted() -> FMRegressor:
    """A model of the ratings, fitted once."""
    X, y = ratings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return quick().fit(X, y)
