"""Hyperparameters of the priors: given and fixed, or the best ones for an approximation of the parameters.

The mode of parameters and hyperparameters together is no estimate: at vanishing scales its density is infinite. A point
therefore has its scales fixed. An approximation carries its variances along, and hyperparameters are re-estimated from
expected sufficient statistics (variational EM).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax
from jaxtyping import Array, Float, Int
from numpyro.distributions import biject_to

from bayesfm.inference.stochastic.objective import expected_log_prior
from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors import Features, Hyper, NormalGamma, Prior, Sizes
from bayesfm.priors.location import sum_of_squares

__all__ = ["given_scales", "updated_scales"]

STEPS = 20
"""Of L-BFGS, for a family without a closed form; the next update goes on where this one stops."""


def given_scales(
    spec: ModelSpec, given: Mapping[str, Any] | None, num_groups: int, num_features: int, dtype: Any
) -> tuple[Hyper, Hyper]:
    """Hyperparameters of w and of v: where the priors would start a chain, or as given.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    given : mapping of str to array, optional
        Values by the name of the site (``"lambda_w"``, ``"mu_v"``), each of the site's shape or of one that can be
        broadcast to it.
    num_groups, num_features : int
        G, p.
    dtype
        Of the device.

    Raises
    ------
    ValueError, TypeError
        For a site that is no hyperparameter of this model, a shape that does not fit, or values outside the support.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"scales must be a mapping of hyperparameter sites to values, got {given!r}")
    left, out = dict(given or {}), []
    for prior, x, columns in ((spec.prior_w, "w", ()), (spec.prior_v, "v", (spec.predictor.rank,))):
        sizes = Sizes(num_groups, num_features, columns)
        where = _supports(prior, sizes) if 0 not in columns else {}
        hyper = {}
        for name, start in prior.initial(sizes).items():
            site = f"{name}_{x}"
            value = np.broadcast_to(np.asarray(start), (*spec.likelihood.outputs, *np.shape(start)))
            if site in left:
                value = _checked(site, left.pop(site), value.shape, where.get(name))
            hyper[name] = jnp.asarray(value, dtype)
        out.append(hyper)
    if left:
        known = [n for n in site_dims(spec) if n.endswith(("_w", "_v"))]
        raise ValueError(
            f"scales names {min(left)!r}, which is no hyperparameter; known: {', '.join(known) or 'none'}"
        )
    return out[0], out[1]


def _checked(site: str, given: Any, shape: tuple[int, ...], support: Any) -> np.ndarray:
    value = np.asarray(given, np.float64)
    try:
        value = np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(f"scales[{site!r}] must have shape {shape}; got {value.shape}") from None
    if not np.all(np.isfinite(value)):
        raise ValueError(f"scales[{site!r}] must be finite")
    if support is not None and not np.all(support(value)):
        if getattr(support, "base_constraint", support) is dist.constraints.positive:
            raise ValueError(f"scales[{site!r}] must be positive; got {value.min():g}")
        raise ValueError(f"scales[{site!r}] must be {support}; got values outside")
    return value


def _supports(prior: Prior, sizes: Sizes) -> dict[str, Any]:
    """Where the hyperparameters of a family may lie."""
    found: dict[str, Any] = {}

    def look() -> None:
        with numpyro.handlers.trace() as trace, numpyro.handlers.seed(rng_seed=jax.random.key(0)):
            prior.sample_hyper("", sizes)
        found.update({name: site["fn"].support for name, site in trace.items() if site["type"] == "sample"})

    jax.eval_shape(look)
    return found


def updated_scales(
    prior: Prior,
    hyper: Hyper,
    group: Int[Array, " p"],
    mean: Float[Array, "p *d"],
    variance: Float[Array, "p *d"],
    num_groups: int,
) -> Hyper:
    """Hyperparameters for features that are independently normal with these means and variances.

    For the normal-gamma family the mean and precision of the exact coordinate update: with q(mu, lambda) normal-gamma,
    which is the best one given q(x), E log p(x | mu, lambda) is that of these values up to a constant. For any other
    family the mode of E log p(x | hyper) + log p(hyper), or some iterations of L-BFGS towards it.
    """
    if isinstance(prior, NormalGamma):
        return _normal_gamma(prior, group, mean, variance, num_groups)
    if not hyper:
        return hyper
    return _mode(prior, hyper, group, mean, variance, num_groups)


@partial(jax.jit, static_argnames="num_groups")
def _normal_gamma(
    prior: NormalGamma,
    group: Int[Array, " p"],
    mean: Float[Array, "p *d"],
    variance: Float[Array, "p *d"],
    num_groups: int,
) -> Hyper:
    """lambda = (a0 + p_g)/(b0 + B(E x) + sum var x), B of ``location``; mu = (sum E x + beta0 mu0)/(p_g + beta0)."""
    over_group = partial(jax.ops.segment_sum, segment_ids=group, num_segments=num_groups)
    number = over_group(jnp.ones_like(mean, shape=mean.shape[:1]))
    per_column = number.reshape(-1, *[1] * (mean.ndim - 1))
    centre = over_group(mean) / jnp.maximum(per_column, 1)
    scatter = over_group((mean - centre[group]) ** 2)
    features = Features(mean, group, number, centre, scatter)
    B = sum_of_squares(features, prior.beta0, prior.mu0) + over_group(variance)
    mu = (per_column * centre + prior.beta0 * prior.mu0) / (per_column + prior.beta0)
    return {"mu": mu, "lambda": (prior.a0 + per_column) / (prior.b0 + B)}


@partial(jax.jit, static_argnames="num_groups")
def _mode(
    prior: Prior,
    hyper: Hyper,
    group: Int[Array, " p"],
    mean: Float[Array, "p *d"],
    variance: Float[Array, "p *d"],
    num_groups: int,
) -> Hyper:
    """L-BFGS in unconstrained coordinates, from where the hyperparameters are; the best point on the way.

    A group without features keeps its hyperparameters: nothing holds its scale away from zero.
    """
    some = jax.ops.segment_sum(jnp.ones(len(group)), group, num_groups) > 0
    where = _supports(prior, Sizes(num_groups, len(mean), mean.shape[1:]))

    def values(u: Hyper) -> Hyper:
        return {name: of_some(name, biject_to(where[name])(x)) for name, x in u.items()}

    def of_some(name: str, new: Array) -> Array:
        if name in prior.local_names:
            return new
        has = some[prior.groups_of(name)]
        return jnp.where(has.reshape(has.shape + (1,) * (new.ndim - has.ndim)), new, hyper[name])

    def loss(u: Hyper) -> Float[Array, ""]:
        own = values(u)
        of_features = expected_log_prior(prior, own, group, mean, variance, num_groups)
        return -(jnp.sum(of_features) + prior.log_hyper(own)) / len(mean)

    search = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Hyper, Any], _: None) -> tuple[tuple[Hyper, Any], tuple[Hyper, Array]]:
        u, state = carry
        value, gradient = value_and_grad(u, state=state)
        moves, state = search.update(gradient, state, u, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(u, moves), state), (u, value)

    start = {name: biject_to(where[name]).inv(x) for name, x in hyper.items()}
    _, (path, losses) = lax.scan(step, (start, search.init(start)), None, length=STEPS)
    best = jnp.nanargmin(losses)
    return values(jax.tree.map(lambda x: x[best], path))
