"""Designs from plain matrices: one block, one row per data row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from bayesfm.design.blocks import Block, Design
from bayesfm.design.validation import as_canonical_csr

__all__ = ["csr_of", "design_from_matrix"]


def design_from_matrix(
    X: Any,
    *,
    feature_names: Iterable[str] | None = None,
    groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    name: str = "X",
) -> Design:
    """A design of one block whose row n is row n of a matrix.

    Parameters
    ----------
    X : sparse matrix or array of any format, dense array or nested lists, of shape (n, p)
        Finite real numbers, integers or booleans; zeros of a dense matrix are not stored.
    feature_names : p strings, optional
        By default x0, x1, ...
    groups : p ints or p strings, optional
        Prior group of every feature; by default one group.
    name : str
        Name of the block.

    Returns
    -------
    Design

    Raises
    ------
    ValueError, TypeError
        Not two-dimensional, empty, not finite, complex, not numbers; names or groups that do not fit.

    Examples
    --------
    >>> from bayesfm.design import design_from_matrix
    >>> design_from_matrix([[1.0, 0.0], [0.0, 2.0]], groups=["first", "second"]).groups
    array([0, 1], dtype=int32)
    """
    csr = csr_of(X)
    if feature_names is None:
        feature_names = [f"x{j}" for j in range(csr.shape[1])]
    return Design([Block.create(name, csr, feature_names=feature_names, groups=groups)])


def csr_of(X: Any) -> sparse.csr_array:
    """A matrix of any kind, checked, as the block of its rows holds it; errors as :func:`design_from_matrix`."""
    return as_canonical_csr(_numbers(X), "X")


def _numbers(X: Any) -> Any:
    """X itself if sparse, else an array; Python objects become floats, or raise where they are no numbers."""
    if sparse.issparse(X) or isinstance(X, np.ma.MaskedArray):
        return X
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X must be a matrix, with rows of equal length: {error}") from error
    return array.astype(np.float64) if array.dtype == object else array
