"""Held-out rows that say when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.problem import Problem, prepare
from bayesfm.likelihoods.base import Observed, RowData
from bayesfm.model import ModelSpec
from bayesfm.priors import Prior
from bayesfm.sums import total

__all__ = ["Validation", "validation_rows"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Validation:
    """A design, its response, weights and row data, on the device."""

    design: DesignArrays
    y: Float[Array, " n"]
    weight: Float[Array, " n"]
    rows: RowData

    def score(self, spec: ModelSpec, sites: Mapping[str, Array]) -> Float[Array, ""]:
        """Mean log density of the response at given sites; unseen levels are at the mean of their group."""
        of_output = partial(self._eta, spec)
        names = ("w0", "w", "v", *(f"{h}_w" for h in spec.prior_w.hyper_names()))
        names += tuple(f"{h}_v" for h in spec.prior_v.hyper_names())
        own = {name: sites[name] for name in names if name in sites}
        eta = lax.map(of_output, own) if spec.likelihood.outputs else of_output(own)
        params = {name: sites[name] for name in spec.likelihood.dims}
        observed = Observed(self.y, self.weight, self.rows)
        return spec.likelihood.log_likelihood(observed, eta, params) / total(self.weight)

    def _eta(self, spec: ModelSpec, sites: Mapping[str, Array]) -> Float[Array, " n"]:
        theta = spec.predictor.join(sites["w"], sites["v"])
        group = self.design.unseen_group
        if group is not None and group.shape[0]:

            def mean(prior: Prior, x: str, *columns: int) -> Array:
                hyper = {name: sites[f"{name}_{x}"] for name in prior.hyper_names()}
                return prior.mean_new(prior.of_groups(hyper, group, columns), (group.shape[0], *columns))

            unseen = spec.predictor.join(
                mean(spec.prior_w, "w"), mean(spec.prior_v, "v", spec.predictor.rank)
            )
            theta = jnp.concatenate([theta, unseen], axis=1)
        return sites.get("w0", 0.0) + self.design.row_effect(spec.predictor, theta)


def validation_rows(
    problem: Problem,
    spec: ModelSpec,
    validation: tuple[Any, ...] | None,
) -> Validation | None:
    """(design, y) or (design, y, weight, row_data) on the device, centred as the problem is.

    Raises
    ------
    ValueError, TypeError
        As for the rows that are learned from; or if it is no such tuple.
    """
    if validation is None:
        return None
    if not isinstance(validation, tuple) or not 2 <= len(validation) <= 4:
        raise TypeError(
            "validation must be (design, y) or (design, y, weight, row_data), got "
            f"{type(validation).__name__}{f' of {len(validation)}' if isinstance(validation, tuple) else ''}"
        )
    design, y, weight, row_data = (*validation, None, None)[:4]
    if not isinstance(design, Design):
        raise TypeError(f"validation must begin with a Design, got {type(design).__name__}")
    held = prepare(spec, design, y, weight, row_data)
    dtype = jnp.zeros(()).dtype

    def on_device(x: np.ndarray) -> Array:
        return jnp.asarray(x, dtype)

    return Validation(
        DesignArrays.from_design(design, dtype),
        on_device(held.y + held.centre - problem.centre),
        on_device(held.weight),
        {name: on_device(x) for name, x in held.rows.items()},
    )
