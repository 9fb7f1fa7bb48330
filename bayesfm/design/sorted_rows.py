"""Data rows and block entries in the order in which the compiled kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

__all__ = ["Columns", "Entries", "SortedRows", "rows_by_owner"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SortedRows:
    """Data rows in the order of their owner, for the compiled kernels.

    Attributes
    ----------
    ptr : (m + 1,)
        Owner j has the rows ``row[ptr[j]:ptr[j + 1]]``.
    row : (rows,)
        Data rows that have an owner.
    codes : tuple of (rows,)
        For each other unit, which of its own rows these data rows have.
    """

    ptr: Int[Any, " m+1"]
    row: Int[Any, " rows"]
    codes: tuple[Int[Any, " rows"], ...]

    @classmethod
    def of(
        cls, code: Int[np.ndarray, " n"], num_owners: int, others: Sequence[Int[np.ndarray, " _"] | None]
    ) -> SortedRows:
        """From the owner of every data row (``num_owners`` where there is none), and those in other units.

        None stands for a unit that lives on the data rows themselves.
        """
        ptr, row = rows_by_owner(code, num_owners)
        return cls(ptr, row, tuple(row if other is None else other[row] for other in others))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
    """The entries of a sparse matrix by feature: j has ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``."""

    ptr: Int[Any, " p+1"]
    row: Int[Any, " z"]
    value: Float[Any, " z"]

    @classmethod
    def of(cls, X: sparse.csr_array) -> Columns:
        """Of a matrix of rows by features."""
        csc = X.tocsc()
        return cls(csc.indptr.astype(np.int32), csc.indices.astype(np.int32), csc.data)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Entries:
    """The entries of a sparse matrix by feature and by row, for the compiled kernels.

    Attributes
    ----------
    columns : Columns
        By feature.
    ends : (runs,)
        Ends of runs of features of which no two share a row.
    row_ptr : (rows + 1,)
        Row n has ``row_ptr[n]:row_ptr[n + 1]`` of ``feature`` and ``value``; rows may follow that have no entries.
    feature, value : (z,)
        By row.
    """

    columns: Columns
    ends: Int[Any, " runs"]
    row_ptr: Int[Any, " rows+1"]
    feature: Int[Any, " z"]
    value: Float[Any, " z"]

    @classmethod
    def of(cls, X: sparse.csr_array, ends: Int[np.ndarray, " runs"], num_rows: int) -> Entries:
        """Of a matrix, with as many empty rows behind it as are missing to ``num_rows``."""
        row_ptr = np.pad(X.indptr, (0, num_rows - X.shape[0]), mode="edge").astype(np.int32)
        return cls(Columns.of(X), ends.astype(np.int32), row_ptr, X.indices.astype(np.int32), X.data)


def rows_by_owner(
    code: Int[np.ndarray, " n"], num_owners: int
) -> tuple[Int[np.ndarray, " _"], Int[np.ndarray, " rows"]]:
    """Rows sorted by their code, and where each owner's begin; rows with code >= ``num_owners`` are left out.

    Counting sort by way of CSR: stable, and linear in n.
    """
    owned = np.flatnonzero(code < num_owners).astype(np.int32)
    place = np.arange(len(owned), dtype=np.int32)
    by_owner = sparse.csr_array((owned, (code[owned], place)), shape=(num_owners, max(1, len(owned))))
    return by_owner.indptr.astype(np.int32), by_owner.data
