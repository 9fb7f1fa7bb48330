"""eta with the parameters in the last axis, against the predictor; moments of eta, against all sign patterns."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.stochastic import rowwise
from tests import designs, reference
from tests.design.strategies import naive_rows


def parameters(p: int, rank: int) -> tuple[float, np.ndarray, np.ndarray]:
    return designs.random_parameters(np.random.default_rng(0), p, rank, 0.7)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("kind", ["everything", "one row", "all zero"])
def test_eta_is_that_of_the_naive_loop(kind: str, rank: int) -> None:
    design = designs.make(kind)
    w0, w, v = parameters(design.num_features, rank)
    with jax.enable_x64():
        arrays = DesignArrays.from_design(design, np.float64)
        eta = jax.jit(rowwise.eta)(arrays, jnp.asarray(w0), jnp.asarray(np.column_stack([w, v])))
        expected = reference.eta(naive_rows(design), w0, w, v)
        np.testing.assert_allclose(eta, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "rank"), [("everything", 2), ("everything", 0), ("rows", 1), ("one feature", 1)]
)
def test_moments_are_those_over_all_signs(kind: str, rank: int) -> None:
    """eta is affine in every single parameter, so that its first two moments depend on those of the parameters alone:
    mean +- sd, each with probability 1/2, will do for the normal. Two features at a time vary, all others are certain.
    """
    design = designs.make(kind)
    p = design.num_features
    rng = np.random.default_rng(1)
    w0, w, v = parameters(p, rank)
    theta, sd = np.column_stack([w, v]), rng.uniform(0.2, 1.5, (p, rank + 1))
    X, moments = naive_rows(design), jax.jit(rowwise.eta_moments)
    for pair in {(0, p - 1), (p // 2, p - 1), (0, min(1, p - 1))}:
        own = np.zeros_like(sd)
        own[list(pair)] = sd[list(pair)]
        at = np.argwhere(own > 0)
        etas = []
        for signs in product([-1.0, 1.0], repeat=len(at)):
            moved = theta.copy()
            moved[at[:, 0], at[:, 1]] += np.array(signs) * own[at[:, 0], at[:, 1]]
            etas.append(w0 + reference.eta(X, 0.0, moved[:, 0], moved[:, 1:]))
        with jax.enable_x64():
            arrays = DesignArrays.from_design(design, np.float64)
            mean, variance = moments(
                arrays, jnp.asarray(w0), jnp.asarray(0.25), jnp.asarray(theta), jnp.asarray(own**2)
            )
            np.testing.assert_allclose(mean, np.mean(etas, axis=0), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(variance, 0.25 + np.var(etas, axis=0), rtol=1e-12, atol=1e-12)
