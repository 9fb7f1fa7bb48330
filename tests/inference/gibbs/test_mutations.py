"""Bugs planted in the sampler, each of which the joint-distribution test has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from bayesfm.design import layout as layout_module
from bayesfm.inference.conjugate import sweep_units as visits
from bayesfm.inference.conjugate import units
from bayesfm.inference.conjugate.state import ModelState
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.likelihoods import Gaussian
from bayesfm.predictors import FM
from bayesfm.priors import Features, NormalGamma
from tests.inference.gibbs import joint
from tests.statistics import alarms

type Overrides = dict[str, Any]
"""What ``joint.p_values`` is given in place of the problem's own."""


class Mutant(NamedTuple):
    """A bug: the problem that shows it, a function that plants it, and what it takes to see it."""

    problem: dict[str, Any]
    plant: Callable[[pytest.MonkeyPatch, joint.Problem], Overrides]
    num_chains: int = 4000
    num_sweeps: int = 10


FIELDS = {"kind": "fields"}
TABLE = {"kind": "table"}
ROWS = {"kind": "rows"}
OVERLAP = {"kind": "rows", "rank": 3}
WEIGHTED = {"kind": "fields", "factor_block": 1, "weighted": True}


def retraced(*args: Any) -> joint.Transition:
    """A transition that no earlier program is reused for."""
    return lambda *arguments: sweep_module.sweep(*arguments)


# ------------------------------------------------------------------------- other numbers, same program


