"""Moves along directions that the likelihood cannot see: exact, nearly free, and the cure for the slowest directions.

Where every row has exactly one feature of a field (x = 1) and the field has a prior group of its own, eta stays what
it is when

- w0 goes up and all w of the field, with their group mean, go down (:func:`shift_w`);
- all v_f of the field, with their group mean, are shifted by delta_f, and every other feature l pays for it:
  w_l -= <delta, v_l> (:func:`shift_v`);
- the v_f of one field are shifted by delta_f and those of another by -delta_f, with their means, and w of these two
  fields alone pays for it (:func:`shift_pair`): with three fields or more the shifts one by one are held fast by the w
  of all others;
- and, in a model of two such fields only, the v_f of one field are multiplied by c and those of the other by 1/c, with
  their hyperparameters (:func:`rescale`).

A prior family for which a move is not exact says so, and the move is left out (``Prior.location``,
``Prior.scale_factor``).

Each is a group of transformations with invariant measure; drawing the group element from the density along the orbit,
times the Jacobian, leaves the posterior invariant (Liu & Sabatti 2000, Generalised Gibbs sampler and multigrid Monte
Carlo, Biometrika 87, theorem 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from bayesfm.design.units import FieldUnit, Layout
from bayesfm.inference.conjugate.prior_terms import prior_of_w
from bayesfm.inference.conjugate.state import ModelState
from bayesfm.model import ModelSpec

__all__ = ["invariant_moves", "rescale", "shift_pairs", "shift_v", "shift_w", "whole_fields"]


def whole_fields(layout: Layout) -> list[tuple[int, int]]:
    """(unit, group) of the fields that cover every row and have a group of their own."""
    fields = ((i, unit) for i, unit in enumerate(layout.units) if isinstance(unit, FieldUnit))
    return [(i, unit.own_group) for i, unit in fields if unit.own_group is not None]


def shift_w(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """(w0, w, mu_w) -> (w0 + delta, w - delta, mu_w - delta), for every whole field in turn.

    p(w | mu_w) does not change; the priors of w0 and mu_w make delta Gaussian.
    """
    prior0 = spec.intercept
    if prior0 is None:
        return state if spec.likelihood.identifies_intercept else shift_cutpoints(key, state, spec, layout)
    for i, g in whole_fields(layout):
        key, sub = jax.random.split(key)
        location = spec.prior_w.location(state.hyper_w, g)
        if location is None:
            continue
        precision, mean, mu = location
        P = prior0.precision + precision
        b = prior0.precision * (prior0.mean - state.w0) + precision * (mu - mean)
        delta = b / P + jax.random.normal(sub, (), P.dtype) / jnp.sqrt(P)
        theta = list(state.theta)
        theta[i] = theta[i].at[0].add(-delta)
        hyper_w = spec.prior_w.moved(state.hyper_w, g, -delta)
        state = state._replace(w0=state.w0 + delta, theta=tuple(theta), hyper_w=hyper_w)
    return state


def shift_cutpoints(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """(cut-points, w, mu_w) -> + delta, for every whole field in turn, where the model has no intercept.

    Their places along the orbit are drawn from the prior of mu_w and accepted by that of the cut-points, which is no
    Gaussian. eta moves along, and the likelihood does not see it.
    """
    for i, g in whole_fields(layout):
        key, key_place, key_accept = jax.random.split(key, 3)
        location = spec.prior_w.location(state.hyper_w, g)
        if location is None:
            continue
        precision, mean, mu = location
        place = mean + jax.random.normal(key_place, (), mean.dtype) / jnp.sqrt(precision)
        delta = place - mu
        params = spec.likelihood.shifted(state.params, delta)
        log_ratio = spec.likelihood.log_prior(params) - spec.likelihood.log_prior(state.params)
        accept = jnp.log(jax.random.uniform(key_accept, dtype=mean.dtype)) < log_ratio
        delta = jnp.where(accept, delta, 0.0)
        theta = list(state.theta)
        theta[i] = theta[i].at[0].add(delta)
        state = state._replace(
            theta=tuple(theta),
            hyper_w=spec.prior_w.moved(state.hyper_w, g, delta),
            params=spec.likelihood.shifted(state.params, delta),
            eta=state.eta + delta,
        )
    return state


def shift_v(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """(v, mu_v) of a whole field -> + delta, and w_l -> w_l - <delta, v_l> for all other features l.

    With residual e_l = w_l - mu_w and precision lambda_w of l's group, delta has precision
    sum lambda_l v_l v_l' + diag(precision of mu_v) and linear term sum lambda_l e_l v_l - precision (mu_v - its mean).
    """
    prior_w = [prior_of_w(spec, state, layout, unit) for unit in layout.units]
    for i, g in whole_fields(layout):
        key, sub = jax.random.split(key)
        location = spec.prior_v.location(state.hyper_v, g)
        if location is None:
            continue
        precision, mean, mu = location
        P = precision if spec.prior_v.full else jnp.diag(precision)
        b = -P @ (mu - mean)
        for j, ((precision_w, mean_w), theta) in enumerate(zip(prior_w, state.theta, strict=True)):
            if j != i:
                weighted = theta[1:] * precision_w
                P, b = P + weighted @ theta[1:].T, b + weighted @ (theta[0] - mean_w)
        L = jnp.linalg.cholesky(P)
        noise = jax.random.normal(sub, b.shape, b.dtype)
        half = jax.scipy.linalg.solve_triangular(L, b, lower=True) + noise
        delta = jax.scipy.linalg.solve_triangular(L.T, half)
        # A group of w with a precision of 1e9 and fewer features than factors leaves P singular in float32. P does not
        # change with the move, so that leaving it out there leaves the posterior as it is.
        delta = jnp.where(jnp.all(jnp.isfinite(L)), delta, 0.0)
        moved = [
            t.at[1:].add(delta[:, None]) if j == i else t.at[0].add(-(delta @ t[1:]))
            for j, t in enumerate(state.theta)
        ]
        hyper_v = spec.prior_v.moved(state.hyper_v, g, delta)
        state = state._replace(theta=tuple(moved), hyper_v=hyper_v)
    return state


def shift_pair(
    key: Key[Array, ""],
    state: ModelState,
    spec: ModelSpec,
    layout: Layout,
    field: tuple[int, int],
    other: tuple[int, int],
) -> ModelState:
    """v of one whole field, with its mean, + delta and that of another one - delta: no other field sees it.

    What the two make of each other is paid by their w: w_l + <delta, v_l> + |delta|^2/2 in the first field and
    w_l - <delta, v_l> + |delta|^2/2 in the other, and the same of mu_w with mu_v. One move after the other is that by
    the sum of their delta. All that is quadratic in delta is drawn from; the prior of mu_w, of fourth order, accepts.
    """
    locations_v, locations_w = [], []
    for _, g in (field, other):
        of_v, of_w = spec.prior_v.location(state.hyper_v, g), spec.prior_w.location(state.hyper_w, g)
        if of_v is None or of_w is None:
            return state
        locations_v.append(of_v)
        locations_w.append(of_w)
    key_delta, key_accept = jax.random.split(key)
    rank, dtype = spec.predictor.rank, state.eta.dtype
    P, b = jnp.zeros((rank, rank), dtype), jnp.zeros(rank, dtype)
    sides = list(zip((field, other), locations_v, (1.0, -1.0), strict=True))
    for (i, _), (precision, mean, mu), sign in sides:
        matrix = precision if spec.prior_v.full else jnp.diag(precision)
        precision_w, mean_w = prior_of_w(spec, state, layout, layout.units[i])
        theta = state.theta[i]
        away = theta[1:] - mu[:, None]
        weighted = away * precision_w
        P = P + matrix + weighted @ away.T
        b = b - sign * (matrix @ (mu - mean) + weighted @ (theta[0] - mean_w))
    L = jnp.linalg.cholesky(P)
    half = jax.scipy.linalg.solve_triangular(L, b, lower=True) + jax.random.normal(key_delta, b.shape, dtype)
    delta = jax.scipy.linalg.solve_triangular(L.T, half)
    constant = 0.5 * delta @ delta
    by_mu = [sign * (delta @ mu) + constant for _, (_, _, mu), sign in sides]
    log_ratio = jnp.zeros((), dtype)
    for (precision, mean, mu), by in zip(locations_w, by_mu, strict=True):
        log_ratio += 0.5 * precision * ((mu - mean) ** 2 - (mu + by - mean) ** 2)
    accept = jnp.log(jax.random.uniform(key_accept, dtype=dtype)) < log_ratio  # False for NaN
    thetas, hyper_w, hyper_v = list(state.theta), state.hyper_w, state.hyper_v
    for ((i, g), _, sign), by in zip(sides, by_mu, strict=True):
        by_v = jnp.where(accept, sign * delta, 0.0)
        by_w = jnp.where(accept, sign * (delta @ thetas[i][1:]) + constant, 0.0)
        thetas[i] = thetas[i].at[0].add(by_w).at[1:].add(by_v[:, None])
        hyper_w = spec.prior_w.moved(hyper_w, g, jnp.where(accept, by, 0.0))
        hyper_v = spec.prior_v.moved(hyper_v, g, by_v)
    return state._replace(theta=tuple(thetas), hyper_w=hyper_w, hyper_v=hyper_v)


def shift_pairs(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """:func:`shift_pair` around the ring of all whole fields, where there are three or more."""
    fields = whole_fields(layout)
    if len(fields) < 3:
        return state
    for sub, field, other in zip(
        jax.random.split(key, len(fields)), fields, fields[1:] + fields[:1], strict=True
    ):
        state = shift_pair(sub, state, spec, layout, field, other)
    return state


def rescale(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """V and what scales with it times c in one of two fields, divided by c in the other, factor by factor.

    Given the scales, the normal densities of v and mu cancel against the Jacobian; what the prior of the scales says of
    c is the family's own (``Prior.scale_factor``).
    """
    (i, g), (j, h) = whole_fields(layout)
    c = spec.prior_v.scale_factor(key, state.hyper_v, g, h)
    if c is None:
        return state
    theta = list(state.theta)
    theta[i] = theta[i].at[1:].multiply(c[:, None])
    theta[j] = theta[j].at[1:].divide(c[:, None])
    hyper_v = spec.prior_v.scaled(spec.prior_v.scaled(state.hyper_v, g, c), h, 1 / c)
    return state._replace(theta=tuple(theta), hyper_v=hyper_v)


def can_rescale(layout: Layout) -> bool:
    """Two whole fields and nothing else."""
    return len(layout.units) == 2 == len(whole_fields(layout))


def invariant_moves(key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout) -> ModelState:
    """All moves that the design and the priors allow; none of them changes the likelihood."""
    key_w, key_v, key_pairs, key_scale = jax.random.split(key, 4)
    if not whole_fields(layout):
        return state
    state = shift_w(key_w, state, spec, layout)
    if spec.predictor.rank:
        state = shift_v(key_v, state, spec, layout)
        state = shift_pairs(key_pairs, state, spec, layout)
        if can_rescale(layout):
            state = rescale(key_scale, state, spec, layout)
    return state
