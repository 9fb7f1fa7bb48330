"""Rotations of the factors: eta stays, the posterior stays, and what a prior does not allow is left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native as kernels
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state
from bayesfm.inference.gibbs import rotation
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.model import ModelSpec
from bayesfm.priors import HalfT, MultiplicativeGamma, NormalGamma
from bayesfm.random import compiled
from tests.inference.gibbs import joint
from tests.statistics import assert_no_alarm

RANK = 3
NEEDS_KERNELS = pytest.mark.skipif(not kernels.available(), reason="built without a C++ compiler")


def problem(kind: str, *, native: bool = False) -> joint.Problem:
    return joint.problem(kind, rank=RANK, factor_block=RANK, mu0_v=0.0, native=native)


def rotate_and_draw(
    key: jax.Array, state: ModelState, spec: ModelSpec, data: ModelData, factor_block: int
) -> ModelState:
    """The rotation, and the hyperparameters that are integrated out in it."""
    key_turn, key_hyper = jax.random.split(key)
    theta = rotation.rotate(
        compiled(key_turn) if data.layout.native else key_turn, state.theta, spec, data.layout
    )
    moments = sweep_module.group_moments(data.layout, theta)
    features = sweep_module.features_of(data.layout, theta, moments, of_w=False)
    return state._replace(theta=theta, hyper_v=spec.prior_v.update(key_hyper, state.hyper_v, features))


def some_state(spec: ModelSpec, data: ModelData) -> ModelState:
    state = initial_state(jax.random.key(0), spec, data)
    keys = jax.random.split(jax.random.key(2), len(state.theta))
    theta = tuple(jax.random.normal(k, t.shape, t.dtype) for k, t in zip(keys, state.theta, strict=True))
    return state._replace(theta=theta)


@pytest.mark.parametrize("way", ["few groups", "many groups", pytest.param("kernel", marks=NEEDS_KERNELS)])
@pytest.mark.parametrize("kind", joint.DESIGNS)
def test_sums_of_squares_by_loops(kind: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "FEW_GROUPS", 0 if way == "many groups" else rotation.FEW_GROUPS)
    spec, design, _, data, _ = problem(kind, native=way == "kernel")
    state = some_state(spec, data)
    sums = rotation.sums_of_squares(state.theta, data.layout)
    v = np.asarray(jnp.concatenate(state.theta, axis=1)[1:, data.layout.place], np.float64)
    for g in range(data.layout.num_groups):
        own = v[:, design.groups == g]
        assert sums.number[g] == own.shape[1]
        np.testing.assert_allclose(sums.mean[g], own.mean(axis=1), rtol=0, atol=1e-6)
        away = own - own.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(sums.scatter[g], away @ away.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", joint.DESIGNS)
def test_eta_and_w_stay_and_v_turns(kind: str) -> None:
    spec, _, _, data, _ = problem(kind)
    state = some_state(spec, data)
    theta = rotation.rotate(jax.random.key(1), state.theta, spec, data.layout)
    n = data.layout.num_rows
    before, after = (
        sweep_module.linear_predictor(spec.predictor, data.layout, state.w0, t)[:n]
        for t in (state.theta, theta)
    )
    largest = max(float(jnp.max(jnp.abs(t))) for t in state.theta) ** 2
    tolerance = (
        64 * np.finfo(np.float32).eps * max(1.0, largest)
    )  # sums over features and factors of that size
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
    for old, new in zip(state.theta, theta, strict=True):
        np.testing.assert_array_equal(old[0], new[0])
        assert jnp.max(jnp.abs(old[1:] - new[1:])) > 1e-3


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=NEEDS_KERNELS)])
def test_a_rotation_leaves_the_joint_distribution(native: bool) -> None:
    """Planted bugs are in tests/priors/test_rotation.py, where there is nothing else to blur them."""
    assert_no_alarm(joint.p_values(problem("fields", native=native), 10_000, 5, transition=rotate_and_draw))


@pytest.mark.parametrize("prior", [NormalGamma(mu0=0.3), HalfT(), MultiplicativeGamma()], ids=repr)
def test_a_rotation_that_a_prior_does_not_allow_is_left_out(prior: NormalGamma) -> None:
    spec, _, _, data, _ = joint.problem("fields", rank=RANK, factor_block=RANK, prior_v=prior)
    state = some_state(spec, data)
    turned = rotation.rotate(jax.random.key(1), state.theta, spec, data.layout)
    for old, new in zip(state.theta, turned, strict=True):
        np.testing.assert_array_equal(old, new)
