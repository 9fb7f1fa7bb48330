"""Estimators on engines without chains: options, held-out rows, what is reported and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayesfm import (
    ApproximationWarning,
    ConvergenceWarning,
    FMClassifier,
    FMCount,
    FMOrdinal,
    FMRegressor,
    pareto_k,
)
from bayesfm.inference.ascent import AscentProgress

N = 400
QUICK = {"max_iterations": 400, "tolerance": 1e-3}


def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user": rng.integers(0, 12, N), "item": rng.integers(0, 9, N)})
    a, b = rng.normal(size=12), rng.normal(size=9)
    return X, 0.5 * a[X["user"]] + a[::-1][X["user"]] * b[X["item"]]


def ratings() -> tuple[pd.DataFrame, np.ndarray]:
    X, eta = table()
    return X, 3.0 + eta + 0.3 * np.random.default_rng(1).normal(size=N)


def fitted(inference: str, **options: Any) -> FMRegressor:
    own = {**QUICK, **options.pop("engine_options", {})}
    model = FMRegressor(2, inference=inference, engine_options=own, random_state=0, **options)
    return model.fit(*ratings())


NEW = pd.DataFrame({"user": [3, 99], "item": [1, 1]})


@pytest.mark.parametrize("inference", ["map", "laplace", "cavi"])
def test_predictions(inference: str, tmp_path: Any) -> None:
    """Same names, same methods; the loss falls; what is saved predicts what it did."""
    X, y = ratings()
    model = fitted(inference)
    assert model.score(X, y) > 0.85
    assert model.fit_info_["engine"] == inference
    assert model.loss_history_[-1] < model.loss_history_[0]
    mean, sd = model.predict(NEW, return_std=True)
    if inference == "map":
        assert model.posterior_["posterior"].sizes["draw"] == 1
        assert sd[1] == pytest.approx(sd[0])  # the noise alone
    else:
        assert model.posterior_["posterior"].sizes["draw"] == 500
        assert sd[1] > 1.5 * sd[0]
        low, high = model.predict_interval(X, 0.9).T
        assert 0.8 < np.mean((low < y) & (y < high)) < 0.99
    model.save(tmp_path / "model.nc")
    again = FMRegressor.load(tmp_path / "model.nc")
    np.testing.assert_array_equal(again.predict(NEW), mean)
    np.testing.assert_array_equal(again.loss_history_, model.loss_history_)


def test_a_new_level_of_a_point_is_at_the_mean_of_its_group() -> None:
    """It would be one draw from the prior else, and another for every level."""
    model = fitted("map")
    two = model.predict(pd.DataFrame({"user": [99, 100], "item": [1, 1]}))
    assert two[0] == two[1]
    post = model.posterior_["posterior"].dataset.isel(chain=0, draw=0)
    w = float(post["w0"] + post["mu_w"].sel(group="user") + post["w"].sel(feature="item=1"))
    v = float(post["mu_v"].sel(group="user") @ post["v"].sel(feature="item=1"))
    np.testing.assert_allclose(two[0], w + v, rtol=1e-5)


def test_streams_are_predictions() -> None:
    X, _ = ratings()
    model = fitted("cavi", predict_rows={"first": X[:5]}, num_samples=40)
    np.testing.assert_allclose(model.streams_["first"].mean, model.predict(X[:5]), rtol=1e-4)


def test_independent_draws_have_nothing_to_find_out() -> None:
    assert fitted("cavi", num_samples="auto").posterior_["posterior"].sizes["draw"] == 500


@pytest.mark.parametrize(
    ("inference", "kind"), [("map", FMOrdinal), ("cavi", FMClassifier), ("cavi", FMCount)]
)
def test_other_responses(inference: str, kind: type) -> None:
    X, eta = table()
    y: Any = np.where(eta > 0, "yes", "no")
    if kind is not FMClassifier:
        counts = np.random.default_rng(2).poisson(np.exp(0.5 * eta))
        y = counts if kind is FMCount else np.digitize(eta, [-1.0, 0.5]) + 1
    model = kind(2, inference=inference, engine_options=QUICK, random_state=0).fit(X, y)
    assert model.score(X, y) > (0.2 if kind is FMCount else 0.75)


def test_held_out_rows() -> None:
    """A share of the rows, which are then not learned from; or rows of their own, with weights."""
    X, y = ratings()
    part = fitted("map", engine_options={"validation": 0.25})
    assert part.posterior_["observed_data"].sizes["row"] == 300
    assert len(part.fit_info_["validation"]) >= 1
    held = X[:50], y[:50], np.ones(50)
    whole = fitted("cavi", engine_options={"validation": held})
    assert whole.posterior_["observed_data"].sizes["row"] == N
    assert len(whole.fit_info_["validation"]) >= 1
    labels = np.where(y > 3, "high", "low")
    model = FMClassifier(2, inference="map", random_state=0)
    model.set_params(engine_options={**QUICK, "validation": (X[:50], labels[:50])}).fit(X, labels)
    assert model.score(X, labels) > 0.8


def test_callback_and_warning() -> None:
    seen: list[AscentProgress] = []
    with pytest.warns(ConvergenceWarning, match="still rising after 10 iterations: raise max_iterations"):
        fitted("cavi", callback=lambda now: seen.append(now) or True, engine_options={"tolerance": 0.0})
    assert [now.iteration for now in seen] == [10]


def test_summary_has_no_r_hat() -> None:
    """But Pareto k, with a warning where it says that the approximation is not the posterior."""
    model = fitted("laplace")
    k = pareto_k(model.posterior_)
    assert k is not None
    with pytest.warns(ApproximationWarning, match=f"Pareto k of the approximation is {k:.2f}"):
        summary_of = model.summary()
    assert summary_of.attrs["pareto_k"] == k
    assert "r_hat" not in summary_of.columns
    point = fitted("map")
    assert pareto_k(point.posterior_) is None
    assert "w0" in point.summary().index


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        (
            {"inference": "map", "num_samples": 10},
            ValueError,
            r"num_samples=10 is an option of chains, .*'map'",
        ),
        ({"inference": "cavi", "num_chains": 4}, ValueError, "num_chains=4 is an option of chains"),
        ({"inference": "svi", "target_ess": 100}, ValueError, "target_ess=100 is an option of chains"),
        (
            {"inference": "map", "num_samples": "auto"},
            ValueError,
            "num_samples='auto' is an option of chains",
        ),
        ({"inference": "laplace", "checkpoint": "x"}, ValueError, "checkpoint='x' is an option of chains"),
        ({"inference": "cavi", "kernels": "xla"}, ValueError, "kernels='xla' is an option of Gibbs sweeps"),
        (
            {"inference": "cavi", "engine_options": {"optimiser": "als"}},
            ValueError,
            "unknown option.s. optimiser",
        ),
        (
            {"inference": "map", "engine_options": {"validation": 1.5}},
            ValueError,
            "leaves none to validate or none to",
        ),
        ({"inference": "map", "engine_options": {"validation": 3}}, TypeError, "a share of the rows"),
        ({"inference": "map", "engine_options": {"max_iterations": 0}}, ValueError, "max_iterations"),
    ],
)
def test_what_is_refused(parameters: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        FMRegressor(2, **parameters).fit(*ratings())


@pytest.mark.filterwarnings("ignore:Pareto k is above:UserWarning")
def test_loo_is_for_draws_from_the_posterior() -> None:
    X, y = ratings()
    with pytest.raises(ValueError, match="inference='map' gives a point"):
        fitted("map").loo(X, y)
    with pytest.warns(ApproximationWarning, match="flatters approximations"):
        assert np.isfinite(fitted("cavi").loo(X, y).elpd)
