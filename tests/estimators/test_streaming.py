"""partial_fit: what is learned in chunks, where it goes on, and what is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import jax
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesfm import FMClassifier, FMCount, FMOrdinal, FMRegressor
from bayesfm.design import DesignEncoder
from bayesfm.inference.stochastic import Learner, MinibatchOptions

N, BATCH = 384, 32


def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user": rng.integers(0, 12, N), "item": rng.integers(0, 9, N)})
    a, b = rng.normal(size=12), rng.normal(size=9)
    return X, 3 + 0.5 * a[X["user"]] + a[::-1][X["user"]] * b[X["item"]] + 0.3 * rng.normal(size=N)


def stream(inference: str = "stochastic_map", **options: Any) -> FMRegressor:
    own = {"batch_size": BATCH, **options.pop("engine_options", {})}
    return FMRegressor(2, inference=inference, engine_options=own, random_state=0, **options)


@pytest.mark.slow
@parametrize_with_checks(
    [  # scales of the prior: epochs that learn them would be a program more for every shape
        FMRegressor(
            2,
            inference="stochastic_map",
            engine_options={"num_epochs": 40, "scales": "prior"},
            random_state=0,
        )
    ],
    expected_failed_checks=lambda _: {
        f"check_sample_weight_equivalence_on_{kind}_data": "a row of weight two is one row of a batch, not two"
        for kind in ("dense", "sparse")
    },
)
@pytest.mark.filterwarnings(r"ignore:\d+ column\(s\) of X hold large numbers:UserWarning")
def test_check_estimator(estimator: FMRegressor, check: Callable[[FMRegressor], None]) -> None:
    """With partial_fit, which scikit-learn finds and checks."""
    check(estimator)


@pytest.mark.parametrize("inference", ["stochastic_map", "svi"])
def test_chunks_are_one_pass(inference: str) -> None:
    """Of the same learner that the function interface has."""
    X, y = table()
    model = stream(inference, **({"num_samples": 20} if inference == "svi" else {}))
    for first in range(0, N, 4 * BATCH):
        model.partial_fit(
            X[first : first + 4 * BATCH], y[first : first + 4 * BATCH], levels=LEVELS if not first else None
        )
    encoder = DesignEncoder().fit(X[: 4 * BATCH], levels=LEVELS)
    start, rest = (encoder.transform(X[rows]) for rows in (slice(4 * BATCH), slice(4 * BATCH, N)))
    learner = Learner(
        jax.random.split(jax.random.key(0))[0],
        model.spec_,
        start,
        y[: 4 * BATCH],
        expectation="point" if inference == "stochastic_map" else "auto",
        options=MinibatchOptions(batch_size=BATCH, progress=False),
    )
    learner.partial_fit(start, y[: 4 * BATCH]).partial_fit(rest, y[4 * BATCH :])
    np.testing.assert_array_equal(model._stream.learner.state.table, learner.state.table)
    assert model.fit_info_["num_rows_seen"] == N
    assert model.fit_info_["engine"] == inference
    assert model.posterior_["posterior"].sizes["draw"] == (1 if inference == "stochastic_map" else 20)


LEVELS = {"user": range(12), "item": range(9)}


def test_it_learns_and_says_so() -> None:
    X, y = table()
    model = stream()
    scores = []
    for _ in range(6):
        model.partial_fit(X, y)
        scores.append(model.score(X, y))
    assert scores[-1] > 0.85 > scores[0]


def test_levels_to_come() -> None:
    """Rows have a level that only the names of the first call had; another is named in a warning and adds nothing."""
    X, y = table()
    early = X["user"] < 10
    model = stream().partial_fit(X[early], y[early], levels={"user": [10, 11]})
    before = model.predict(pd.DataFrame({"user": [10], "item": [0]}))
    model.partial_fit(X[~early], y[~early])
    assert model.predict(pd.DataFrame({"user": [10], "item": [0]})) != before
    v = model.posterior_["posterior"]["v"].to_numpy()
    with pytest.warns(UserWarning, match="levels that are new .1 of 'user'. add nothing"):
        model.partial_fit(pd.DataFrame({"user": [77], "item": [0]}), [3.0])
    assert model.posterior_["posterior"]["v"].shape == v.shape


@pytest.mark.parametrize("inference", ["stochastic_map", "svi"])
def test_goes_on_after_fit_and_after_load(inference: str, tmp_path: Any) -> None:
    """After fit with the optimiser's memory, after load from means and spreads: what a chunk does not touch stays."""
    X, y = table()
    options = {"num_samples": 400} if inference == "svi" else {}
    model = stream(inference, engine_options={"num_epochs": 4}, **options).fit(X, y)
    steps = model._stream.learner.steps
    model.save(tmp_path / "model.nc")
    again = FMRegressor.load(tmp_path / "model.nc")
    before = again.posterior_["posterior"].dataset
    few = X["user"] < 3
    for goes_on in (again, model):
        goes_on.partial_fit(X[few], y[few])
    assert model._stream.learner.steps == steps + -(-few.sum() // BATCH)
    for name in ("w", "v"):
        old, new = (
            x[name].sel(feature=[f"user={u}" for u in (*range(3), *range(3, 12))])
            for x in (before, again.posterior_["posterior"])
        )
        moved = np.abs(new.mean(("chain", "draw")) - old.mean(("chain", "draw"))).to_numpy().reshape(12, -1)
        assert np.all(moved[:3].max(axis=1) > 0)
        if inference == "stochastic_map":
            assert not moved[3:].any()
            continue
        mcse = np.asarray(old.std(("chain", "draw"))).reshape(12, -1) * (2 / 400) ** 0.5
        assert np.all(moved[3:] < 6 * mcse[3:])
        ratio = np.asarray(new.std(("chain", "draw")) / old.std(("chain", "draw"))).reshape(12, -1)
        assert np.all(np.abs(np.log(ratio[3:])) < 6 / 400**0.5)


def test_names_stay_while_it_goes_on() -> None:
    X, y = table()
    ones = (X["user"].to_numpy()[:, None] == np.arange(12)).astype(float)
    model = stream().partial_fit(ones, y).name_features([f"u{j}" for j in range(12)])
    before = model.predict(ones)
    model.partial_fit(ones, y)
    assert model.posterior_["posterior"]["feature"].to_numpy().tolist() == [f"u{j}" for j in range(12)]
    assert np.any(model.predict(ones) != before)


def test_copies_learn_on_their_own() -> None:
    X, y = table()
    model = stream().partial_fit(X, y)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), joblib.load(buffer)):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        other.partial_fit(X, y)
        assert np.any(other.predict(X) != model.predict(X))


