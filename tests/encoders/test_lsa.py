"""Latent semantic analysis against its definition, in dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bayesfm.encoders import lsa_coordinates


def test_against_the_definition() -> None:
    counts = np.random.default_rng(0).poisson(0.7, size=(30, 8))
    idf = np.log((1 + 30) / (1 + np.sum(counts > 0, axis=0))) + 1
    tfidf = counts * idf
    tfidf /= np.maximum(np.linalg.norm(tfidf, axis=1, keepdims=True), 1e-300)
    _, size, Vt = np.linalg.svd(tfidf, full_matrices=False)
    wanted = (Vt[:2].T * size[:2])[[5, 0, 2]]
    for X in (counts, sparse.csr_array(counts)):
        got = lsa_coordinates(X, [5, 0, 2])
        np.testing.assert_allclose(got * np.sign(got[0]), wanted * np.sign(wanted[0]), rtol=1e-8)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"columns must lie in 0 ... 3, got 4"):
        lsa_coordinates(np.ones((5, 4)), [0, 4])
    with pytest.raises(ValueError, match="at least 3 rows"):
        lsa_coordinates(np.ones((2, 4)), [0])
    with pytest.raises(ValueError, match="signed=False"):
        lsa_coordinates(-np.ones((5, 4)), [0])
