"""Many short chains of the sampler at once, without the chain runner."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesfm.design import Design
from bayesfm.design.layout import build_layout
from bayesfm.design.units import Layout
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state, to_sites
from bayesfm.inference.gibbs.sweep import sweep
from bayesfm.model import ModelSpec
from tests.keys import quick

type Draws = dict[str, jax.Array]
"""Sites and ``eta`` of all rows."""


def data_of(design: Design, y: Any, weight: Any = None, layout: Layout | None = None) -> ModelData:
    """What a chain reads, y taken as it is (not centred)."""
    layout = jax.tree.map(jnp.asarray, build_layout(design) if layout is None else layout)

    def padded(x: Any) -> jax.Array:
        return jnp.pad(jnp.asarray(x, jnp.float32), (0, layout.num_padded - len(x)))

    weight = np.ones(design.num_rows) if weight is None else weight
    return ModelData(layout, padded(y), padded(weight))


def draw_chain(
    key: jax.Array,
    spec: ModelSpec,
    data: ModelData,
    factor_block: int,
    num_warmup: int,
    num_draws: int,
    thin: int,
) -> Draws:
    """Draws of one chain from a dispersed start, each of shape (draw, ...)."""
    key_start, key_sweeps = jax.random.split(key)

    def one_sweep(t: jax.Array, state: ModelState) -> ModelState:
        return sweep(jax.random.fold_in(key_sweeps, t), state, spec, data, factor_block)

    def one_draw(state: ModelState, sweeps: tuple[jax.Array, jax.Array]) -> tuple[ModelState, Draws]:
        state = lax.fori_loop(*sweeps, one_sweep, state)
        return state, {**to_sites(state, data.layout), "eta": state.eta[: data.layout.num_rows]}

    last = num_warmup + thin * jnp.arange(1, num_draws + 1)
    first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])  # warm-up belongs to the first draw
    return lax.scan(one_draw, initial_state(key_start, spec, data), (first, last))[1]


@partial(
    jax.jit,
    static_argnames=("num_chains", "factor_block", "num_draws"),
    compiler_options={"xla_backend_optimization_level": 1},
)
def draw_chains(
    key: jax.Array,
    spec: ModelSpec,
    data: ModelData,
    *,
    num_chains: int,
    factor_block: int,
    num_warmup: int,
    num_draws: int,
    thin: int = 1,
) -> Draws:
    """Draws of independent chains, each of shape (chain, draw, ...)."""
    one = partial(
        draw_chain,
        spec=spec,
        data=data,
        factor_block=factor_block,
        num_warmup=num_warmup,
        num_draws=num_draws,
        thin=thin,
    )
    return jax.vmap(one)(quick(jax.random.split(key, num_chains)))