def test_labels_and_exposures() -> None:
    X, y = table()
    labels = np.where(y > 3, "hi", "lo")
    one = labels == "hi"
    model = FMClassifier(2, inference="stochastic_map", random_state=0)
    model.partial_fit(X[one], labels[one], classes=["lo", "hi"]).partial_fit(X, labels)
    assert model.classes_.tolist() == ["hi", "lo"]
    with pytest.raises(ValueError, match="has the label 'other'"):
        model.partial_fit(X[:1], ["other"])
    with pytest.raises(ValueError, match="for the first call"):
        model.partial_fit(X, labels, classes=["hi", "lo", "other"])
    ordinal = FMOrdinal(2, inference="stochastic_map", random_state=0)
    with pytest.raises(ValueError, match="sorted order"):
        ordinal.partial_fit(X, labels, classes=["lo", "hi"])
    assert ordinal.partial_fit(X, labels, classes=["hi", "lo", "mid"]).predict_proba(X).shape == (N, 3)
    count = FMCount(0, inference="stochastic_map", random_state=0)
    hours = np.full(N, 2.0)
    counts = np.random.default_rng(3).poisson(4.0, N)
    for _ in range(20):
        count.partial_fit(X, counts, row_data={"exposure": hours})
    assert count.predict(X).mean() == pytest.approx(2.0, rel=0.1)


def test_refused() -> None:
    X, y = table()
    assert not hasattr(FMRegressor(2), "partial_fit")
    with pytest.raises(AttributeError, match="'stochastic_map' or 'svi'"):
        FMRegressor(2, inference="nuts").partial_fit(X, y)
    with pytest.raises(AttributeError, match="no attribute 'posterior_'"):
        stream().posterior_  # noqa: B018
    with pytest.raises(ValueError, match="validation are for fit"):
        stream(engine_options={"validation": 0.1}).partial_fit(X, y)
    with pytest.raises(ValueError, match="predict_rows is for engines that gather"):
        stream(predict_rows={"new": X}).fit(X, y)
    with pytest.raises(ValueError, match=r"columns that X does not have: .'film'."):
        stream().partial_fit(X, y, levels={"film": [1]})
    with pytest.raises(TypeError, match="levels must map"):
        stream().partial_fit(X, y, levels={"user": "abc"})
    with pytest.raises(ValueError, match="taken as a number"):
        stream(numeric=["item"]).partial_fit(X, y, levels={"item": [1]})
    with pytest.raises(TypeError, match="of kind 'str', and it holds 'int'"):
        stream().partial_fit(X, y, levels={"user": ["ann"]})
    with pytest.raises(ValueError, match="levels are of columns of a DataFrame"):
        stream().partial_fit(X.to_numpy(float), y, levels={"user": [1]})
    with pytest.raises(ValueError, match="classes are for estimators of labels"):
        stream().partial_fit(X, y, classes=[1, 2])
    model = stream(engine_options={"optimiser": "sgd", "learning_rate": 1e6})
    with pytest.raises(FloatingPointError, match=r"no longer finite.*learning_rate"):
        model.partial_fit(X, y).partial_fit(X, y)
