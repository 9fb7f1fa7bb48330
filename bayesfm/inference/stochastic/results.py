"""From what was learned to draws of named sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.draws import Draws
from bayesfm.inference.problem import NUM_PROBES, as_draws
from bayesfm.inference.room import check_room
from bayesfm.inference.stochastic import rowwise
from bayesfm.inference.stochastic.batches import Rows
from bayesfm.inference.stochastic.objective import Normals, constrained, normals_of_intercept
from bayesfm.model import ModelSpec, log_joint

if TYPE_CHECKING:
    from bayesfm.inference.stochastic.learner import Learner

__all__ = ["draws_of"]

NUMBERS_AT_ONCE = 1 << 22
"""Of the parameters of the draws that are on the device together, about."""


def draws_of(
    key: Key[Array, ""],
    learner: Learner,
    design: Design,
    num_samples: int,
    keep: Sequence[str],
    info: Mapping[str, Any],
    source: Rows | None,
) -> Draws:
    """Draws from the approximation, or the point as the only one.

    Parameters
    ----------
    key : typed key
        Of the draws.
    learner : Learner
        What was learned.
    design : Design
        Rows, at some of which eta is reported.
    num_samples : int
        Draws.
    keep : sequence of str
        Sites.
    info : mapping
        For the record.
    source : Rows, optional
        Training rows, of which every draw gets its log-likelihood, log joint density and RMSE: a pass for each.
    """
    rng = np.random.default_rng(0)
    probe_rows = np.sort(rng.choice(design.num_rows, min(NUM_PROBES, design.num_rows), replace=False))
    probes = DesignArrays.from_design(design.take(probe_rows), learner.dtype)
    fixed = constrained(learner.spec.likelihood, learner.state.dense["params"])
    fixed |= learner.scales
    features = learner.features()
    w0 = normals_of_intercept(learner.rule, learner.state.dense, learner.state.table)
    names = [name for name in ("w0", "w", "v", "eta") if name in keep]
    stats: dict[str, list[np.ndarray]] = {}
    keys = jax.random.split(key, num_samples)
    shapes, _ = jax.eval_shape(_draw, keys[0], features, w0, probes)
    check_room((1, num_samples), {name: (shapes[name].shape, shapes[name].dtype) for name in names})
    sites = {name: np.empty((1, num_samples, *shapes[name].shape), shapes[name].dtype) for name in names}
    at_once = int(np.clip(NUMBERS_AT_ONCE // max(features.mean.size, 1), 1, num_samples))
    for first in range(0, num_samples, at_once):
        drawn, log_q = _draws(keys[first : first + at_once], features, w0, probes)
        for name in names:
            sites[name][0, first : first + at_once] = drawn[name]
        if features.sd is not None:
            stats.setdefault("log_q", []).append(np.asarray(log_q, np.float64))
        for i in range(len(log_q) if source is not None else 0):
            own = {**fixed, **{name: x[i] for name, x in drawn.items()}}
            for name, value in _statistics(learner, own, source).items():  # type: ignore[arg-type]
                stats.setdefault(name, []).append(np.asarray([value]))
    stacked: dict[str, Any] = dict(sites)
    for name, x in fixed.items():
        if name in keep:
            stacked[name] = np.broadcast_to(np.asarray(x), (1, num_samples, *x.shape))
    ordered = {name: stacked[name] for name in keep if name in stacked}
    of_stats = {name: np.concatenate(values)[None] for name, values in stats.items()}
    if "lp" in of_stats and "log_q" in of_stats:
        # Scales and parameters of the likelihood are the same in all draws: their part is a constant.
        of_stats["log_weight"] = of_stats["lp"] - of_stats["log_q"]
    return as_draws(
        (ordered, of_stats, {}, {}), learner.spec, learner.centre, probe_rows, {**_record(learner), **info}
    )


def _record(learner: Learner) -> dict[str, Any]:
    """What a learner says of itself."""
    options, point = learner.options, learner.rule.parts == 1
    return {
        "engine": "stochastic_map" if point else "svi",
        "point": point,
        "expectation": learner.rule.expectation,
        "optimiser": options.optimiser if isinstance(options.optimiser, str) else "optax",
        "learning_rate": options.rate(0, None),
        "batch_size": learner.batcher.batch_size,
    }


@jax.jit
def _draws(
    keys: Key[Array, " draw"], features: Normals, w0: Normals, probes: DesignArrays
) -> tuple[dict[str, Array], Array]:
    """One after the other."""
    return lax.map(lambda key: _draw(key, features, w0, probes), keys)


def _draw(
    key: Key[Array, ""], features: Normals, w0: Normals, probes: DesignArrays
) -> tuple[dict[str, Array], Array]:
    """w0, w, v and eta at the probe rows; log density of the draw under the approximation, 0 of a point."""
    key_w0, key_theta = jax.random.split(key)
    theta, own_w0 = features.draw(key_theta), w0.draw(key_w0)
    log_q = jnp.zeros(())
    for normals, x in ((features, theta), (w0, own_w0)):
        if normals.sd is not None:
            z = jnp.where(normals.sd > 0, (x - normals.mean) / normals.sd, 0.0)
            log_sd = jnp.where(normals.sd > 0, jnp.log(normals.sd), -0.5 * np.log(2 * np.pi))
            log_q -= jnp.sum(0.5 * z**2 + log_sd + 0.5 * np.log(2 * np.pi))
    theta = jnp.moveaxis(theta, 0, -2)
    if own_w0.ndim:
        eta = jax.vmap(lambda a, b: rowwise.eta(probes, a, b))(own_w0, theta)
    else:
        eta = rowwise.eta(probes, own_w0, theta)
    return {"w0": own_w0, "w": theta[..., 0], "v": theta[..., 1:], "eta": eta}, log_q


@jax.jit
def _log_prior(spec: ModelSpec, groups: Int[Array, " p"], sites: dict[str, Array]) -> Float[Array, ""]:
    return log_joint(spec, groups, sites, jnp.zeros(()))


def _statistics(learner: Learner, sites: Mapping[str, Array], source: Rows) -> dict[str, float]:
    """As all engines have them."""
    weight, log_likelihood, square = learner.sums_at(sites, source)
    lp = _log_prior(learner.spec, learner.model.groups[:-1], dict(sites))
    stats = {"lp": log_likelihood + float(lp), "log_likelihood": log_likelihood}
    if learner.spec.likelihood.has_moments:
        stats["train_rmse"] = float(np.sqrt(square / weight))
    return stats
