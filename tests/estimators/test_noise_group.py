"""``FMRegressor(noise_group=...)``: a noise precision per level of a column."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from bayesfm.design import Block, Design
from bayesfm.diagnostics import summary
from bayesfm.estimators import FMRegressor
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.likelihoods import Gaussian, GroupwiseGaussian, StudentT
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Pareto k is above"),
]

QUICK: dict[str, Any] = {"rank": 1, "num_warmup": 50, "num_samples": 50, "random_state": 0}
SD = np.array([0.2, 0.5, 1.0, 3.0])
NEW = pd.DataFrame({"user": ["a", "d", "nobody"], "item": [0, 0, 0]})


@lru_cache
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    """400 ratings of four users who scatter differently."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 4, 400), rng.integers(0, 6, 400)
    y = rng.normal(size=4)[user] + rng.normal(size=6)[item] + SD[user] * rng.normal(size=400)
    return pd.DataFrame({"user": np.array(list("abcd"))[user], "item": item}), y


@lru_cache
def fitted() -> FMRegressor:
    """Rows of weight zero have a level of their own, which nothing is known of."""
    X, y = rows()
    X = pd.concat([X, pd.DataFrame({"user": ["e"], "item": [0]})], ignore_index=True)
    weight = np.append(np.ones(400), 0.0)
    model = FMRegressor(noise_group="user", predict_rows={"new": NEW}, **QUICK)
    return model.fit(X, np.append(y, 1e6), weight)


def test_precisions_are_those_of_the_levels() -> None:
    posterior = fitted().posterior_["posterior"]
    assert posterior["tau"].dims == ("chain", "draw", "noise_group")
    assert posterior["noise_group"].values.tolist() == list("abcde")
    noise = (posterior["alpha"] * posterior["tau"]) ** -0.5
    sd = noise.sel(noise_group=list("abcd")).mean(("chain", "draw"))
    np.testing.assert_allclose(sd, SD, rtol=0.25)  # of 100 residuals: 7 % in one standard error
    nobody = posterior["tau"].sel(noise_group="e")
    assert (
        nobody.std()
        > 3 * posterior["tau"].sel(noise_group="a").std() / posterior["tau"].sel(noise_group="a").mean()
    )
    assert "tau[a]" in summary(fitted().posterior_).index


def test_predictions_know_the_level() -> None:
    model = fitted()
    width = np.diff(model.predict_interval(NEW), axis=1)[:, 0]
    assert width[0] < 0.5 * width[1]
    draws = model.posterior_["posterior"]
    eta = model.expected_draws(NEW).reshape(-1, 3)
    alpha, df = (draws[name].to_numpy().ravel() for name in ("alpha", "df"))
    tau = draws["tau"].to_numpy().reshape(-1, 5)[:, [0, 3]]
    low, high = model.predict_interval(NEW).T
    for end, p in ((low, 0.05), (high, 0.95)):
        known = stats.norm.cdf(end[:2], eta[:, :2], (alpha[:, None] * tau) ** -0.5).mean(0)
        unseen = stats.t.cdf(end[2], df, eta[:, 2], alpha**-0.5).mean()
        np.testing.assert_allclose([*known, unseen], p, rtol=1e-3)
    np.testing.assert_allclose(model.streams_["new"].mean[:2], model.predict(NEW)[:2], rtol=1e-4)
    np.testing.assert_allclose(
        model.streams_["new"].sd[:2], model.predict(NEW, return_std=True)[1][:2], rtol=1e-4
    )
    assert model.sample_predictive(NEW).shape == (2, 50, 3)


