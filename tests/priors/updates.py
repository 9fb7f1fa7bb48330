"""A prior's update alone: many independent draws of (hyperparameters, x), and what the update makes of them."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bayesfm.priors import Features, Hyper, Prior
from tests.keys import quick
from tests.priors import families
from tests.statistics import ks

GROUP = np.array([0, 2, 0, 0, 2, 0, 2, 2, 0])
"""Of nine features; group 1 is empty."""
NUM_GROUPS = 3


def features_of(x: jax.Array, group: np.ndarray = GROUP, num_groups: int = NUM_GROUPS) -> Features:
    """What the update reads, from x (p, *d)."""
    group = jnp.asarray(group)
    number = jnp.zeros(num_groups, x.dtype).at[group].add(1)
    per_group = jnp.maximum(number, 1).reshape(-1, *[1] * (x.ndim - 1))
    mean = jnp.zeros((num_groups, *x.shape[1:]), x.dtype).at[group].add(x) / per_group
    scatter = jnp.zeros_like(mean).at[group].add((x - mean[group]) ** 2)
    return Features(x, group, number, mean, scatter)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is what costs
def updated(key: jax.Array, prior: Prior, hyper: Hyper, x: jax.Array, num_updates: jax.Array) -> Hyper:
    """The hyperparameters of many draws after some updates at their x."""

    def one(key: jax.Array, hyper: Hyper, x: jax.Array) -> Hyper:
        features = features_of(x)
        return lax.fori_loop(
            0, num_updates, lambda t, h: prior.update(jax.random.fold_in(key, t), h, features), hyper
        )

    return jax.vmap(one)(quick(jax.random.split(key, len(x))), hyper, x)


@lru_cache(maxsize=4)
def run(
    prior: Prior, columns: tuple[int, ...], num: int, num_updates: int, seed: int, update_with: Prior
) -> tuple[families.Values, families.Values, np.ndarray]:
    """Hyperparameters drawn with x, the same after some updates, and x."""
    rng = np.random.default_rng([2015, seed])
    hyper, x = families.draw(prior, rng, num, GROUP, NUM_GROUPS, columns)
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (hyper, x))
    after = updated(jax.random.key(seed), update_with, *single, jnp.asarray(num_updates))
    return hyper, jax.tree.map(lambda a: np.asarray(a, np.float64), after), x


def invariance(
    prior: Prior,
    columns: tuple[int, ...],
    num: int,
    num_updates: int = 3,
    *,
    seed: int = 0,
    update_with: Prior | None = None,
) -> dict[str, float]:
    """P-values of "updates leave the joint distribution of hyperparameters and x"."""
    _, after, x = run(prior, columns, num, num_updates, seed, update_with or prior)
    fresh = families.draw(prior, np.random.default_rng([2016, seed]), num, GROUP, NUM_GROUPS, columns)
    return ks(_quantities(prior, after, x), _quantities(prior, *fresh))


def _quantities(prior: Prior, hyper: families.Values, x: np.ndarray) -> families.Values:
    out = families.quantities(prior, hyper, x, GROUP, "x")
    return out | {"log density": families.log_density(prior, hyper, x, GROUP)}
