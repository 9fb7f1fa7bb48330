"""What a Gibbs chain carries, and what it reads."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesfm.design.layout import Layout
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper

__all__ = ["GibbsData", "GibbsState", "from_sites", "initial_state", "to_sites"]


class GibbsData(NamedTuple):
    """What a chain reads: the layout on the device, and the response and weights padded to its rows."""

    layout: Layout
    y: Float[Array, " n_pad"]
    weight: Float[Array, " n_pad"]


class GibbsState(NamedTuple):
    """What a chain carries. ``eta`` is a cache: every sweep computes it anew from the parameters.

    ``theta`` holds one (K, m) array per unit of the layout, rows w, v_1, ..., v_k.
    """

    w0: Float[Array, ""]
    theta: tuple[Float[Array, "K m"], ...]
    hyper_w: Hyper
    hyper_v: Hyper
    params: dict[str, Array]
    eta: Float[Array, " n_pad"]


def initial_state(key: Key[Array, ""], spec: ModelSpec, data: GibbsData, scale: float = 0.1) -> GibbsState:
    """Start of a chain: w = 0, small random v, so that chains differ and no factor starts at the saddle v = 0."""
    layout, dtype = data.layout, data.y.dtype
    k, G = spec.predictor.rank, layout.num_groups
    theta = []
    for sub, unit in zip(jax.random.split(key, len(layout.units)), layout.units, strict=True):
        v = scale * jax.random.normal(sub, (k, unit.features.shape[0]), dtype)
        theta.append(jnp.concatenate([jnp.zeros_like(v, shape=(1, v.shape[1])), v]))
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)  # noqa: E731
    return GibbsState(
        w0=jnp.asarray(spec.intercept.mean, dtype),
        theta=tuple(theta),
        hyper_w=cast(spec.prior_w.initial((G,))),
        hyper_v=cast(spec.prior_v.initial((G, k))),
        params=cast(spec.likelihood.initial(data.y, data.weight)),
        eta=jnp.zeros_like(data.y),
    )


def to_sites(state: GibbsState, layout: Layout) -> dict[str, Array]:
    """Named sites of a state, features in the design's order (see ``model.site_dims``)."""
    theta = jnp.concatenate(state.theta, axis=1)[:, layout.place]
    hyper = {f"{name}_w": x for name, x in state.hyper_w.items()}
    hyper |= {f"{name}_v": x for name, x in state.hyper_v.items()}
    return {"w0": state.w0, **state.params, **hyper, "w": theta[0], "v": theta[1:].T}


def from_sites(sites: dict[str, Array], spec: ModelSpec, data: GibbsData) -> GibbsState:
    """State with the given sites; inverse of :func:`to_sites`."""
    theta = jnp.concatenate([sites["w"][None], sites["v"].T])
    return GibbsState(
        w0=sites["w0"],
        theta=tuple(theta[:, unit.features] for unit in data.layout.units),
        hyper_w={name: sites[f"{name}_w"] for name in spec.prior_w.hyper_names()},
        hyper_v={name: sites[f"{name}_v"] for name in spec.prior_v.hyper_names()},
        params={name: sites[name] for name in spec.likelihood.dims},
        eta=jnp.zeros_like(data.y),
    )
