"""Moves along directions that the likelihood cannot see: eta stays, and so does the posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.design import Block, Design, design_from_matrix
from bayesfm.design.layout import build_layout
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state
from bayesfm.inference.gibbs import moves
from bayesfm.inference.gibbs.sweep import linear_predictor
from bayesfm.model import ModelSpec
from bayesfm.priors import Horseshoe, Hyper, MultiplicativeGamma, NormalGamma
from tests.inference.gibbs import joint
from tests.statistics import alarms, assert_no_alarm

MOVES: dict[str, Callable] = {
    "shift_w": moves.shift_w,
    "shift_v": moves.shift_v,
    "rescale": moves.rescale,
    "shift_pairs": moves.shift_pairs,
}


def problem(kind: str = "fields") -> joint.Problem:
    """Two fields, or one and something else; factors with prior mean zero, which rescaling asks for."""
    return joint.problem(kind, mu0_v=0.0)


def transition(move: Callable) -> Callable:
    def run(
        key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
    ) -> ModelState:
        return move(key, state, spec, data.layout)

    return run


def distance(a: ModelState, b: ModelState) -> float:
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(a.theta, b.theta, strict=True))


@pytest.mark.parametrize("name", MOVES)
def test_eta_stays_and_parameters_move(name: str) -> None:
    spec, _, _, data, _ = problem("three fields" if name == "shift_pairs" else "fields")
    state = joint_state(spec, data)
    moved = MOVES[name](jax.random.key(1), state, spec, data.layout)
    n = data.layout.num_rows
    before, after = (linear_predictor(spec.predictor, data.layout, s.w0, s.theta)[:n] for s in (state, moved))
    largest = max(float(jnp.max(jnp.abs(t))) for s in (state, moved) for t in s.theta) ** 2
    tolerance = 16 * np.finfo(np.float32).eps * max(1.0, largest)  # a few products and sums of that size
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
    assert distance(state, moved) > 1e-3


def joint_state(spec: ModelSpec, data: ModelData) -> ModelState:
    state = initial_state(jax.random.key(0), spec, data)
    keys = jax.random.split(jax.random.key(2), len(state.theta))
    theta = tuple(jax.random.normal(k, t.shape, t.dtype) for k, t in zip(keys, state.theta, strict=True))
    return state._replace(theta=theta)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("shift_w", "fields"),
        ("shift_w", "rows"),
        ("shift_v", "fields"),
        ("shift_v", "table"),
        ("rescale", "fields"),
        ("shift_pairs", "three fields"),
    ],
)
def test_a_move_leaves_the_joint_distribution(name: str, kind: str) -> None:
    assert_no_alarm(joint.p_values(problem(kind), 10_000, 5, transition=transition(MOVES[name])))


def _other_w0(spec: ModelSpec) -> ModelSpec:
    return replace(spec, intercept=replace(spec.intercept, mean=spec.intercept.mean + 0.3))


def _other_mu_v(spec: ModelSpec) -> ModelSpec:
    return replace(spec, prior_v=replace(spec.prior_v, mu0=0.3))


def _other_lambda_v(spec: ModelSpec) -> ModelSpec:
    return replace(spec, prior_v=replace(spec.prior_v, b0=0.3 * spec.prior_v.b0))


@pytest.mark.parametrize(
    ("name", "change"), [("shift_w", _other_w0), ("shift_v", _other_mu_v), ("rescale", _other_lambda_v)]
)
def test_a_move_for_another_prior_is_caught(name: str, change: Callable[[ModelSpec], ModelSpec]) -> None:
    spec = change(problem().spec)
    assert alarms(joint.p_values(problem(), 20_000, 10, transition=transition(MOVES[name]), spec=spec))


def _mean_left_behind(key: jax.Array, state: ModelState, spec: ModelSpec, layout: object) -> ModelState:
    moved = moves.shift_w(key, state, spec, layout)  # type: ignore[arg-type]
    return moved._replace(hyper_w=state.hyper_w)


def _w_not_paid(key: jax.Array, state: ModelState, spec: ModelSpec, layout: object) -> ModelState:
    moved = moves.shift_v(key, state, spec, layout)  # type: ignore[arg-type]
    theta = tuple(t.at[0].set(old[0]) for t, old in zip(moved.theta, state.theta, strict=True))
    return moved._replace(theta=theta)


def _jacobian_forgotten(key: jax.Array, state: ModelState, spec: ModelSpec, layout: object) -> ModelState:
    """lambda stays behind, as if the scale of v did not matter to it."""
    moved = moves.rescale(key, state, spec, layout)  # type: ignore[arg-type]
    return moved._replace(hyper_v={**moved.hyper_v, "lambda": state.hyper_v["lambda"]})


@pytest.mark.parametrize("bug", [_mean_left_behind, _w_not_paid, _jacobian_forgotten])
def test_planted_bugs_are_caught(bug: Callable) -> None:
    assert alarms(joint.p_values(problem(), 10_000, 5, transition=transition(bug)))


def test_a_mean_of_w_that_does_not_follow_its_pair_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One move after the other is then not the move by the sum: scales of small fields grow without end."""
    moved = NormalGamma.moved

    def without_mu_v(self: NormalGamma, hyper: Hyper, g: int, delta: jax.Array) -> Hyper:
        return moved(self, hyper, g, jnp.abs(delta) if jnp.ndim(delta) == 0 else delta)

    monkeypatch.setattr(NormalGamma, "moved", without_mu_v)
    three = problem("three fields")
    assert alarms(joint.p_values(three, 10_000, 5, transition=transition(moves.shift_pairs)))


