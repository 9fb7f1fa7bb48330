"""Models as if they had been fitted: random draws, and what they imply by loops in float64."""

from __future__ import annotations

import numpy as np

from bayesfm.design import Block, Design
from bayesfm.mixture import FittedModel
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM

EPS = np.finfo(np.float32).eps
# A float32 eta is a sum of at most a few hundred products, each of size about one.
CLOSE = {"rtol": 1e3 * EPS, "atol": 1e3 * EPS}


def random_sites(
    design: Design, rank: int, chains: int = 2, draws: int = 7, seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    p, G = design.num_features, len(design.group_names)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(chains, draws, *shape)).astype(np.float32)

    return {
        "w0": 3.0 + 0.1 * normal().astype(np.float64),
        "alpha": np.exp(0.3 * normal()),
        "mu_w": normal(G),
        "lambda_w": np.exp(normal(G)),
        "mu_v": 0.3 * normal(G, rank),
        "lambda_v": 4.0 * np.exp(normal(G, rank)),
        "w": 0.5 * normal(p),
        "v": 0.3 * normal(p, rank),
    }


def random_model(design: Design, rank: int = 3, **options: int) -> FittedModel:
    return FittedModel(ModelSpec(FM(rank)), design.groups, random_sites(design, rank, **options))


def make_design(n: int = 40, seed: int = 1, num_users: int = 5) -> Design:
    """A field, a relation block and a numeric block."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, num_users, n)
    genre = (rng.random((4, 6)) < 0.4) * rng.normal(size=(4, 6))
    return Design(
        [
            Block.field("user", user, range(num_users)),
            Block.create("genre", genre, index=rng.integers(0, 4, n)),
            Block.create("age", rng.normal(size=(n, 2)) * (rng.random((n, 2)) < 0.7)),
        ]
    )


def naive_eta(model: FittedModel, X: np.ndarray) -> np.ndarray:
    """eta by the double loop over pairs, in float64: (draw, n)."""
    w0, w, v = (np.concatenate(np.asarray(model.sites[s], np.float64)) for s in ("w0", "w", "v"))
    eta = w0[:, None] + w @ X.T
    for i in range(X.shape[1]):
        for j in range(i):
            eta += np.sum(v[:, i] * v[:, j], axis=1)[:, None] * (X[:, i] * X[:, j])
    return eta


def noise_sd(model: FittedModel) -> np.ndarray:
    return 1.0 / np.sqrt(np.concatenate(np.asarray(model.sites["alpha"], np.float64)))[:, None]
