"""The Gibbs sampler as a kernel for the chain runner."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Int, Key

from bayesfm._pytree import pytree
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state, to_sites
from bayesfm.inference.gibbs.sweep import sweep
from bayesfm.inference.report import draw_stats, row_moments
from bayesfm.likelihoods.base import RowData
from bayesfm.model import ModelSpec
from bayesfm.random import compiled

__all__ = ["GibbsKernel"]


@pytree(static=("factor_block", "keep"))
@dataclass(frozen=True)
class GibbsKernel:
    """Gibbs sweeps of one model on one data set (a ``inference.kernel.Kernel``).

    Attributes
    ----------
    spec, data
        Model; layout, response and weights.
    probe_rows
        Rows at which eta is reported.
    streams
        Rows at which predictive moments are gathered, by name.
    stream_rows
        Row data of the likelihood there.
    factor_block
        Factors drawn jointly with w.
    keep
        Names of the sites to be reported.
    """

    spec: ModelSpec
    data: ModelData
    probe_rows: Int[Array, " probe"]
    streams: dict[str, DesignArrays]
    stream_rows: dict[str, RowData]
    factor_block: int
    keep: tuple[str, ...]

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
        sites, data = to_sites(state, self.data.layout), self.data
        stats = draw_stats(
            self.spec, data.layout.group, data.observed, sites, state.eta, native=data.layout.native
        )
        sites["eta"] = state.eta[..., self.probe_rows]
        return {name: sites[name] for name in self.keep}, stats

    def moments(self, key: Key[Array, ""], state: ModelState) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of y at the rows of every stream; unseen levels are drawn from their group's prior."""
        sites = to_sites(state, self.data.layout)
        return row_moments(self._own(key), self.spec, sites, self.streams, self.stream_rows)

    def _own(self, key: Key[Array, ""]) -> Key[Array, ""]:
        """The same random numbers, made by the kernels where they work."""
        return compiled(key) if self.data.layout.native else key
