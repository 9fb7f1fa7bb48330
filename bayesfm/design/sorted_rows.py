"""Data rows and block entries in the order in which the compiled kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

__all__ = ["Columns", "SortedRows"]


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
        order = np.argsort(code, kind="stable").astype(np.int32)
        ptr = np.searchsorted(code[order], np.arange(num_owners + 1)).astype(np.int32)
        row = order[: ptr[-1]]
        return cls(ptr, row, tuple(row if other is None else other[row] for other in others))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
    """The entries of a relation block by feature: j has ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``."""

    ptr: Int[Any, " p+1"]
    row: Int[Any, " z"]
    value: Float[Any, " z"]

    @classmethod
    def of(cls, X: sparse.csr_array) -> Columns:
        """Of a matrix of block rows by features."""
        csc = X.tocsc()
        return cls(csc.indptr.astype(np.int32), csc.indices.astype(np.int32), csc.data)
