"""Predictions: one mixture seen from many sides, the same after saving, wide where nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse, special, stats

import bayesfm
from bayesfm.estimators import FMRegressor
from bayesfm.model import default_spec
from tests.estimators.data import QUICK, matrix, quick, ratings, sites
from tests.statistics import assert_no_alarm

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

FRAME, STARS = ratings()
COLD = pd.DataFrame({"user": ["ann", "nobody", "ann", "nobody"], "item": [10, 10, 99, 99]})
EPS = np.finfo(np.float32).eps


def test_mean_and_sd_are_those_of_the_mixture(fitted: FMRegressor) -> None:
    mean, sd = fitted.predict(FRAME, return_std=True)
    eta, noise = fitted.expected_draws(FRAME), 1 / sites(fitted)["alpha"].astype(float)
    np.testing.assert_array_equal(mean, fitted.predict(FRAME))
    np.testing.assert_allclose(mean, eta.mean((0, 1)), rtol=64 * EPS)
    np.testing.assert_allclose(sd**2, eta.var((0, 1)) + noise.mean(), rtol=512 * EPS)
    moments = fitted.predict_moments(FRAME)
    np.testing.assert_allclose(moments.noise_variance, noise.mean(), rtol=64 * EPS)


def test_interval_holds_its_probability(fitted: FMRegressor) -> None:
    eta, sigma = fitted.expected_draws(FRAME), sites(fitted)["alpha"][..., None].astype(float) ** -0.5
    inner, outer = (fitted.predict_interval(FRAME, prob) for prob in (0.5, 0.9))
    assert outer.shape == (len(FRAME), 2)
    mean = fitted.predict(FRAME)
    ordered = np.column_stack([outer[:, 0], inner[:, 0], mean, inner[:, 1], outer[:, 1]])
    assert np.all(np.diff(ordered, axis=1) > 0)
    for interval, prob in ((inner, 0.5), (outer, 0.9)):
        below = stats.norm.cdf(interval.T[:, None, None], eta, sigma).mean((1, 2))
        np.testing.assert_allclose(below[0], (1 - prob) / 2, atol=64 * EPS)
        np.testing.assert_allclose(below[1], (1 + prob) / 2, atol=64 * EPS)
    np.testing.assert_array_equal(outer, fitted.predict_quantiles(FRAME, [0.05, 0.95]))


def test_default_interval(fitted: FMRegressor) -> None:
    np.testing.assert_array_equal(fitted.predict_interval(FRAME), fitted.predict_interval(FRAME, prob=0.9))


def test_samples_fall_into_the_interval(fitted: FMRegressor) -> None:
    y = fitted.sample_predictive(FRAME)
    low, high = fitted.predict_interval(FRAME, 0.8).T
    inside = int(np.sum((y >= low) & (y <= high)))
    assert_no_alarm({"inside": stats.binomtest(inside, y.size, 0.8).pvalue})


def test_samples_repeat_and_vary(fitted: FMRegressor) -> None:
    first = fitted.sample_predictive(FRAME)
    assert first.shape == (2, 40, len(FRAME))
    np.testing.assert_array_equal(first, fitted.sample_predictive(FRAME))
    assert not np.any(first == fitted.sample_predictive(FRAME, random_state=1))
    assert not np.any(first == fitted.sample_predictive(FRAME, random_state=None))


def test_log_densities(fitted: FMRegressor) -> None:
    eta, sigma = fitted.expected_draws(FRAME), sites(fitted)["alpha"][..., None].astype(float) ** -0.5
    wanted = stats.norm.logpdf(STARS, eta, sigma)
    got = fitted.log_likelihood(FRAME, STARS)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=256 * EPS * np.abs(wanted).max())
    pooled = special.logsumexp(wanted, axis=(0, 1)) - np.log(eta[..., 0].size)
    np.testing.assert_allclose(
        fitted.log_predictive_density(FRAME, STARS), pooled, rtol=0, atol=256 * EPS * 10
    )


def test_log_likelihood_has_the_weights(fitted: FMRegressor) -> None:
    weight = np.where(np.arange(len(STARS)) % 3 == 0, 0.0, 2.0)
    plain, weighted = fitted.log_likelihood(FRAME, STARS), fitted.log_likelihood(FRAME, STARS, weight)
    np.testing.assert_allclose(weighted, 2 * plain[..., weight > 0], rtol=4 * EPS)


@pytest.mark.filterwarnings("ignore:Pareto k is above")
def test_loo() -> None:
    model = quick().fit(FRAME, STARS)
    result = model.loo(FRAME, STARS, keep=True)
    in_sample = model.log_predictive_density(FRAME, STARS).sum()
    assert result.pareto_k.shape == STARS.shape
    assert np.isfinite(result.se)
    assert result.elpd < in_sample
    np.testing.assert_allclose(
        model.posterior_["log_likelihood"]["y"].to_numpy(), model.log_likelihood(FRAME, STARS), rtol=4 * EPS
    )
    with pytest.raises(ValueError, match="y is not what was fitted"):
        model.loo(FRAME, STARS + 1)
    with pytest.raises(ValueError, match="59 rows of weight above zero, 60 when fitted"):
        model.loo(FRAME.iloc[1:], STARS[1:])


@pytest.mark.filterwarnings("ignore:Pareto k is above")
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("rank", [0, 2])
def test_loo_of_other_rows_is_refused(rank: int, offset: float) -> None:
    X, y = matrix(200)
    X, y = X + 1.0, y + offset
    model = quick(rank=rank).fit(X, y)
    model.loo(sparse.csr_array(X), y)
    for other in (X[::-1], np.roll(X, 1, axis=1), 1.01 * X):
        with pytest.raises(ValueError, match=r"X is not what was fitted: .* rows must be the same"):
            model.loo(other, y)
    assert model.loo(X, y).n_data_points == len(y)


@pytest.mark.filterwarnings("ignore:Pareto k is above")
def test_loo_of_other_weights_is_refused() -> None:
    X, y = matrix()
    weight = np.where(np.arange(len(y)) < 5, 0.0, 2.0)
    weighted, plain = quick().fit(X, y, sample_weight=weight), quick().fit(X, y)
    weighted.loo(X, y, weight)
    plain.loo(X, y, np.ones(len(y)))
    for model, other in ((weighted, 2 * weight), (weighted, weight > 0), (plain, 2.0)):
        with pytest.raises(ValueError, match="but sample_weight is not what was fitted"):
            model.loo(X, y, other)
    with pytest.raises(ValueError, match=r"sample_weight of fit, but there are 30 rows .* 25 when fitted"):
        weighted.loo(X, y)


@pytest.mark.filterwarnings("ignore:Pareto k is above")
def test_loo_needs_draws() -> None:
    X, y = matrix()
    quick(num_samples=13).fit(X, y).loo(X, y)
    with pytest.raises(ValueError, match="at least 25 draws over all chains, got 24: raise num_samples"):
        quick(num_samples=12).fit(X, y).loo(X, y)
    with pytest.raises(ValueError, match=r"w, v, which were not kept: .* predict_rows="):
        quick(keep="hyper").fit(X, y).loo(X, y)


@pytest.mark.parametrize("wrong", ["no", "yes", 1, None, np.ones(2)])
def test_return_std_is_a_bool(fitted: FMRegressor, wrong: Any) -> None:
    with pytest.raises(TypeError, match="return_std must be True or False"):
        fitted.predict(FRAME, return_std=wrong)
    assert len(fitted.predict(FRAME, return_std=np.True_)) == 2


def test_cold_rows_are_wide(fitted: FMRegressor) -> None:
    mean, sd = fitted.predict(COLD, return_std=True)
    assert np.all(np.isfinite(mean))
    assert sd[0] < min(sd[1], sd[2])
    assert max(sd[1], sd[2]) < sd[3]
    width = np.diff(fitted.predict_interval(COLD), axis=1)[:, 0]
    assert width[0] < min(width[1], width[2])


def test_unseen_level_is_the_same_in_every_request(fitted: FMRegressor) -> None:
    together = fitted.predict(COLD)
    for i in range(len(COLD)):
        np.testing.assert_allclose(fitted.predict(COLD.iloc[[i]]), together[[i]], rtol=64 * EPS)


def test_polars_and_pandas_agree(fitted: FMRegressor) -> None:
    model = quick().fit(pl.from_pandas(FRAME), pl.Series(STARS))
    assert model.feature_names_in_.tolist() == fitted.feature_names_in_.tolist()
    for X in (FRAME, COLD):
        np.testing.assert_array_equal(
            model.predict(pl.from_pandas(X), return_std=True), fitted.predict(X, return_std=True)
        )
        np.testing.assert_array_equal(model.predict(X), fitted.predict(pl.from_pandas(X)))


# ---------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_saved_model_predicts_the_same(fitted: FMRegressor, tmp_path: Path, suffix: str) -> None:
    fitted.save(tmp_path / f"model{suffix}")
    again = FMRegressor.load(tmp_path / f"model{suffix}")
    for X in (FRAME, COLD):
        np.testing.assert_array_equal(again.predict(X, return_std=True), fitted.predict(X, return_std=True))
        np.testing.assert_array_equal(again.predict_interval(X), fitted.predict_interval(X))
        np.testing.assert_array_equal(again.sample_predictive(X), fitted.sample_predictive(X))
    assert again.get_params() == fitted.get_params()
    assert again.spec_ == fitted.spec_
    assert again.fit_info_ == fitted.fit_info_
    assert again.n_features_in_ == 2
    assert again.feature_names_in_.dtype == object
    assert again.feature_names_in_.tolist() == ["user", "item"]
    pd.testing.assert_frame_equal(pd.DataFrame(again.summary()), pd.DataFrame(fitted.summary()))
    assert "estimator" not in fitted.posterior_.attrs
    with pytest.raises(ValueError, match="same order"):
        again.predict(FRAME[["item", "user"]])


@pytest.mark.usefixtures("no_sampling")
def test_saved_parameters(tmp_path: Path) -> None:
    spec = default_spec(STARS, 2)
    kept: dict[str, Any] = {"rank": 2, "num_samples": 41, "keep": ["w0", "w", "v", "alpha"], "thin": 2}
    lost = {"random_state": np.random.default_rng(0), "callback": lambda progress: False}
    model = FMRegressor(**{**QUICK, **kept, **lost, "spec": spec, "groups": np.array([0, 1, 1])})
    X = np.eye(3)[np.arange(len(STARS)) % 3]
    model.fit(X, STARS).save(tmp_path / "model.nc")
    again = FMRegressor.load(tmp_path / "model.nc")
    params = again.get_params()
    assert {name: params[name] for name in kept} == kept
    assert params["spec"] == spec
    assert params["groups"] == [0, 1, 1]
    assert params["random_state"] is None
    assert params["callback"] is None
    assert not hasattr(again, "feature_names_in_")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    again.set_params(random_state=0).fit(X, STARS)


def test_loaded_model_can_be_fitted_and_saved_again(fitted: FMRegressor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "one.nc")
    again = FMRegressor.load(tmp_path / "one.nc").fit(FRAME, STARS)
    np.testing.assert_array_equal(again.predict(FRAME), fitted.predict(FRAME))
    FMRegressor.load(tmp_path / "one.nc").save(tmp_path / "two.zarr")
    np.testing.assert_array_equal(FMRegressor.load(tmp_path / "two.zarr").predict(COLD), fitted.predict(COLD))


def test_a_posterior_alone_is_no_estimator(fitted: FMRegressor, tmp_path: Path) -> None:
    bayesfm.save(fitted.posterior_, tmp_path / "bare.nc")
    with pytest.raises(ValueError, match="bare posterior"):
        FMRegressor.load(tmp_path / "bare.nc")


def test_another_estimator_is_refused(fitted: FMRegressor, tmp_path: Path) -> None:
    class Other(FMRegressor):
        pass

    fitted.save(tmp_path / "model.nc")
    with pytest.raises(ValueError, match="holds a FMRegressor, not a Other"):
        Other.load(tmp_path / "model.nc")
