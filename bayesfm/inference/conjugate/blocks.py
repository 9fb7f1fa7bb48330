"""Factor blocks, and what a unit's update knows of its prior and of the other units."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.inference.conjugate.noise import MaybeKey, at, split

__all__ = ["AtRows", "FactorBlocks", "GroupPrior", "OtherFactors", "UnitPrior"]

AtRows = Callable[[Int[Array, "..."]], Float[Array, "B ..."]]
"""rows -> some factors of those rows."""


class OtherFactors(NamedTuple):
    """Q of all other units, and which of its own rows every data row has (None: the data rows themselves)."""

    Q: list[Float[Array, "k m"]]
    code: list[Int[Array, " n_pad"] | None]
    like: Float[Array, " n_pad"]

    def block(self, s: Int[Array, ""], size: int) -> list[Float[Array, "B m"]]:
        """Factors s to s + size of every unit."""
        return [lax.dynamic_slice_in_dim(Q, s, size) for Q in self.Q]

    def at_rows(self, s: Int[Array, ""], size: int) -> AtRows:
        """Sum over units of factors s to s + size, as a function of rows."""
        block = self.block(s, size)

        def sum_at(row: Int[Array, "..."]) -> Float[Array, "B ..."]:
            q = jnp.zeros((size, *row.shape), self.like.dtype)
            for Q, code in zip(block, self.code, strict=True):
                # The barrier keeps XLA from looking the code up again for every factor.
                q = q + Q[:, row if code is None else lax.optimization_barrier(code[row])]
            return q

        return sum_at


class FactorBlocks(NamedTuple):
    """Blocks of ``size`` factors; the last one reaches back when the rank is no multiple of the size."""

    rank: int
    size: int

    @property
    def number(self) -> int:
        """How many blocks there are; one, empty, for rank 0."""
        return max(1, -(-self.rank // max(1, self.size)))

    def start(self, i: Int[Array, ""] | int) -> Int[Array, ""]:
        """First factor of block i."""
        return jnp.minimum(jnp.asarray(i * self.size), self.rank - self.size)

    def take(self, x: Float[Array, "K *m"], s: Int[Array, ""]) -> Float[Array, "D *m"]:
        """Rows w and v_s, ..., v_{s + size - 1}."""
        return jnp.concatenate([x[:1], lax.dynamic_slice_in_dim(x, s + 1, self.size)])

    def put(
        self, x: Float[Array, "K m"], s: Int[Array, ""], block: Float[Array, "D m"]
    ) -> Float[Array, "K m"]:
        """Inverse of :meth:`take`."""
        return lax.dynamic_update_slice_in_dim(x.at[0].set(block[0]), block[1:], s + 1, 0)

    def run[S](self, key: MaybeKey, body: Callable[[MaybeKey, Int[Array, ""], S], S], carry: S) -> S:
        """Fold ``body`` over the blocks, each with a key of its own."""
        keys = split(key, self.number)
        if self.number == 1:
            return body(at(keys, 0), jnp.asarray(0), carry)
        return lax.fori_loop(0, self.number, lambda i, c: body(at(keys, i), self.start(i), c), carry)


class UnitPrior(NamedTuple):
    """Gaussian prior of a unit's features, given the hyperparameters; the precision a diagonal, or matrices."""

    precision: Float[Array, "K *L m"]
    mean: Float[Array, "K m"]

    def block(self, blocks: FactorBlocks, s: Int[Array, ""], theta: Float[Array, "K m"]) -> UnitPrior:
        """That of w and of the factors from s on, given the other factors of theta.

        With matrices the conditional mean of block B is mu_B - Lambda_BB^-1 Lambda_B,rest (theta - mu)_rest.
        """
        precision, mean = blocks.take(self.precision, s), blocks.take(self.mean, s)
        if self.precision.ndim == 2 or blocks.number == 1:
            return UnitPrior(precision, mean)
        rest = blocks.put(theta - self.mean, s, jnp.zeros_like(mean))
        coupling = jnp.sum(precision * rest[None], axis=1)
        precision = jax.vmap(blocks.take, (0, None))(precision, s)
        solved = jnp.linalg.solve(jnp.moveaxis(precision, -1, 0), coupling.T[..., None])[..., 0].T
        return UnitPrior(precision, mean - solved)

    @property
    def of_v(self) -> tuple[Float[Array, "k *E m"], Float[Array, "k m"]]:
        """Precision and mean of the factors alone, which are independent of w."""
        own = self.precision[1:] if self.precision.ndim == 2 else self.precision[1:, 1:]
        return own, self.mean[1:]

    def with_sentinel(self) -> UnitPrior:
        """One more feature, a standard normal, which padding reads."""
        widths = [(0, 0)] * (self.precision.ndim - 1) + [(0, 1)]
        one = jnp.ones(()) if self.precision.ndim == 2 else jnp.eye(len(self.mean))
        precision = jnp.pad(self.precision, widths).at[..., -1].set(one.astype(self.precision.dtype))
        return UnitPrior(precision, jnp.pad(self.mean, ((0, 0), (0, 1))))


class GroupPrior(NamedTuple):
    """The same, per group: ``group`` has that of every feature, never decreasing."""

    precision: Float[Array, "K G"]
    mean: Float[Array, "K G"]
    group: Int[Array, " m"]

    @property
    def arrays(self) -> tuple[Float[Array, "K G"], Float[Array, "K G"]]:
        """Precision and mean."""
        return self.precision, self.mean

    def block(self, blocks: FactorBlocks, s: Int[Array, ""]) -> GroupPrior:
        """That of w and of the factors from s on."""
        return GroupPrior(blocks.take(self.precision, s), blocks.take(self.mean, s), self.group)
