"""Batches hold the rows they are made of, shares add up, and shapes are few."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesfm.design import Block, Design
from bayesfm.inference.stochastic.batches import Batch, Batcher, Layout, Rows, Totals, entries_per_feature
from tests import designs
from tests.design.strategies import naive_rows


def rows(design: Design) -> Rows:
    n = design.num_rows
    return Rows.of(
        design, np.arange(n) + 0.5, np.arange(n) + 1.0, {"exposure": np.arange(n) + 2.0}, np.float32
    )


def batch_of(stack: Batch, b: int) -> Batch:
    return jax.tree.map(lambda x: x[b], stack)


def expanded(batch: Batch, layout: Layout, p: int) -> np.ndarray:
    """Features of the rows of a batch, a column for every feature and one for the padding."""
    X = np.zeros((batch.observed.y.shape[0], p + 1))
    design = batch.design(layout)
    for block in design.blocks:
        own = np.zeros((X.shape[0] if block.index is None else block.index.max() + 1, p + 1))
        touched = batch.touched[block.start : block.stop]
        if block.table is None:
            own = np.eye(p + 1)[touched]
        else:
            own = np.zeros((block.table.num_rows, p + 1))
            np.add.at(own, (block.table.row, touched[block.table.feature]), block.table.value)
        X += own if block.index is None else own[block.index]
    return X


@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_batches_are_the_rows_they_are_made_of(kind: str) -> None:
    design = designs.make(kind)
    n, p = design.num_rows, design.num_features
    order = np.random.default_rng(0).permutation(n)
    cut = [order[i : i + 5] for i in range(0, n, 5)]
    source = rows(design)
    stack, layout = Batcher(5, 6).stack(source, cut, Totals(p, n, entries_per_feature(design)))
    X = naive_rows(design).astype(np.float32)
    assert stack.active.tolist() == [b < len(cut) for b in range(6)]
    for b, own in enumerate(cut):
        batch, real = batch_of(stack, b), len(own)
        np.testing.assert_array_equal(expanded(batch, layout, p)[:real, :p], X[own])
        np.testing.assert_array_equal(batch.observed.y[:real], source.y[own])
        np.testing.assert_array_equal(batch.observed.weight[:real], source.weight[own])
        np.testing.assert_array_equal(batch.observed.rows["exposure"][:real], source.rows["exposure"][own])
        assert not batch.observed.weight[real:].any()
        assert np.isin(batch.observed.y[real:], source.y).all()
        kept = batch.touched[batch.touched < p]
        assert len(np.unique(kept)) == len(kept)


@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_an_epoch_carries_every_prior_once(kind: str) -> None:
    design = designs.make(kind)
    n, p = design.num_rows, design.num_features
    entries = entries_per_feature(design)
    expected = np.concatenate([(b.expand() != 0).sum(axis=0) for b in design.blocks])
    np.testing.assert_array_equal(entries, expected)
    order = np.random.default_rng(0).permutation(n)
    stack, _ = Batcher(4, 6).stack(
        rows(design), [order[i : i + 4] for i in range(0, n, 4)], Totals(p, n, entries)
    )
    shares = np.bincount(stack.touched.ravel(), stack.share.ravel(), p + 1)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(shares[:p], entries > 0, atol=8 * eps)
    assert shares[p] == 0
    np.testing.assert_allclose(stack.row_share.sum(), 1, atol=8 * eps)


def test_totals_of_a_stream_are_what_was_seen() -> None:
    design = Design([Block.field("user", [0, 0, 1, 0, 1, 2], range(3))])
    totals, batcher = Totals(3), Batcher(2, 2)
    first, _ = batcher.stack(rows(design), [np.array([0, 1]), np.array([2, 3])], totals)
    second, _ = batcher.stack(rows(design), [np.array([4, 5])], totals)
    shares = [np.bincount(b.touched, b.share, 4)[:3] for b in map(lambda b: batch_of(first, b), range(2))]
    np.testing.assert_allclose(shares, [[1, 0, 0], [1 / 3, 1, 0]], rtol=1e-6)
    shares = np.bincount(second.touched[0], second.share[0], 4)[:3]
    np.testing.assert_allclose(shares, [0, 1 / 2, 1], rtol=1e-6)
    np.testing.assert_allclose(first.row_share, [1, 1 / 2])
    np.testing.assert_allclose(second.row_share, [1 / 3, 0], rtol=1e-6)
    assert totals.num_rows == 6
    assert totals.entries.tolist() == [3, 2, 1]


def test_shapes_do_not_change_from_epoch_to_epoch() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    X = designs.sparse_values(rng, n, 30)
    design = Design(
        [
            Block.field("user", (300 * rng.random(n) ** 2).astype(int), range(300)),
            Block.create("x", X),
            Block.create("genre", designs.sparse_values(rng, 50, 9), rng.integers(0, 50, n)),
        ]
    )
    batcher, totals, seen = Batcher(64, 8), Totals(339, n, entries_per_feature(design)), set()
    source = rows(design)
    for epoch in range(12):
        order = rng.permutation(n)
        for first in range(0, n, 512):
            own = order[first : first + 512]
            cut = [own[i : i + 64] for i in range(0, len(own), 64)]
            stack, layout = batcher.stack(source, cut, totals)
            seen.add((layout, *(x.shape for x in jax.tree.leaves(stack))))
        if epoch == 1:
            after_two = len(seen)
    assert len(seen) == after_two <= 2
