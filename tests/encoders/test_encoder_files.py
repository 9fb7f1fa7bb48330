from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesfm.encoders import BloomInclusion, HashedFields, HashedText, PoissonInclusion

TEXTS = ["the cat sat on the mat", "the dog barked at the cat", "keyboards and mice \U0001f600 ü\n"]

ENCODERS: list[Any] = [
    HashedText(64, ngram_range=(1, 2), norm="l2", min_df=2, stop_words=["the"], dtype=np.float32),
    HashedText(token_pattern=r"\S+", inclusion=PoissonInclusion(0.5, seed=3)),
    HashedText(1 << 25, inclusion=BloomInclusion(2, capacity=100), keep_tokens=False),
    HashedText(16, compact=False, signed=True),
]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_loaded_encoder_is_the_saved_one(encoder: HashedText, tmp_path: Path) -> None:
    path = tmp_path / "encoder.npz"
    encoder.partial_fit(TEXTS).save(path)
    again = HashedText.load(path)
    assert again.get_params() == encoder.get_params()
    for _ in range(2):
        assert again.columns_.tolist() == encoder.columns_.tolist()
        assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
        if len(encoder.columns_):
            assert (again.transform(TEXTS) != encoder.transform(TEXTS)).nnz == 0
        more = ["the mat, the mice and the keyboards", "a new word"]  # the stream goes on in both
        again.partial_fit(more)
        encoder.partial_fit(more)


def test_an_encoder_without_fit(tmp_path: Path) -> None:
    encoder = HashedFields(7, compact=False, numeric=["age"], missing="ignore")
    encoder.save(tmp_path / "encoder")
    again = HashedFields.load(str(tmp_path / "encoder"))
    assert again.get_params() == encoder.get_params()
    assert (again.transform([{"age": 3}]) != encoder.transform([{"age": 3}])).nnz == 0


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    HashedFields().save(tmp_path / "fields.npz")
    with pytest.raises(ValueError, match=r"holds a HashedFields \(format 1\), not a HashedText"):
        HashedText.load(tmp_path / "fields.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz holds no encoder: expected what HashedText.save wrote"):
        HashedText.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        HashedText.load(tmp_path / "none.npz")


def test_functions_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="tokenizer is a function, which cannot be saved without pickle"):
        HashedText(tokenizer=str.split).save(tmp_path / "encoder.npz")
    assert not (tmp_path / "encoder.npz").exists()
