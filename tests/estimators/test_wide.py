"""Text and fields through an encoder into an estimator, and the names of the columns on the other side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from bayesfm import HashedFields, HashedText
from bayesfm.estimators import FMClassifier, FMRegressor
from tests.estimators.data import quick, ratings

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

SUBJECTS = {"pets": ["cat", "dog", "mouse"], "food": ["rice", "bread", "soup"]}


def texts(num: int = 60) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(["food", "pets"], num)
    filler = ["the", "and", "with", "some"]
    documents = [
        " ".join([*rng.choice(SUBJECTS[label], 2), *rng.choice(filler, 2)]) for label in labels.tolist()
    ]
    return documents, labels


def quick_classifier() -> FMClassifier:
    return FMClassifier(rank=1, num_warmup=30, num_samples=40, num_chains=2, random_state=0)


@pytest.fixture(scope="module")
def pipeline():
    documents, labels = texts()
    return make_pipeline(HashedText(empty="ignore"), quick_classifier()).fit(documents, labels)


def test_text_to_probabilities(pipeline) -> None:
    documents = ["a cat and a dog", "soup with bread", "words that nobody knows", "?"]
    p = pipeline.predict_proba(documents)
    assert pipeline.classes_.tolist() == ["food", "pets"]
    assert p[0, 1] > 0.5 > p[1, 1]
    np.testing.assert_array_equal(p[2], p[3])  # neither says anything
    assert pipeline.score(*texts()) == 1


def test_names_of_tokens_reach_the_posterior(pipeline, tmp_path: Path) -> None:
    encoder, model = pipeline[0], pipeline[-1]
    before = pipeline.predict_proba(texts()[0])
    assert model.posterior_["posterior"]["w"].coords["feature"].values[0] == "x0"
    old = model.posterior_
    assert model.name_features(pipeline[:-1].get_feature_names_out()) is model
    tree = model.posterior_
    for variable in (tree["posterior"]["w"], tree["posterior"]["v"], tree["constant_data"]["feature_group"]):
        assert variable.coords["feature"].values.tolist() == encoder.get_feature_names_out().tolist()
    pets, food = (
        tree["posterior"]["w"].sel(feature=SUBJECTS[x]).mean(("chain", "draw")) for x in ("pets", "food")
    )
    assert pets.min() > food.max()
    np.testing.assert_array_equal(
        tree["posterior"]["w"].sel(feature="cat"), old["posterior"]["w"][..., encoder.column_of("cat")]
    )
    assert old["posterior"]["w"].coords["feature"].values[0] == "x0"  # another tree
    np.testing.assert_array_equal(pipeline.predict_proba(texts()[0]), before)
    model.save(tmp_path / "fit.nc")
    again = FMClassifier.load(tmp_path / "fit.nc")
    assert again.posterior_["posterior"]["w"].sel(feature="soup").shape == (2, 40)
    np.testing.assert_array_equal(again.predict_proba(encoder.transform(texts()[0])), before)
    assert json.loads(again.posterior_.attrs["design_schema"])["blocks"][0]["feature_names"] == list(
        encoder.get_feature_names_out()
    )


def test_names_that_do_not_fit(pipeline, fitted: FMRegressor) -> None:
    with pytest.raises(ValueError, match="names must have one entry per feature: expected 10, got 1"):
        pipeline[-1].name_features(["cat"])
    with pytest.raises(ValueError, match="names must be unique"):
        pipeline[-1].name_features(["cat"] * 10)
    with pytest.raises(TypeError, match="FMRegressor was fitted to a table, whose features have names"):
        fitted.name_features(["a"] * 11)


@pytest.mark.usefixtures("no_sampling")
def test_fields_and_their_groups() -> None:
    X, y = ratings()
    encoder = HashedFields()
    model = quick(groups=encoder.fit(X).get_fields_out()).fit(encoder.transform(X), y)
    model.name_features(encoder.get_feature_names_out())
    groups = (
        model.posterior_["posterior"]
        .coords["group"]
        .values[model.posterior_["constant_data"]["feature_group"]]
    )
    names = model.posterior_["constant_data"].coords["feature"].values
    assert set(groups) == {"user", "item"}
    assert [name.partition("=")[0] for name in names] == groups.tolist()
    assert model.predict(encoder.transform(X)).shape == y.shape


@pytest.mark.usefixtures("no_sampling")
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/wide-data.md, with random numbers for draws."""
    page = Path(__file__).parents[2] / "docs" / "wide-data.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(code) == 6
    monkeypatch.chdir(tmp_path)
    exec("\n".join(code), {})


def test_unfitted_models_have_no_features_to_name() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        FMRegressor().name_features(["a"])
