"""The draws of theta, unit by unit, against loops over features that draw one after the other in float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from bayesfm.design import Design
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, Layout, Unit
from bayesfm.inference.conjugate import elimination, normal
from bayesfm.inference.conjugate.blocks import FactorBlocks
from bayesfm.inference.conjugate.state import ModelData, ModelState, from_sites, initial_state, to_sites
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from tests import designs, reference
from tests.design.strategies import naive_rows
from tests.inference.holding import elimination_order, hold_noise, hold_scales, root_in
from tests.keys import quick

NEEDS_KERNELS = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
ON_KERNELS = (NEEDS_KERNELS, pytest.mark.on_kernels)
"""The other cases of a test run on XLA: nothing in them for the sanitizers."""

LAST = 1
"""Factor of every block that is eliminated last."""

FAST_COMPILE = {"xla_backend_optimization_level": 0}
"""Small arrays: compiling is the cost."""


class Case(NamedTuple):
    """A design with parameters, data and priors, all in float64 and in the design's numbering."""

    design: Design
    layout: Layout
    spec: ModelSpec
    sites: dict[str, np.ndarray]
    z: np.ndarray
    omega: np.ndarray

    @property
    def theta(self) -> np.ndarray:
        return np.concatenate([self.sites["w"][None], self.sites["v"].T])

    @property
    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and mean of theta, each (K, p)."""
        group = self.design.groups
        return tuple(  # type: ignore[return-value]
            np.concatenate([self.sites[f"{name}_w"][None], self.sites[f"{name}_v"].T])[:, group]
            for name in ("lambda", "mu")
        )


def make_case(kind: str, rank: int, tile: int = 1 << 17, max_fields: int = 4, native: bool = False) -> Case:
    return case_of(designs.make(kind), rank, tile, max_fields, native)


def case_of(
    design: Design, rank: int, tile: int = 1 << 17, max_fields: int = 4, native: bool = False
) -> Case:
    rng = np.random.default_rng(5)
    G, n = len(design.group_names), design.num_rows
    w0, w, v = designs.random_parameters(rng, design.num_features, rank)
    sites = {
        "w0": np.asarray(w0),
        "w": w,
        "v": v,
        "alpha": np.asarray(1.7),
        "lambda_w": rng.uniform(0.5, 2, G),
        "mu_w": rng.normal(size=G),
        "lambda_v": rng.uniform(0.5, 2, (G, rank)),
        "mu_v": rng.normal(size=(G, rank)),
    }
    omega = rng.uniform(0.2, 2, n)
    omega[::5] = 0.0
    layout = build_layout(design, tile=tile, max_fields=max_fields, dtype=np.float64, native=native)
    return Case(design, layout, ModelSpec(FM(rank)), sites, 3 * rng.normal(size=n), omega)


def on_device(layout: Layout) -> Layout:
    return jax.tree.map(jnp.asarray, layout)


def padded(x: np.ndarray, layout: Layout) -> jnp.ndarray:
    return jnp.asarray(np.pad(x, (0, layout.num_padded - len(x))))


def state_of(case: Case) -> ModelState:
    zeros = padded(np.zeros(case.design.num_rows), case.layout)
    sites = {name: jnp.asarray(x) for name, x in case.sites.items()}
    return from_sites(sites, case.spec, ModelData(case.layout, zeros, zeros))


def fixed_noise(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Draws with the same noise everywhere; 0 gives conditional means (a sweep of coordinate ascent)."""
    hold_noise(monkeypatch, lambda like: jnp.full_like(like, value))
    hold_scales(monkeypatch, LAST)


