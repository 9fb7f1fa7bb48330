from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from bayesfm.design import Block, Design
from bayesfm.design import arrays as arrays_module
from bayesfm.design.arrays import DesignArrays, table_arrays
from bayesfm.predictors import FM
from tests import designs, reference
from tests.design.strategies import coo_arrays, naive_rows


@given(coo_arrays())
def test_entries_of_a_table_in_row_order(X: sparse.coo_array) -> None:
    table = table_arrays(X.tocsr())
    dense = np.zeros(X.shape)
    for row, feature, value in zip(*map(np.asarray, (table.row, table.feature, table.value)), strict=True):
        dense[row, feature] += value
    np.testing.assert_array_equal(dense, X.toarray())
    assert np.all(np.diff(table.row) >= 0)
    assert table.num_rows == X.shape[0]
    assert (table.row.dtype, table.feature.dtype, table.value.dtype) == (jnp.int32, jnp.int32, jnp.float32)


row_summary = jax.jit(DesignArrays.row_summary, static_argnums=1)


@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_row_summary_is_that_of_the_expanded_rows(kind: str) -> None:
    design, rank = designs.make(kind), 2
    _, w, v = designs.random_parameters(np.random.default_rng(0), design.num_features, rank)
    with jax.enable_x64():
        arrays = DesignArrays.from_design(design, np.float64)
        theta = FM(rank).join(jnp.asarray(w), jnp.asarray(v))
        s = row_summary(arrays, FM(rank), theta)
        expected = reference.summary(naive_rows(design), w, v)
        np.testing.assert_allclose(s, expected, rtol=1e-12, atol=1e-12)
    assert (arrays.num_rows, arrays.num_features) == (design.num_rows, design.num_features)


@pytest.mark.parametrize("size", [1, 3, designs.N, designs.N + 1])
@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_tiles_of_rows_do_not_show(kind: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_module, "ROWS_AT_ONCE", size)
    design, rank = designs.make(kind), 2
    _, w, v = designs.random_parameters(np.random.default_rng(0), design.num_features, rank)
    with jax.enable_x64():
        arrays, theta = (
            DesignArrays.from_design(design, np.float64),
            FM(rank).join(jnp.asarray(w), jnp.asarray(v)),
        )
        expected = arrays.row_summary(FM(rank), theta)[0]
        np.testing.assert_allclose(arrays.row_effect(FM(rank), theta), expected, rtol=1e-14, atol=1e-14)


def test_unseen_levels_come_after_all_features() -> None:
    """Parameters of the levels unseen in the first field, then those unseen in the second, follow the features'."""
    user = Block.field("user", [0, 2, 3, 1], ["ann", "bob"], unseen=["eve", "mallory"])
    item = Block.field("item", [1, 0, 0, 1], ["book"], unseen=["film"])
    arrays = DesignArrays.from_design(Design([user, Block.create("x", np.ones((4, 1))), item]))
    theta = jnp.asarray([[1.0, 2.0, 10.0, 100.0, 3.0, 4.0, 200.0]])  # ann bob x book | eve mallory | film
    s = arrays.row_summary(FM(0), theta)
    np.testing.assert_array_equal(s, [[211.0, 113.0, 114.0, 212.0]])


def test_unseen_levels_without_parameters_add_nothing() -> None:
    user = Block.field("user", [0, 1, 2], ["ann", "bob"], unseen=["eve"])
    arrays = DesignArrays.from_design(Design([user]))
    np.testing.assert_array_equal(arrays.row_summary(FM(0), jnp.asarray([[1.0, 2.0]])), [[1.0, 2.0, 0.0]])


@settings(max_examples=20)
@given(coo_arrays())
def test_a_block_with_index_is_its_expansion(X: sparse.coo_array) -> None:
    index = np.arange(2 * X.shape[0]) % X.shape[0]
    theta = jnp.arange(1.0, 1 + 2 * X.shape[1]).reshape(2, -1)
    shared = DesignArrays.from_design(Design([Block.create("b", X, index)]))
    expanded = DesignArrays.from_design(Design([Block.create("b", X.tocsr()[index])]))
    got, expected = (row_summary(arrays, FM(1), theta) for arrays in (shared, expanded))
    np.testing.assert_array_equal(got, expected)


def test_sizes_are_structure_and_arrays_are_leaves() -> None:
    arrays = DesignArrays.from_design(designs.make("everything"))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays))
    again = jax.tree.unflatten(jax.tree.structure(arrays), jax.tree.leaves(arrays))
    assert again.num_rows == designs.N
