"""The factorization machine of uncertain parameters: theta_j ~ N(m_j, S_j), independently over features.

A set of features in one row adds to the variance of eta a *spread* (C, A, a, t), sums over its features of

    C += x^2 V,   A += x^2 s - x^3 V m,   a += x^2 S_00 - 2 x^3 <s, m> + x^4 m' V m,   t += x^4 |V|^2,

where V is the covariance of v_j, s that of v_j with w_j and m the mean of v_j. With q = E[Q] of the whole row

    var eta = a + 2 <A, q> + q' C q + (|C|^2 - t) / 2,        cov(Q, eta) = A + C q,

so spreads of disjoint sets are added, as their Q are. See docs/math.md, section 30.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bayesfm.sums import inner

__all__ = ["Spread"]


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

    def variance(self, q: Float[Array, "k *m"]) -> Float[Array, "*m"]:
        """Of eta, w0 left out, where all features of the row are in here and Q has mean q."""
        Cq = self.cross(q) - self.A
        pairs = 0.5 * (jnp.sum(self.C * self.C, axis=(0, 1)) - self.t)
        # A sum of squares, which rounding can take below zero.
        return jnp.maximum(self.a + inner(2 * self.A + Cq, q) + pairs, 0.0)

    def cross(self, q: Float[Array, "k *m"]) -> Float[Array, "k *m"]:
        """Covariance of Q and eta, A + C q."""
        return self.A + inner(self.C, q[None], axis=1) if len(q) else self.A

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
