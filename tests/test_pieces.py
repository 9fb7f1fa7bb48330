"""Compact pieces hold what their rows need, in few sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfm.design import Block, Design
from bayesfm.pieces import Piece, compact_rows
from tests.design.strategies import designs, naive_rows


def expand(piece: Piece, num_features: int) -> tuple[np.ndarray, list[dict[int, float]]]:
    """Known features of every row as a matrix, and the hashes of its unseen levels by block."""
    columns = np.arange(num_features) if piece.features is None else piece.features
    X = np.zeros((piece.design.num_rows, num_features))
    unseen: list[dict[int, float]] = [{} for _ in range(piece.design.num_rows)]
    late = 0
    for number, block in enumerate(piece.design.blocks):
        own = columns[block.start : block.stop]
        index = np.arange(piece.design.num_rows) if block.index is None else np.asarray(block.index)
        for n, b in enumerate(index):
            if block.table is not None:
                here = np.asarray(block.table.row) == b
                for j, x in zip(
                    np.asarray(block.table.feature)[here], np.asarray(block.table.value)[here], strict=True
                ):
                    X[n, own[j]] += x
            elif b < len(own):
                X[n, own[b]] += 1.0
            else:
                t = late + b - len(own)
                assert piece.unseen["block"][t] == number
                unseen[n][number] = piece.unseen["hash"][t]
        late += block.num_unseen
    return X[: piece.num_rows], unseen[: piece.num_rows]


@settings(max_examples=50)
@given(design=designs(), data=st.data())
def test_a_piece_has_the_features_of_its_rows(design: Design, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, design.num_rows - 1))
    rows = slice(start, data.draw(st.integers(start + 1, design.num_rows)))
    piece = compact_rows(design, rows)
    X, unseen = expand(piece, design.num_features)
    np.testing.assert_array_equal(X, naive_rows(design)[rows].astype(np.float32))
    for n, own in enumerate(unseen, start):
        expected = {
            number: block.unseen[block.index[n] - block.num_features]
            for number, block in enumerate(design.blocks)
            if block.is_field and block.index[n] >= block.num_features
        }
        assert own == expected


def large_design(n: int = 300, num_levels: int = 100_000) -> Design:
    rng = np.random.default_rng(0)
    return Design(
        [
            Block.field("user", rng.integers(0, num_levels, n), range(num_levels)),
            Block.create("text", (rng.random((40, 3000)) < 0.01) * 1.0, index=rng.integers(0, 40, n)),
        ]
    )


def test_few_rows_keep_few_features() -> None:
    design = large_design()
    piece = compact_rows(design, slice(0, 5))
    assert piece.features is not None
    assert len(piece.features) == piece.design.num_features <= 64 + 256
    assert piece.design.num_rows == 64
    everything = np.arange(design.num_features)
    assert set(np.unique(piece.features)) <= set(everything[naive_columns(design, 5)]) | {0, 100_000}


def naive_columns(design: Design, n: int) -> np.ndarray:
    return np.asarray(design.take(slice(0, n)).to_csr().sum(axis=0)).ravel() > 0


def test_where_all_features_are_used_none_is_copied() -> None:
    design = Design([Block.field("user", np.arange(100), range(100)), Block.create("x", np.ones((100, 3)))])
    assert compact_rows(design, slice(0, 100)).features is None


def test_sizes_are_few_and_not_much_too_large() -> None:
    n = 3000
    design = Design([Block.field("user", np.arange(n), range(n))])
    sizes = {rows: compact_rows(design, slice(0, rows)).design.num_rows for rows in range(1, n, 7)}
    assert len(set(sizes.values())) <= 4 * np.log2(n / 64) + 2
    assert all(rows <= size <= max(64, 1.25 * rows + 16) for rows, size in sizes.items())


def test_table_entries_stay_sorted_by_row() -> None:
    """The device is told so, and sums over rows rely on it."""
    for design in (large_design(), Design([Block.create("x", np.eye(70)[:, ::-1])])):
        for block in compact_rows(design, slice(3, 60)).design.blocks:
            if block.table is not None:
                row = np.asarray(block.table.row)
                assert np.all(np.diff(row) >= 0)
                assert row[-1] == block.table.num_rows - 1
