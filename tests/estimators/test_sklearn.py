"""The contract of scikit-learn: its own checks, and its tools around the estimator."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesfm.estimators import FMRegressor
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, HalfT
from tests.estimators.data import assert_same_draws, matrix, quick, ratings, sites

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:\d+ column\(s\) of X hold large numbers:UserWarning"
    ),  # scikit-learn's X
]

SMALL = FMRegressor(rank=2, num_warmup=20, num_samples=20, num_chains=1)

ROUNDING = (
    "demands seven equal digits of two chains whose float32 sums have their terms in another order; "
    "test_weights_count_rows_in_law shows that weights and repeated rows give one posterior"
)


def expected_failures(estimator: FMRegressor) -> dict[str, str]:
    return {f"check_sample_weight_equivalence_on_{kind}_data": ROUNDING for kind in ("dense", "sparse")}


@parametrize_with_checks([SMALL], expected_failed_checks=expected_failures)
def test_check_estimator(estimator: FMRegressor, check: Callable[[FMRegressor], None]) -> None:
    check(estimator)


def test_parameters_survive_clone() -> None:
    params: dict[str, Any] = {
        **{"likelihood": "student_t", "noise_group": "a", "prior_w": HalfT(), "prior_v": Fixed()},
        **{"rank": 3, "inference": "gibbs", "spec": ModelSpec(), "groups": [0, 0, 1], "categorical": ["a"]},
        "engine_options": {"target_accept": 0.9},
        **{
            "numeric": ["b"],
            "num_warmup": 1,
            "num_samples": 2,
            "num_chains": 3,
            "thin": 4,
            "factor_block": 5,
        },
        **{"target_ess": 7.0, "max_sweeps": 8, "max_seconds": 9.0, "max_draws": 10},
        **{
            "kernels": "xla",
            "chain_method": "vectorized",
            "keep": ["w0"],
            "predict_rows": {"test": np.eye(3)},
            "progress": True,
        },
        **{
            "callback": print,
            "checkpoint": "folder",
            "resume": True,
            "draws_on_disk": True,
            "warm_start": True,
            "random_state": 6,
        },
    }
    model = FMRegressor(**params)
    assert model.get_params() == params
    cloned = clone(model).get_params()
    np.testing.assert_array_equal(cloned.pop("predict_rows")["test"], params.pop("predict_rows")["test"])
    assert cloned == params


def test_one_hot_pipeline_agrees_with_the_data_frame() -> None:
    X, y = ratings()
    groups = ["user"] * X["user"].nunique() + ["item"] * X["item"].nunique()
    pipeline = make_pipeline(OneHotEncoder(), quick(groups=groups)).fit(X, y)
    frame = quick().fit(X, y)
    np.testing.assert_array_equal(sites(pipeline[-1])["w"], sites(frame)["w"])
    ours, theirs = (m.predict(X, return_std=True) for m in (pipeline, frame))
    np.testing.assert_allclose(ours, theirs, rtol=16 * np.finfo(np.float32).eps)


def test_scaled_pipeline_is_better_than_the_mean() -> None:
    X, y = matrix()
    assert make_pipeline(StandardScaler(), quick()).fit(X, y).score(X, y) > 0


def test_cross_validation_of_a_polars_frame() -> None:
    X, y = ratings()
    scores = cross_val_score(quick(), pl.from_pandas(X), y, cv=KFold(2))
    assert scores.shape == (2,)
    assert np.all(scores > 0)  # better than the mean


def test_grid_search() -> None:
    X, y = matrix()
    X = X + 1  # no zeros: the folds have one shape
    search = GridSearchCV(quick(), {"num_warmup": [0, 30]}, cv=KFold(2), n_jobs=1).fit(X, y)
    assert search.best_params_["num_warmup"] in (0, 30)
    assert search.predict(X).shape == y.shape


def test_grid_search_over_ranks_beside_a_specification_is_refused() -> None:
    """It would compare a model with itself, 8 being the default."""
    X, y = matrix()
    search = GridSearchCV(
        quick(rank=None, spec=ModelSpec(FM(3))), {"rank": [8]}, cv=KFold(2), n_jobs=1, error_score="raise"
    )
    with pytest.raises(ValueError, match=r"rank=8 contradicts spec.* one spec each"):
        search.fit(X, y)


def test_joblib_keeps_everything(fitted: FMRegressor) -> None:
    X, _ = ratings()
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    again = joblib.load(buffer)
    assert_same_draws(again, fitted)
    np.testing.assert_array_equal(again.predict(X, return_std=True), fitted.predict(X, return_std=True))
