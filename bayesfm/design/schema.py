"""Names of a design: what a fitted model remembers to recognize its features again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from bayesfm.design.validation import as_feature_names, as_index, check_block_name

__all__ = ["BlockSchema", "DesignSchema"]


@dataclass(frozen=True, eq=False)
class BlockSchema:
    """Name, feature names and prior groups of one block.

    Parameters
    ----------
    name : str
        Name of the block.
    feature_names : array of shape (p,)
        Strings.
    group : array of shape (p,)
        Number of each feature's prior group, into ``group_names``.
    group_names : tuple of str
    """

    name: str
    feature_names: Shaped[np.ndarray, " p"]
    group: Int32[np.ndarray, " p"]
    group_names: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    def difference(self, fitted: BlockSchema) -> str | None:
        """The first difference from a fitted block, in words; None where there is none."""
        if self.name != fitted.name:
            return f"block {self.name!r} stands where the fitted design has block {fitted.name!r}"
        if self.num_features != fitted.num_features:
            return (
                f"block {self.name!r} has {self.num_features} features, the fitted one {fitted.num_features}: give "
                "all features of the fit in their order, with Block.field the levels= of the fit, and levels that "
                "it has not seen in unseen="
            )
        for what, ours, theirs in (
            ("named", self.feature_names, fitted.feature_names),
            ("in prior group", _group_labels(self), _group_labels(fitted)),
        ):
            if not np.array_equal(ours, theirs):
                j = int(np.flatnonzero(ours != theirs)[0])
                return f"feature {j} of block {self.name!r} is {what} {ours[j]!r}, when fitted {theirs[j]!r}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return {
            "name": self.name,
            "feature_names": self.feature_names.tolist(),
            "group": self.group.tolist(),
            "group_names": list(self.group_names),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> BlockSchema:
        """Inverse of :meth:`to_dict`."""
        names = as_feature_names(state["feature_names"], len(state["feature_names"]))
        group_names = tuple(state["group_names"])
        group = as_index(state["group"], len(group_names), "group")
        if len(group) != len(names):
            raise ValueError(
                f"group must have one entry per feature: expected {len(names)}, got {len(group)}"
            )
        return cls(check_block_name(state["name"]), names, group, group_names)


def _group_labels(block: BlockSchema) -> np.ndarray:
    return np.array(block.group_names, dtype=object)[block.group]


@dataclass(frozen=True, eq=False)
class DesignSchema:
    """Names of all blocks, features and groups of a design, in order.

    Parameters
    ----------
    blocks : tuple of BlockSchema

    Examples
    --------
    >>> import json
    >>> from bayesfm.design import DesignSchema, design_from_matrix
    >>> schema = design_from_matrix([[1.0, 0.0]], feature_names=["a", "b"]).schema
    >>> again = DesignSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    >>> again.difference(schema) is None
    True
    """

    blocks: tuple[BlockSchema, ...]

    @property
    def num_features(self) -> int:
        """Number of features of all blocks."""
        return sum(b.num_features for b in self.blocks)

    def difference(self, fitted: DesignSchema) -> str | None:
        """The first difference from a fitted schema, in words; None where there is none."""
        ours, theirs = [b.name for b in self.blocks], [b.name for b in fitted.blocks]
        if sorted(ours) != sorted(theirs):
            missing = [name for name in theirs if name not in ours]
            surplus = [name for name in ours if name not in theirs]
            return f"blocks missing: {missing or 'none'}; blocks not there when fitted: {surplus or 'none'}"
        differences = (b.difference(f) for b, f in zip(self.blocks, fitted.blocks, strict=True))
        return next((d for d in differences if d is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return {"blocks": [b.to_dict() for b in self.blocks]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DesignSchema:
        """Inverse of :meth:`to_dict`."""
        return cls(tuple(BlockSchema.from_dict(b) for b in state["blocks"]))
