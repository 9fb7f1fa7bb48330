"""Designs: the rows of a data set as a list of named relation blocks.

A block has m distinct rows of features and an index phi: data row n has the features of block row phi(n)
(Rendle 2013). A plain matrix is one block with the identity index; a column of a table is a one-hot *field*,
a block whose matrix is the identity.

References
----------
Rendle, S. (2013). Scaling factorization machines to relational data. PVLDB 6(5), 337-348.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped, UInt32
from scipy import sparse

from bayesfm.design.levels import level_hashes, level_names
from bayesfm.design.schema import BlockSchema, DesignSchema
from bayesfm.design.validation import (
    as_canonical_csr,
    as_feature_names,
    as_groups,
    as_index,
    as_rows,
    check_block_name,
)

__all__ = ["Block", "Design"]


@dataclass(frozen=True, eq=False, repr=False)
class Block:
    """One relation block; make it with :meth:`create` or :meth:`field`, which check everything.

    Parameters
    ----------
    name : str
        Name of the block.
    X : csr_array of shape (m, p), or None
        Features of the distinct block rows, canonical. None is the identity matrix: a one-hot *field*, in
        which feature j is block row j.
    index : array of shape (n,), or None
        Block row of every data row; None is the identity.
    feature_names : array of shape (p,)
        Strings, unique within the block.
    group : array of shape (p,)
        Number of each feature's prior group, into ``group_names``.
    group_names : tuple of str
        Names of the prior groups.
    unseen : array of shape (u,)
        Fields only: hashes of levels that training never saw. A row whose level is unseen has index m + t, t
        < u.

    Examples
    --------
    Five ratings of two films; the genres are kept once per film:

    >>> from bayesfm.design import Block
    >>> X, names = [[1, 0], [1, 1]], ["drama", "war"]
    >>> genres = Block.create("genre", X, index=[0, 0, 1, 1, 0], feature_names=names)
    >>> genres
    Block('genre': 5 rows, 2 block rows, 2 features)
    >>> genres.expand().toarray()[2]
    array([1., 1.])
    """

    name: str
    X: sparse.csr_array | None
    index: Int32[np.ndarray, " n"] | None
    feature_names: Shaped[np.ndarray, " p"]
    group: Int32[np.ndarray, " p"]
    group_names: tuple[str, ...]
    unseen: UInt32[np.ndarray, " u"] = field(default_factory=lambda: np.zeros(0, np.uint32))

    @classmethod
    def create(
        cls,
        name: str,
        X: Any,
        index: Any = None,
        *,
        feature_names: Iterable[str] | None = None,
        groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    ) -> Block:
        """A checked block.

        Parameters
        ----------
        name : str
            Name of the block, unique in its design.
        X : sparse matrix or array of any format, or dense array, of shape (m, p)
            Features of the distinct block rows; finite real numbers, integers or booleans. Duplicate entries
            are summed. Canonical float CSR arrays are shared, not copied.
        index : integer array of shape (n,), optional
            Block row of every data row; by default block row n belongs to data row n.
        feature_names : p strings, optional
            By default the block's name and a number.
        groups : p ints or p strings, optional
            Prior group of every feature. By default all are in one group named like the block; integers g
            name the group ``f"{name}:{g}"``; a group name used in two blocks of a design is one group.

        Returns
        -------
        Block

        Raises
        ------
        ValueError, TypeError
            Naming the argument, what was expected and what came.
        """
        name = check_block_name(name)
        csr = as_canonical_csr(X, f"X of block {name!r}" if name != "X" else "X")
        m, p = csr.shape
        if index is not None:
            index = as_index(index, m, f"index of block {name!r}")
        if feature_names is None:
            names = np.array([f"{name}{j}" for j in range(p)], dtype=object)
        else:
            names = as_feature_names(feature_names, p, f"feature_names of block {name!r}")
        group, group_names = as_groups(groups, p, name)
        return cls(name, csr, index, names, group, group_names)

    @classmethod
    def field(cls, name: str, index: Any, levels: Iterable[Any], *, unseen: Sequence[Any] = ()) -> Block:
        """A one-hot field: one feature per level, named ``f"{name}={level}"``, all in one prior group.

        Parameters
        ----------
        name : str
            Name of the block and of its group.
        index : integer array of shape (n,)
            Level of every row, a number below ``len(levels) + len(unseen)``.
        levels : m strings, integers, floats or booleans
            The levels, distinct. To predict, those of the fit in their order, present or not.
        unseen : sequence of u levels, optional
            To predict: levels that the fit has not seen and that have no feature. Rows with index m + t have
            level ``unseen[t]``.

        Returns
        -------
        Block

        Examples
        --------
        >>> from bayesfm.design import Block
        >>> Block.field("user", [1, 0, 1], ["ann", "bob"]).feature_names.tolist()
        ['user=ann', 'user=bob']
        """
        name = check_block_name(name)
        known = level_names(levels)
        m = len(known)
        if m == 0:
            raise ValueError(
                f"levels of block {name!r} must not be empty: a block needs at least one feature"
            )
        names = as_feature_names([f"{name}={x}" for x in known], m, f"levels of block {name!r}")
        hashes = level_hashes(unseen)
        index = as_index(index, m + len(hashes), f"index of block {name!r}")
        return cls(name, None, index, names, np.zeros(m, np.int32), (name,), hashes)

    def __repr__(self) -> str:
        kind = "levels" if self.is_field else f"block rows, {self.num_features} features"
        more = f", {len(self.unseen)} unseen" if len(self.unseen) else ""
        return f"Block({self.name!r}: {self.num_rows} rows, {self.num_block_rows} {kind}{more})"

    @property
    def is_field(self) -> bool:
        """Whether the matrix of the block is the identity (one-hot)."""
        return self.X is None

    @property
    def num_block_rows(self) -> int:
        """Number m of distinct block rows; unseen levels are not counted."""
        return self.num_features if self.X is None else int(self.X.shape[0])

    @property
    def num_rows(self) -> int:
        """Number n of data rows."""
        return self.num_block_rows if self.index is None else len(self.index)

    @property
    def num_features(self) -> int:
        """Number p of features."""
        return len(self.group)

    @property
    def schema(self) -> BlockSchema:
        """Names of the block, its features and their groups."""
        return BlockSchema(self.name, self.feature_names, self.group, self.group_names)

    def expand(self) -> sparse.csr_array:
        """The features of every data row, shape (n, p); a row whose level is unseen is empty."""
        if self.X is not None:
            return self.X if self.index is None else self.X[self.index]
        n, p = self.num_rows, self.num_features
        index = np.arange(n, dtype=np.int32) if self.index is None else self.index
        known = index < p
        starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(known, dtype=np.int32)])
        return sparse.csr_array((np.ones(starts[-1]), index[known], starts), shape=(n, p))

    def take(self, rows: Any) -> Block:
        """The block of some data rows.

        Parameters
        ----------
        rows : slice, integer array or boolean mask
            Chosen rows, in order; an integer array may repeat rows.

        Returns
        -------
        Block
        """
        rows = as_rows(rows, self.num_rows)
        if self.index is not None:
            return replace(self, index=self.index[rows])
        if self.X is None:
            return replace(self, index=rows.astype(np.int32))
        return replace(self, X=self.X[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Design:
    """The rows of a data set: named blocks side by side.

    Parameters
    ----------
    blocks : sequence of Block
        At least one, with unique names and equally many rows.

    Examples
    --------
    >>> from bayesfm.design import Block, Design
    >>> design = Design([
    ...     Block.field("user", [0, 1, 1], ["ann", "bob"]),
    ...     Block.create("age", [[20.0], [30.0]], index=[0, 1, 1]),
    ... ])
    >>> design.feature_names.tolist()
    ['user=ann', 'user=bob', 'age0']
    >>> design.to_csr().toarray()
    array([[ 1.,  0., 20.],
           [ 0.,  1., 30.],
           [ 0.,  1., 30.]])
    """

    blocks: tuple[Block, ...]

    def __init__(self, blocks: Iterable[Block]) -> None:
        if isinstance(blocks, Block):
            raise TypeError("blocks must be a sequence of Block, got a single Block: write Design([block])")
        blocks = tuple(blocks)
        if not blocks:
            raise ValueError("blocks must hold at least one Block, got none")
        for block in blocks:
            if not isinstance(block, Block):
                raise TypeError(
                    f"blocks must be a sequence of Block, got an element of type {type(block).__name__}"
                )
        names = [b.name for b in blocks]
        repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if repeated:
            raise ValueError(f"names of blocks must be unique, got more than one {repeated[0]!r}")
        rows = {b.name: b.num_rows for b in blocks}
        if len(set(rows.values())) > 1:
            raise ValueError(
                f"blocks must have equally many rows, got {rows}: give each an index of length n"
            )
        if blocks[0].num_rows == 0:
            raise ValueError("empty input: the design has 0 sample(s) while a minimum of 1 is required.")
        object.__setattr__(self, "blocks", blocks)

    def __repr__(self) -> str:
        return (
            f"Design({self.num_rows} rows, {self.num_features} features: {', '.join(map(repr, self.blocks))})"
        )

    @property
    def num_rows(self) -> int:
        """Number n of data rows."""
        return self.blocks[0].num_rows

    @property
    def num_features(self) -> int:
        """Number p of features of all blocks."""
        return sum(b.num_features for b in self.blocks)

    @cached_property
    def starts(self) -> Int[np.ndarray, " b"]:
        """Number of the first feature of every block, and p: one entry more than there are blocks."""
        return np.concatenate([[0], np.cumsum([b.num_features for b in self.blocks])])

    @cached_property
    def feature_names(self) -> Shaped[np.ndarray, " p"]:
        """Names of the p features, unique: those that occur in two blocks are prefixed by ``"{block}:"``."""
        names = np.concatenate([b.feature_names for b in self.blocks])
        if len(self.blocks) == 1:
            return names
        repeated = _repeated(names)
        if repeated:
            for block, start in zip(self.blocks, self.starts, strict=False):
                for j, x in enumerate(block.feature_names):
                    if x in repeated:
                        names[start + j] = f"{block.name}:{x}"
            if _repeated(names):
                raise ValueError(
                    f"feature names must be unique, {min(_repeated(names))!r} occurs more than once"
                )
        return names

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of the prior groups; a name that two blocks use is one group."""
        return tuple(dict.fromkeys(chain.from_iterable(b.group_names for b in self.blocks)))

    @cached_property
    def groups(self) -> Int32[np.ndarray, " p"]:
        """Number of each feature's prior group, into ``group_names``."""
        number = {name: g for g, name in enumerate(self.group_names)}
        parts = [np.array([number[name] for name in b.group_names], np.int32)[b.group] for b in self.blocks]
        return np.concatenate(parts)

    @property
    def schema(self) -> DesignSchema:
        """Names of blocks, features and groups."""
        return DesignSchema(tuple(b.schema for b in self.blocks))

    def check_matches(self, fitted: DesignSchema) -> None:
        """Raise ValueError, naming the first difference, unless blocks, features and groups are as fitted."""
        difference = self.schema.difference(fitted)
        if difference is not None:
            raise ValueError(f"the design does not match the fitted one: {difference}")

    def take(self, rows: Any) -> Design:
        """The design of some data rows: a slice, an integer array (rows may repeat) or a boolean mask."""
        rows = as_rows(rows, self.num_rows)
        return Design(b.take(rows) for b in self.blocks)

    def to_csr(self) -> sparse.csr_array:
        """All features of every data row as one matrix of shape (n, p): the naive expansion."""
        return sparse.csr_array(sparse.hstack([b.expand() for b in self.blocks], format="csr"))


def _repeated(names: np.ndarray) -> set[str]:
    listed = names.tolist()
    if len(set(listed)) == len(listed):
        return set()
    unique, counts = np.unique(names, return_counts=True)
    return set(unique[counts > 1].tolist())
