from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from bayesfm.design import Block, Design
from bayesfm.design.levels import level_hashes
from tests.design.strategies import SIZES, blocks, designs, naive_block, naive_rows


@given(SIZES.flatmap(lambda n: blocks(n, "B")))
def test_expand_is_the_naive_expansion(block: Block) -> None:
    X = block.expand()
    assert X.shape == (block.num_rows, block.num_features)
    assert X.has_canonical_format
    np.testing.assert_array_equal(X.toarray(), naive_block(block))


@given(designs())
def test_design_is_its_blocks_side_by_side(design: Design) -> None:
    X = design.to_csr()
    assert X.shape == (design.num_rows, design.num_features)
    np.testing.assert_array_equal(X.toarray(), naive_rows(design))
    assert design.starts.tolist()[0] == 0
    assert design.starts.tolist()[-1] == design.num_features
    for block, lo, hi in zip(design.blocks, design.starts, design.starts[1:], strict=False):
        np.testing.assert_array_equal(X[:, lo:hi].toarray(), block.expand().toarray())


@given(designs(), st.data())
def test_take_commutes_with_expansion(design: Design, data: st.DataObject) -> None:
    n = design.num_rows
    numbers = st.lists(st.integers(-n, n - 1), min_size=1)
    mask = st.lists(st.booleans(), min_size=n, max_size=n).filter(any)
    slices = st.slices(n).filter(lambda s: len(np.arange(n)[s]) > 0)
    rows = data.draw(st.one_of(numbers.map(np.array), mask.map(np.array), slices))
    taken = design.take(rows)
    np.testing.assert_array_equal(taken.to_csr().toarray(), naive_rows(design)[rows])
    taken.check_matches(design.schema)
    for ours, theirs in zip(taken.blocks, design.blocks, strict=True):
        assert ours.unseen is theirs.unseen


@given(designs())
def test_names_and_groups_of_a_design(design: Design) -> None:
    names = design.feature_names
    assert len(set(names)) == len(names) == design.num_features
    assert design.groups.dtype == np.int32
    assert len(set(design.group_names)) == len(design.group_names)
    labels = [b.group_names[g] for b in design.blocks for g in b.group]
    assert [design.group_names[g] for g in design.groups] == labels


def test_identity_field() -> None:
    block = Block("id", None, None, np.array(["id=a", "id=b"], object), np.zeros(2, np.int32), ("id",))
    assert (block.num_rows, block.num_block_rows, block.num_features) == (2, 2, 2)
    np.testing.assert_array_equal(block.expand().toarray(), np.eye(2))
    np.testing.assert_array_equal(block.take([1, 1, 0]).expand().toarray(), [[0, 1], [0, 1], [1, 0]])


def test_create() -> None:
    block = Block.create("genre", [[1, 0], [2, 3]], np.array([1, 0, 1]), groups=["a", "b"])
    assert not block.is_field
    assert (block.num_rows, block.num_block_rows, block.num_features) == (3, 2, 2)
    assert block.feature_names.tolist() == ["genre0", "genre1"]
    assert block.group_names == ("a", "b")
    assert block.unseen.tolist() == []
    assert repr(block) == "Block('genre': 3 rows, 2 block rows, 2 features)"


def test_one_row_and_one_feature() -> None:
    design = Design([Block.create("X", [[2.0]])])
    assert (design.num_rows, design.num_features) == (1, 1)
    assert design.to_csr().toarray().tolist() == [[2.0]]


def test_field() -> None:
    block = Block.field("user", [0, 2, 1, 3], ["ann", "bob"], unseen=["cy", "di"])
    assert block.is_field
    assert (block.num_rows, block.num_block_rows, block.num_features) == (4, 2, 2)
    assert block.feature_names.tolist() == ["user=ann", "user=bob"]
    assert block.group_names == ("user",)
    assert block.unseen.tolist() == level_hashes(["cy", "di"]).tolist()
    assert block.unseen.dtype == np.uint32
    np.testing.assert_array_equal(block.expand().toarray(), [[1, 0], [0, 0], [0, 1], [0, 0]])
    assert repr(block) == "Block('user': 4 rows, 2 levels, 2 unseen)"


