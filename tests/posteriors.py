"""Posteriors of v made by hand, with draws that are rotations of each other or not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import ortho_group


def tree_of(v: np.ndarray, names: list[str], **attrs: Any) -> xr.DataTree:
    """v as (chain, draw, feature, factor) -> a tree with nothing else."""
    coords = {"feature": np.array(names, dtype=object), "factor": np.arange(v.shape[-1])}
    posterior = xr.Dataset({"v": (("chain", "draw", "feature", "factor"), v)}, coords=coords)
    tree = xr.DataTree.from_dict({"/posterior": posterior})
    tree.attrs.update({name: json.dumps(x) for name, x in attrs.items()})
    return tree


def rotated(v: np.ndarray, seed: int = 7) -> np.ndarray:
    """Every draw turned by a rotation or reflection of its own."""
    chains, draws, _, k = v.shape
    R = ortho_group(k, seed=seed).rvs(chains * draws).reshape(chains, draws, k, k)
    return np.einsum("cdpk,cdkl->cdpl", v, R)


def words() -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Names, (2, 200, 18, 4) draws of v, and what each word is about."""
    topics = {
        "computers": ["keyboard", "windows", "driver", "disk", "printer", "memory", "monitor", "card"],
        "politics": ["senate", "vote", "president", "tax", "congress", "law", "gun"],
        "neither": ["the", "about", "yesterday"],
    }
    rng = np.random.default_rng(3)
    names = [word for group in topics.values() for word in group]
    about = {word: topic for topic, group in topics.items() for word in group}
    centres = {
        "computers": [1.0, 0.3, 0.2, 0.0],
        "politics": [-0.8, 0.6, 0.0, 0.1],
        "neither": [0.0, -0.2, 0.0, 0.0],
    }
    true = np.array([centres[about[x]] for x in names]) + 0.3 * rng.normal(size=(len(names), 4)) * [
        1,
        1,
        0.4,
        0.2,
    ]
    spread = rng.uniform(0.05, 0.2, size=(len(names), 1))
    return names, true + spread * rng.normal(size=(2, 200, len(names), 4)), about
