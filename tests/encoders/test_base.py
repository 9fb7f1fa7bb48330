"""What all encoders share: chunks, look-up, names, unseen columns, options, scikit-learn's checks."""

from __future__ import annotations

import pickle
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction import FeatureHasher
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from bayesfm.encoders import BloomInclusion, HashedFields, HashedText, PoissonInclusion
from tests.encoders.rows import Row, as_tokens, entries, rows_with_gaps, sizes

TEXTS = ["the cat sat on the mat", "the dog barked at the cat", "keyboards and mice"]

inclusions = st.one_of(
    st.none(),
    st.builds(PoissonInclusion, st.sampled_from([0.3, 0.7, 1.0]), st.integers(0, 5)),
    st.builds(
        BloomInclusion, st.integers(1, 3), st.sampled_from([1, 4, 100]), st.sampled_from([0.5, 0.05, 0.01])
    ),
)


CHECKS = [
    "do_not_raise_errors_in_init_or_set_params",
    "estimator_cloneable",
    "estimator_repr",
    "estimator_tags_renamed",
    "get_params_invariance",
    "mixin_order",
    "no_attributes_set_in_init",
    "parameters_default_constructible",
    "set_params",
    "valid_tag_types",
]
"""scikit-learn's checks that need no table of numbers; ``check_estimator`` runs none where X is no such table."""


