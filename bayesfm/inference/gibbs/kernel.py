"""The Gibbs sampler as a kernel for the chain runner."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Key

from bayesfm._pytree import pytree
from bayesfm.inference.conjugate.kernel import StateKernel
from bayesfm.inference.conjugate.state import ModelState, initial_state
from bayesfm.inference.gibbs.sweep import sweep

__all__ = ["GibbsKernel"]


@pytree(static=("keep", "factor_block"))
@dataclass(frozen=True)
class GibbsKernel(StateKernel):
    """Gibbs sweeps of one model on one data set (a ``inference.kernel.Kernel``).

    Attributes
    ----------
    factor_block
        Factors drawn jointly with w; the others are those of ``StateKernel``.
    """

    factor_block: int

    def init(self, key: Key[Array, ""]) -> ModelState:
        """A dispersed start."""
        return initial_state(self._own(key), self.spec, self.data)

    def sweep(self, key: Key[Array, ""], state: ModelState) -> ModelState:
        """Every full conditional once."""
        # Accelerators round the factors of float32 products to ten bits by default: a rotation would be none.
        with jax.default_matmul_precision("highest"):
            return sweep(self._own(key), state, self.spec, self.data, self.factor_block)

    def report(self, state: ModelState) -> tuple[dict[str, Array], dict[str, Array]]:
        """Kept sites; log joint density ``lp``, log-likelihood, training RMSE."""
        return self.report_of(state)

    def moments(self, key: Key[Array, ""], state: ModelState) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of y at the rows of every stream."""
        return self.moments_of(key, state)
