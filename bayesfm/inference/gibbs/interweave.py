"""Moves for groups that the likelihood does see as a whole: text, tables of numbers, anything but whole fields.

Given w, its group mean mu and scale sigma hardly move when a group has many features of which the data say little: w
follows mu and sigma, which follow w. :func:`interweave` draws (w0, mu, sigma) once more with the standardised
e_j = (w_j - mu)/sigma held fixed instead of w (Yu & Meng 2011): eta is linear in the three. And the augmentation in
turn holds the scale of eta: :func:`rescale_eta` draws it with the augmentation integrated out. Both are for likelihoods
that data can leave without a finite maximum (``Likelihood.separable``); docs/math.md, section 28.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bayesfm.design.units import FieldUnit, Layout
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelState
from bayesfm.likelihoods.newton import RowSums, newton_metropolis
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import LocationScale, Prior
from bayesfm.priors.draws import slice_step
from bayesfm.sums import total

__all__ = ["MAX_GROUPS", "RowDensity", "interweave", "loose_groups", "rescale_eta"]

type RowDensity = Callable[[Array], Array]
"""eta of all rows -> weight times log density of y of each, everything else held fixed."""

MAX_GROUPS = 4
"""Groups that :func:`interweave` takes in one sweep: two passes over the design and two over the rows for each."""


def loose_groups(layout: Layout) -> list[int]:
    """Groups that are no whole field: those for which no shift leaves eta as it is."""
    whole = {unit.own_group for unit in layout.units if isinstance(unit, FieldUnit)}
    return [g for g in range(layout.num_groups) if g not in whole]


def interweave(
    key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout, log_density: RowDensity
) -> ModelState:
    """Draw (w0, mu_g, sigma_g) of w given e, for up to :data:`MAX_GROUPS` loose groups chosen at random."""
    groups = loose_groups(layout) if spec.likelihood.separable else []
    if not groups or spec.prior_w.location_scale(state.hyper_w) is None:
        return state
    key_order, key_groups = jax.random.split(key)
    chosen = jnp.asarray(groups, dtype=jnp.int32)
    if len(groups) > MAX_GROUPS:
        chosen = jax.random.permutation(key_order, chosen)[:MAX_GROUPS]

    def step(state: ModelState, now: tuple[Array, Array]) -> tuple[ModelState, None]:
        return _one_group(*now, state, spec, layout, log_density), None

    return lax.scan(step, state, (jax.random.split(key_groups, len(chosen)), chosen))[0]


def _one_group(
    key: Key[Array, ""],
    g: Int[Array, ""],
    state: ModelState,
    spec: ModelSpec,
    layout: Layout,
    log_density: RowDensity,
) -> ModelState:
    """eta = rest + w0 + mu d + sigma a with d_n = sum x and a_n = sum x e over the group."""
    prior = spec.prior_w
    scales = prior.location_scale(state.hyper_w)
    assert scales is not None
    of_group = scales.of_group(g)
    mu, sigma = of_group.mu, of_group.sigma
    own = [(unit.group == g).astype(sigma.dtype) for unit in layout.units]
    e = [inside * (x[0] - mu) / sigma for inside, x in zip(own, state.theta, strict=True)]
    # Where there is no intercept a standard normal variable takes its place that no row sees.
    seen = jnp.full_like(state.eta, 0.0 if spec.intercept is None else 1.0)
    columns = jnp.stack([seen, _at_rows(layout, own), _at_rows(layout, e)])
    at = jnp.stack([state.w0, mu, sigma])
    target = _Target(at, columns, state.eta, log_density, partial(_log_prior, spec, of_group, g))
    by = target.moved(newton_metropolis(key, target.start, target.sums, target.derivatives, target.log_ratio))
    if spec.intercept is None:
        by = by.at[0].set(0.0)
    return state._replace(
        w0=state.w0 + by[0],
        theta=tuple(
            x.at[0].add(by[1] * inside + by[2] * own_e)
            for inside, own_e, x in zip(own, e, state.theta, strict=True)
        ),
        hyper_w=prior.from_location_scale(
            state.hyper_w, scales.mu.at[g].add(by[1]), scales.sigma.at[g].add(by[2])
        ),
        eta=state.eta + by @ columns,
    )


class _Target(NamedTuple):
    """Density of u = (w0, mu, log sigma) given e, with its derivatives."""

    at: Float[Array, "3"]
    columns: Float[Array, "3 n_pad"]
    eta: Float[Array, " n_pad"]
    log_density: RowDensity
    log_prior: Callable[[Array], Array]

    @property
    def start(self) -> Float[Array, "3"]:
        """Where the chain is."""
        return self.at.at[2].set(jnp.log(self.at[2]))

    def moved(self, u: Float[Array, "3"]) -> Float[Array, "3"]:
        """(w0, mu, sigma) minus where they are."""
        return u.at[2].set(jnp.exp(u[2])) - self.at

    def sums(self, u: Float[Array, "3"]) -> RowSums:
        """Of the log density and its derivatives by (w0, mu, sigma): one pass, whatever the likelihood."""
        eta, one = self.eta + self.moved(u) @ self.columns, jnp.ones_like(self.eta)

        def with_slope(eta: Array) -> tuple[Array, Array]:
            return jax.jvp(self.log_density, (eta,), (one,))

        (rows, slope), (_, curvature) = jax.jvp(with_slope, (eta,), (one,))
        return RowSums(rows, self.columns @ slope, (self.columns * curvature) @ self.columns.T)

    def derivatives(
        self, u: Float[Array, "3"], sums: RowSums
    ) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """By u = (w0, mu, log sigma), with the prior."""
        by_sigma = jnp.ones(3, u.dtype).at[2].set(jnp.exp(u[2]))  # d sigma / d log sigma
        gradient = by_sigma * sums.gradient
        hessian = (by_sigma[:, None] * sums.hessian * by_sigma).at[2, 2].add(gradient[2])
        return gradient + jax.grad(self.log_prior)(u), hessian + jax.hessian(self.log_prior)(u)

    def log_ratio(
        self, u: Float[Array, "3"], here: RowSums, other: Float[Array, "3"], there: RowSums
    ) -> Float[Array, ""]:
        """Log density at the other minus that at u."""
        return here.rise_to(there) + self.log_prior(other) - self.log_prior(u)


def _log_prior(
    spec: ModelSpec, scales: LocationScale, g: Int[Array, ""], u: Float[Array, "3"]
) -> Float[Array, ""]:
    """p(w0) p(log sigma) p(mu | sigma) of group g, up to a constant."""
    w0, mu, log_sigma = u
    mean0, precision0 = (
        (0.0, 1.0) if spec.intercept is None else (spec.intercept.mean, spec.intercept.precision)
    )
    log = spec.prior_w.log_sigma_density(log_sigma, g) - log_sigma - 0.5 * precision0 * (w0 - mean0) ** 2
    return log - 0.5 * scales.beta0 * jnp.exp(-2 * log_sigma) * (mu - scales.mu0) ** 2


def _at_rows(layout: Layout, x: list[Float[Array, " m"]]) -> Float[Array, " n_pad"]:
    """sum_j x_nj values_j: a model of rank 0."""
    zero = jnp.zeros((), x[0].dtype)
    return linear_predictor(FM(0), layout, zero, tuple(values[None] for values in x))


def rescale_eta(
    key: Key[Array, ""], state: ModelState, spec: ModelSpec, layout: Layout, log_density: RowDensity
) -> ModelState:
    """(w0, w, mu_w, sigma_w) times s and (v, mu_v, sigma_v) times sqrt(s): eta times s, whatever the design.

    A slice step for t = log s with the likelihood itself. The normal densities of w, v and their means cancel against
    the Jacobian, but for prior means that are not zero; what is left is p(w0), and the priors of the scales.
    """
    intercept = spec.intercept
    families = [(spec.prior_w, spec.prior_w.location_scale(state.hyper_w), 1.0)]
    if spec.predictor.rank:
        families.append((spec.prior_v, spec.prior_v.location_scale(state.hyper_v), 0.5))
    scaled = [(prior, scales, power) for prior, scales, power in families if scales is not None]
    if not (spec.likelihood.separable and loose_groups(layout)) or intercept is None:
        return state
    if len(scaled) < len(families):
        return state

    def log_target(t: Float[Array, ""]) -> Float[Array, ""]:
        s = jnp.exp(t)
        log = total(log_density(s * state.eta))
        log += t - 0.5 * intercept.precision * (s * state.w0 - intercept.mean) ** 2
        for prior, scales, power in scaled:
            log += jnp.sum(_log_scale_prior(prior, scales, power * t))
        return log

    t = slice_step(key, log_target, jnp.zeros((), state.eta.dtype), 0.25)
    s, root = jnp.exp(t), jnp.exp(0.5 * t)
    hyper = [state.hyper_w, state.hyper_v]
    for i, (prior, scales, power) in enumerate(scaled):
        by = jnp.exp(power * t)
        hyper[i] = prior.from_location_scale(hyper[i], by * scales.mu, by * scales.sigma)
    return state._replace(
        w0=s * state.w0,
        theta=tuple(jnp.concatenate([s * x[:1], root * x[1:]]) for x in state.theta),
        hyper_w=hyper[0],
        hyper_v=hyper[1],
        eta=s * state.eta,
    )


def _log_scale_prior(prior: Prior, own: LocationScale, by: Float[Array, ""]) -> Array:
    """Of mu and sigma times e^by, with the Jacobian of mu: elementwise, up to a constant."""
    away = (own.mu - own.mu0 * jnp.exp(-by)) / own.sigma
    return prior.log_sigma_density(jnp.log(own.sigma) + by) - 0.5 * own.beta0 * away**2