def test_rescaling_is_left_out_where_its_density_would_be_another() -> None:
    spec, _, _, data, _ = problem()
    spec = replace(spec, prior_v=replace(spec.prior_v, mu0=0.5))
    state = joint_state(spec, data)
    assert distance(state, moves.rescale(jax.random.key(1), state, spec, data.layout)) == 0.0


def test_shifting_is_left_out_where_its_precision_is_singular() -> None:
    """One of three groups of w is held fast, with fewer features than factors: a Cholesky factor that is not there."""
    spec, _, _, data, _ = joint.problem("fields", rank=6, factor_block=6)
    state = joint_state(spec, data)
    state = state._replace(hyper_w={**state.hyper_w, "lambda": jnp.full_like(state.hyper_w["lambda"], 1e12)})
    moved = moves.shift_v(jax.random.key(1), state, spec, data.layout)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(moved))


def test_moves_that_a_prior_does_not_allow_are_left_out() -> None:
    spec, _, _, data, _ = joint.problem("fields", prior_w=Horseshoe(), prior_v=MultiplicativeGamma())
    state = joint_state(spec, data)
    moved = moves.invariant_moves(jax.random.key(1), state, spec, data.layout)
    assert distance(state, moved) == 0.0


def test_which_fields_are_whole() -> None:
    user, item = (
        Block.field("user", np.arange(6) % 3, range(3)),
        Block.field("item", np.arange(6) % 2, range(2)),
    )
    assert moves.whole_fields(build_layout(Design((user, item)))) == [(0, 0), (1, 1)]
    one_hot = Design((user, item)).to_csr()
    assert moves.whole_fields(build_layout(design_from_matrix(one_hot))) == []  # one group for both
    grouped = design_from_matrix(one_hot, groups=[0, 0, 0, 1, 1])
    assert sorted(g for _, g in moves.whole_fields(build_layout(grouped))) == [0, 1]
    gap = one_hot.toarray()
    gap[0, :3] = 0  # a row without user
    assert [
        g for _, g in moves.whole_fields(build_layout(design_from_matrix(gap, groups=[0, 0, 0, 1, 1])))
    ] == [1]
