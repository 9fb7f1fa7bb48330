"""Classes, ordered classes, counts, heavy tails: what the faces add to what ``FMRegressor`` is tested for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesfm.diagnostics import identified, labelled_draws, summary
from bayesfm.estimators import FMClassifier, FMCount, FMOrdinal, FMRegressor
from bayesfm.estimators.count import _shortest
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Categorical, Gaussian, OrdinalProbit
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Pareto k is above"),
    pytest.mark.filterwarnings(r"ignore:\d+ column\(s\) of X hold large numbers:UserWarning"),
]

QUICK: dict[str, Any] = {"rank": 1, "num_warmup": 100, "num_samples": 100, "random_state": 0}


@lru_cache
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    """400 rows of two fields, and their eta."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user": rng.integers(0, 8, 400), "item": rng.integers(0, 6, 400)})
    return X, 1.5 * rng.normal(size=8)[X["user"]] + rng.normal(size=6)[X["item"]]


@lru_cache
def classifier() -> FMClassifier:
    X, eta = rows()
    y = np.where(eta + np.random.default_rng(1).logistic(size=400) > 0, "yes", "no")
    return FMClassifier(**QUICK).fit(X, y)


@lru_cache
def three() -> tuple[FMClassifier, np.ndarray]:
    """Three labels, and those of 400 rows."""
    X, eta = rows()
    noise = np.random.default_rng(5).gumbel(size=(400, 3))
    y = np.array(["art", "music", "sport"])[np.argmax(noise + np.column_stack([0 * eta, eta, -eta]), axis=1)]
    return FMClassifier(**QUICK).fit(X, y), y


@lru_cache
def ordinal() -> FMOrdinal:
    """Grades 1 to 6, of which nobody got the 2."""
    X, eta = rows()
    z = eta + np.random.default_rng(2).normal(size=400)
    y = np.array([1, 3, 4, 5, 6])[np.digitize(z, [-1.5, -0.5, 0.5, 1.5])]
    return FMOrdinal(**QUICK).fit(X, y, classes=[1, 2, 3, 4, 5, 6])


@lru_cache
def count() -> tuple[FMCount, np.ndarray, np.ndarray]:
    X, eta = rows()
    rng = np.random.default_rng(3)
    exposure = rng.uniform(0.5, 4.0, 400)
    y = rng.poisson(exposure * np.exp(0.5 * eta))
    return FMCount(**QUICK).fit(X, y, exposure=exposure), y, exposure