@pytest.mark.parametrize(
    ("index", "levels", "error", "message"),
    [
        ([0], [], ValueError, "levels of block 'user' must not be empty"),
        ([0, 2], ["a", "b"], ValueError, r"index of block 'user' must lie in \[0, 2\)"),
        ([0], "ab", TypeError, "got the string 'ab'"),
        ([0], ["a", "a"], ValueError, "levels of block 'user' must be unique, 'user=a' occurs"),
        ([0], [1, "1"], ValueError, "'user=1' occurs more than once"),
        ([0], [None], TypeError, "levels must be strings, integers, floats or booleans, got None"),
    ],
)
def test_bad_fields(index: Any, levels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Block.field("user", index, levels)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": ""}, ValueError, "must not be empty"),
        ({"name": 1}, TypeError, "must be a string, got 1"),
        ({"X": [[1.0, np.nan]]}, ValueError, "X of block 'b' contains NaN"),
        ({"index": [0, 1]}, ValueError, r"index of block 'b' must lie in \[0, 1\)"),
        ({"feature_names": ["a"]}, ValueError, "feature_names of block 'b'.*expected 2, got 1"),
        ({"groups": [0]}, ValueError, "one entry per feature"),
    ],
)
def test_bad_blocks(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given_arguments = {"name": "b", "X": [[1.0, 2.0]], **arguments}
    with pytest.raises(error, match=message):
        Block.create(**given_arguments)


def test_names_that_two_blocks_share_are_prefixed_by_the_block() -> None:
    a = Block.create("a", [[1, 2]], feature_names=["x", "y"])
    b = Block.create("b", [[1, 2]], feature_names=["y", "z"])
    assert Design([a, b]).feature_names.tolist() == ["x", "a:y", "b:y", "z"]
    assert a.feature_names.tolist() == ["x", "y"]


def test_names_that_clash_even_with_a_prefix() -> None:
    a = Block.create("a", [[1, 2]], feature_names=["x", "b:x"])
    b = Block.create("b", [[1]], feature_names=["x"])
    with pytest.raises(ValueError, match="'b:x' occurs more than once"):
        _ = Design([a, b]).feature_names


def test_a_group_name_in_two_blocks_is_one_group() -> None:
    a = Block.create("a", [[1, 2]], groups=["person", "other"])
    b = Block.create("b", [[1, 2]], groups=["more", "person"])
    design = Design([a, b])
    assert design.group_names == ("person", "other", "more")
    assert design.groups.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: [], ValueError, "at least one Block"),
        (lambda: Block.create("a", [[1]]), TypeError, r"single Block: write Design\(\[block\]\)"),
        (lambda: [np.eye(2)], TypeError, "element of type ndarray"),
        (
            lambda: [Block.create("a", [[1]]), Block.create("a", [[1]])],
            ValueError,
            "unique, got more than one 'a'",
        ),
        (
            lambda: [Block.create("a", [[1]]), Block.create("b", [[1], [1]])],
            ValueError,
            "equally many rows, got {'a': 1, 'b': 2}",
        ),
        (lambda: [Block.create("a", [[1]], [])], ValueError, r"empty input.*0 sample\(s\)"),
    ],
)
def test_bad_designs(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Design(make())


def test_taking_no_rows_is_an_error() -> None:
    design = Design([Block.create("a", sparse.eye_array(3))])
    nothing: tuple[Any, ...] = (slice(0, 0), [], np.zeros(3, bool))
    for rows in nothing:
        with pytest.raises(ValueError, match="empty input"):
            design.take(rows)


def test_designs_are_frozen() -> None:
    design = Design([Block.create("a", [[1]])])
    with pytest.raises(AttributeError):
        design.blocks = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        design.blocks[0].name = "b"  # type: ignore[misc]
    assert repr(design) == "Design(1 rows, 1 features: Block('a': 1 rows, 1 block rows, 1 features))"
