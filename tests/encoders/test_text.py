from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

from bayesfm.encoders import HashedText
from tests.encoders.rows import entries, sizes

WORDS = ["the", "cat", "sat", "on", "a", "mat", "keyboard", "Über", "a_b", "x"]
documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=8)

TEXTS = ["the cat sat on the mat", "the dog barked at the cat", "keyboards and mice"]


def same(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert (ours != theirs).nnz == 0


@given(documents, sizes, st.booleans(), st.sampled_from([(1, 1), (1, 2), (2, 2)]))
def test_tokens_and_hashes_are_those_of_scikit_learn(
    texts: list[str], n_features: int, signed: bool, ngram_range: tuple[int, int]
) -> None:
    options: dict[str, Any] = {"n_features": n_features, "ngram_range": ngram_range}
    theirs = HashingVectorizer(norm=None, alternate_sign=signed, **options).transform(texts)
    encoder = HashedText(binary=False, signed=signed, empty="ignore", compact=False, **options)
    assert encoder.transform(texts).shape == theirs.shape
    assert entries(encoder.transform(texts)) == entries(theirs)
    if not signed:
        theirs = HashingVectorizer(norm=None, alternate_sign=False, binary=True, **options).transform(texts)
        assert entries(encoder.set_params(binary=True).transform(texts)) == entries(theirs)
    compact = HashedText(binary=not signed, signed=signed, empty="ignore", **options)
    if theirs.count_nonzero():
        X = compact.fit_transform(texts)
        assert entries(X, compact.columns_) == entries(theirs)
        same(compact.transform(texts), X)
    else:
        with pytest.raises(ValueError, match="no column is left of 0"):
            compact.fit(texts)


@given(documents, st.randoms(use_true_random=False))
def test_order_within_a_document_makes_no_difference(texts: list[str], random: Any) -> None:
    texts = ["cat", *texts]
    shuffled = [" ".join(random.sample(text.split(), len(text.split()))) for text in texts]
    first, second = (HashedText(8, empty="ignore") for _ in range(2))
    same(first.fit_transform(texts), second.fit_transform(shuffled))
    assert first.get_feature_names_out().tolist() == second.get_feature_names_out().tolist()


def test_words() -> None:
    def names(text: str, **options: Any) -> set[str]:
        return set(HashedText(**options).fit([text]).get_feature_names_out())

    assert names("A cat, sat. On x!") == {"cat", "sat", "on"}
    assert names("A cat, sat.", token_pattern=r"\S+") == {"a", "cat,", "sat."}
    assert names("A cat, sat.", token_pattern=r"\S+", lowercase=False) == {"A", "cat,", "sat."}
    assert names("the cats sat", min_length=4) == {"cats"}
    assert names("the cats sat here", min_length=4, ngram_range=(2, 2)) == {"cats here"}
    assert names("the cat sat", stop_words=["the"]) == {"cat", "sat"}
    assert names("the cat sat", stop_words="english") == {"cat", "sat"}
    assert names("the cat-sat", tokenizer=lambda text: text.split("-")) == {"the cat", "sat"}
    assert names("the cat-sat", tokenizer=str.split, min_length=4) == {"cat-sat"}
    assert names("Ünder", strip_accents="unicode") == {"under"}
    assert names("abc", analyzer="char", ngram_range=(2, 2)) == {"ab", "bc"}


def test_norm_is_that_of_what_is_put_out() -> None:
    for norm in ("l1", "l2"):
        encoder = HashedText(binary=False, norm=norm)  # type: ignore[arg-type]
        X = encoder.fit_transform(TEXTS)
        theirs = HashingVectorizer(norm=norm, alternate_sign=False).transform(TEXTS)[:, encoder.columns_]
        np.testing.assert_allclose(X.toarray(), theirs.toarray(), rtol=4 * np.finfo(float).eps)
        known, unseen = encoder.transform_with_unseen(["the cat cat zebra", "zebra"])
        size = {"l1": 3, "l2": 5**0.5}[norm]
        np.testing.assert_allclose(known[:, encoder.column_of("cat")].toarray(), [2 / size, 0])
        np.testing.assert_allclose(unseen.sum(axis=1), [1 / size, 1])


def test_weighting_is_left_to_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    encoder = HashedText(binary=False, min_df=2, max_df=0.9)
    X = TfidfTransformer().fit_transform(encoder.fit_transform(TEXTS))
    theirs = TfidfVectorizer(min_df=2, max_df=0.9)
    expected = theirs.fit_transform(TEXTS)[
        :, [theirs.vocabulary_[x] for x in encoder.get_feature_names_out()]
    ]
    np.testing.assert_allclose(X.toarray(), expected.toarray(), rtol=1e-14)


@given(documents, st.integers(1, 4), st.sampled_from([1.0, 0.5, 0.75, 3]))
def test_cut_offs_are_those_of_count_vectorizer(texts: list[str], min_df: int, max_df: float) -> None:
    theirs = CountVectorizer(min_df=min_df, max_df=max_df, binary=True)
    encoder = HashedText((1 << 31) - 1, min_df=min_df, max_df=max_df, empty="ignore")
    try:
        expected = theirs.fit_transform(texts)
    except ValueError:
        with pytest.raises(ValueError, match="no column is left"):
            encoder.fit(texts)
        return
    X = encoder.fit_transform(texts)
    names = encoder.get_feature_names_out()
    assert set(names) == set(theirs.vocabulary_)
    same(X, expected[:, [theirs.vocabulary_[x] for x in names]])


def test_documents_come_from_any_sequence() -> None:
    X = HashedText().fit_transform(TEXTS)
    others = (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=[3, 1, 2]), pl.Series(TEXTS))
    for texts in others:
        same(HashedText().fit_transform(texts), X)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["cat", None], TypeError, r"documents must be strings, got None \(NoneType\) in row 1"),
        (["cat", 3], TypeError, "got 3 .int. in row 1"),
        ([b"cat"], TypeError, r"got b'cat'.*decode bytes"),
        ("cat", TypeError, r"got the string 'cat': write \[document\]"),
        (3, TypeError, "sequence of documents, got int"),
        (np.eye(2), TypeError, "sequence of documents, got ndarray"),
        (pd.DataFrame({"text": TEXTS}), TypeError, r"got a table \(DataFrame\): pass its column of texts"),
        ([], ValueError, "X has no rows"),
        (
            ["cat", "?", "dog", ""],
            ValueError,
            r"row 1 of X \(counted from 0\) has no tokens, and so have 1 more",
        ),
    ],
)
def test_documents_that_are_none(texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HashedText().fit(texts)
    with pytest.raises(error, match=message):
        HashedText(compact=False).transform(texts)


def test_empty_documents_may_be_rows_of_zeros() -> None:
    encoder = HashedText(empty="ignore")
    assert encoder.fit_transform(["cat", "?"]).toarray().tolist() == [[1], [0]]
    assert encoder.transform(["", "dog"]).nnz == 0


def test_tokens_must_be_strings() -> None:
    encoder = HashedText(tokenizer=lambda text: [len(text)] if "dog" in text else [text])
    with pytest.raises(TypeError, match=r"tokenizer must give strings, got 7 for the document in row 2"):
        encoder.fit(["cat", "mouse", "the dog", "a dog"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "l3"}, ValueError, "norm must be one of"),
        ({"analyzer": "words"}, ValueError, "analyzer must be one of"),
        ({"strip_accents": "all"}, ValueError, "strip_accents must be one of"),
        ({"stop_words": "german"}, ValueError, "stop_words must be one of 'english'"),
        ({"tokenizer": "split"}, TypeError, "tokenizer must be a function"),
        ({"token_pattern": None}, TypeError, "token_pattern must be a regular expression"),
        ({"token_pattern": "(a)(b)"}, ValueError, "capturing group"),
        ({"min_length": 0}, ValueError, "min_length must be >= 1"),
        ({"lowercase": "yes"}, TypeError, "lowercase must be True or False"),
        ({"ngram_range": (2, 1)}, ValueError, r"ngram_range must be \(shortest, longest\)"),
        ({"ngram_range": (0, 1)}, ValueError, "ngram_range.0. must be >= 1"),
        ({"ngram_range": 2}, TypeError, r"ngram_range must be \(shortest, longest\)"),
        ({"analyzer": "char", "min_length": 3}, ValueError, "are for words, but analyzer is 'char'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HashedText(**options).fit(["a cat"])
