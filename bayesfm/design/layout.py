"""Layouts for the Gibbs sweep: rows of each feature in chunks, built once, vectorised, on the host.

A sweep visits *units*, each a set of features with one way of being drawn:

- a **field** unit: one-hot features; every data row belongs to one feature (or to none);
- a **table** unit: a relation block; data rows are grouped by block row, features live on the distinct block rows;
- a **rows** unit: any other sparse matrix; features live on the data rows themselves.

Rows (or entries) of one owner are cut into chunks of ``L``; a *tile* is an (L, C) array of C chunks side by side, so
that sums over rows run over the leading axis with the chunks in vector lanes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from bayesfm.design.arrays import TableArrays
from bayesfm.design.blocks import Block, Design
from bayesfm.design.colouring import colour_columns
from bayesfm.design.sorted_rows import Entries, SortedRows, rows_by_owner
from bayesfm.design.units import FieldUnit, Layout, RowGroups, RowsUnit, Steps, TableUnit, Unit

__all__ = ["build_layout"]

MAX_FIELDS = 8
"""Fields gather the factors of all other units at every row, which costs O(F^2); beyond this many, fields join the rows
unit, whose cached factors cost O(F)."""

TILE = 1 << 17
"""Rows or entries in a tile, about: bounds the temporaries of a sweep, (rank + 1) x TILE numbers."""

SMALL_STEP = 8
"""Colours of fewer chunks than this share one shape."""

PADDING = 1 << 16
"""Entries of padding in a sweep that are worth a shape of their own: some milliseconds (XLA on CPU)."""

SCATTER_COST = 8
"""Scattering one entry costs about what gathering this many does (XLA on CPU)."""

CHUNK_LENGTHS = (1, 2, 4, 8, 16, 32)
STEP_LENGTHS = (1, 4, 16)
"""The same for steps, where every length may cost a shape."""
CHUNK_COST = 6
"""Fixed cost of a chunk, in rows; measured (``benchmarks/README.md``)."""


GRANULE = 64
"""Rows of a tile come in multiples of this: XLA on CPU neither vectorises nor shares out a loop of an odd length."""


def build_layout(
    design: Design,
    *,
    max_fields: int = MAX_FIELDS,
    tile: int = TILE,
    dtype: type = np.float32,
    native: bool | str = False,
) -> Layout:
    """Plan the units of a design and lay out their rows.

    Parameters
    ----------
    design : Design
        n rows, p features.
    max_fields : int
        More one-hot fields than this are merged into the rows unit.
    tile : int
        Rows per tile, about.
    dtype : type
        Floating type of the values.
    native : bool or "fields"
        Lay rows out for the compiled kernels; or only if there is nothing but fields.

    Returns
    -------
    Layout
        NumPy arrays; move them with ``jax.device_put``.
    """
    n = design.num_rows
    num_tiles = -(-(n + 1) // tile)
    size = -(-(n + 1) // num_tiles)
    num_padded = num_tiles * (size if size < GRANULE**2 else -(-size // GRANULE) * GRANULE)
    fields, tables, loose = _sort_out(design, max_fields)
    native = not (tables or loose) if native == "fields" else bool(native)
    group = design.groups

    def grouped(code: np.ndarray, m: int) -> RowGroups:
        return _ungrouped(code, m, num_padded) if native else _group_rows(code, m, num_padded, tile)

    def by_group(features: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = np.bincount(group[features], minlength=len(design.group_names))
        return features[order], group[features][order], count.astype(dtype)

    units: list[Unit] = []
    for code, features in fields:
        # Those of like number of rows side by side: the kernels draw them together.
        count = np.bincount(code, minlength=len(features) + 1)[: len(features)]
        order = np.lexsort((count, group[features]))
        rank = np.empty(len(order) + 1, np.int32)
        rank[order], rank[-1] = np.arange(len(order), dtype=np.int32), len(order)
        rows = grouped(rank[np.minimum(code, len(order))], len(features))
        whole = _own_group(code, features, group)
        units.append(
            FieldUnit(*by_group(features, order), rows, None, whole, *_share_of_groups(features, group))
        )
    for block, features in tables:
        assert block.X is not None
        assert block.index is not None
        rows = grouped(block.index, block.num_block_rows)
        order = np.argsort(group[features], kind="stable")
        X = sparse.csr_array(block.X[:, order]).astype(dtype)
        m = X.shape[0]
        steps = () if native else _steps(X, m, m + 1)
        one_by_one = np.arange(1, X.shape[1] + 1)
        entries = Entries.of(X, one_by_one, m + 1) if native else None
        units.append(TableUnit(*by_group(features, order), rows, _table(X, m), steps, entries))
    if loose:
        features = np.concatenate([f for _, f in loose])
        X = sparse.csr_array(sparse.hstack([x for x, _ in loose], format="csc")).astype(dtype)
        order, ends = (
            _runs(X, group[features]) if native else (np.argsort(group[features], kind="stable"), None)
        )
        X = sparse.csr_array(X.tocsc()[:, order])
        steps = () if native else _steps(X, n, num_padded)
        entries = None if ends is None else Entries.of(X, ends, num_padded)
        units.append(RowsUnit(*by_group(features, order), _table(X, num_padded), steps, entries))
    if native:
        units = [_with_sorted_rows(unit, units, n) for unit in units]
    place = np.empty(design.num_features, np.int32)
    place[np.concatenate([u.features for u in units])] = np.arange(design.num_features, dtype=np.int32)
    layout = Layout(tuple(units), place, group, n, num_padded, num_tiles, len(design.group_names), native)
    if native:
        from bayesfm.design.check_layout import check_layout  # which knows the units of this module

        check_layout(layout)
    return layout


def _with_sorted_rows(unit: Unit, units: list[Unit], n: int) -> Unit:
    if isinstance(unit, RowsUnit):
        return unit
    others = [None if isinstance(u, RowsUnit) else u.rows.code for u in units if u is not unit]
    return replace(unit, sorted=SortedRows.of(unit.rows.code[:n], unit.rows.num_owners, others))


def _runs(X: sparse.csr_array, group: Int[np.ndarray, " p"]) -> tuple[np.ndarray, np.ndarray]:
    """Columns by group, colour and number of entries, and where a run of one group and colour ends.

    Columns of like length are drawn side by side by the kernels.
    """
    colours = colour_columns(X)
    order = np.lexsort((-np.diff(X.tocsc().indptr), colours, group))
    key = np.stack([group[order], colours[order]])
    return order, np.append(np.flatnonzero(np.any(key[:, 1:] != key[:, :-1], axis=0)) + 1, len(order))


def _own_group(code: np.ndarray, features: np.ndarray, group: np.ndarray) -> int | None:
    """The group of a field that covers every row and shares its group with no other feature."""
    g = int(group[features[0]])
    alone = np.all(group[features] == g) and np.count_nonzero(group == g) == len(features)
    return g if alone and np.all(code < len(features)) else None


def _share_of_groups(features: np.ndarray, group: np.ndarray) -> tuple[int | None, bool]:
    """The group of all these features, if there is one; and whether they make up the groups that they are of."""
    own = np.unique(group[features])
    alone = np.count_nonzero(np.isin(group, own)) == len(features)
    return (int(own[0]) if len(own) == 1 else None), bool(alone)


type _Field = tuple[np.ndarray, np.ndarray]
type _Table = tuple[Block, np.ndarray]
type _Loose = tuple[sparse.csr_array, np.ndarray]


def _sort_out(design: Design, max_fields: int) -> tuple[list[_Field], list[_Table], list[_Loose]]:
    """Which features are drawn as fields, on block rows, and on data rows."""
    fields: list[_Field] = []
    tables: list[_Table] = []
    loose: list[_Loose] = []
    for block, start in zip(design.blocks, design.starts, strict=False):
        features = np.arange(start, start + block.num_features, dtype=np.int32)
        if block.is_field:
            assert block.index is not None
            fields.append((block.index, features))
        elif block.index is None or 2 * block.num_block_rows > design.num_rows:
            X = block.expand()  # as many block rows as data rows: nothing is shared
            hot, rest = _one_hot_colours(X, features)
            fields += hot
            if len(rest):
                loose.append((sparse.csr_array(X[:, rest - start]), rest))
        else:
            tables.append((block, features))
    if len(fields) > max_fields:
        loose = [(_expand(code, len(f), design.num_rows), f) for code, f in fields] + loose
        fields = []
    return fields, tables, loose


def _one_hot_colours(X: sparse.csr_array, features: np.ndarray) -> tuple[list[_Field], np.ndarray]:
    """Split the columns of X into one-hot fields (colours of ones that cover most rows) and the rest."""
    colours = colour_columns(X)
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    colour = colours[X.indices]
    size = np.bincount(colour, minlength=colours.max() + 1)
    ones = size == np.bincount(colour, weights=X.data == 1, minlength=len(size))
    hot = np.flatnonzero(ones & (2 * size > X.shape[0]))
    fields: list[_Field] = []
    rest: Bool[np.ndarray, " p"] = np.ones(len(features), bool)
    for c in hot[np.argsort(-size[hot], kind="stable")]:
        own = np.flatnonzero(colours == c)
        local = np.full(len(features), len(own), np.int32)
        local[own] = np.arange(len(own), dtype=np.int32)
        code = np.full(X.shape[0], len(own), np.int32)
        of_colour = colour == c
        code[row[of_colour]] = local[X.indices[of_colour]]
        fields.append((code, features[own]))
        rest[own] = False
    return fields, features[rest]


def _expand(code: np.ndarray, m: int, n: int) -> sparse.csr_array:
    row = np.flatnonzero(code < m)
    return sparse.csr_array((np.ones(len(row)), (row, code[row])), shape=(n, m))


def _table(X: sparse.csr_array, num_rows: int) -> TableArrays:
    row = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
    return TableArrays(row, X.indices.astype(np.int32), X.data, num_rows)  # type: ignore[arg-type]  # host arrays


def _chunk_length(count: Int[np.ndarray, " m"], lengths: tuple[int, ...] = CHUNK_LENGTHS) -> int:
    cost = [np.sum(-(-count // L)) * (L + CHUNK_COST) for L in lengths]
    return lengths[int(np.argmin(cost))]


def _chunks(count: np.ndarray, L: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut owners' rows, sorted by owner, into chunks: owner of each chunk; chunk and place of each row."""
    per_owner = -(-count // L)
    owner = np.repeat(np.arange(len(count), dtype=np.int32), per_owner)
    first_chunk = np.cumsum(per_owner) - per_owner
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return owner, np.repeat(first_chunk, count) + within // L, within % L


def _group_rows(code: np.ndarray, m: int, num_padded: int, tile: int) -> RowGroups:
    """Group data rows by their code; rows with code >= m have no owner."""
    n = len(code)
    ptr, by_owner = rows_by_owner(code, m)
    count = np.diff(ptr)
    L = _chunk_length(count)
    owner, chunk, within = _chunks(count, L)
    T = max(1, -(-len(owner) * L // tile))
    C = max(1, -(-len(owner) // T))
    row = np.full((T, L, C), n, np.int32)
    place = (chunk // C) * (L * C) + within * C + chunk % C
    row.reshape(-1)[place] = by_owner
    slot = np.zeros(num_padded, np.int32)
    slot[by_owner] = place
    padded = np.full(T * C, max(0, m - 1), np.int32)
    padded[: len(owner)] = owner
    padded[len(owner) :] = owner[-1] if len(owner) else 0
    by_tile = padded.reshape(T, C)
    first = by_tile[:, 0].copy()
    first[0] = 0
    span = int((by_tile[:, -1] - first).max()) + 1
    return RowGroups(row, by_tile - first[:, None], first, slot, _padded_codes(code, m, num_padded), m, span)


def _padded_codes(code: np.ndarray, m: int, num_padded: int) -> np.ndarray:
    codes = np.full(num_padded, m, np.int32)
    codes[: len(code)] = np.minimum(code, m)
    return codes


def _ungrouped(code: np.ndarray, m: int, num_padded: int) -> RowGroups:
    """Codes alone: the compiled kernels have an order of their own (``SortedRows``)."""
    rows, owners, none = (np.zeros((0,) * d, np.int32) for d in (3, 2, 1))
    return RowGroups(rows, owners, none, none, _padded_codes(code, m, num_padded), m, 0)


def _steps(X: sparse.csr_array, num_rows: int, room: int) -> tuple[Steps, ...]:
    """Steps over the colours of X; colours of like size share a shape, so that few shapes are compiled."""
    by_column = sparse.csc_array(X)
    by_column.sort_indices()
    count = np.diff(by_column.indptr)
    colours = colour_columns(X)
    column_order = np.argsort(colours, kind="stable")
    column_start = np.searchsorted(colours[column_order], np.arange(colours.max() + 2))
    columns = np.split(column_order, column_start[1:-1])
    steps = []
    for L, work, members in _shapes([count[own] for own in columns]):
        own = [columns[c] for c in members]
        steps.append(_bucket(by_column, count, own, L, work, num_rows, room))
    return tuple(steps)


def _shapes(counts: list[np.ndarray]) -> list[tuple[int, int, Int[np.ndarray, " members"]]]:
    """Length and number of chunks of every shape, largest first, and the colours that have it.

    ``counts`` has the entries of every column, colour by colour. Chunks go up by factors of four from ``SMALL_STEP``. A
    shape costs a second of compiling: colours join the next larger one, or those with chunks of common length, unless
    that would pad a sweep by ``PADDING`` entries.
    """
    lengths = np.array([_chunk_length(own, STEP_LENGTHS) for own in counts])
    entries = np.array([own.sum() for own in counts])
    for L in STEP_LENGTHS:
        if entries[lengths == L].sum() < PADDING // 8:
            lengths[lengths == L] = STEP_LENGTHS[1]
    work = np.array([int(np.sum(-(-own // L))) for own, L in zip(counts, lengths, strict=True)])
    size = np.ceil(np.log2(np.maximum(work, SMALL_STEP) / SMALL_STEP) / 2).astype(int)
    shapes = []
    for L in np.unique(lengths):
        waiting = np.zeros(0, int)
        for b in (sizes := np.unique(size[lengths == L])):
            members = np.append(waiting, np.flatnonzero((size == b) & (lengths == L)))
            next_size = (size == sizes[sizes > b][0]) & (lengths == L) if b < sizes[-1] else None
            larger = 0 if next_size is None else work[next_size].max()
            if larger and np.sum(larger - work[members]) * L < PADDING:
                waiting = members
                continue
            shapes.append((int(L), max(1, int(work[members].max())), np.sort(members)))
            waiting = np.zeros(0, int)
    return sorted(shapes, key=lambda shape: -shape[1])


def _bucket(
    X: sparse.csc_array,
    count: np.ndarray,
    columns: list[np.ndarray],
    L: int,
    C: int,
    num_rows: int,
    room: int,
) -> Steps:
    S, C, J = len(columns), max(1, C), max(map(len, columns))
    row = np.full((S, L, C), num_rows, np.int32)
    value = np.zeros((S, L, C), X.dtype)
    owner = np.full((S, C), J - 1, np.int32)
    feature = np.full((S, J), X.shape[1], np.int32)
    for s, own in enumerate(columns):
        chunk_owner, chunk, within = _chunks(count[own], L)
        starts = X.indptr[own]
        entry = np.repeat(starts, count[own]) + (
            np.arange(count[own].sum()) - np.repeat(np.cumsum(count[own]) - count[own], count[own])
        )
        row[s, within, chunk] = X.indices[entry]
        value[s, within, chunk] = X.data[entry]
        owner[s, : len(chunk_owner)] = chunk_owner
        feature[s, : len(own)] = own
    slot = _inverse(row.reshape(S, -1), room) if room < L * C * SCATTER_COST else None
    p = X.shape[1]
    place = _inverse(feature, p + 1) if p < J * SCATTER_COST else None
    return Steps(row, value, owner, feature, slot, place)


def _inverse(target: Int[np.ndarray, "S z"], size: int) -> Int[np.ndarray, "S size"]:
    """Position of 0..size-1 in every row of ``target``; z where it does not occur (the last of several is named)."""
    S, z = target.shape
    out = np.full((S, size), z, np.int32)
    out[np.arange(S)[:, None], target] = np.arange(z, dtype=np.int32)
    return out
