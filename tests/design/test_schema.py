from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from bayesfm.design import Block, BlockSchema, Design, DesignSchema
from tests.design.strategies import designs


@given(designs())
def test_round_trip_through_json(design: Design) -> None:
    schema = DesignSchema.from_dict(json.loads(json.dumps(design.schema.to_dict())))
    design.check_matches(schema)
    assert schema.num_features == design.num_features
    assert schema.to_dict() == design.schema.to_dict()


def fitted() -> DesignSchema:
    return Design(
        [
            Block.field("user", [0, 1], ["ann", "bob"]),
            Block.create("genre", [[1, 0], [0, 1]], feature_names=["war", "drama"], groups=["g", "h"]),
        ]
    ).schema


def other(levels: list[str] | None = None, name: str = "genre", **arguments: Any) -> list[Block]:
    arguments = {"X": [[1, 0], [0, 1]], "feature_names": ["war", "drama"], "groups": ["g", "h"], **arguments}
    return [Block.field("user", [0, 0], levels or ["ann", "bob"]), Block.create(name, **arguments)]


def test_equal_names_match() -> None:
    Design(other()).check_matches(fitted())
    assert Design(other()).schema.difference(fitted()) is None


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (other()[:1], r"blocks missing: \['genre'\]; blocks not there when fitted: none"),
        (other(name="kind"), r"blocks missing: \['genre'\]; blocks not there when fitted: \['kind'\]"),
        (other()[::-1], "block 'genre' stands where the fitted design has block 'user'"),
        (other(["ann"]), "block 'user' has 1 features, the fitted one 2"),
        (other(["ann", "cy"]), "feature 1 of block 'user' is named 'user=cy', when fitted 'user=bob'"),
        (
            other(feature_names=["drama", "war"]),
            "feature 0 of block 'genre' is named 'drama', when fitted 'war'",
        ),
        (other(groups=["g", "g"]), "feature 1 of block 'genre' is in prior group 'g', when fitted 'h'"),
        (other(groups=["h", "g"]), "feature 0 of block 'genre' is in prior group 'h', when fitted 'g'"),
    ],
)
def test_the_first_difference_is_named(blocks: list[Block], message: str) -> None:
    with pytest.raises(ValueError, match=f"does not match the fitted one: {message}"):
        Design(blocks).check_matches(fitted())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": [0]}, "expected 2, got 1"),
        ({"group": [0, 2]}, r"group must lie in \[0, 2\)"),
        ({"feature_names": ["a", "a"]}, "unique"),
        ({"name": ""}, "must not be empty"),
    ],
)
def test_broken_state_is_refused(change: dict[str, Any], message: str) -> None:
    state = {"name": "b", "feature_names": ["a", "c"], "group": [0, 1], "group_names": ["g", "h"], **change}
    with pytest.raises(ValueError, match=message):
        BlockSchema.from_dict(state)
