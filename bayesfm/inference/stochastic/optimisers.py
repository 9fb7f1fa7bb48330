"""Optimisers: optax transformations, one for every feature, whose memory lies beside the feature's parameters.

A feature's optimiser takes a step when a batch touches the feature. Nothing then costs what the model has in features:
a step gathers the rows of a table, each with the parameters of a feature and all that its optimiser remembers, and
writes them back. For plain gradient descent and Adagrad this is what a dense update does, since features that are not
touched have no gradient. Adam differs: moments decay, parameters coast, and the bias correction counts, by the steps of
the feature and not by those of the run. A rare feature so keeps the step size of a frequent one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bayesfm._checks import check_choice

__all__ = ["DEFAULT_RATES", "memory_of", "named_optimiser", "pack", "unpack"]

DEFAULT_RATES = {"adam": 0.05, "adagrad": 0.3, "sgd": 1.0}
"""Learning rates; for Adam and Adagrad in units of what the parameters are expected to be."""


@lru_cache
def named_optimiser(name: str) -> optax.GradientTransformation:
    """The descent direction of a named optimiser, learning rate left out; the same object for the same name.

    A gradient is per row of data, and small where a feature is rare: constants that keep square roots away from zero
    are smaller than optax's.
    """
    check_choice("optimiser", name, DEFAULT_RATES)
    known = {
        "adam": lambda: optax.scale_by_adam(eps=1e-10),
        "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-20),
        "sgd": optax.identity,
    }
    return optax.chain(known[name](), optax.scale(-1.0))


def memory_of(optimiser: optax.GradientTransformation, row: Float[Array, " P"]) -> Any:
    """What the optimiser remembers of a feature with these parameters, to begin with."""
    return optimiser.init(row)


def pack(params: Float[Array, "U P"], memory: Any) -> Float[Array, "U W"]:
    """Rows of the table: the parameters, then every leaf of the optimiser's memory.

    Counts become floats, which in float32 stand still at 2^24: no optimiser minds.
    """
    leaves = [x.reshape(len(params), -1).astype(params.dtype) for x in jax.tree.leaves(memory)]
    return jnp.concatenate([params, *leaves], axis=1)


def unpack(
    rows: Float[Array, "U W"], optimiser: optax.GradientTransformation, width: int
) -> tuple[Float[Array, "U P"], Any]:
    """Inverse of :func:`pack`, for ``width`` parameters."""
    like = jax.eval_shape(optimiser.init, jax.ShapeDtypeStruct((width,), rows.dtype))
    leaves, structure = jax.tree.flatten(like)
    params, place, memory = rows[:, :width], width, []
    for leaf in leaves:
        size = int(np.prod(leaf.shape))
        memory.append(rows[:, place : place + size].reshape(-1, *leaf.shape).astype(leaf.dtype))
        place += size
    return params, jax.tree.unflatten(structure, memory)
