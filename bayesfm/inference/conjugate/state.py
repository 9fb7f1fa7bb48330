"""What a sweep carries, and what it reads."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesfm.design.units import Layout
from bayesfm.likelihoods.base import Observed, RowData
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper, Sizes

__all__ = ["Hypers", "ModelData", "ModelState", "Swept", "from_sites", "initial_state", "to_sites"]


class ModelData(NamedTuple):
    """What a sweep reads: the layout on the device, the response and weights padded to its rows.

    ``rows`` is the likelihood's row data, ``start_sd`` the standard deviation of v at the start of a chain.
    """

    layout: Layout
    y: Float[Array, " n_pad"]
    weight: Float[Array, " n_pad"]
    start_sd: Float[Array, ""] | float = 0.1
    rows: RowData = {}  # noqa: RUF012 (never changed)

    @property
    def observed(self) -> Observed:
        """What the likelihood sees."""
        return Observed(self.y, self.weight, self.rows)


class ModelState(NamedTuple):
    """What a sweep carries. ``eta`` is a cache: every sweep computes it anew from the parameters.

    ``theta`` holds one (K, m) array per unit of the layout, rows w, v_1, ..., v_k. Hyperparameters that belong to
    features are in the order of the design. Where a likelihood has several linear predictors, everything but ``params``
    has them along a leading axis.
    """

    w0: Float[Array, "*L"]
    theta: tuple[Float[Array, "*L K m"], ...]
    hyper_w: Hyper
    hyper_v: Hyper
    params: dict[str, Array]
    eta: Float[Array, "*L n_pad"]


class Hypers(NamedTuple):
    """Hyperparameters of w and of v."""

    w: Hyper
    v: Hyper


class Swept(NamedTuple):
    """What a pass over the units leaves: theta of each, hyperparameters, and the residual z - eta."""

    theta: tuple[Float[Array, "K m"], ...]
    hyper: Hypers
    r: Float[Array, " n_pad"]


def initial_state(key: Key[Array, ""], spec: ModelSpec, data: ModelData) -> ModelState:
    """Start of a chain: w = 0, small random v, so that chains differ and no factor starts at the saddle v = 0."""
    outputs, dtype = spec.likelihood.outputs, data.y.dtype
    start = partial(_initial_output, spec=spec, data=data)
    state = jax.vmap(start)(jax.random.split(key, *outputs)) if outputs else start(key)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), spec.likelihood.initial(data.observed))
    return state._replace(params=params)


def _initial_output(key: Key[Array, ""], spec: ModelSpec, data: ModelData) -> ModelState:
    """Of one linear predictor."""
    layout, dtype = data.layout, data.y.dtype
    k, G, p = spec.predictor.rank, layout.num_groups, layout.place.shape[0]
    theta = []
    for sub, unit in zip(jax.random.split(key, len(layout.units)), layout.units, strict=True):
        v = data.start_sd * jax.random.normal(sub, (k, unit.features.shape[0]), dtype)
        theta.append(jnp.concatenate([jnp.zeros_like(v, shape=(1, v.shape[1])), v]))
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)  # noqa: E731
    return ModelState(
        w0=jnp.asarray(0.0 if spec.intercept is None else spec.intercept.mean, dtype),
        theta=tuple(theta),
        hyper_w=cast(spec.prior_w.initial(Sizes(G, p))),
        hyper_v=cast(spec.prior_v.initial(Sizes(G, p, (k,)))),
        params={},
        eta=jnp.zeros_like(data.y),
    )


def to_sites(state: ModelState, layout: Layout) -> dict[str, Array]:
    """Named sites of a state, features in the design's order (see ``model.site_dims``)."""
    theta = jnp.concatenate(state.theta, axis=-1)[..., layout.place]
    hyper = {f"{name}_w": x for name, x in state.hyper_w.items()}
    hyper |= {f"{name}_v": x for name, x in state.hyper_v.items()}
    return {"w0": state.w0, **state.params, **hyper, "w": theta[..., 0, :], "v": theta[..., 1:, :].mT}


def theta_of_units(
    w: Float[Array, "*L p"], v: Float[Array, "*L p k"], layout: Layout
) -> tuple[Float[Array, "*L K m"], ...]:
    """Parameters unit by unit."""
    theta = jnp.concatenate([w[..., None, :], v.mT], axis=-2)
    return tuple(theta[..., unit.features] for unit in layout.units)


def from_sites(sites: dict[str, Array], spec: ModelSpec, data: ModelData) -> ModelState:
    """State with the given sites; inverse of :func:`to_sites`."""
    outputs = spec.likelihood.outputs
    return ModelState(
        w0=sites.get("w0", jnp.zeros_like(data.y, shape=outputs)),
        theta=theta_of_units(sites["w"], sites["v"], data.layout),
        hyper_w={name: sites[f"{name}_w"] for name in spec.prior_w.hyper_names()},
        hyper_v={name: sites[f"{name}_v"] for name in spec.prior_v.hyper_names()},
        params={name: sites[name] for name in spec.likelihood.dims},
        eta=jnp.zeros_like(data.y, shape=(*outputs, *data.y.shape)),
    )
