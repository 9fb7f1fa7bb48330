"""Latent semantic analysis: the map of words that knows nothing of a response, to stand beside one that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

__all__ = ["lsa_coordinates"]


def lsa_coordinates(X: Any, columns: Sequence[int]) -> Float[np.ndarray, "m 2"]:
    """Places of words by the documents they occur in: two singular vectors of tf-idf, times their singular values.

    Parameters
    ----------
    X : sparse or dense matrix of shape (n, p)
        How often each word occurs in each document, n and p at least 3.
    columns : sequence of m int
        Words whose places are wanted, for instance ``[encoder.column_of(word) for word in words]``.

    Returns
    -------
    array of shape (m, 2)
        For ``beside=`` of :func:`bayesfm.plots.plot_feature_map`.

    Raises
    ------
    ValueError
        If X has less than three rows or columns, or negative entries, or there is no such column.

    References
    ----------
    Deerwester, Dumais, Furnas, Landauer & Harshman (1990), Indexing by latent semantic analysis, Journal of the
    American Society for Information Science 41.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.encoders import lsa_coordinates
    >>> counts = np.array([[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 3], [0, 0, 1, 1]])
    >>> lsa_coordinates(counts, [0, 1, 2]).shape
    (3, 2)
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = sparse.csr_array(X).astype(np.float64)
    if min(counts.shape) < 3:
        raise ValueError(f"X must have at least 3 rows and 3 columns, got {counts.shape}")
    if counts.nnz and counts.data.min() < 0:
        raise ValueError("X must have counts, but there are negative entries: encode with signed=False")
    wrong = [j for j in columns if not 0 <= j < counts.shape[1]]
    if wrong:
        raise ValueError(f"columns must lie in 0 ... {counts.shape[1] - 1}, got {wrong[0]!r}")
    analysis = TruncatedSVD(2, algorithm="arpack", random_state=0).fit(
        TfidfTransformer().fit_transform(counts)
    )
    places = analysis.components_.T * analysis.singular_values_
    return places[np.asarray(columns, dtype=np.int64)]