def test_scores_know_the_level() -> None:
    X, y = rows()
    model = fitted()
    density = model.log_likelihood(X, y)
    draws = model.posterior_["posterior"]
    tau = draws["tau"].sel(noise_group=X["user"].to_numpy()).to_numpy()
    scale = (draws["alpha"].to_numpy()[..., None] * tau) ** -0.5
    np.testing.assert_allclose(
        density, stats.norm.logpdf(y, model.expected_draws(X), scale), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(
        model.score(X, y), r2_score(y, model.expected_draws(X).mean((0, 1))), rtol=1e-5
    )
    X_all = pd.concat([X, pd.DataFrame({"user": ["e"], "item": [0]})], ignore_index=True)
    weight = np.append(np.ones(400), 0.0)
    assert np.isfinite(model.loo(X_all, np.append(y, 1e6), weight).elpd)
    swapped = X_all.assign(user=X_all["user"].map(dict(zip("abcde", "bacde", strict=True))))
    with pytest.raises(ValueError, match="loo needs the noise_group of fit"):
        model.loo(swapped, np.append(y, 1e6), weight)


def test_saved_model_predicts_alike(tmp_path: Path) -> None:
    fitted().save(tmp_path / "model.nc")
    loaded = FMRegressor.load(tmp_path / "model.nc")
    np.testing.assert_array_equal(loaded.predict_interval(NEW), fitted().predict_interval(NEW))
    assert loaded.posterior_["posterior"]["noise_group"].values.tolist() == list("abcde")


def test_blocks_and_a_given_likelihood_are_taken() -> None:
    X, y = rows()
    levels, index = np.unique(X["user"], return_inverse=True)
    design = Design([Block.field("user", index, levels), Block.field("item", X["item"], range(6))])
    likelihood = GroupwiseGaussian(num_groups=4, df=4.0)
    model = FMRegressor(noise_group="user", likelihood=likelihood, **{**QUICK, "rank": 0, "num_samples": 5})
    posterior = model.fit(design, y).posterior_["posterior"]
    assert model.spec_.likelihood == likelihood
    assert "df" not in posterior
    assert posterior["noise_group"].values.tolist() == list("abcd")


def test_constructor_has_all_parameters() -> None:
    base, own = (inspect.signature(c).parameters for c in (FactorizationMachine, FMRegressor))
    assert {name: p.default for name, p in own.items() if name != "noise_group"} == {
        name: p.default for name, p in base.items()
    }
    values = {name: object() for name in own}
    assert FMRegressor(**values).get_params(deep=False) == values


ERRORS: dict[str, tuple[Callable[[pd.DataFrame, np.ndarray], Any], type[Exception], str]] = {
    "absent": (
        lambda X, y: FMRegressor(noise_group="film").fit(X, y),
        ValueError,
        "noise_group='film' must name a categorical column of X (one level per row); these are 'user', 'item'",
    ),
    "numeric": (
        lambda X, y: FMRegressor(noise_group="age").fit(X.assign(age=0.5), y),
        ValueError,
        "noise_group='age' must name a categorical column of X",
    ),
    "matrix": (
        lambda X, y: FMRegressor(noise_group="user").fit(np.eye(400)[:, :3], y),
        ValueError,
        "must name a categorical column of X (one level per row); there is none",
    ),
    "no name": (
        lambda X, y: FMRegressor(noise_group=0).fit(X, y),
        TypeError,
        "must be the name of a column or None",
    ),
    "Student-t": (
        lambda X, y: FMRegressor(noise_group="user", likelihood="student_t").fit(X, y),
        ValueError,
        "noise_group='user' is for normal noise, got the likelihood 'student_t'",
    ),
    "Student-t in a spec": (
        lambda X, y: FMRegressor(noise_group="user", spec=ModelSpec(FM(0), StudentT())).fit(X, y),
        ValueError,
        "is for normal noise, got the likelihood StudentT(",
    ),
    "Gaussian object": (
        lambda X, y: FMRegressor(noise_group="user", likelihood=Gaussian()).fit(X, y),
        ValueError,
        "leave it out, or give GroupwiseGaussian",
    ),
    "likelihood without a column": (
        lambda X, y: FMRegressor(likelihood=GroupwiseGaussian(4)).fit(X, y),
        ValueError,
        "GroupwiseGaussian needs the group of every row: name a categorical column of X in noise_group",
    ),
    "another number of groups": (
        lambda X, y: FMRegressor(noise_group="item", likelihood=GroupwiseGaussian(4)).fit(X, y),
        ValueError,
        "the likelihood has num_groups=4, column 'item' has 6 levels",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name: str) -> None:
    fit, error, message = ERRORS[name]
    with pytest.raises(error, match=re.escape(message)):
        fit(*rows())
