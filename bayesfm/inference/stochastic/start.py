"""Where learning starts: features as their prior has them, and as a learner begins with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm.inference.stochastic.objective import Model, Rule, prior_of_features
from bayesfm.inference.stochastic.optimisers import pack
from bayesfm.priors import Hyper

__all__ = ["SMALL", "prior_normals", "random_theta", "start_table", "theta_at"]

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
