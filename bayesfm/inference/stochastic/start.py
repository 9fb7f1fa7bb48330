"""Where learning starts: features as their prior has them, and as a learner begins with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm.design import Design
from bayesfm.inference.problem import Problem, start_sd
from bayesfm.inference.start import point_sites
from bayesfm.inference.stochastic.objective import Dense, Model, Rule, prior_of_features, unconstrained
from bayesfm.inference.stochastic.optimisers import pack
from bayesfm.inference.stochastic.steps import State
from bayesfm.likelihoods.base import Observed
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper

__all__ = ["SMALL", "prior_normals", "start_state", "units"]

SMALL = 0.1
"""Standard deviations of an approximation start at this part of the prior's."""


@partial(jax.jit, static_argnames="rule")
def prior_normals(rule: Rule, model: Model) -> tuple[Array, Array]:
    """Mean and standard deviation of every feature under the prior, (p, *L, K)."""
    groups = model.groups[:-1]

    def of_output(hyper_w: Hyper, hyper_v: Hyper) -> tuple[Array, Array]:
        precision, mean = prior_of_features(model.spec.prior_w, hyper_w, groups, (), rule.num_groups)
        if not rule.rank:
            return mean[:, None], precision[:, None] ** -0.5
        own, centre = prior_of_features(model.spec.prior_v, hyper_v, groups, (rule.rank,), rule.num_groups)
        sd = jnp.concatenate([precision[:, None], own], axis=1) ** -0.5
        return jnp.concatenate([mean[:, None], centre], axis=1), sd

    if not rule.outputs:
        return of_output(model.hyper_w, model.hyper_v)
    of_all = jax.vmap(of_output, out_axes=1, axis_size=rule.outputs[0])
    return of_all(model.hyper_w, model.hyper_v)


def start_state(
    rule: Rule,
    problem: Problem,
    design: Design,
    prior_sd: Float[Array, "p *d"],
    key: Key[Array, ""],
    start: Mapping[str, Any] | None,
) -> State:
    """At ``start``, or as chains start: w = 0, small random v. Standard deviations: a part of the prior's."""
    spec, dtype = problem.spec, prior_sd.dtype
    given = None if start is None else point_sites(start, spec, design.num_features, problem.centre)
    sd = jnp.asarray(start_sd(design, problem.spread, rule.rank), dtype)
    theta = random_theta(rule, key, sd, design.num_features) if given is None else theta_at(given)
    own_sd = SMALL * prior_sd if start is None or "w_sd" not in start else given_sd(spec, prior_sd, start)
    table = start_table(rule, jnp.asarray(theta, dtype), own_sd)
    own: Any = (problem.y, problem.weight, problem.rows)
    observed = Observed(*jax.tree.map(lambda a: jnp.asarray(a, dtype), own))
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), spec.likelihood.initial(observed))
    dense: Dense = {"params": unconstrained(spec.likelihood, params)}
    if spec.intercept is not None:
        w0 = np.full((rule.parts, *rule.outputs), spec.intercept.mean)
        if given is not None:
            w0[0] = given["w0"]
        w0[1:] = np.log(SMALL * min(problem.spread, spec.intercept.precision**-0.5))
        dense["w0"] = jnp.asarray(w0, dtype)
    return State(table, dense, rule.optimiser.init(dense), jnp.zeros((), jnp.int32))


def units(rule: Rule, state: State, spread: float) -> tuple[Array, Dense]:
    """What steps are taken in: of w0 and w the spread of eta, of v its root, else one."""
    own, of_w0 = np.ones(rule.shape), np.ones((rule.parts, *rule.outputs))
    own[0, ..., 0], own[0, ..., 1:], of_w0[0] = spread, spread**0.5, spread
    dtype = state.table.dtype
    dense: Dense = {"params": jax.tree.map(lambda _: jnp.ones((), dtype), state.dense["params"])}
    if "w0" in state.dense:
        dense["w0"] = jnp.asarray(of_w0, dtype)
    return jnp.asarray(own.reshape(-1), dtype), dense


def given_sd(
    spec: ModelSpec, prior_sd: Float[Array, "p *d"], start: Mapping[str, Any]
) -> Float[Array, "p *d"]:
    """Standard deviations that were given, those of the prior where they are NaN."""
    names = {name: f"{name}_sd" for name in ("w", "v") if f"{name}_sd" in start}
    given = {name: np.nan_to_num(np.asarray(start[own]), nan=-1.0) for name, own in names.items()}
    given["w0"] = np.zeros(spec.likelihood.outputs)
    sd = jnp.asarray(theta_at(point_sites(given, spec, prior_sd.shape[0], 0.0)), prior_sd.dtype)
    return jnp.where(sd > 0, sd, prior_sd)


@partial(jax.jit, static_argnames=("rule", "num_features"))
def random_theta(
    rule: Rule, key: Key[Array, ""], sd: Float[Array, ""], num_features: int
) -> Float[Array, "p *d"]:
    """w = 0 and random v of all features."""
    shape = (num_features, *rule.outputs, rule.rank + 1)
    return (sd * jax.random.normal(key, shape, sd.dtype)).at[..., 0].set(0.0)


def theta_at(sites: Mapping[str, np.ndarray]) -> Float[np.ndarray, "p *d"]:
    """Of all features, from w and v."""
    return np.moveaxis(np.concatenate([sites["w"][..., None], sites["v"]], axis=-1), -2, 0)


@partial(jax.jit, static_argnames="rule")
def start_table(rule: Rule, mean: Float[Array, "p *d"], sd: Float[Array, "p *d"]) -> Array:
    """Table of parameters at the start; the row of the padding is zero."""
    parts = [mean] if rule.parts == 1 else [mean, jnp.log(sd)]
    x = jnp.stack(parts, axis=1).reshape(mean.shape[0], -1)
    x = jnp.concatenate([x, jnp.zeros_like(x[:1])])
    return pack(x, jax.vmap(rule.optimiser.init)(x))
