"""The factorization machine of uncertain parameters: theta_j ~ N(m_j, S_j), independently over features.

A set of features in one row adds to the variance of eta a *spread* (C, A, a, t), sums over its features of

    C += x^2 V,   A += x^2 s - x^3 V m,   a += x^2 S_00 - 2 x^3 <s, m> + x^4 m' V m,   t += x^4 |V|^2,

where V is the covariance of v_j, s that of v_j with w_j and m the mean of v_j. With q = E[Q] of the whole row

    var eta = a + 2 <A, q> + q' C q + (|C|^2 - t) / 2,        cov(Q, eta) = A + C q,

so spreads of disjoint sets are added, as their Q are. See docs/math.md, section 30.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from bayesfm.sums import inner

__all__ = ["Spread", "variance_of_rows"]


class Spread(NamedTuple):
    """What the uncertainty of some features comes to in a row; rows (or features) in the last axes."""

    C: Float[Array, "k k *m"]
    A: Float[Array, "k *m"]
    a: Float[Array, "*m"]
    t: Float[Array, "*m"]

    @classmethod
    def of_features(
        cls, mean: Float[Array, "K *m"], cov: Float[Array, "K K *m"], x: ArrayLike = 1.0
    ) -> Spread:
        """That of single features with values x."""
        x, m, V, s = jnp.asarray(x), mean[1:], cov[1:, 1:], cov[1:, 0]
        Vm = inner(V, m[None], axis=1) if len(m) else m
        A = x * x * (s - x * Vm)
        a = x * x * (cov[0, 0] - x * (2 * inner(s, m) - x * inner(m, Vm)))
        return cls(x * x * V, A, a, x**4 * jnp.sum(V * V, axis=(0, 1)))

    def packed(self) -> Float[Array, "u *m"]:
        """As one array, of each C its lower triangle."""
        i, j = np.tril_indices(self.C.shape[0])
        return jnp.concatenate([self.C[i, j], self.A, self.a[None], self.t[None]])

    @classmethod
    def unpack(cls, u: Float[Array, "u *m"], k: int) -> Spread:
        """Inverse of :meth:`packed`."""
        place = np.zeros((k, k), np.int32)
        place[np.tril_indices(k)] = np.arange(k * (k + 1) // 2)
        place = np.maximum(place, place.T)
        end = k * (k + 1) // 2
        return cls(u[place], u[end : end + k], u[-2], u[-1])


def variance_of_rows(
    k: int,
    q: Float[Array, "k t"],
    spreads: list[Float[Array, "u m"]],
    rows: list[Int[Array, " t"]],
) -> Float[Array, " t"]:
    """Variance of eta in some rows, w0 left out: packed spreads of tables, the row of each that they have, and E[Q].

    Entry by entry of C, so that no array of all entries of all rows is built.
    """
    i, j = np.tril_indices(k)

    def summed(tables: list[Array]) -> Float[Array, " t"]:
        return reduce(jnp.add, [table[here] for table, here in zip(tables, rows, strict=True)])

    total = summed([u[-2] - 0.5 * u[-1] for u in spreads])
    if k:
        for f in range(k):
            total += 2 * q[f] * summed([u[len(i) + f] for u in spreads])

        def add_entry(total: Array, entry: tuple[list[Array], Array, Array, Array]) -> tuple[Array, None]:
            tables, i, j, twice = entry
            c = summed(tables)
            return total + twice * c * (q[i] * q[j] + 0.5 * c), None

        twice = jnp.asarray(np.where(i == j, 1.0, 2.0), q.dtype)
        entries = [u[: len(i)] for u in spreads], jnp.asarray(i), jnp.asarray(j), twice
        total, _ = lax.scan(add_entry, total, entries)
    return jnp.maximum(total, 0.0)  # a sum of squares, which rounding can take below zero
