"""Moves that leave eta as it is: they do, and each by itself leaves the joint distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.gibbs import moves
from bayesfm.inference.gibbs.state import GibbsState, from_sites
from bayesfm.inference.gibbs.sweep import linear_predictor
from bayesfm.model import ModelSpec
from tests.inference.gibbs import joint
from tests.statistics import alarms, assert_no_alarm

MOVES = {"shift_w": moves.shift_w, "shift_v": moves.shift_v, "rescale": moves.rescale}
PROBLEMS = {
    "shift_w": {"kind": "rows"},
    "shift_v": {"kind": "table"},
    "rescale": {"kind": "fields", "mu0_v": 0.0},
}


def alone(name: str) -> joint.Transition:
    """The move as a transition, ten times over."""

    def transition(key: jax.Array, state: GibbsState, spec: ModelSpec, data: Any, _: int) -> GibbsState:
        return MOVES[name](key, state, spec, data.layout)

    return transition


@pytest.mark.parametrize("name", MOVES)
def test_eta_stays_and_parameters_move(name: str) -> None:
    problem = joint.problem(**PROBLEMS[name])
    sites, _ = joint.draw_from_model(problem, np.random.default_rng(0), 1)
    state = from_sites({k: jnp.asarray(x[0], jnp.float32) for k, x in sites.items()}, problem.spec, problem.data)
    after = MOVES[name](jax.random.key(0), state, problem.spec, problem.data.layout)
    n = problem.design.num_rows
    before, now = (
        linear_predictor(problem.spec.predictor, problem.data.layout, s.w0, s.theta)[:n] for s in (state, after)
    )
    size = max(float(jnp.max(jnp.abs(x))) for s in (state, after) for x in (*s.theta, s.w0))
    np.testing.assert_allclose(now, before, atol=100 * np.finfo(np.float32).eps * max(1.0, size) ** 2)
    moved = [float(jnp.max(jnp.abs(a - b))) for a, b in zip(state.theta, after.theta, strict=True)]
    assert max(moved) > 1e-3


@pytest.mark.parametrize("name", MOVES)
def test_each_move_leaves_the_joint_distribution(name: str) -> None:
    assert_no_alarm(joint.p_values(joint.problem(**PROBLEMS[name]), 20_000, 10, transition=alone(name)))


def w0_mean(spec: ModelSpec) -> ModelSpec:
    return replace(spec, intercept=replace(spec.intercept, mean=spec.intercept.mean + 0.3))


def mu_mean(spec: ModelSpec) -> ModelSpec:
    return replace(spec, prior_v=replace(spec.prior_v, mu0=0.0))


def scale_rate(spec: ModelSpec) -> ModelSpec:
    """Different for the two fields, since b0 enters both: through groups, see below."""
    return replace(spec, prior_v=replace(spec.prior_v, b0=0.5 * spec.prior_v.b0))


@pytest.mark.parametrize(("name", "change"), [("shift_w", w0_mean), ("shift_v", mu_mean), ("rescale", scale_rate)])
def test_a_move_for_another_prior_is_found(name: str, change: Callable[[ModelSpec], ModelSpec]) -> None:
    problem = joint.problem(**PROBLEMS[name])
    p_values = joint.p_values(problem, 20_000, 10, transition=alone(name), spec=change(problem.spec))
    assert alarms(p_values)


def test_no_scaling_where_the_prior_mean_is_not_zero() -> None:
    problem = joint.problem("fields")
    sites, _ = joint.draw_from_model(problem, np.random.default_rng(0), 1)
    state = from_sites({k: jnp.asarray(x[0], jnp.float32) for k, x in sites.items()}, problem.spec, problem.data)
    after = moves.rescale(jax.random.key(0), state, problem.spec, problem.data.layout)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_which_fields_are_whole() -> None:
    assert len(moves.whole_fields(joint.problem("fields").data.layout)) == 2
    assert len(moves.whole_fields(joint.problem("rows").data.layout)) == 1
    assert moves.can_rescale(joint.problem("fields").data.layout)
    assert not moves.can_rescale(joint.problem("table").data.layout)
