"""Compiled loops over a stack of batches: optimiser steps, and scores."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm.inference.stochastic.batches import Batch, Layout
from bayesfm.inference.stochastic.objective import (
    Dense,
    Model,
    Rule,
    constrained,
    eta_of_draw,
    log_joint_of_batch,
    normals_of_features,
    normals_of_intercept,
)
from bayesfm.inference.stochastic.optimisers import pack, unpack

__all__ = ["State", "advance", "score_stack"]


class State(NamedTuple):
    """What is learned, and what optimisers remember.

    Attributes
    ----------
    table : (p + 1, W)
        Of every feature its numbers and its optimiser's memory; the last row stands for padding.
    dense, memory
        Everything else.
    step : ()
        Steps so far.
    """

    table: Float[Array, "_ W"]
    dense: Dense
    memory: Any
    step: Int[Array, ""]


@partial(jax.jit, static_argnames=("rule", "layout"), donate_argnames=("state",))
def advance(
    rule: Rule, layout: Layout, state: State, model: Model, stack: Batch, units: Any, key: Key[Array, ""]
) -> tuple[State, Float[Array, " S"]]:
    """One step per batch; the state, and every batch's part of the objective before its step.

    ``units`` are those of the numbers of a feature and of everything else, in which an optimiser moves.
    """

    def step(state: State, batch: Batch) -> tuple[State, Float[Array, ""]]:
        rows, known = state.table[batch.touched], (batch.touched < state.table.shape[0] - 1)[:, None]
        x, memory = unpack(rows, rule.optimiser, rule.width)
        num_rows = batch.observed.y.shape[0]

        def loss(x: Float[Array, "U P"], dense: Dense) -> Float[Array, ""]:
            shaped = x.reshape(-1, *rule.shape)
            own_key = jax.random.fold_in(key, state.step)
            return -log_joint_of_batch(rule, layout, model, batch, shaped, dense, own_key) / num_rows

        value, (of_x, of_dense) = jax.value_and_grad(loss, argnums=(0, 1))(x, state.dense)
        moves, memory = jax.vmap(rule.optimiser.update)(of_x, memory, x)
        x += batch.rate * units[0] * moves
        moves, new_memory = rule.optimiser.update(of_dense, state.memory, state.dense)
        new_dense = jax.tree.map(lambda d, u, m: d + batch.rate * u * m, state.dense, units[1], moves)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(batch.active, new, old))
        table = state.table.at[batch.touched].set(jnp.where(known, pack(x, memory), rows))
        moved = State(
            table, keep(new_dense, state.dense), keep(new_memory, state.memory), state.step + batch.active
        )
        return moved, jnp.where(batch.active, -num_rows * value, 0.0)

    return lax.scan(step, state, stack)


@partial(jax.jit, static_argnames=("rule", "layout", "num_draws"))
def score_stack(
    rule: Rule,
    layout: Layout,
    num_draws: int,
    table: Float[Array, "_ W"],
    dense: Dense,
    model: Model,
    stack: Batch,
    key: Key[Array, ""],
) -> Float[Array, " 3"]:
    """Sums over all rows: weight, weight times log predictive density, weight times squared error of the mean.

    The predictive density is the mean over draws from the approximation; a point is its own draw.
    """
    likelihood = model.spec.likelihood
    params = constrained(likelihood, dense["params"])

    def of_batch(sums: Array, numbered: tuple[Array, Batch]) -> tuple[Array, None]:
        number, batch = numbered
        y, weight, rows = batch.observed
        x = unpack(table[batch.touched], rule.optimiser, rule.width)[0].reshape(-1, *rule.shape)
        features, w0 = normals_of_features(model, batch, x), normals_of_intercept(rule, dense, x)
        seen = batch.observed._replace(weight=(weight > 0).astype(weight.dtype))

        def of_draw(key: Key[Array, ""]) -> tuple[Array, Array]:
            eta = eta_of_draw(rule, layout, batch, features, w0, key)
            mean = (
                likelihood.distribution(eta, params, rows).mean
                if likelihood.has_moments
                else jnp.zeros_like(y)
            )
            return likelihood.log_density(seen, eta, params), mean

        keys = jax.random.split(jax.random.fold_in(key, number), num_draws)
        log_densities, means = lax.map(of_draw, keys)
        log_density = jax.scipy.special.logsumexp(log_densities, axis=0) - jnp.log(num_draws)
        square = jnp.where(weight > 0, weight * (y - jnp.mean(means, axis=0)) ** 2, 0.0)
        new = jnp.stack([jnp.sum(weight), jnp.sum(weight * log_density), jnp.sum(square)])
        return sums + new, None

    numbers = jnp.arange(stack.active.shape[0])
    sums, _ = lax.scan(of_batch, jnp.zeros(3, table.dtype), (numbers, stack))
    return sums
