"""ML-100k with user and movie side information, in relation blocks and expanded."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from bayesfm.datasets import load_movielens_100k
from bayesfm.design import Block, Design, TableEncoder

__all__ = ["designs"]


def designs(data_home: str | None, split: str = "ua") -> dict[str, tuple[Design, np.ndarray]]:
    """``plain`` (user and item only) and ``blocks`` (age, gender, occupation; year, genres), with the response."""
    data = load_movielens_100k(split, data_home=data_home, side_information=True)
    y = data.train["rating"].to_numpy(float)
    plain = TableEncoder(categorical=["user", "item"]).fit_transform(data.train[["user", "item"]])
    users = data.users.set_index("user").loc[sorted(data.train["user"].unique())].reset_index()
    items = data.items.set_index("item").loc[sorted(data.train["item"].unique())].reset_index()
    users = users.assign(age=(users["age"] // 5).astype(int))
    block_user = _block(users, ["user", "age", "gender", "occupation"], [])
    genres = [
        c for c in items.columns if c not in ("item", "title", "year", "release_date", "video_release", "url")
    ]
    items = items.assign(year=items["year"].fillna(0).astype(int))
    block_item = _block(items, ["item", "year"], [g for g in genres if items[g].dtype != object])
    row_of_user = np.searchsorted(users["user"].to_numpy(), data.train["user"].to_numpy())
    row_of_item = np.searchsorted(items["item"].to_numpy(), data.train["item"].to_numpy())
    blocks = Design(
        (
            Block.create(
                "user", block_user[0], row_of_user, feature_names=block_user[1], groups=block_user[2]
            ),
            Block.create(
                "item", block_item[0], row_of_item, feature_names=block_item[1], groups=block_item[2]
            ),
        )
    )
    return {"plain": (plain, y), "blocks": (blocks, y)}


def _block(
    frame: pd.DataFrame, categorical: list[str], flags: list[str]
) -> tuple[sparse.csr_array, list[str], list[str]]:
    """One-hot columns and 0/1 flags of the distinct rows, with names and groups."""
    design = TableEncoder(categorical=categorical).fit_transform(frame[categorical])
    X, names = design.to_csr(), list(design.feature_names)
    groups = [design.group_names[g] for g in design.groups]
    if flags:
        F = sparse.csr_array(frame[flags].to_numpy(float))
        X, names, groups = sparse.hstack([X, F], format="csr"), names + flags, groups + ["genre"] * len(flags)
    return X, names, groups