def lambda_shape(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """The `+1` of lambda's conditional given mu, added to the one that has mu integrated out."""
    spec = problem.spec
    prior_w, prior_v = (replace(prior, a0=prior.a0 + 1) for prior in (spec.prior_w, spec.prior_v))
    return {"spec": replace(spec, prior_w=prior_w, prior_v=prior_v)}


def alpha_shape(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    likelihood = replace(problem.spec.likelihood, a0=problem.spec.likelihood.a0 + 1)
    return {"spec": replace(problem.spec, likelihood=likelihood)}


def w0_prior_ignored(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return {"spec": replace(problem.spec, intercept=replace(problem.spec.intercept, precision=1e-6))}


def with_weight(problem: joint.Problem, change: Callable[[jax.Array], jax.Array]) -> Overrides:
    return {"data": problem.data._replace(weight=change(problem.data.weight))}


def row_ignored(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return with_weight(problem, lambda weight: weight.at[7].set(0))


def half_ignored(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return with_weight(problem, lambda weight: weight.at[:10].set(0))


def prior_only(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return with_weight(problem, jnp.zeros_like)


def one_key(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return {"one_key": True}


# ---------------------------------------------------------------------------------- hyperparameters


def patch_normal_gamma(patch: pytest.MonkeyPatch, change: Callable[..., Any]) -> Overrides:
    update = NormalGamma.update

    def changed(self: NormalGamma, key: jax.Array, hyper: Any, features: Features) -> Any:
        def with_scatter(scatter: Any) -> Any:
            return update(self, key, hyper, features._replace(scatter=scatter))

        return change(self, with_scatter, features.number_per_column, features.mean, features.scatter)

    patch.setattr(NormalGamma, "update", changed)
    return {"transition": retraced()}


def shrink_term_missing(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    def change(prior: NormalGamma, update: Any, count: Any, mean: Any, scatter: Any) -> Any:
        return update(scatter - prior.beta0 * count / (prior.beta0 + count) * (mean - prior.mu0) ** 2)

    return patch_normal_gamma(patch, change)


def mu_variance_for_sd(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    def change(prior: NormalGamma, update: Any, count: Any, mean: Any, scatter: Any) -> Any:
        hyper = update(scatter)
        centre = (count * mean + prior.beta0 * prior.mu0) / (count + prior.beta0)
        sd = 1 / jnp.sqrt((count + prior.beta0) * hyper["lambda"])
        return {**hyper, "mu": centre + sd * (hyper["mu"] - centre)}

    return patch_normal_gamma(patch, change)


def hyper_one_sweep_late(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """theta is drawn given the hyperparameters of the sweep before the last; twelve sweeps in a row."""

    def transition(key: jax.Array, state: ModelState, *args: Any) -> ModelState:
        def body(carry: Any, key: jax.Array) -> Any:
            state, (hyper_w, hyper_v) = carry
            after = sweep_module.sweep(key, state._replace(hyper_w=hyper_w, hyper_v=hyper_v), *args)
            return (after, (state.hyper_w, state.hyper_v)), None

        return lax.scan(body, (state, (state.hyper_w, state.hyper_v)), jax.random.split(key, 12))[0][0]

    return {"transition": transition}


# --------------------------------------------------------------------------------- likelihood and w0


def weight_ignored_in_alpha(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    update = Gaussian.update

    def changed(self: Gaussian, key: Any, observed: Any, *args: Any, **options: Any) -> Any:
        return update(self, key, observed._replace(weight=jnp.sign(observed.weight)), *args, **options)

    patch.setattr(Gaussian, "update", changed)
    return {"transition": retraced()}


def residual_not_moved_by_w0(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    sweep_units, before = sweep_module.sweep_units, []

    def changed(
        key: Any, state: ModelState, spec: Any, layout: Any, omega: Any, r: jax.Array, block: int
    ) -> Any:
        return sweep_units(key, state, spec, layout, omega, r + (state.w0 - before[-1]), block)

    def transition(key: jax.Array, state: ModelState, *args: Any) -> ModelState:
        before.append(state.w0)
        return sweep_module.sweep(key, state, *args)

    patch.setattr(sweep_module, "sweep_units", changed)
    return {"transition": transition}


# --------------------------------------------------------------------------------------------- theta


def prior_mean_ignored(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    prior_of_unit = visits.prior_of_unit

    def changed(*args: Any) -> Any:
        prior = prior_of_unit(*args)
        return prior._replace(mean=jnp.zeros_like(prior.mean))

    patch.setattr(visits, "prior_of_unit", changed)
    return {"transition": retraced()}


def patch_draw(patch: pytest.MonkeyPatch, change: Callable[..., jax.Array]) -> Overrides:
    draw = units.draw
    patch.setattr(units, "draw", lambda *args: change(draw, *args))
    return {"transition": retraced()}


def variance_for_sd(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    def change(draw: Any, packed: Any, theta: Any, precision: Any, mean: Any, noise: Any) -> jax.Array:
        centre = draw(packed, theta, precision, mean, jnp.zeros_like(noise))
        deviation = draw(packed, theta, precision, mean, noise) - centre
        return centre + deviation / jnp.sqrt(precision[:1] + packed[:, 0])

    return patch_draw(patch, change)


def own_contribution_not_put_back(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """b without sum omega h h' theta: the residual is taken for z - c."""
    return patch_draw(patch, lambda draw, packed, theta, *rest: draw(packed, jnp.zeros_like(theta), *rest))


def residual_not_moved_by_theta(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    patch.setattr(units, "move_residual", lambda rows, h, moved, r: r)
    return {"transition": retraced()}


def factors_of_others_stale(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """The second unit sees the first one's factors as they were before the first was drawn."""
    factors_of, first = visits.summary_of, {}

    def changed(predictor: Any, unit: Any, theta: Any, layout: Any) -> jax.Array:
        first.setdefault(id(unit), factors_of(predictor, unit, theta, layout))
        return first[id(unit)]

    def transition(*args: Any) -> ModelState:
        first.clear()
        return sweep_module.sweep(*args)

    patch.setattr(visits, "summary_of", changed)
    return {"transition": transition}


def one_key_for_all_normals(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """Every normal of a sweep from one key: the noise of one unit is that of the next."""
    normal, current = jax.random.normal, []

    def transition(key: jax.Array, *args: Any) -> ModelState:
        current.append(key)
        return sweep_module.sweep(key, *args)

    patch.setattr(jax.random, "normal", lambda key, *args: normal(jax.random.fold_in(current[-1], 1), *args))
    return {"transition": transition}


def patch_steps(patch: pytest.MonkeyPatch, change: Callable[..., Any]) -> Overrides:
    """Change what the step of a colour does; its carry begins with theta of the unit's features."""
    scan_steps = units.scan_steps

    def changed(key: Any, step: Callable, carry: Any, steps: Any) -> Any:
        return scan_steps(key, lambda carry, xs: change(step, carry, xs), carry, steps)

    patch.setattr(units, "scan_steps", changed)
    return {"transition": retraced()}


def own_term_left_in_h(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    own: list[jax.Array] = []

    def change(step: Callable, carry: Any, xs: Any) -> Any:
        now = xs[1]
        own.append(now.value * carry[0][1:, now.feature][:, None, now.owner])
        out = step(carry, xs)
        own.clear()
        return out

    for name in ("derivative", "step", "pull_back"):
        method = getattr(FM, name)
        patch.setattr(FM, name, staticmethod(lambda u, *args, f=method: f(u + own[0] if own else u, *args)))
    return patch_steps(patch, change)


def table_stale(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """A colour does not see that the one before it moved the summaries of block rows; carry (theta, moved)."""

    def change(step: Callable, carry: Any, xs: Any) -> Any:
        theta, moved = carry
        (theta, now), out = step((theta, jnp.zeros_like(moved)), xs)
        return (theta, moved + now), out

    return patch_steps(patch, change)


def keep_old(place: int) -> Callable[..., Overrides]:
    """A colour does not see what the one before it did to one part of the carry (theta, q, r)."""

    def plant(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
        def change(step: Callable, carry: Any, xs: Any) -> Any:
            new, out = step(carry, xs)
            assert len(new) == 3
            return (*new[:place], carry[place], *new[place + 1 :]), out

        return patch_steps(patch, change)

    return plant


def one_colour(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """Features that share rows drawn at once."""
    patch.setattr(layout_module, "colour_columns", lambda X: jnp.zeros(X.shape[1], int).__array__())
    layout = jax.tree.map(jnp.asarray, layout_module.build_layout(problem.design))
    return {"data": problem.data._replace(layout=layout)}


def patch_blocks(patch: pytest.MonkeyPatch, name: str, value: Any) -> Overrides:
    patch.setattr(units.FactorBlocks, name, value)
    return {"transition": retraced()}


def overlapping_blocks_stale(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    """A block of factors does not see what the one before it did to the factors they share."""
    run = units.FactorBlocks.run

    def changed(self: units.FactorBlocks, key: Any, body: Callable, carry: Any) -> Any:
        def stale(key: Any, s: Any, carry: Any) -> Any:
            theta, Q, *rest = carry
            theta, _, *rest = body(key, s, carry)
            return theta, Q, *rest

        return run(self, key, stale if len(carry) == 3 else body, carry)

    return patch_blocks(patch, "run", changed)


def last_factor_never_drawn(patch: pytest.MonkeyPatch, problem: joint.Problem) -> Overrides:
    return patch_blocks(patch, "number", property(lambda self: self.rank // self.size))


MUTANTS: dict[str, Mutant] = {
    "lambda: one degree of freedom too many": Mutant(FIELDS, lambda_shape),
    "lambda: the term of the mean is missing": Mutant(FIELDS, shrink_term_missing),
    "hyperparameters: read one sweep late": Mutant(FIELDS, hyper_one_sweep_late, 20_000, 3),
    "mu: variance for standard deviation": Mutant(FIELDS, mu_variance_for_sd),
    "alpha: one degree of freedom too many": Mutant(FIELDS, alpha_shape, 40_000),
    "alpha: weights ignored": Mutant(WEIGHTED, weight_ignored_in_alpha),
    "w0: prior ignored": Mutant(FIELDS, w0_prior_ignored),
    "w0: residual not moved": Mutant(FIELDS, residual_not_moved_by_w0),
    "data: one row ignored": Mutant(FIELDS, row_ignored),
    "data: half of the rows ignored": Mutant(FIELDS, half_ignored),
    "data: all rows ignored": Mutant(FIELDS, prior_only),
    "keys: every sweep has the same": Mutant(FIELDS, one_key),
    "keys: all normals of a sweep have the same": Mutant(FIELDS, one_key_for_all_normals),
    "theta: prior mean ignored": Mutant(FIELDS, prior_mean_ignored),
    "theta: variance for standard deviation": Mutant(FIELDS, variance_for_sd),
    "theta: own contribution not put back": Mutant(FIELDS, own_contribution_not_put_back),
    "theta: residual not moved": Mutant(FIELDS, residual_not_moved_by_theta),
    "theta: factors of the other unit stale": Mutant(FIELDS, factors_of_others_stale),
    "table: own term left in h": Mutant(TABLE, own_term_left_in_h),
    "table: statistics of block rows stale": Mutant(TABLE, table_stale),
    "table: features that share rows in one colour": Mutant(TABLE, one_colour),
    "rows: own term left in h": Mutant(ROWS, own_term_left_in_h),
    "rows: residual stale": Mutant(ROWS, keep_old(2)),
    "rows: factors stale within the unit": Mutant(ROWS, keep_old(1)),
    "rows: features that share rows in one colour": Mutant(ROWS, one_colour),
    "rows: overlapping blocks of factors stale": Mutant(OVERLAP, overlapping_blocks_stale),
    "rows: last factor never drawn": Mutant(OVERLAP, last_factor_never_drawn),
}

SURVIVORS: dict[str, str] = {
    "rows: last factor never drawn": "a parameter that stays where it is keeps its distribution: the chain is not "
    "irreducible, which no test of invariance shows; tests/inference/gibbs/test_units.py does",
}
"""Mutants that this test does not find, and why."""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    problem = joint.problem(**mutant.problem)
    overrides = {"optimization": int(mutant.num_chains > 4000), **mutant.plant(monkeypatch, problem)}
    found = alarms(joint.p_values(problem, mutant.num_chains, mutant.num_sweeps, **overrides))
    assert bool(found) is (name not in SURVIVORS)


@pytest.mark.parametrize("arguments", [FIELDS, OVERLAP], ids=str)
def test_without_a_mutant_there_is_no_alarm(arguments: dict[str, Any]) -> None:
    """The largest sizes of above; test_joint_invariance.py has the other problems."""
    assert not alarms(joint.p_values(joint.problem(**arguments), 40_000, 10))