@pytest.mark.parametrize("estimator", [HashedText(), HashedFields(), HashedText(compact=False)])
@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learn(estimator: Any, check: str) -> None:
    getattr(estimator_checks, f"check_{check}")(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize("encoder", [HashedText(min_df=2), HashedText(64, compact=False)])
def test_pipelines_and_searches(encoder: Any) -> None:
    pipeline = make_pipeline(encoder, MultinomialNB())
    search = GridSearchCV(pipeline, {f"{pipeline.steps[0][0]}__binary": [True, False]}, cv=2)
    search.fit(np.array(TEXTS * 2), [0, 0, 1] * 2)
    assert search.predict(TEXTS).tolist() == [0, 0, 1]
    names = search.best_estimator_[:-1].get_feature_names_out()
    assert len(names) == search.best_estimator_[-1].n_features_in_


def column_by_hand(token: str, n_features: int) -> int:
    return int(FeatureHasher(n_features, alternate_sign=False).transform([{token: 1}]).indices[0])


@given(rows_with_gaps, sizes)
def test_reverse_index(rows: list[Row], n_features: int) -> None:
    encoder = HashedFields(n_features).fit(rows)
    of_column: dict[int, set[str]] = {}
    for token in {token for row in rows for token in as_tokens(row)}:
        of_column.setdefault(column_by_hand(token, n_features), set()).add(token)
    assert len(encoder.columns_) == len(of_column)
    for place, column in enumerate(encoder.columns_.tolist()):
        assert set(encoder.tokens_of(place)) == of_column[column]
        for token in of_column[column]:
            assert encoder.column_of(token) == place
    report = encoder.collisions()
    assert report.num_tokens == sum(map(len, of_column.values()))
    assert report.num_columns == len(of_column)
    assert report.num_colliding == sum(len(x) for x in of_column.values() if len(x) > 1)


@given(
    rows_with_gaps,
    st.sampled_from([1, 4, 16, 1 << 20, (1 << 31) - 1]),
    st.lists(st.integers(0, 8)),
    inclusions,
    st.sampled_from([1, 2, 0.4]),
    st.sampled_from([1.0, 0.6, 3]),
    st.booleans(),
)
def test_a_stream_teaches_what_all_rows_teach(
    rows: list[Row],
    n_features: int,
    cuts: list[int],
    inclusion: Any,
    min_df: float,
    max_df: float,
    signed: bool,
) -> None:
    options: dict[str, Any] = {"inclusion": inclusion, "min_df": min_df, "max_df": max_df, "signed": signed}
    rows = rows * 3
    whole, stream = HashedFields(n_features, **options), HashedFields(n_features, **options)
    whole.partial_fit(rows)
    edges = [0, *sorted({3 * cut for cut in cuts if 0 < 3 * cut < len(rows)}), len(rows)]
    for start, stop in pairwise(edges):
        stream.partial_fit(rows[start:stop])
    assert stream.columns_.tolist() == whole.columns_.tolist()
    assert stream.table_.row_counts.tolist() == whole.table_.row_counts.tolist()
    assert stream.index_.counts == whole.index_.counts
    assert stream.get_feature_names_out().tolist() == whole.get_feature_names_out().tolist()
    if len(whole.columns_):
        assert (stream.transform(rows) != whole.transform(rows)).nnz == 0
        assert (HashedFields(n_features, **options).fit_transform(rows) != whole.transform(rows)).nnz == 0


def test_columns_keep_their_place_in_a_stream() -> None:
    encoder = HashedText()
    seen: list[int] = []
    for text in TEXTS:
        encoder.partial_fit([text])
        assert encoder.columns_.tolist()[: len(seen)] == seen
        seen = encoder.columns_.tolist()
    assert encoder.transform(TEXTS).shape == (3, len(seen))


@given(rows_with_gaps, rows_with_gaps, st.sampled_from([4, 16, 1 << 20]))
def test_known_and_unseen_entries_are_all_entries(
    fitted: list[Row], rows: list[Row], n_features: int
) -> None:
    encoder = HashedFields(n_features).fit(fitted)
    everything = HashedFields(n_features, compact=False).transform(rows)
    known, unseen = encoder.transform_with_unseen(rows)
    assert known.has_canonical_format
    assert known.shape == (len(rows), len(encoder.columns_))
    assert unseen.shape == everything.shape
    assert entries(known, encoder.columns_) | entries(unseen) == entries(everything)
    assert known.nnz + unseen.nnz == everything.nnz


def test_names_of_shared_columns() -> None:
    encoder = HashedText(2, binary=False).fit(["aa bb cc dd ee ff gg hh", "hh hh bb"])
    names = encoder.get_feature_names_out()
    assert sorted(names) == sorted(
        " | ".join([*tokens[:3], *([f"+{len(tokens) - 3}"] if len(tokens) > 3 else [])])
        for tokens in (encoder.tokens_of(0), encoder.tokens_of(1))
    )
    both = [encoder.index_.counts[token] for token in encoder.tokens_of(0)]
    assert both == sorted(both, reverse=True)
    assert {*encoder.tokens_of(0), *encoder.tokens_of(1)} == {f"{x}{x}" for x in "abcdefgh"}


def test_names_are_unique() -> None:
    """A token may be called what two tokens of another column are called together."""
    columns = {token: column_by_hand(token, 8) for token in (f"t{i}" for i in range(10, 40))}
    for first, second in combinations(columns, 2):
        joined = f"{first} | {second}"
        if columns[first] == columns[second] != column_by_hand(joined, 8):
            break
    encoder = HashedFields(8).fit([[first, second, joined]])
    names = encoder.get_feature_names_out().tolist()
    assert len(set(names)) == len(names) == 2
    assert joined in names
    assert any(name.startswith(f"{joined} #") for name in names)


def test_columns_without_names() -> None:
    encoder = HashedText(4, compact=False)
    assert encoder.get_feature_names_out().tolist() == ["#0", "#1", "#2", "#3"]
    assert encoder.column_of("cat") == column_by_hand("cat", 4)
    encoder.fit(["cat"])
    names = [f"#{j}" for j in range(4)]
    names[column_by_hand("cat", 4)] = "cat"
    assert encoder.get_feature_names_out().tolist() == names
    with pytest.raises(KeyError, match="fit did not meet the token 'dog'"):
        encoder.column_of("dog")
    without = HashedText(1 << 10, keep_tokens=False).fit(["cat"])
    assert without.get_feature_names_out().tolist() == [f"#{without.columns_[0]}"]
    assert without.column_of("cat") == 0
    with pytest.raises(ValueError, match="needs the tokens: set keep_tokens=True"):
        without.collisions()


def test_look_up_of_what_is_not_there() -> None:
    encoder = HashedText(min_df=2).fit(TEXTS)
    with pytest.raises(KeyError, match="fit did not meet the token 'zebra'"):
        encoder.column_of("zebra")
    with pytest.raises(KeyError, match="'mat' did not occur, or min_df"):
        encoder.column_of("mat")
    with pytest.raises(TypeError, match="token must be a string, got 3"):
        encoder.column_of(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="column must be below 2"):
        encoder.tokens_of(2)


@pytest.mark.parametrize(
    "call", ["transform", "get_feature_names_out", "collisions", "column_of", "tokens_of"]
)
def test_before_fit(call: str) -> None:
    encoder = HashedText()
    with pytest.raises(NotFittedError):
        check_is_fitted(encoder)
    arguments: dict[str, list[Any]] = {"transform": [TEXTS], "column_of": ["cat"], "tokens_of": [0]}
    with pytest.raises(NotFittedError, match="call fit first"):
        getattr(encoder, call)(*arguments.get(call, []))
    check_is_fitted(HashedText(compact=False))


@pytest.mark.parametrize("encoder", [HashedText(), HashedFields()])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_features": -1}, ValueError, "n_features must be >= 1, got -1"),
        ({"n_features": 0}, ValueError, "n_features must be >= 1, got 0"),
        ({"n_features": 2.0**20}, TypeError, "n_features must be an integer >= 1, got 1048576.0"),
        ({"n_features": "many"}, TypeError, "n_features must be an integer"),
        ({"n_features": True}, TypeError, "n_features must be an integer"),
        ({"n_features": 1 << 31}, ValueError, "n_features must be <= 2147483647"),
        ({"signed": "no"}, TypeError, "signed must be True or False, got 'no'"),
        ({"binary": 1}, TypeError, "binary must be True or False"),
        ({"compact": None}, TypeError, "compact must be True or False"),
        ({"keep_tokens": 0}, TypeError, "keep_tokens must be True or False"),
        ({"empty": "skip"}, ValueError, "empty must be one of 'error', 'ignore'"),
        ({"dtype": np.int64}, ValueError, "dtype must be one of"),
        ({"min_df": 0}, ValueError, "min_df must be >= 1"),
        ({"min_df": True}, TypeError, "min_df must be an integer"),
        ({"min_df": "2"}, TypeError, "min_df must be a real number"),
        ({"max_df": 1.5}, ValueError, r"max_df must be a number of rows \(int\) or a share"),
        ({"max_df": float("nan")}, ValueError, "max_df must be finite"),
        ({"inclusion": 0.5}, TypeError, "inclusion must be a PoissonInclusion, a BloomInclusion or None"),
        ({"compact": False, "min_df": 2}, ValueError, "compact=False keeps all of them"),
        (
            {"compact": False, "inclusion": PoissonInclusion(0.5)},
            ValueError,
            "compact=False keeps all of them",
        ),
    ],
)
def test_bad_options(encoder: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    rows: Any = ["a cat"] if isinstance(encoder, HashedText) else [{"a": "x"}]
    with pytest.raises(error, match=message):
        clone(encoder).set_params(**options).fit(rows)


def test_nothing_left_is_an_error_in_fit_but_not_in_a_stream() -> None:
    encoder = HashedText(min_df=3)
    with pytest.raises(ValueError, match=r"no column is left of 2 that came in with 1 rows: min_df=3"):
        encoder.fit(["the cat"])
    encoder = HashedText(min_df=3).partial_fit(["the cat"])
    with pytest.raises(ValueError, match="no column is left of 2"):
        encoder.transform(["the cat"])
    assert encoder.partial_fit(["the cat", "a cat"]).get_feature_names_out().tolist() == ["cat"]


def test_size_of_the_table_is_that_of_the_first_chunk() -> None:
    encoder = HashedText(16).partial_fit(TEXTS)
    with pytest.raises(ValueError, match="n_features was 16 in the first chunk and is 32 now"):
        encoder.set_params(n_features=32).partial_fit(TEXTS)
    assert encoder.fit(TEXTS).table_.n_features == 32


def test_fit_begins_anew() -> None:
    encoder = HashedText().fit(["zebra"]).fit(TEXTS)
    assert encoder.columns_.tolist() == HashedText().fit(TEXTS).columns_.tolist()
    assert "zebra" not in encoder.index_.counts
    with pytest.raises(TypeError, match="takes no fit parameters, got sample_weight"):
        encoder.fit_transform(TEXTS, sample_weight=1)


def test_binary_signs() -> None:
    both = HashedText(1, binary=True, signed=True, compact=False)
    values = {word: both.transform([word])[0, 0] for word in ("cat", "dog", "mouse", "bird", "fox")}
    assert set(values.values()) == {-1, 1}
    plus = next(word for word, x in values.items() if x > 0)
    minus = next(word for word, x in values.items() if x < 0)
    assert both.transform([f"{plus} {plus} {minus}"])[0, 0] == 1
    assert both.transform([f"{plus} {minus}"]).nnz == 0
    with pytest.raises(ValueError, match="no column is left"):
        both.set_params(compact=True).fit([f"{plus} {minus}"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype(dtype: type) -> None:
    assert HashedText(dtype=dtype, norm="l2").fit_transform(TEXTS).dtype == dtype
    assert HashedFields(dtype=dtype, signed=True).fit_transform([{"a": 0.5}]).dtype == dtype


def test_pickle_goes_on_with_the_stream() -> None:
    encoder = HashedText(inclusion=PoissonInclusion(0.5)).partial_fit(TEXTS)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.partial_fit(TEXTS).columns_.tolist() == encoder.partial_fit(TEXTS).columns_.tolist()
