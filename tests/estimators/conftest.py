"""What the tests of the estimators share."""

from __future__ import annotations

import pytest

from bayesfm.estimators import FMRegressor
from tests.estimators.data import quick, ratings


@pytest.fixture(scope="session")
def fitted() -> FMRegressor:
    """A model of the ratings, fitted once."""
    import warnings

    from bayesfm.diagnostics import ConvergenceWarning

    X, y = ratings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return quick().fit(X, y)
