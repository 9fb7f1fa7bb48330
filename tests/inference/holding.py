"""Held fixed while features are drawn: hyperparameters, the factor that is eliminated last, normals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from bayesfm.inference.conjugate import collapsed, compiled, units
from bayesfm.inference.conjugate.elimination import Corner, ends

__all__ = ["elimination_order", "hold_noise", "hold_scales", "update_field"]


def hold_scales(patch: pytest.MonkeyPatch, last: int = 0) -> None:
    """Hyperparameters stay as they are, and factor ``last`` of every block (or its last one) is eliminated last."""

    def chosen(self: collapsed.FieldPrior, key: Any, size: int) -> jax.Array:
        return jnp.asarray(max(0, min(last, size - 1)), jnp.int32)

    patch.setattr(collapsed.FieldPrior, "last", chosen)
    patch.setattr(collapsed.FieldPrior, "_redraw", lambda self, key, hyper, known, f: hyper)


def hold_noise(patch: pytest.MonkeyPatch, noise_of: Callable[[jax.Array], jax.Array]) -> None:
    """Normals that the old values of the features decide, in both ways of drawing them."""
    for module in (units, compiled):
        patch.setattr(module, "standard_normal", lambda key, like, **options: noise_of(like))


def elimination_order(own: Sequence[int], last: int = 0) -> list[int]:
    """Positions of w and the factors of a block in the order in which a field's features eliminate them."""
    factors = list(range(1, len(own)))
    if factors:
        f = min(last, len(factors) - 1)
        factors[f], factors[-1] = factors[-1], factors[f]
    return [*factors, 0]


def update_field(
    ptr: jax.Array,
    row: jax.Array,
    omega: jax.Array,
    r: jax.Array,
    group: jax.Array,
    precision: jax.Array,
    mean: jax.Array,
    noise: jax.Array,
    theta: jax.Array,
    tables: list[jax.Array],
    codes: list[jax.Array],
    last: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """A draw of a field by the kernels, both halves, with the hyperparameters as they are."""
    f = jnp.asarray(last, jnp.int32)
    systems, corner = native.eliminate_field(
        ptr, row, omega, r, group, precision, mean, theta, f, tables, codes
    )
    number = jnp.asarray(group)

    def prior(i: int) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(precision)[i][number], jnp.asarray(mean)[i][number]

    none = jnp.ones_like(corner[0]), jnp.zeros_like(corner[0])
    both = ends(Corner(*corner), prior(0), prior(1 + last) if theta.shape[0] > 1 else none)
    return native.substitute_field(ptr, row, r, systems, jnp.stack(both), f, noise, theta, tables, codes)


def root_in(order: Sequence[int], P: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What normals add to the mean where parameters are eliminated in this order: L'^-1 noise."""
    own = list(order)
    L = np.linalg.cholesky(P[np.ix_(own, own)])
    out = np.zeros(len(own))
    out[own] = np.linalg.solve(L.T, np.asarray(noise, float)[own])
    return out