def test_probabilities_of_classes() -> None:
    X, eta = rows()
    model = classifier()
    p, sd = model.predict_proba(X, return_std=True)
    assert p.shape == sd.shape == (400, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(sd[:, 0], sd[:, 1], atol=1e-4)  # they are p and 1 - p
    draws = model.expected_draws(X).reshape(-1, 400)
    np.testing.assert_allclose(p[:, 1], draws.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(sd[:, 1], draws.std(axis=0), atol=1e-4)
    assert np.corrcoef(model.decision_function(X), eta)[0, 1] > 0.8
    np.testing.assert_array_equal(model.predict(X) == "yes", p[:, 1] > 0.5)


def test_probabilities_of_three_classes() -> None:
    X, eta = rows()
    model, y = three()
    assert model.classes_.tolist() == ["art", "music", "sport"]
    p, sd = model.predict_proba(X, return_std=True)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    names = model.encoder_.transform(X).to_csr().toarray()
    posterior = model.posterior_["posterior"]
    sites = {
        s: posterior[s].stack(s=("chain", "draw")).transpose("s", ...).to_numpy().astype(float)
        for s in ("w0", "w", "v")
    }
    draws = np.zeros((200, 400, 3))
    for i, (w0, w, v) in enumerate(zip(*sites.values(), strict=True)):
        pairs = 0.5 * ((names @ v) ** 2 - names**2 @ v**2).sum(-1)
        draws[i] = softmax(np.column_stack([np.zeros(400), *(w0[:, None] + w @ names.T + pairs)]), axis=1)
    np.testing.assert_allclose(p, draws.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sd, draws.std(0), atol=1e-3)
    np.testing.assert_allclose(model.decision_function(X), np.log(p), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    assert np.corrcoef(np.log(p[:, 1] / p[:, 2]), eta)[0, 1] > 0.8
    own = p[np.arange(400), np.searchsorted(model.classes_, y)]
    np.testing.assert_allclose(model.log_predictive_density(X, y), np.log(own), rtol=1e-3)
    assert np.isfinite(model.loo(X, y).elpd)
    with pytest.raises(ValueError, match="X is not what was fitted"):
        model.loo(X.iloc[::-1], y)


def test_the_posterior_of_three_classes_is_labelled(tmp_path: Path) -> None:
    model, _ = three()
    model.save(tmp_path / "model.zarr")
    for own in (model, FMClassifier.load(tmp_path / "model.zarr")):
        posterior = own.posterior_["posterior"]
        assert posterior["class"].to_numpy().tolist() == ["music", "sport"]
        assert posterior["v"].sel({"class": "sport"}).dims == ("chain", "draw", "feature", "factor")
        table = summary(own.posterior_)
        assert {"w0[sport]", "lambda_w[music, user]", "eta[sport, worst]"} <= set(table.index)
        shown = identified(own.posterior_).drop_vars("eta")
        assert set(labelled_draws(shown)[0]) <= set(table.index)


def test_credible_sets_hold_enough_and_no_more() -> None:
    X, _ = rows()
    for model in (classifier(), three()[0], ordinal()):
        p = model.predict_proba(X)
        inside = model.predict_set(X, 0.8)
        held = np.where(inside, p, 0.0)
        assert np.all(held.sum(axis=1) >= 0.8 - 1e-12)
        least = np.where(inside, p, np.inf).min(axis=1)
        assert np.all(held.sum(axis=1) - least < 0.8)  # without the least of them it is not enough
        assert np.all(least >= np.where(inside, -np.inf, p).max(axis=1))


def test_labels_survive_the_file(tmp_path: Path) -> None:
    X, _ = rows()
    for model in (classifier(), three()[0], ordinal()):
        model.save(tmp_path / "model.nc")
        again = type(model).load(tmp_path / "model.nc")
        assert again.classes_.tolist() == model.classes_.tolist()
        assert again.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_decisions_on_ordered_classes() -> None:
    X, _ = rows()
    model = ordinal()
    p = model.predict_proba(X)
    assert p.shape == (400, 6)
    assert np.all(p > 0)  # the class that nobody is in, too
    np.testing.assert_allclose(model.predict(X, decision="mean"), p @ np.arange(1, 7), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), 1 + p.argmax(axis=1))
    median = model.predict(X, decision="median")
    below = np.array([row[: int(m) - 1].sum() for row, m in zip(p, median, strict=True)])
    assert np.all((below < 0.5) & (below + p[np.arange(400), median - 1] >= 0.5))
    cut = model.posterior_["posterior"]["cutpoints"]
    assert cut.dims == ("chain", "draw", "cutpoint")
    assert np.all(np.diff(cut.to_numpy(), axis=-1) > 0)


def test_counts_follow_their_exposure() -> None:
    X, eta = rows()
    model, y, exposure = count()
    rate = model.predict(X)
    np.testing.assert_allclose(model.predict(X, exposure=exposure), exposure * rate, rtol=1e-5)
    assert np.corrcoef(np.log(rate), eta)[0, 1] > 0.8
    low, high = model.predict_interval(X, 0.9, exposure=exposure).T
    covered = np.mean((low <= y) & (y <= high))
    assert stats.binom.sf(int(covered * 400) - 1, 400, 0.9) > 1e-4 or covered >= 0.9
    with pytest.raises(ValueError, match="loo needs the exposure of fit"):
        model.loo(X, y)
    assert np.isfinite(model.loo(X, y, row_data={"exposure": exposure}).elpd)


def test_shortest_run() -> None:
    p = np.array([[0.05, 0.1, 0.6, 0.2, 0.05], [1.0, 0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(_shortest(p, 0.8), [[2, 3], [0, 0]])


def test_outliers_pull_less_on_student_t() -> None:
    X, eta = rows()
    rng = np.random.default_rng(4)
    y = eta + 0.3 * rng.normal(size=400)
    y[rng.choice(400, 20, replace=False)] += 40.0
    errors = {
        name: np.sqrt(np.mean((FMRegressor(likelihood=name, **QUICK).fit(X, y).predict(X) - eta) ** 2))
        for name in ("gaussian", "student_t")
    }
    assert errors["student_t"] < 0.5 * errors["gaussian"]


BAD: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "one class": (lambda X, eta: FMClassifier().fit(X, np.ones(400)), "two classes, got one class only"),
    "three classes under probit": (
        lambda X, eta: FMClassifier(likelihood="probit").fit(X, np.arange(400) % 3),
        "'probit' is for two classes, y has 3: leave likelihood out",
    ),
    "three classes under a likelihood of two": (
        lambda X, eta: FMClassifier(likelihood=BernoulliLogit()).fit(X, np.arange(400) % 3),
        r"is for 2 classes, y has 3: \[0, 1, 2\]. Leave the likelihood out, or give Categorical\(num_classes=3\)",
    ),
    "three classes in a specification of four": (
        lambda X, eta: FMClassifier(spec=ModelSpec(FM(1), Categorical(4))).fit(X, np.arange(400) % 3),
        r"Categorical\(num_classes=4\) is for 4 classes, y has 3",
    ),
    "rows named before fitting": (
        lambda X, eta: FMClassifier(predict_rows={"new": X}).fit(X, np.arange(400) % 3),
        "there is neither under Categorical",
    ),
    "one ordered class": (lambda X, eta: FMOrdinal().fit(X, np.ones(400)), "two classes at least"),
    "class not declared": (
        lambda X, eta: FMOrdinal().fit(X, np.arange(400) % 3, classes=[0, 1]),
        "classes must name every label of y once",
    ),
    "unknown link": (
        lambda X, eta: FMClassifier(likelihood="cauchit").fit(X, np.arange(400) % 2),
        "likelihood must be one of None, 'logit', 'probit'",
    ),
    "foreign likelihood": (
        lambda X, eta: FMClassifier(likelihood=Gaussian()).fit(X, np.arange(400) % 2),
        "FMClassifier takes likelihoods BernoulliLogit, BernoulliProbit, Categorical; got Gaussian",
    ),
    "likelihood beside spec": (
        lambda X, eta: FMClassifier(likelihood="probit", spec=ModelSpec(FM(1), BernoulliProbit())).fit(
            X, np.arange(400) % 2
        ),
        "likelihood and spec were both given",
    ),
    "spec of another face": (
        lambda X, eta: FMRegressor(spec=ModelSpec(FM(1), BernoulliProbit())).fit(X, eta),
        "FMRegressor takes likelihoods Gaussian, StudentT, GroupwiseGaussian; got BernoulliProbit",
    ),
    "classes that the likelihood does not have": (
        lambda X, eta: FMOrdinal(likelihood=OrdinalProbit(num_classes=7)).fit(X, np.arange(400) % 3),
        "num_classes=7, y has the 3 classes",
    ),
    "no intercept": (
        lambda X, eta: ModelSpec(FM(1), OrdinalProbit(num_classes=3)),
        "OrdinalProbit knows no intercept",
    ),
    "fractional weights under probit": (
        lambda X, eta: FMClassifier(likelihood="probit").fit(X, np.arange(400) % 2, np.full(400, 0.5)),
        "no Gibbs sweep for row weights other than 0 and 1",
    ),
    "negative counts": (lambda X, eta: FMCount().fit(X, np.full(400, -1)), "whole numbers from 0"),
    "fractional counts": (lambda X, eta: FMCount().fit(X, np.full(400, 0.5)), "whole numbers from 0"),
    "no exposure": (
        lambda X, eta: FMCount().fit(X, np.ones(400), exposure=np.zeros(400)),
        "exposure must be > 0",
    ),
    "short exposure": (
        lambda X, eta: FMCount().fit(X, np.ones(400), exposure=np.ones(3)),
        "exposure must have one value per row",
    ),
    "Poisson by Gibbs": (
        lambda X, eta: FMCount(likelihood="poisson").fit(X, np.ones(400)),
        "Poisson has no Gibbs sweep: use NUTS",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    fit, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        fit(*rows())


def test_labels_unseen_at_fit() -> None:
    X, _ = rows()
    with pytest.raises(ValueError, match="the label 'maybe', which fit did not see"):
        classifier().log_predictive_density(X, np.full(400, "maybe"))


def test_separable_data_give_finite_answers() -> None:
    X, _ = rows()
    y = (X["user"] < 4).to_numpy()
    p = FMClassifier(**QUICK).fit(X, y).predict_proba(X)
    assert np.isfinite(p).all()
    assert np.mean((p[:, 1] > 0.5) == y) > 0.95


SMALL: dict[str, Any] = {"rank": 2, "num_warmup": 20, "num_samples": 20, "num_chains": 1}
ROUNDING = "two chains whose float32 sums have their terms in another order, or weights that Gibbs refuses"


WEIGHTS = [f"check_sample_weights_{name}" for name in ("list", "not_overwritten")]
REAL = [f"check_regressor{name}" for name in ("s_train", "_data_not_an_array", "s_no_decision_function")]
REAL += ["check_n_features_in", "check_n_features_in_after_fitting", "check_fit_idempotent"]
REAL += ["check_fit_check_is_fitted"]


def expected_failures(estimator: Any) -> dict[str, str]:
    expected = {f"check_sample_weight_equivalence_on_{kind}_data": ROUNDING for kind in ("dense", "sparse")}
    if isinstance(estimator, FMOrdinal) or getattr(estimator, "likelihood", None) == "probit":
        expected |= dict.fromkeys(WEIGHTS, "Gibbs has no weights but 0 and 1 under a probit link")
    if isinstance(estimator, FMOrdinal):
        expected["check_classifiers_train"] = "three blobs in the plane have no order"
    if isinstance(estimator, FMCount):
        expected |= dict.fromkeys(REAL, "counts are whole numbers")
    return expected


@pytest.mark.slow
@parametrize_with_checks(
    [FMClassifier(**SMALL), FMClassifier(likelihood="probit", **SMALL), FMOrdinal(**SMALL), FMCount(**SMALL)],
    expected_failed_checks=expected_failures,
)
def test_check_estimator(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("likelihood", ["probit", pytest.param("logit", marks=pytest.mark.slow)])
def test_two_ordered_classes(likelihood: Any) -> None:
    """One cut-point, and no gap between two."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.where(X[:, 0] > 0, "yes", "no")
    options: dict[str, Any] = {"num_warmup": 50, "num_samples": 50, "num_chains": 1}
    if likelihood == "logit":
        options = {"inference": "map"}
    model = FMOrdinal(0, likelihood=likelihood, random_state=0, **options).fit(X, y)
    assert np.mean(model.predict(X) == y) > 0.9


def test_half_stars_are_ordered_classes_and_real_numbers_are_not() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user": rng.integers(0, 4, 60)})
    stars = rng.integers(1, 7, 60) / 2
    options: dict[str, Any] = {"num_warmup": 5, "num_samples": 5, "num_chains": 1}
    model = FMOrdinal(0, random_state=0, **options).fit(X, stars)
    assert model.classes_.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert set(model.predict(X)) <= set(stars)
    assert np.isfinite(model.log_predictive_density(X, stars)).all()
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        FMOrdinal(0, **options).fit(X, rng.normal(size=60))
    few = FMOrdinal(0, random_state=0, **options).fit(X[:3], [0.5, 1.5, 2.5], classes=[0.5, 1.5, 2.5, 3.5])
    assert few.predict_proba(X[:3]).shape == (3, 4)
