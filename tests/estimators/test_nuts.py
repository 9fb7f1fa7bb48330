"""The estimator on the other engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesfm.estimators import FMRegressor
from tests.estimators.data import matrix

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning"),
]


def test_fit_by_nuts_predicts_and_comes_back_from_disk(tmp_path: Path) -> None:
    X, y = matrix()
    options = {"start": "prior", "target_accept": 0.9, "parametrization": "centred"}
    model = FMRegressor(
        0, inference="nuts", engine_options=options, num_warmup=100, num_samples=50, random_state=0
    ).fit(X, y)
    assert model.fit_info_["engine"] == "nuts"
    assert {name: model.fit_info_[name] for name in ("target_accept", "parametrization")} == {
        "target_accept": 0.9,
        "parametrization": "centred",
    }
    mean, sd = model.predict(X, return_std=True)
    assert (
        np.corrcoef(mean, y)[0, 1] > 0.5
    )  # y is linear in X with unit noise; its signal has twice that size
    assert np.all(sd > 0)
    assert model.posterior_["sample_stats"]["diverging"].shape == (2, 50)
    model.save(tmp_path / "model.nc")
    again = FMRegressor.load(tmp_path / "model.nc")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.engine_options == options
