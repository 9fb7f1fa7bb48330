"""Checks of what users hand in: matrices, row indices, feature names and prior groups, made canonical."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped
from scipy import sparse

__all__ = ["as_canonical_csr", "as_feature_names", "as_groups", "as_index", "as_rows", "check_block_name"]

_MAX_INDEX = int(np.iinfo(np.int32).max)


def as_canonical_csr(X: Any, argument: str = "X") -> sparse.csr_array:
    """A finite two-dimensional matrix as a canonical CSR array of float64 or float32.

    Canonical means: sorted indices, duplicates summed, no stored zeros, int32 indices. Arrays that are
    canonical already are shared with ``X``, never changed.

    Parameters
    ----------
    X : sparse matrix or sparse array of any format, or array-like, of shape (m, p)
        Real, integer or boolean entries. float32 (and float16) become float32, everything else float64.
    argument : str
        What to call the matrix in messages.

    Returns
    -------
    csr_array of shape (m, p)

    Raises
    ------
    ValueError
        Wrong number of dimensions, no rows, no columns, complex, NaN or infinite entries, indices outside the
        shape.
    TypeError
        Entries that are not numbers.
    """
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{argument} is a masked array: fill or drop the masked entries first")
    if not sparse.issparse(X):
        X = np.asarray(X)
    _check_shape(X, argument)
    csr = sparse.csr_array(X.astype(_float_dtype(X.dtype, argument), copy=False))
    _check_pointers(csr, argument)
    if not csr.has_canonical_format or not np.all(csr.data):
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    if csr.indices.dtype != np.int32 and max(csr.nnz, *csr.shape) <= _MAX_INDEX:
        csr.indices, csr.indptr = csr.indices.astype(np.int32), csr.indptr.astype(np.int32)
    _check_finite(csr, argument)
    return csr


def _check_shape(X: Any, argument: str) -> None:
    if X.ndim == 0:
        raise ValueError(f"Expected 2D array, got scalar array instead: {argument}={X!r}")
    if X.ndim == 1:
        raise ValueError(
            f"Expected 2D array, got 1D array instead: {argument} has shape {X.shape}. Reshape your data "
            "either using reshape(-1, 1) if it has a single feature or reshape(1, -1) if it is a single row."
        )
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead: {argument} has shape {X.shape}")
    for size, what in zip(X.shape, ("sample(s)", "feature(s)"), strict=True):
        if size == 0:
            shape = f"(shape=({X.shape[0]}, {X.shape[1]}))"
            raise ValueError(
                f"Found array with 0 {what} {shape} while a minimum of 1 is required. (empty input)"
            )


def _float_dtype(dtype: np.dtype, argument: str) -> type[np.float32] | type[np.float64]:
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {argument} has dtype {dtype}")
    if dtype.kind not in "biuf":
        raise TypeError(
            f"{argument} must hold real numbers, got dtype {dtype}: convert it to float, or put strings and "
            "categories into a DataFrame"
        )
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def _check_pointers(csr: sparse.csr_array, argument: str) -> None:
    try:
        csr.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{argument} is not a valid sparse matrix of shape {csr.shape}: {error}") from error


def _check_finite(csr: sparse.csr_array, argument: str) -> None:
    bad = np.flatnonzero(~np.isfinite(csr.data))
    if bad.size:
        row = int(np.searchsorted(csr.indptr, bad[0], side="right")) - 1
        what = "NaN" if np.isnan(csr.data[bad]).any() else "inf (infinity)"
        raise ValueError(
            f"{argument} contains {what}: {bad.size} entries are not finite, the first in row {row}, column "
            f"{int(csr.indices[bad[0]])}. Drop these rows or fill the entries in first."
        )


def as_index(index: Any, num_block_rows: int, argument: str = "index") -> Int32[np.ndarray, " n"]:
    """Block row of every data row: a one-dimensional int32 array with entries in [0, num_block_rows)."""
    index = np.asarray(index)
    if index.ndim != 1:
        raise ValueError(f"{argument} must be one-dimensional, got shape {index.shape}")
    if index.size == 0:
        return np.zeros(0, np.int32)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{argument} must hold integers, got dtype {index.dtype}")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= num_block_rows:
        raise ValueError(
            f"{argument} must lie in [0, {num_block_rows}), the rows of the block, got {low} to {high}"
        )
    return index.astype(np.int32)


def as_rows(rows: Any, num_rows: int) -> Int[np.ndarray, " r"]:
    """Row numbers chosen by a slice, a boolean mask, or an integer array (negatives count from the end)."""
    if isinstance(rows, slice):
        return np.arange(num_rows)[rows]
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
        raise TypeError(
            "rows must be a slice, a one-dimensional integer array or a boolean mask, got dtype "
            f"{rows.dtype} and shape {rows.shape}"
        )
    if rows.dtype.kind == "b":
        if len(rows) != num_rows:
            raise IndexError(f"rows is a boolean mask of length {len(rows)} for {num_rows} rows")
        return np.flatnonzero(rows)
    rows = rows.astype(np.int64)
    if rows.size and (rows.min() < -num_rows or rows.max() >= num_rows):
        raise IndexError(f"rows must lie in [{-num_rows}, {num_rows}), got {rows.min()} to {rows.max()}")
    return np.where(rows < 0, rows + num_rows, rows)


def check_block_name(name: object) -> str:
    """A non-empty string."""
    if not isinstance(name, str):
        raise TypeError(f"name of a block must be a string, got {name!r}")
    if not name:
        raise ValueError("name of a block must not be empty")
    return str(name)


def as_feature_names(
    names: Iterable[str], num_features: int, argument: str = "feature_names"
) -> Shaped[np.ndarray, " p"]:
    """Unique strings, one per feature, as an object array."""
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a sequence of {num_features} strings, got the string {names!r}")
    names = names.tolist() if isinstance(names, np.ndarray) else list(names)
    if len(names) != num_features:
        raise ValueError(
            f"{argument} must have one entry per feature: expected {num_features}, got {len(names)}"
        )
    wrong = [x for x in names if not isinstance(x, str)]
    if wrong:
        raise TypeError(f"{argument} must be strings, got {wrong[0]!r}")
    if len(set(names)) != num_features:
        raise ValueError(f"{argument} must be unique, {_first_repeat(names)!r} occurs more than once")
    array = np.empty(num_features, dtype=object)
    array[:] = names
    return array


def _first_repeat(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(x for x in names if x in seen or seen.add(x))  # type: ignore[func-returns-value]


def as_groups(
    groups: Sequence[int] | Sequence[str] | np.ndarray | None, num_features: int, name: str
) -> tuple[Int32[np.ndarray, " p"], tuple[str, ...]]:
    """Prior group of every feature, and the names of the groups.

    ``None`` puts all features into one group named like the block; integers g become groups named
    ``f"{name}:{g}"``, in increasing order; strings name groups themselves, in order of appearance.
    """
    if groups is None:
        return np.zeros(num_features, np.int32), (name,)
    if isinstance(groups, str):
        raise TypeError(f"groups must have one entry per feature, got the string {groups!r}")
    array = np.asarray(groups)
    if array.shape != (num_features,):
        raise ValueError(
            f"groups must have one entry per feature: expected shape ({num_features},), got {array.shape}"
        )
    if array.dtype.kind in "iu":
        if array.min() < 0:
            raise ValueError(f"groups given as integers must be >= 0, got {array.min()}")
        used, group = np.unique(array, return_inverse=True)
        return group.astype(np.int32), tuple(f"{name}:{g}" for g in used)
    labels = array.tolist() if isinstance(groups, np.ndarray) else list(groups)
    wrong = [x for x in labels if not isinstance(x, str) or not x]
    if wrong:
        raise TypeError(f"groups must be integers or non-empty strings, got {wrong[0]!r}")
    number = {label: g for g, label in enumerate(dict.fromkeys(labels))}
    return np.fromiter(map(number.__getitem__, labels), np.int32, num_features), tuple(number)
