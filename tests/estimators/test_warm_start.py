"""fit on top of a fit: where it starts, level by level, and what it refuses to go on from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayesfm import FMClassifier, FMRegressor
from bayesfm.estimators.warm_start import last_draws, last_point
from bayesfm.priors import Fixed, Horseshoe, MultiplicativeGamma

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
]

N = 300


def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user": rng.integers(0, 12, N), "item": rng.integers(0, 9, N)})
    a, b = rng.normal(size=12), rng.normal(size=9)
    return X, 3 + a[X["user"]] + b[X["item"]] + 0.3 * rng.normal(size=N)


@pytest.fixture(scope="module")
def old() -> FMRegressor:
    X, y = table()
    early = X["user"] != 5
    return FMRegressor(2, num_warmup=30, num_samples=10, warm_start=True, random_state=0).fit(
        X[early], y[early]
    )


def test_features_keep_their_parameters_and_new_ones_are_at_the_mean(old: FMRegressor) -> None:
    X, _ = table()
    design = old.encoder_.fit(X).transform(X)
    before = old.posterior_["posterior"].dataset.isel(draw=-1)
    draws = last_draws(old.posterior_, old.spec_, design, 2)
    names = design.feature_names.tolist()
    new = names.index("user=5")
    for name in ("w", "v"):
        kept = [j for j in range(len(names)) if j != new]
        np.testing.assert_array_equal(
            np.take(draws.sites[name][:, 0], kept, axis=1), before[name].sel(feature=[names[j] for j in kept])
        )
        np.testing.assert_allclose(
            draws.sites[name][:, 0, new], before[f"mu_{name}"].sel(group="user"), rtol=1e-6
        )
    np.testing.assert_array_equal(draws.sites["alpha"][:, 0], before["alpha"])


def test_hyperparameters_of_features_go_with_them() -> None:
    """By name, as w and v do; those of new features are where chains start."""
    X, y = table()
    early = X["user"] != 5
    model = FMRegressor(
        2, prior_w={"user": Horseshoe()}, prior_v=MultiplicativeGamma(), warm_start=True, random_state=0
    ).set_params(num_chains=1, num_warmup=3, num_samples=4)
    before = model.fit(X[early], y[early]).posterior_
    design = model.encoder_.fit(X).transform(X)
    after = last_draws(before, model.spec_, design, 1).sites
    names = [str(name) for name in design.feature_names]
    for site in ("local_scale_user_w", "local_precision_v"):
        old = before["posterior"][site].isel(draw=-1)
        known = {str(name): j for j, name in enumerate(before["posterior"]["feature"].to_numpy())}
        for j, name in enumerate(names):
            expected = old.to_numpy()[0, known[name]] if name in known else 1.0
            np.testing.assert_array_equal(after[site][0, 0, j], expected)
    assert set(names) > set(known)
    model.fit(X, y)
    assert model.posterior_["posterior"].sizes["feature"] == len(names)


def test_more_chains_than_before_start_at_earlier_draws(old: FMRegressor) -> None:
    X, _ = table()
    design = old.encoder_.fit(X).transform(X)
    alpha = old.posterior_["posterior"]["alpha"].to_numpy()
    own = last_draws(old.posterior_, old.spec_, design, 3).sites["alpha"][:, 0]
    np.testing.assert_array_equal(own, [alpha[0, -1], alpha[1, -1], alpha[0, -2]])
    assert last_point(old.posterior_, old.spec_, design)["w"].shape == (21,)


@pytest.mark.parametrize("inference", ["gibbs", "map", "laplace", "cavi", "stochastic_map", "svi"])
def test_every_engine_goes_on(inference: str) -> None:
    """From the mode: one sweep, iteration or epoch from there is not far from it, and from the beginning it is."""
    X, y = table()
    cold = {
        "gibbs": {"num_warmup": 0, "num_chains": 1},
        "stochastic_map": {"engine_options": {"num_epochs": 1, "learning_rate": 1e-3}},
        "svi": {"engine_options": {"num_epochs": 1, "learning_rate": 1e-3, "update_scales": False}},
    }.get(inference, {"engine_options": {"max_iterations": 1}})
    own: dict[str, Any] = {"inference": inference, **cold}
    if inference not in ("map", "stochastic_map"):
        own["num_samples"] = 5
    model = FMRegressor(2, inference="map", random_state=0, warm_start=True).fit(X, y)
    assert model.score(X, y) > 0.9
    model.set_params(**own).fit(X, y)
    assert model.fit_info_["engine"] == inference
    assert model.score(X, y) > 0.85
    if inference in ("stochastic_map", "svi"):
        assert FMRegressor(2, random_state=0, **own).fit(X, y).score(X, y) < 0.6


def test_without_it_a_fit_starts_anew() -> None:
    """Without warm_start, or on a fresh estimator, a fit starts anew and is what it always was."""
    X, y = table()
    fresh, warm = (
        FMRegressor(2, num_warmup=3, num_samples=2, warm_start=w, random_state=0) for w in (False, True)
    )
    a, b = fresh.fit(X, y).predict(X), warm.fit(X, y).predict(X)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(fresh.fit(X, y).predict(X), a)
    assert np.any(warm.fit(X, y).predict(X) != a)


def test_engine_options_come_first() -> None:
    X, y = table()
    model = FMRegressor(
        2, inference="map", warm_start=True, engine_options={"max_iterations": 1}, random_state=0
    )
    first = model.fit(X, y).loss_history_[0]
    warm = model.fit(X, y).loss_history_[0]
    model.set_params(engine_options={"max_iterations": 1, "start": "random"})
    assert warm < first
    assert model.fit(X, y).loss_history_[0] == pytest.approx(first, rel=1e-5)


def test_refused(old: FMRegressor) -> None:
    X, y = table()
    with pytest.raises(ValueError, match="had the groups of features"):
        refit(old, X.rename(columns={"item": "film"}), y)
    model = FMRegressor(2, prior_w=Fixed(), num_warmup=1, num_samples=1, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"has no draws of mu_w, lambda_w"):
        refit(model, X, y, prior_w=None)
    with pytest.raises(ValueError, match="has no draws of w, v"):
        refit(FMRegressor(2, keep="hyper", num_warmup=1, num_samples=1, warm_start=True).fit(X, y), X, y)
    with pytest.raises(ValueError, match="had rank 2, this one has 3"):
        refit(old, X, y, rank=3)
    with pytest.raises(TypeError, match="warm_start must be True or False"):
        FMRegressor(2, warm_start=1).fit(X, y)
    labels = np.where(y > 3, "hi", "lo")
    model = FMClassifier(2, inference="map", engine_options={"max_iterations": 2}, warm_start=True).fit(
        X, labels
    )
    with pytest.raises(ValueError, match="last fit was of the classes"):
        model.fit(X, np.where(y > 3, "high", "low"))


def refit(model: FMRegressor, X: Any, y: Any, **params: Any) -> None:
    other = FMRegressor(**{**model.get_params(), **params})
    other._adopt(model.posterior_)
    other.fit(X, y)
