"""One encoder for whatever users have: DataFrames, matrices, designs and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Shaped
from scipy import sparse

from bayesfm.design.blocks import Block, Design
from bayesfm.design.columns import as_frame
from bayesfm.design.matrices import csr_of, design_from_matrix
from bayesfm.design.schema import DesignSchema
from bayesfm.design.tables import TableEncoder, as_column_list

__all__ = ["DesignEncoder", "InputKind", "TableEncoder", "kind_of"]

InputKind = Literal["table", "matrix", "blocks"]

_KINDS: dict[InputKind, str] = {"table": "a DataFrame", "matrix": "a matrix", "blocks": "a design"}


class DesignEncoder:
    """Turn any kind of X into a design, and remember what it must look like next time.

    X may be a DataFrame (see :class:`TableEncoder`: **integer columns are taken as ids**), a sparse or dense
    matrix, a :class:`Design`, or a list of :class:`Block`. After ``fit``, only the same kind with the same
    names and column counts is accepted.

    Parameters
    ----------
    categorical, numeric : sequence of str, optional
        For DataFrames: columns to take as categories, or as numbers.
    groups : p ints or p strings, optional
        For matrices: prior group of every feature.

    Examples
    --------
    >>> from bayesfm.design import DesignEncoder
    >>> encoder = DesignEncoder().fit([[1.0, 0.0], [0.0, 2.0]])
    >>> encoder.transform([[5.0, 0.0]])
    Design(1 rows, 2 features: Block('X': 1 rows, 1 block rows, 2 features))
    """

    def __init__(
        self,
        categorical: Iterable[str] | None = None,
        numeric: Iterable[str] | None = None,
        groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    ) -> None:
        self.categorical = as_column_list(categorical, "categorical")
        self.numeric = as_column_list(numeric, "numeric")
        self.groups = groups
        self._kind: InputKind | None = None
        self._table: TableEncoder | None = None
        self._schema: DesignSchema | None = None

    @property
    def feature_names_in_(self) -> Shaped[np.ndarray, " c"] | None:
        """Column names of the DataFrame seen in ``fit``; None for other kinds of X, and before ``fit``."""
        return None if self._table is None else np.array(self._table.columns, dtype=object)

    @property
    def n_features_in_(self) -> int | None:
        """Number of columns of the X seen in ``fit`` (of features, for blocks); None before ``fit``."""
        if self._table is not None:
            return len(self._table.columns)
        return None if self._schema is None else self._schema.num_features

    def fit(self, X: Any, levels: Mapping[str, Iterable[Any]] | None = None) -> Self:
        """Learn what X looks like; see :meth:`fit_transform`."""
        self.fit_transform(X, levels)
        return self

    def fit_transform(self, X: Any, levels: Mapping[str, Iterable[Any]] | None = None) -> Design:
        """Learn what X looks like, and encode it.

        Parameters
        ----------
        X : DataFrame, sparse or dense matrix, Design, or list of Block; n rows
        levels : mapping of str to sequence, optional
            For DataFrames: more levels of categorical columns, which rows to come may have.

        Returns
        -------
        Design
        """
        kind = kind_of(X)
        self._check_options(kind)
        table = TableEncoder(self.categorical, self.numeric) if kind == "table" else None
        if levels is not None and table is None:
            raise ValueError(f"levels are of columns of a DataFrame, but X is {_KINDS[kind]}")
        if table is not None:
            design = table.fit_transform(X, levels)
        elif kind == "matrix":
            design = design_from_matrix(X, groups=self.groups)
        else:
            design = _design_of_blocks(X)
            late = [b.name for b in design.blocks if len(b.unseen)]
            if late:
                raise ValueError(f"blocks with unseen levels cannot be fitted: {late}; encode the table anew")
        self._kind, self._table = kind, table
        self._schema = None if kind == "table" else design.schema
        return design

    def _check_options(self, kind: InputKind) -> None:
        given = {"categorical": self.categorical, "numeric": self.numeric} if kind != "table" else {}
        wrong = [name for name, columns in given.items() if columns]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} name columns of a DataFrame, but X is {_KINDS[kind]}")
        if self.groups is not None and kind != "matrix":
            raise ValueError(
                f"groups are for the columns of a matrix, but X is {_KINDS[kind]}: every column of a "
                "DataFrame has its own group, and Block.create takes groups"
            )

    def transform(self, X: Any) -> Design:
        """Encode X, after checking it against what ``fit`` has seen.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows

        Returns
        -------
        Design

        Raises
        ------
        TypeError
            X is of another kind.
        ValueError
            Names or column counts differ.
        """
        if self._kind is None:
            raise RuntimeError("this DesignEncoder is not fitted: call fit first")
        kind = kind_of(X)
        if kind != self._kind:
            raise TypeError(
                f"X is {_KINDS[kind]} ({type(X).__name__}), but was {_KINDS[self._kind]} when fitted"
            )
        if self._table is not None:
            return self._table.transform(X)
        assert self._schema is not None
        if kind == "matrix":
            return _matching_matrix(X, self._schema)
        design = _design_of_blocks(X)
        design.check_matches(self._schema)
        return design

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of the fitted encoder, for JSON."""
        if self._kind is None:
            raise RuntimeError("this DesignEncoder is not fitted: call fit first")
        table = None if self._table is None else self._table.to_dict()
        return {
            "kind": self._kind,
            "table": table,
            "schema": None if self._schema is None else self._schema.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """A fitted encoder; inverse of :meth:`to_dict`."""
        if state["kind"] not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}; got {state['kind']!r}")
        encoder = cls()
        encoder._kind = state["kind"]
        if state["kind"] == "table":
            encoder._table = TableEncoder.from_dict(state["table"])
            encoder.categorical, encoder.numeric = encoder._table.categorical, encoder._table.numeric
        else:
            encoder._schema = DesignSchema.from_dict(state["schema"])
        return encoder


def kind_of(X: Any) -> InputKind:
    """Which of the three ways to encode X applies."""
    if isinstance(X, Block):
        raise TypeError("X is a single Block: pass a list, [block]")
    if isinstance(X, Design) or (isinstance(X, list | tuple) and any(isinstance(b, Block) for b in X)):
        return "blocks"
    if sparse.issparse(X) or isinstance(X, np.ndarray) or as_frame(X) is None:
        return "matrix"
    return "table"


def _design_of_blocks(X: Design | Sequence[Block]) -> Design:
    return X if isinstance(X, Design) else Design(X)


def _matching_matrix(X: Any, schema: DesignSchema) -> Design:
    csr = csr_of(X)
    fitted = schema.blocks[0]
    if csr.shape[1] != fitted.num_features:
        raise ValueError(
            f"X has {csr.shape[1]} features, but DesignEncoder is expecting {fitted.num_features} "
            "features as input."
        )
    return Design([Block(fitted.name, csr, None, fitted.feature_names, fitted.group, fitted.group_names)])
