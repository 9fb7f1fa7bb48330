"""Moves along directions that the likelihood cannot see: exact, nearly free, and the cure for the slowest directions.

Where every row has exactly one feature of a field (x = 1) and the field has a prior group of its own, eta stays what
it is when

- w0 goes up and all w of the field, with their group mean, go down (:func:`shift_w`);
- all v_f of the field, with their group mean, are shifted by delta_f, and every other feature l pays for it:
  w_l -= <delta, v_l> (:func:`shift_v`);
- and, in a model of two such fields only, the v_f of one field are multiplied by c and those of the other by 1/c, with
  their hyperparameters (:func:`rescale`).

Each is a group of transformations with invariant measure; drawing the group element from the density along the orbit,
times the Jacobian, leaves the posterior invariant (Liu & Sabatti 2000, Generalised Gibbs sampler and multigrid Monte
Carlo, Biometrika 87, theorem 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from bayesfm.design.units import FieldUnit, Layout
from bayesfm.inference.gibbs.state import GibbsState
from bayesfm.model import ModelSpec

__all__ = ["invariant_moves", "rescale", "shift_v", "shift_w", "whole_fields"]


def whole_fields(layout: Layout) -> list[tuple[int, int]]:
    """(unit, group) of the fields that cover every row and have a group of their own."""
    fields = ((i, unit) for i, unit in enumerate(layout.units) if isinstance(unit, FieldUnit))
    return [(i, unit.own_group) for i, unit in fields if unit.own_group is not None]


def shift_w(key: Key[Array, ""], state: GibbsState, spec: ModelSpec, layout: Layout) -> GibbsState:
    """(w0, w, mu_w) -> (w0 + delta, w - delta, mu_w - delta), for every whole field in turn.

    p(w | mu_w) does not change; the priors of w0 and mu_w make delta Gaussian.
    """
    prior0 = spec.intercept
    if prior0 is None:
        return state
    for i, g in whole_fields(layout):
        key, sub = jax.random.split(key)
        precision, mean = (x[g] for x in spec.prior_w.location(state.hyper_w))
        mu = state.hyper_w["mu"][g]
        P = prior0.precision + precision
        b = prior0.precision * (prior0.mean - state.w0) + precision * (mu - mean)
        delta = b / P + jax.random.normal(sub, (), P.dtype) / jnp.sqrt(P)
        theta = list(state.theta)
        theta[i] = theta[i].at[0].add(-delta)
        hyper_w = {**state.hyper_w, "mu": state.hyper_w["mu"].at[g].add(-delta)}
        state = state._replace(w0=state.w0 + delta, theta=tuple(theta), hyper_w=hyper_w)
    return state


def shift_v(key: Key[Array, ""], state: GibbsState, spec: ModelSpec, layout: Layout) -> GibbsState:
    """(v, mu_v) of a whole field -> + delta, and w_l -> w_l - <delta, v_l> for all other features l.

    With residual e_l = w_l - mu_w and precision lambda_w of l's group, delta has precision
    sum lambda_l v_l v_l' + diag(precision of mu_v) and linear term sum lambda_l e_l v_l - precision (mu_v - its mean).
    """
    precision_w, mean_w = spec.prior_w.precision_and_mean(state.hyper_w)
    for i, g in whole_fields(layout):
        key, sub = jax.random.split(key)
        precision, mean = (x[g] for x in spec.prior_v.location(state.hyper_v))
        P, b = jnp.diag(precision), -precision * (state.hyper_v["mu"][g] - mean)
        for j, (unit, theta) in enumerate(zip(layout.units, state.theta, strict=True)):
            if j != i:
                weighted = theta[1:] * precision_w[unit.group]
                P, b = P + weighted @ theta[1:].T, b + weighted @ (theta[0] - mean_w[unit.group])
        L = jnp.linalg.cholesky(P)
        noise = jax.random.normal(sub, b.shape, b.dtype)
        half = jax.scipy.linalg.solve_triangular(L, b, lower=True) + noise
        delta = jax.scipy.linalg.solve_triangular(L.T, half)
        moved = [
            t.at[1:].add(delta[:, None]) if j == i else t.at[0].add(-(delta @ t[1:]))
            for j, t in enumerate(state.theta)
        ]
        hyper_v = {**state.hyper_v, "mu": state.hyper_v["mu"].at[g].add(delta)}
        state = state._replace(theta=tuple(moved), hyper_v=hyper_v)
    return state


def rescale(key: Key[Array, ""], state: GibbsState, spec: ModelSpec, layout: Layout) -> GibbsState:
    """(v, mu_v, lambda_v) -> (c v, c mu_v, lambda_v / c^2) in one of two fields, 1/c in the other, factor by factor.

    Everything but the two Gamma priors of lambda cancels against the Jacobian; what is left is, for x = 2 log c - s,
    a density proportional to exp(-omega cosh x). It is drawn from by one step of slice sampling, whose slice is known
    in closed form.
    """
    (i, g), (j, h) = whole_fields(layout)
    rate, allowed = spec.prior_v.scale_rate(
        state.hyper_v
    )  # -rate / (2 c^2) is the log density of scaling by c
    s = 0.5 * jnp.log(rate[g] / rate[h])
    omega = jnp.sqrt(rate[g] * rate[h])
    key_height, key_place = jax.random.split(key)
    height = jnp.cosh(s) + jax.random.exponential(key_height, s.shape, s.dtype) / omega
    x = jnp.arccosh(height) * jax.random.uniform(key_place, s.shape, s.dtype, -1.0, 1.0)
    c = jnp.where(allowed, jnp.exp(0.5 * (x + s)), 1.0)
    theta = list(state.theta)
    theta[i] = theta[i].at[1:].multiply(c[:, None])
    theta[j] = theta[j].at[1:].divide(c[:, None])
    mu, lam = state.hyper_v["mu"], state.hyper_v["lambda"]
    hyper_v = {
        **state.hyper_v,
        "mu": mu.at[g].multiply(c).at[h].divide(c),
        "lambda": lam.at[g].divide(c * c).at[h].multiply(c * c),
    }
    return state._replace(theta=tuple(theta), hyper_v=hyper_v)


def can_rescale(layout: Layout) -> bool:
    """Two whole fields and nothing else."""
    return len(layout.units) == 2 == len(whole_fields(layout))


def invariant_moves(key: Key[Array, ""], state: GibbsState, spec: ModelSpec, layout: Layout) -> GibbsState:
    """All moves that the design allows; none of them changes eta."""
    key_w, key_v, key_scale = jax.random.split(key, 3)
    if not whole_fields(layout):
        return state
    state = shift_w(key_w, state, spec, layout)
    if spec.predictor.rank:
        state = shift_v(key_v, state, spec, layout)
        if can_rescale(layout):
            state = rescale(key_scale, state, spec, layout)
    return state
