"""What the draw of a unit's theta sees of the priors: a precision and a mean of every feature."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.design.units import Layout, Unit
from bayesfm.inference.conjugate.blocks import GroupPrior, UnitPrior
from bayesfm.inference.conjugate.state import ModelState
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper, Prior

__all__ = ["precision_and_mean", "prior_of_groups", "prior_of_unit", "prior_of_w"]


def prior_of_unit(spec: ModelSpec, state: ModelState, layout: Layout, unit: Unit) -> UnitPrior:
    """Of (w_j, v_j), features in the last axis."""
    w = precision_and_mean(spec.prior_w, state.hyper_w, layout, unit)
    v = precision_and_mean(spec.prior_v, state.hyper_v, layout, unit, (spec.predictor.rank,))
    return UnitPrior(*_stacked(w, v))


def prior_of_w(
    spec: ModelSpec, state: ModelState, layout: Layout, unit: Unit
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Precision and mean of w of a unit's features."""
    return precision_and_mean(spec.prior_w, state.hyper_w, layout, unit)


def prior_of_groups(spec: ModelSpec, state: ModelState, layout: Layout, unit: Unit) -> GroupPrior:
    """For the compiled kernels, which look a feature's prior up by a number: its group, or the feature itself."""
    if spec.prior_w.local_names or spec.prior_v.local_names:
        number = jnp.arange(unit.group.shape[0], dtype=jnp.int32)
        return GroupPrior(*prior_of_unit(spec, state, layout, unit), number)
    w = _precision_and_mean(spec.prior_w, state.hyper_w, layout)
    v = _precision_and_mean(spec.prior_v, state.hyper_v, layout, (spec.predictor.rank,))
    return GroupPrior(*_stacked(w, v), unit.group)


def _precision_and_mean(
    prior: Prior, hyper: Hyper, layout: Layout, columns: tuple[int, ...] = ()
) -> tuple[Array, Array]:
    """Per group, or per feature in the order of the design."""
    if prior.local_names:
        own = prior.of_features(hyper, layout.group, columns)
        return prior.precision_and_mean(own, (layout.group.shape[0], *columns))
    return prior.precision_and_mean(hyper, (layout.num_groups, *columns))


def precision_and_mean(
    prior: Prior, hyper: Hyper, layout: Layout, unit: Unit, columns: tuple[int, ...] = ()
) -> tuple[Array, Array]:
    """Of x of a unit's features: w without columns."""
    precision, mean = _precision_and_mean(prior, hyper, layout, columns)
    number = unit.features if prior.local_names else unit.group
    return precision[number], mean[number]


def _stacked(
    w: tuple[Array, Array], v: tuple[Array, Array]
) -> tuple[Float[Array, "K *L m"], Float[Array, "K m"]]:
    """(w_j, v_j) in the first axis; w is independent of v, also where the precision of v is a matrix."""
    (precision_w, mean_w), (precision_v, mean_v) = w, v
    mean = jnp.concatenate([mean_w[None], mean_v.T])
    if precision_v.ndim == 2:
        return jnp.concatenate([precision_w[None], precision_v.T]), mean
    matrix = jnp.pad(jnp.moveaxis(precision_v, 0, -1), ((1, 0), (1, 0), (0, 0)))
    return matrix.at[0, 0].set(precision_w), mean
