"""eta is cached in float32: how far it is from a computation in float64, after one sweep and after many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import lax

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.design.layout import build_layout
from bayesfm.inference.conjugate.state import ModelData, ModelState, initial_state, to_sites
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.model import ModelSpec, default_spec
from tests.inference.gibbs.chains import data_of
from tests.keys import quick

pytestmark = pytest.mark.usefixtures(
    "full_optimisation"
)  # how rounding errors grow is asked of what users run

EPS = np.finfo(np.float32).eps
RANK = 3
SWEEPS = (1, 10, 50)
FEATURES = 4
"""Features of a row."""

OPERATIONS = 2 * (FEATURES + 1) * 4 * (1 + RANK)
"""Roundings: w0 and each feature enter eta and its two updates with a product and a sum per factor, twice over."""


class Ratings(NamedTuple):
    """Ratings of two fields, the users with two numbers each in a relation block."""

    user: np.ndarray
    item: np.ndarray
    numbers: np.ndarray
    y: np.ndarray

    @property
    def design(self) -> Design:
        blocks = [
            Block.field("user", self.user, range(self.user.max() + 1)),
            Block.field("item", self.item, range(self.item.max() + 1)),
            Block.create("numbers", self.numbers, self.user),
        ]
        return Design(blocks)

    def terms(self, sites: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each feature of a row: x w (n,) and x v (n, k), in float64."""
        m, p = self.user.max() + 1, self.item.max() + 1
        columns = [(self.user, 1.0), (m + self.item, 1.0)]
        columns += [(np.full(len(self.user), m + p + j), self.numbers[self.user, j]) for j in range(2)]
        w, v = sites["w"].astype(np.float64), sites["v"].astype(np.float64)
        return [(w[j] * x, v[j] * np.reshape(x, (-1, 1))) for j, x in columns]

    def eta(self, sites: dict[str, np.ndarray]) -> np.ndarray:
        terms = self.terms(sites)
        q = sum(v for _, v in terms)
        pairs = 0.5 * ((q**2).sum(1) - sum((v**2).sum(1) for _, v in terms))
        return float(sites["w0"]) + sum(w for w, _ in terms) + pairs

    def magnitude(self, sites: dict[str, np.ndarray]) -> np.ndarray:
        """Sum of the absolute values of all terms of eta, and |y|."""
        terms = self.terms(sites)
        pairs = (sum(np.abs(v) for _, v in terms) ** 2).sum(1)
        return abs(float(sites["w0"])) + sum(np.abs(w) for w, _ in terms) + pairs + np.abs(self.y)


def ratings(n: int) -> Ratings:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 2000, n), np.minimum(rng.geometric(0.005, n) - 1, 999)
    user[:2000], item[:1000] = np.arange(2000), np.arange(1000)
    y = rng.normal(size=2000)[user] + rng.normal(size=1000)[item] + rng.normal(size=n)
    numbers = rng.normal(size=(2000, 2)).astype(np.float32).astype(np.float64)  # as the sampler gets them
    y = (y - y.mean()).astype(np.float32).astype(np.float64)
    return Ratings(user, item, numbers, y)


def on_host(state: ModelState, data: ModelData) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in to_sites(state, data.layout).items()}


@partial(jax.jit, static_argnames="transition", compiler_options={"xla_backend_optimization_level": 1})
def run(
    key: jax.Array,
    state: ModelState,
    spec: ModelSpec,
    data: ModelData,
    sweeps: tuple[int, int],
    transition: Callable,
) -> ModelState:
    def body(t: jax.Array, state: ModelState) -> ModelState:
        return transition(jax.random.fold_in(key, t), state, spec, data, RANK)

    return lax.fori_loop(*sweeps, body, state)


def errors_after(
    rows: Ratings, transition: Callable, use_native: bool = False
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Error of the cached eta, and magnitude of its terms, of every row after some numbers of sweeps."""
    layout = build_layout(rows.design, native=use_native)
    spec, data = default_spec(rows.y, rank=RANK), data_of(rows.design, rows.y, layout=layout)
    state, done, out = initial_state(quick(jax.random.key(0)), spec, data), 0, {}
    # Start at a true cache, for a transition that relies on it.
    eta = jax.jit(sweep_module.linear_predictor)(spec.predictor, data.layout, state.w0, state.theta)
    state = state._replace(eta=eta)
    for sweeps in SWEEPS:
        state = run(quick(jax.random.key(1)), state, spec, data, (done, sweeps), transition)
        sites = on_host(state, data)
        error = np.asarray(state.eta, np.float64)[: len(rows.y)] - rows.eta(sites)
        out[sweeps], done = (error, rows.magnitude(sites)), sweeps
    return out


def growth(errors: dict[int, tuple[np.ndarray, np.ndarray]]) -> float:
    """From the second to the last number of sweeps: ratio of root mean square errors relative to the magnitude."""
    last, second = (np.sqrt(np.mean((e / m) ** 2)) for e, m in (errors[SWEEPS[2]], errors[SWEEPS[1]]))
    return float(last / second)


NO_GROWTH = (SWEEPS[2] / SWEEPS[1]) ** 0.25
"""Half way, in logarithms, between no growth and the sqrt(sweeps) of roundings that pile up in a random walk."""


NEEDS_KERNELS = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")


@pytest.mark.parametrize(
    "use_native", [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=NEEDS_KERNELS)]
)
def test_the_error_of_eta_stays_at_rounding(use_native: bool) -> None:
    errors = errors_after(ratings(1_000_000), lambda *args: sweep_module.sweep(*args), use_native)
    for error, magnitude in errors.values():
        assert np.max(np.abs(error) / magnitude) < OPERATIONS * EPS
    assert growth(errors) < NO_GROWTH


@pytest.mark.slow
def test_without_a_refresh_the_error_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: eta carried from sweep to sweep."""
    carried: list[jax.Array] = []

    def transition(key: jax.Array, state: ModelState, *args: Any) -> ModelState:
        carried.append(state.eta)
        return sweep_module.sweep(key, state, *args)

    linear_predictor = sweep_module.linear_predictor
    monkeypatch.setattr(
        sweep_module, "linear_predictor", lambda *args: carried[-1] if carried else linear_predictor(*args)
    )
    assert growth(errors_after(ratings(100_000), transition)) > NO_GROWTH


@pytest.mark.parametrize("max_fields", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_the_residual_after_the_units(max_fields: int) -> None:
    """r = z - eta at the new theta, from units of all kinds."""
    rows = ratings(50_000)
    spec = default_spec(rows.y, rank=RANK)
    data = data_of(rows.design, rows.y, layout=build_layout(rows.design, max_fields=max_fields))
    state = initial_state(quick(jax.random.key(1)), spec, data)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def units(state: ModelState) -> Any:
        eta = sweep_module.linear_predictor(spec.predictor, data.layout, state.w0, state.theta)
        args = (quick(jax.random.key(2)), state, spec, data.layout, data.weight, data.y - eta, RANK)
        return sweep_module.sweep_units(*args)

    theta, _, r = units(state)
    before, after = on_host(state, data), on_host(state._replace(theta=theta), data)
    error = np.asarray(r, np.float64)[: len(rows.y)] - (rows.y - rows.eta(after))
    largest = {name: np.maximum(np.abs(before[name]), np.abs(after[name])) for name in after}
    assert np.max(np.abs(error) / rows.magnitude(largest)) < OPERATIONS * EPS
