"""Second draws of group means and scales: what they leave, and what they must not leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state
from bayesfm.inference.gibbs import interweave as module
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, Likelihood, OrdinalProbit
from bayesfm.model import ModelSpec
from bayesfm.priors import HalfT, Horseshoe, Intercept, NormalGamma, Prior
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
        ("interweave", "rows", BernoulliLogit(), None),
        ("interweave", "table", BernoulliProbit(), HalfT(scale=0.7, df=4.0, mu0=0.3)),
        ("interweave", "rows", OrdinalProbit(3), None),
        ("rescale_eta", "rows", BernoulliLogit(), None),
        pytest.param("rescale_eta", "table", BernoulliProbit(), HalfT(scale=0.7, df=4.0), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_move_leaves_the_joint_distribution(
    name: str, kind: str, likelihood: Likelihood | None, prior: Prior | None
) -> None:
    """Together with the draw that the move follows: the hyperparameters alone would not move w relative to them."""
    own = with_prior(joint.problem(kind, likelihood=likelihood), prior)
    assert_no_alarm(joint.p_values(own, 10_000, 5, transition=MOVES[name]))


def _wrong_sign(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int
) -> ModelState:
    """w and eta go one way, mu and sigma the other."""
    moved = weave(key, state, spec, data, block)
    hyper = {name: 2 * state.hyper_w[name] - moved.hyper_w[name] for name in ("mu",)}
    return moved._replace(hyper_w={**moved.hyper_w, **hyper})


def _w_left_behind(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int
) -> ModelState:
    return weave(key, state, spec, data, block)._replace(theta=state.theta)


def _prior_of_w0_forgotten(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int
) -> ModelState:
    assert spec.intercept is not None
    return weave(key, state, replace(spec, intercept=Intercept(0.3, 1e-3)), data, block)


def _other_prior_of_the_scale(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int
) -> ModelState:
    return rescale(key, state, replace(spec, prior_w=NormalGamma(12.0, 12.0, 2.0, 0.2)), data, block)


def _scale_of_w_left_behind(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, block: int
) -> ModelState:
    return rescale(key, state, spec, data, block)._replace(hyper_w=state.hyper_w)


BUGS = [
    _wrong_sign,
    _w_left_behind,
    _prior_of_w0_forgotten,
    _other_prior_of_the_scale,
    _scale_of_w_left_behind,
]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug: Callable) -> None:
    own = joint.problem("rows", likelihood=BernoulliLogit())
    assert alarms(joint.p_values(own, 10_000, 10, transition=bug))


def test_many_groups_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one group only, each of them moves in some sweep, and one in each."""
    monkeypatch.setattr(module, "MAX_GROUPS", 1)
    spec, _, _, data, _ = joint.problem("rows", likelihood=BernoulliLogit())
    groups = module.loose_groups(data.layout)
    assert len(groups) == 2
    state = some_state(spec, data)
    moved = set()
    for i in range(12):
        after = weave(jax.random.key(i), state, spec, data, 2)
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
