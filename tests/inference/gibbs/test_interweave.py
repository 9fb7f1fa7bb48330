"""Second draws of group means and scales: what they leave, and what they must not leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state
from bayesfm.inference.gibbs import interweave as module
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Likelihood, OrdinalProbit
from bayesfm.model import ModelSpec
from bayesfm.priors import HalfT, Horseshoe, Intercept, NormalGamma, PerGroup, Prior
from tests.inference.gibbs import joint
from tests.statistics import alarms, assert_no_alarm


def weave(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
) -> ModelState:
    return module.interweave(key, with_eta(state, spec, data), spec, data.layout, density(state, spec, data))


def rescale(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
) -> ModelState:
    return module.rescale_eta(key, with_eta(state, spec, data), spec, data.layout, density(state, spec, data))


def density(state: ModelState, spec: ModelSpec, data: ModelData) -> module.RowDensity:
    return lambda eta: spec.likelihood.log_density(data.observed, eta, state.params)


MIXED = PerGroup(
    ("0", "1", "item"),
    (
        HalfT(scale=0.7, df=4.0, mu0=0.3),
        NormalGamma(a0=12.0, b0=3.0, beta0=2.0, mu0=0.2),
        HalfT(scale=0.5, df=6.0),
    ),
)
MOVES = {"interweave": weave, "rescale_eta": rescale}


def with_eta(state: ModelState, spec: ModelSpec, data: ModelData) -> ModelState:
    return state._replace(eta=linear_predictor(spec.predictor, data.layout, state.w0, state.theta))


def with_prior(problem: joint.Problem, prior: Prior | None) -> joint.Problem:
    return problem if prior is None else problem._replace(spec=replace(problem.spec, prior_w=prior))


def some_state(spec: ModelSpec, data: ModelData) -> ModelState:
    state = initial_state(jax.random.key(0), spec, data)
    keys = jax.random.split(jax.random.key(2), len(state.theta))
    theta = tuple(jax.random.normal(k, t.shape, t.dtype) for k, t in zip(keys, state.theta, strict=True))
    return with_eta(state._replace(theta=theta), spec, data)


@pytest.mark.parametrize("kind", ["rows", "table"])
@pytest.mark.parametrize("name", MOVES)
def test_eta_moves_along(name: str, kind: str) -> None:
    """The eta that a move returns is that of the parameters that it returns."""
    spec, _, _, data, _ = joint.problem(kind, likelihood=BernoulliLogit())
    state = some_state(spec, data)
    moved = MOVES[name](jax.random.key(3), state, spec, data, 2)
    n = data.layout.num_rows
    assert jnp.max(jnp.abs(moved.eta - state.eta)[:n]) > 1e-3
    size = float(jnp.max(jnp.abs(with_eta(moved, spec, data).eta[:n])))
    np.testing.assert_allclose(
        moved.eta[:n],
        with_eta(moved, spec, data).eta[:n],
        rtol=0,
        atol=64 * np.finfo(np.float32).eps * max(1.0, size),  # sums of a dozen products of that size, twice
    )


@pytest.mark.parametrize(
    ("name", "kind", "likelihood", "prior"),
    [
        ("interweave", "table", BernoulliProbit(), MIXED),
        ("interweave", "rows", OrdinalProbit(3), None),
        pytest.param("rescale_eta", "table", BernoulliProbit(), HalfT(scale=0.7, df=4.0), marks=pytest.mark.slow),
        pytest.param("rescale_eta", "table", BernoulliProbit(), MIXED, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_move_leaves_the_joint_distribution(
    name: str, kind: str, likelihood: Likelihood | None, prior: Prior | None
) -> None:
    """Together with the draw that the move follows: the hyperparameters alone would not move w relative to them.

    ``test_planted_bugs_are_caught`` has both moves on rows with the logit likelihood.
    """
    own = with_prior(joint.problem(kind, likelihood=likelihood), prior)
    assert_no_alarm(joint.p_values(own, 10_000, 5, transition=MOVES[name]))


def either(wrong: bool | jax.Array, first: Any, second: Any) -> Any:
    """The first where something is to be wrong, else the second."""
    return jax.tree.map(partial(jnp.where, wrong), first, second)


def woven(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int, bug: jax.Array
) -> ModelState:
    """With bug 1, w and eta go one way, mu the other; with 2, w is left behind; with 3, the prior of w0 forgotten."""
    moved = weave(
        key, state, either(bug == 3, replace(spec, intercept=Intercept(0.3, 1e-3)), spec), data, block
    )
    mu = either(bug == 1, 2 * state.hyper_w["mu"] - moved.hyper_w["mu"], moved.hyper_w["mu"])
    theta = either(bug == 2, state.theta, moved.theta)
    return moved._replace(hyper_w={**moved.hyper_w, "mu": mu}, theta=theta)


def rescaled(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int, bug: jax.Array
) -> ModelState:
    """With bug 1, the scale has another prior; with 2, that of w is left behind."""
    other = replace(spec, prior_w=NormalGamma(12.0, 12.0, 2.0, 0.2))
    moved = rescale(key, state, either(bug == 1, other, spec), data, block)
    return moved._replace(hyper_w=either(bug == 2, state.hyper_w, moved.hyper_w))


@pytest.mark.parametrize(
    ("move", "bug"), [*((woven, bug) for bug in range(4)), *((rescaled, bug) for bug in range(3))]
)
def test_planted_bugs_are_caught(move: Callable, bug: int) -> None:
    """One program has all bugs of a move, and without any of them it leaves the joint distribution."""
    own = joint.problem("rows", likelihood=BernoulliLogit())
    p_values = joint.p_values(own, 10_000, 10, transition=move, planted=(bug,))
    if bug:
        assert alarms(p_values)
    else:
        assert_no_alarm(p_values)


def test_many_groups_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one group only, each of them moves in some sweep, and one in each."""
    monkeypatch.setattr(module, "MAX_GROUPS", 1)
    spec, _, _, data, _ = joint.problem("rows", likelihood=BernoulliLogit())
    groups = module.loose_groups(data.layout)
    assert len(groups) == 2
    state = some_state(spec, data)
    moved, move = set(), jax.jit(lambda key: weave(key, state, spec, data, 2))
    for i in range(12):
        after = move(jax.random.key(i))
        changed = np.flatnonzero(np.asarray(after.hyper_w["mu"] != state.hyper_w["mu"]))
        assert len(changed) <= 1
        moved |= set(changed.tolist())
    assert moved == set(groups)


@pytest.mark.parametrize("name", MOVES)
def test_whole_fields_and_other_priors_are_left_alone(name: str) -> None:
    for kind, prior in (("fields", None), ("rows", Horseshoe())):
        spec, _, _, data, _ = with_prior(joint.problem(kind, likelihood=BernoulliLogit()), prior)
        state = some_state(spec, data)
        moved = MOVES[name](jax.random.key(3), state, spec, data, 2)
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", MOVES)
def test_both_are_for_separable_likelihoods(name: str) -> None:
    spec, _, _, data, _ = joint.problem("rows")
    state = some_state(spec, data)
    moved = MOVES[name](jax.random.key(3), state, spec, data, 2)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(old, new)
