"""The units that a Gibbs sweep visits, and the layout that holds them: plain arrays, on the host or on the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
from jaxtyping import Float, Int

from bayesfm.design.arrays import TableArrays
from bayesfm.design.sorted_rows import Entries, SortedRows

__all__ = ["FieldUnit", "Layout", "RowGroups", "RowsUnit", "Steps", "TableUnit", "Unit"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowGroups:
    """Data rows grouped by owner (a field's feature, or a block row).

    Attributes
    ----------
    row : (T, L, C)
        Data row; ``n`` where padded.
    owner : (T, C)
        Owner of each chunk, counted from ``first[t]``; never decreasing.
    first : (T,)
        First owner of each tile.
    slot : (n_pad,)
        Place of each data row in ``row``, flattened (any place for a row without owner).
    code : (n_pad,)
        Owner of each data row; ``m`` where there is none, and for the padding.
    """

    row: Int[Any, "T L C"]
    owner: Int[Any, "T C"]
    first: Int[Any, " T"]
    slot: Int[Any, " n_pad"]
    code: Int[Any, " n_pad"]
    num_owners: int = field(metadata={"static": True})
    span: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """Features drawn colour by colour: S steps of one shape, to be run one after the other.

    Attributes
    ----------
    row : (S, L, C)
        Row of each entry; the number of rows where padded.
    value : (S, L, C)
        x of each entry; 0 where padded.
    owner : (S, C)
        Which of the step's features a chunk belongs to; never decreasing.
    feature : (S, J)
        The step's features, in the unit's numbering; the number of features where padded.
    slot, place : (S, rows) and (S, features + 1), or None
        The way back: entry of each row in ``row``, flattened (L C where there is none), and position of each feature in
        ``feature`` (J where there is none). Only where the steps touch a good part of all rows or features: XLA on CPU
        gathers many numbers in the time it scatters one.
    """

    row: Int[Any, "S L C"]
    value: Float[Any, "S L C"]
    owner: Int[Any, "S C"]
    feature: Int[Any, "S J"]
    slot: Int[Any, "S rows"] | None
    place: Int[Any, "S features"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FieldUnit:
    """One-hot features: ``features`` in design numbering, ``group`` their prior groups, sorted, ``count`` of each.

    ``own_group`` is the group of a *whole* field: every row has one of its features, and they alone make up the group.
    ``one_group`` is the group of all its features, None where there are several; ``alone`` says that no other unit has
    features of its groups.
    ``sorted`` is there where the compiled kernels are to be used.
    """

    features: Int[Any, " m"]
    group: Int[Any, " m"]
    count: Float[Any, " G"]
    rows: RowGroups
    sorted: SortedRows | None = None
    own_group: int | None = field(metadata={"static": True}, default=None)
    one_group: int | None = field(metadata={"static": True}, default=None)
    alone: bool = field(metadata={"static": True}, default=False)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TableUnit:
    """A relation block of m distinct rows; ``entries`` and ``sorted`` as for the other units."""

    features: Int[Any, " p_u"]
    group: Int[Any, " p_u"]
    count: Float[Any, " G"]
    rows: RowGroups
    table: TableArrays
    steps: tuple[Steps, ...]
    entries: Entries | None = None
    sorted: SortedRows | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowsUnit:
    """Features that live on the data rows; ``entries`` is there where the compiled kernels are to be used."""

    features: Int[Any, " p_u"]
    group: Int[Any, " p_u"]
    count: Float[Any, " G"]
    table: TableArrays
    steps: tuple[Steps, ...]
    entries: Entries | None = None


Unit = FieldUnit | TableUnit | RowsUnit


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """All units of a design. ``place[j]`` is where design feature j stands when the units are laid end to end.

    ``native`` says whether the compiled kernels are to be used.
    """

    units: tuple[Unit, ...]
    place: Int[Any, " p"]
    group: Int[Any, " p"]
    num_rows: int = field(metadata={"static": True})
    num_padded: int = field(metadata={"static": True})
    num_tiles: int = field(metadata={"static": True})
    num_groups: int = field(metadata={"static": True})
    native: bool = field(metadata={"static": True}, default=False)
