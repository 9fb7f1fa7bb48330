"""What kernels of conditional draws share: the model, its data, and what is reported of a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from bayesfm import native
from bayesfm._pytree import pytree
from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.layout import build_layout
from bayesfm.design.units import Layout
from bayesfm.inference.conjugate.state import ModelData, ModelState, to_sites
from bayesfm.inference.problem import Problem, kept_sites, rows_of_streams, start_sd
from bayesfm.inference.report import draw_stats, row_moments
from bayesfm.likelihoods.base import RowData
from bayesfm.model import ModelSpec
from bayesfm.random import compiled

__all__ = ["StateKernel", "belief_data", "model_data", "report_options"]


@pytree(static=("keep",))
@dataclass(frozen=True)
class StateKernel:
    """A model on one data set, and what is to be reported of its states.

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
    keep
        Names of the sites to be reported.
    """

    spec: ModelSpec
    data: ModelData
    probe_rows: Int[Array, " probe"]
    streams: dict[str, DesignArrays]
    stream_rows: dict[str, RowData]
    keep: tuple[str, ...]

    def report_of(self, state: ModelState) -> tuple[dict[str, Array], dict[str, Array]]:
        """Kept sites; log joint density ``lp``, log-likelihood, training RMSE."""
        layout, spec = self.data.layout, self.spec
        sites = to_sites(state, layout)
        own, group = sites, layout.group
        if not (spec.prior_w.local_names or spec.prior_v.local_names):
            # The density is a sum over the features in any order, and theirs of the design is a gather of all of theta.
            theta = jnp.concatenate(state.theta, axis=-1)
            own = {**sites, "w": theta[..., 0, :], "v": theta[..., 1:, :].mT}
            group = jnp.concatenate([unit.group for unit in layout.units])
        stats = draw_stats(spec, group, self.data.observed, own, state.eta, native=layout.native)
        sites["eta"] = state.eta[..., self.probe_rows]
        return {name: sites[name] for name in self.keep}, stats

    def moments_of(
        self, key: Key[Array, ""], state: ModelState, *, point: bool = False
    ) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of y at the rows of every stream; see ``report.row_moments``."""
        sites = to_sites(state, self.data.layout)
        return row_moments(self._own(key), self.spec, sites, self.streams, self.stream_rows, point=point)

    def _own(self, key: Key[Array, ""]) -> Key[Array, ""]:
        """The same random numbers, made by the kernels where they work."""
        return compiled(key) if self.data.layout.native else key


def model_data(design: Design, problem: Problem, layout: Layout) -> ModelData:
    """The layout of a design on the device, with response, weights and row data padded to it."""
    dtype = jnp.zeros(()).dtype

    def padded(x: np.ndarray, fill: float = 0.0) -> Array:
        room = (0, layout.num_padded - len(x))
        return jnp.asarray(np.pad(np.asarray(x), room, constant_values=fill), dtype)

    return ModelData(
        layout=jax.device_put(layout),
        y=padded(problem.y),
        weight=padded(problem.weight),
        start_sd=jnp.asarray(start_sd(design, problem.spread, problem.spec.predictor.rank), dtype),
        rows={name: padded(x, 1.0) for name, x in problem.rows.items()},
    )


def belief_data(design: Design, problem: Problem) -> ModelData:
    """For beliefs about features: laid out for the compiled kernels where these can bring them up to date.

    That is on a CPU, for one-hot fields alone and a diagonal prior precision.
    """
    dtype = jnp.zeros(()).dtype.type
    can = native.available() and jax.default_backend() == "cpu" and not problem.spec.prior_v.full
    return model_data(design, problem, build_layout(design, dtype=dtype, native="fields" if can else False))


def report_options(
    problem: Problem,
    keep: Sequence[str] | str,
    streams: Mapping[str, Design] | None,
    stream_row_data: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Fields of a :class:`StateKernel` that say what is reported."""
    dtype, spec = jnp.zeros(()).dtype, problem.spec
    return {
        "probe_rows": jnp.asarray(problem.probe_rows),
        "streams": {name: DesignArrays.from_design(rows, dtype) for name, rows in (streams or {}).items()},
        "stream_rows": jax.tree.map(
            jnp.asarray, rows_of_streams(spec, streams or {}, dtype, stream_row_data)
        ),
        "keep": kept_sites(keep, spec),
    }