def swept(case: Case, factor_block: int) -> tuple[np.ndarray, np.ndarray]:
    """theta (K, p) in the design's numbering and the residual of all rows after the units' updates.

    The layout is an argument: so its arrays are buffers of their own, whose ends the sanitizers know.
    """
    with jax.enable_x64():
        state = state_of(case)

        def run(layout: Layout, omega: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
            eta = sweep_module.linear_predictor(case.spec.predictor, layout, state.w0, state.theta)
            theta, _, r = sweep_module.sweep_units(
                jax.random.key(0), state, case.spec, layout, omega, z - eta, factor_block
            )
            return jnp.concatenate(theta, axis=1)[:, layout.place], r

        arrays = on_device(case.layout), padded(case.omega, case.layout), padded(case.z, case.layout)
        theta, r = jax.jit(run, compiler_options=FAST_COMPILE)(*arrays)
        return np.asarray(theta), np.asarray(r)[: case.design.num_rows]


def order_of(unit: Unit) -> list[int]:
    """Features in the order in which they are drawn; any order, for those of one colour."""
    if isinstance(unit, FieldUnit) or unit.entries is not None:
        return unit.features.tolist()
    p = len(unit.features)
    drawn = [j for bucket in unit.steps for step in bucket.feature for j in step if j < p]
    return unit.features[drawn].tolist()


def naively_swept(case: Case, factor_block: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    X, theta, (precision, mean) = naive_rows(case.design), case.theta, case.prior
    w0 = float(case.sites["w0"])
    for unit in case.layout.units:
        for own in reference.factor_blocks(case.spec.predictor.rank, factor_block):
            for j in order_of(unit):
                P, b = reference.conditional(X, case.z, case.omega, w0, theta, precision, mean, j, own)
                order = elimination_order(own, LAST) if isinstance(unit, FieldUnit) else range(len(own))
                theta[own, j] = np.linalg.solve(P, b) + root_in(order, P, np.full(len(own), noise))
    return theta, case.z - reference.eta(X, w0, theta[0], theta[1:].T)


CASES = [
    ("everything", 3, 3, 1 << 17),
    pytest.param("everything", 3, 2, 4, marks=pytest.mark.slow),
    pytest.param("everything", 2, 1, 1 << 17, marks=pytest.mark.slow),
    ("everything", 0, 1, 3),
    ("two fields", 3, 2, 5),
    ("field with gaps", 2, 2, 4),
    ("relation block", 4, 3, 1 << 17),
    ("rows", 3, 2, 1 << 17),
    ("many fields", 1, 1, 1 << 17),
    ("one feature", 2, 1, 1 << 17),
    ("one row", 2, 2, 1 << 17),
    ("all zero", 2, 2, 1 << 17),
]


@pytest.mark.parametrize("use_native", [False, pytest.param(True, marks=ON_KERNELS)])
@pytest.mark.parametrize(("kind", "rank", "factor_block", "tile"), CASES)
def test_updates_are_the_loop_over_features(
    kind: str, rank: int, factor_block: int, tile: int, use_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means, roots of covariances, order of the blocks, and the residual left behind."""
    fixed_noise(monkeypatch, 0.7)
    case = make_case(kind, rank, tile, native=use_native)
    theta, r = swept(case, factor_block)
    expected_theta, expected_r = naively_swept(case, factor_block, 0.7)
    np.testing.assert_allclose(theta, expected_theta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(r, expected_r, rtol=1e-9, atol=1e-9)


@NEEDS_KERNELS
@pytest.mark.parametrize("kind", ["two fields", "field with gaps", "many fields"])
def test_compiled_kernels_draw_what_xla_draws(kind: str) -> None:
    """Fields get the same normals and hyperparameters either way. (Other features are drawn in another order.)"""
    by_xla, by_kernels = (
        swept(make_case(kind, 3, max_fields=8, native=use_native), 2) for use_native in (False, True)
    )
    for got, expected in zip(by_kernels, by_xla, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_updates_by_lapack_and_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal, "UNROLLED", 0)
    monkeypatch.setattr(elimination, "UNROLLED", 0)
    monkeypatch.setattr(normal, "BATCH", 2)
    fixed_noise(monkeypatch, 0.0)
    case = make_case("relation block", 2)
    theta, r = swept(case, 2)
    expected_theta, expected_r = naively_swept(case, 2, 0.0)
    np.testing.assert_allclose(theta, expected_theta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(r, expected_r, rtol=1e-9, atol=1e-9)


WAYS = [(3, False), (1 << 17, False), pytest.param(1 << 17, True, marks=ON_KERNELS)]


@pytest.mark.parametrize(("tile", "use_native"), WAYS)
@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_linear_predictor_is_the_double_loop(kind: str, tile: int, use_native: bool) -> None:
    case = make_case(kind, 2, tile, native=use_native)
    with jax.enable_x64():
        state = state_of(case)
        eta = sweep_module.linear_predictor(FM(2), on_device(case.layout), state.w0, state.theta)
    expected = reference.eta(naive_rows(case.design), float(state.w0), case.theta[0], case.theta[1:].T)
    np.testing.assert_allclose(eta[: len(expected)], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_factor_blocks_cover_all_factors(size: int) -> None:
    blocks = FactorBlocks(5, size)
    x = jnp.arange(6.0)[:, None] * jnp.ones(2)
    expected = reference.factor_blocks(5, size)
    assert blocks.number == len(expected)
    for i, own in enumerate(expected):
        np.testing.assert_array_equal(blocks.take(x, blocks.start(i))[:, 0], own)
        put = blocks.put(x, blocks.start(i), -jnp.ones((size + 1, 2)))
        np.testing.assert_array_equal(np.flatnonzero(put[:, 0] == -1), own)
    assert {f for own in expected for f in own} == set(range(6))


def test_sites_and_states_are_inverse() -> None:
    case = make_case("everything", 2)
    sites = to_sites(state_of(case), case.layout)
    assert sites.keys() == case.sites.keys()
    for name, x in case.sites.items():
        np.testing.assert_array_equal(sites[name], np.asarray(x, np.float32))


def whole_sweep(case: Case) -> ModelState:
    data = ModelData(
        on_device(case.layout), padded(case.z, case.layout), padded(np.sign(case.omega), case.layout)
    )

    def run(key: jax.Array) -> ModelState:
        start, now = jax.random.split(key)
        return sweep_module.sweep(now, initial_state(start, case.spec, data), case.spec, data, 2)

    return jax.jit(run, compiler_options=FAST_COMPILE)(quick(jax.random.key(0)))


def test_no_key_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's own check, over a whole sweep with units of every kind."""
    case = make_case("everything", 2)
    with jax.debug_key_reuse(True):
        state = whole_sweep(case)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))

    units_swept = sweep_module.sweep_units

    def swept_twice(key: jax.Array, *args: Any) -> Any:
        units_swept(key, *args)
        return units_swept(key, *args)

    monkeypatch.setattr(sweep_module, "sweep_units", swept_twice)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        whole_sweep(case)
