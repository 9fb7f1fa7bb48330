"""Beliefs about the features of every kind of unit, against enumeration in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.design.layout import build_layout
from bayesfm.inference.conjugate.blocks import GroupPrior, UnitPrior
from bayesfm.inference.conjugate.curvature import block_covariances
from bayesfm.inference.conjugate.inverse import Gaussians, inverse
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.sweep_beliefs import eta_variance, sweep_beliefs
from bayesfm.predictors import FM
from bayesfm.predictors.spread import Spread, variance_of_rows
from tests.inference.conjugate.naive import bound, moments_of_eta

W0, RANK, N = 0.3, 2, 14
KERNELS = ", compiled"
K = RANK + 1
PRECISION, MEAN = np.array([1.0, 2.0, 3.0]), np.array([0.2, -0.1, 0.3])


def few_per_row(rng: np.random.Generator, m: int, p: int, most: int) -> sparse.csr_array:
    X = np.zeros((m, p))
    for row in X[1:]:  # the first row is empty
        here = rng.choice(p - 1, rng.integers(1, most + 1), replace=False)  # nobody has the last feature
        row[here] = rng.normal(size=len(here))
    return sparse.csr_array(X)


def designs(rng: np.random.Generator) -> dict[str, Design]:
    user = Block.field("user", rng.integers(0, 4, N), list("abcd"))
    item = Block.field("item", rng.integers(0, 3, N), list("xyz"))
    table = Block.create("table", few_per_row(rng, 5, 4, 2), rng.integers(0, 5, N))
    return {
        "fields": Design([user, item]),
        "rows": Design([Block.create("rows", few_per_row(rng, N, 5, 3))]),
        "field and table": Design([user, table]),
        "field and rows": Design([user, Block.create("rows", few_per_row(rng, N, 4, 2))]),
        "one field": Design([user]),
        "three fields": Design([user, item, Block.field("hour", rng.integers(0, 3, N), list("uvw"))]),
    }


class Case(NamedTuple):
    X: np.ndarray
    layout: Any
    beliefs: tuple[Gaussians, ...]
    priors: list[UnitPrior] | list[GroupPrior]
    omega: np.ndarray
    z: np.ndarray

    def naive(self, beliefs: tuple[Gaussians, ...]) -> tuple[np.ndarray, np.ndarray]:
        m, S = np.zeros((self.X.shape[1], K)), np.zeros((self.X.shape[1], K, K))
        for unit, belief in zip(self.layout.units, beliefs, strict=True):
            m[np.asarray(unit.features)] = np.asarray(belief.mean).T
            S[np.asarray(unit.features)] = np.moveaxis(np.asarray(belief.cov), -1, 0)
        return m, S

    def bound(self, m: np.ndarray, S: np.ndarray) -> float:
        return bound(self.X, W0, m, S, self.omega, self.z, PRECISION, MEAN)

    def residual(self, beliefs: tuple[Gaussians, ...]) -> jax.Array:
        z = jnp.pad(jnp.asarray(self.z), (0, self.layout.num_padded - N))
        theta = tuple(b.mean for b in beliefs)
        return z - linear_predictor(FM(RANK), self.layout, jnp.asarray(W0), theta)

    def sweep(self, beliefs: tuple[Gaussians, ...]) -> tuple[tuple[Gaussians, ...], jax.Array]:
        omega = jnp.pad(jnp.asarray(self.omega), (0, self.layout.num_padded - N))
        return sweep_beliefs(FM(RANK), self.layout, beliefs, self.priors, omega, self.residual(beliefs))


def case(name: str, tile: int) -> Case:
    rng = np.random.default_rng(1)
    kernels = name.endswith(KERNELS)
    design = designs(rng)[name.removesuffix(KERNELS)]
    layout = jax.device_put(build_layout(design, dtype=np.float64, tile=tile, native=kernels))
    p = design.num_features
    m, A = rng.normal(size=(p, K)), 0.4 * rng.normal(size=(p, K, K))
    S = A @ A.transpose(0, 2, 1) + 0.05 * np.eye(K)
    beliefs, priors = [], []
    for unit in layout.units:
        j = np.asarray(unit.features)
        log_det = jnp.asarray(np.linalg.slogdet(S[j])[1])
        beliefs.append(Gaussians(jnp.asarray(m[j].T), jnp.asarray(np.moveaxis(S[j], 0, -1)), log_det))
        ones = np.ones((1, len(j)))
        of_unit = UnitPrior(jnp.asarray(PRECISION[:, None] * ones), jnp.asarray(MEAN[:, None] * ones))
        each = jnp.arange(len(j), dtype=jnp.int32)
        priors.append(GroupPrior(*of_unit, each) if kernels else of_unit)
    return Case(
        design.to_csr().toarray(), layout, tuple(beliefs), priors, rng.gamma(2.0, 1.0, N), rng.normal(size=N)
    )


KINDS = ("fields", "rows", "field and table", "field and rows")
if native.available():
    KINDS += ("fields" + KERNELS, "one field" + KERNELS, "three fields" + KERNELS)


@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_eta(kind: str) -> None:
    with jax.enable_x64():
        now = case(kind, tile=5)
        mean, variance = moments_of_eta(now.X, W0, *now.naive(now.beliefs))
        np.testing.assert_allclose(
            now.z - np.asarray(now.residual(now.beliefs))[:N], mean, rtol=1e-10, atol=1e-12
        )
        got = np.asarray(jax.jit(eta_variance)(FM(RANK), now.layout, now.beliefs))[:N]
        np.testing.assert_allclose(got, variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sweeps_climb_to_a_stationary_point(kind: str) -> None:
    """The naive bound never falls, and where it stops, none of its derivatives is left."""
    with jax.enable_x64():
        now = case(kind, tile=1 << 17)
        sweep, beliefs = jax.jit(now.sweep), now.beliefs
        heights = [now.bound(*now.naive(beliefs))]
        for number in range(400):
            beliefs, r = sweep(beliefs)
            if number < 4 or number == 399:
                m, S = now.naive(beliefs)
                heights.append(now.bound(m, S))
                np.testing.assert_allclose(
                    np.asarray(r)[:N], np.asarray(now.residual(beliefs))[:N], atol=1e-12
                )
                log_det = sum(float(jnp.sum(b.log_det)) for b in beliefs)
                np.testing.assert_allclose(log_det, np.linalg.slogdet(S)[1].sum(), rtol=1e-9)
    assert np.all(np.diff(heights) >= -1e-9)
    rng, steepest = np.random.default_rng(2), 0.0
    for j in range(len(m)):
        along, turn = rng.normal(size=K), rng.normal(size=(K, K))
        for h, of_mean in ((1e-4, True), (1e-5, False)):
            ends = []
            for sign in (h, -h):
                moved, wider = m.copy(), S.copy()
                if of_mean:
                    moved[j] += sign * along
                else:
                    wider[j] += sign * (turn + turn.T)
                ends.append(now.bound(moved, wider))
            steepest = max(steepest, abs(ends[0] - ends[1]) / (2 * h))
    assert steepest < 2e-4  # differences of a function with 14 digits, over 1e-5, and what 400 sweeps left


@pytest.mark.parametrize("kind", KINDS)
def test_block_covariances_are_inverse_hessians(kind: str) -> None:
    """Of every feature's block of the log posterior, by automatic differentiation of the naive eta."""
    with jax.enable_x64():
        now = case(kind, tile=1 << 17)
        omega = jnp.pad(jnp.asarray(now.omega), (0, now.layout.num_padded - N))
        theta = tuple(b.mean for b in now.beliefs)
        got = jax.jit(block_covariances)(FM(RANK), now.layout, theta, now.priors, omega)
        m, S = now.naive(got)

        def depth(own: jax.Array, j: int) -> jax.Array:
            # Linear in theta_j, so that the curvature of the rows is omega alone.
            t = jnp.asarray(m).at[j].set(own)
            xv = jnp.asarray(now.X) @ t[:, 1:]
            pairs = 0.5 * jnp.sum(xv**2 - jnp.asarray(now.X) ** 2 @ t[:, 1:] ** 2, axis=1)
            eta = W0 + jnp.asarray(now.X) @ t[:, 0] + pairs
            return 0.5 * jnp.sum(jnp.asarray(now.omega) * eta**2) + 0.5 * jnp.sum(PRECISION * own**2)

        hessian_of = jax.jit(jax.hessian(depth))
        for j in range(len(m)):
            hessian = hessian_of(jnp.asarray(m[j]), j)
            np.testing.assert_allclose(S[j] @ np.asarray(hessian), np.eye(K), atol=1e-9)


@pytest.mark.parametrize(("K", "J"), [(1, 7), (3, 7), (20, 7), (20, 300)])
def test_inverse(K: int, J: int) -> None:
    """Few and small at once, many large ones a few at a time."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(J, K, 2 * K))
    P = A @ A.transpose(0, 2, 1)
    with jax.enable_x64():
        cov, log_det = inverse(jnp.moveaxis(jnp.asarray(P), 0, -1), jnp.full((K, J), 1e-12))
    np.testing.assert_allclose(np.moveaxis(np.asarray(cov), -1, 0), np.linalg.inv(P), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(log_det, -np.linalg.slogdet(P)[1], rtol=1e-10)


def test_spreads_of_disjoint_sets_are_added() -> None:
    """Packed, unpacked, and added up they say what the features together do; rank 0 has nothing but a."""
    rng = np.random.default_rng(0)
    with jax.enable_x64():
        for k in (0, 2):
            m, A = rng.normal(size=(k + 1, 3)), rng.normal(size=(k + 1, k + 1, 3))
            S = np.einsum("abm,cbm->acm", A, A)
            spread = Spread.of_features(jnp.asarray(m), jnp.asarray(S), jnp.asarray([1.0, -2.0, 0.5]))
            packed = spread.packed()
            assert packed.shape == (k * (k + 1) // 2 + k + 2, 3)
            again = Spread.unpack(packed, k)
            for name in Spread._fields:
                np.testing.assert_array_equal(getattr(again, name), getattr(spread, name))
            x = np.array([[1.0, -2.0, 0.5]])
            _, variance = moments_of_eta(x, 0.0, m.T, np.moveaxis(S, -1, 0))
            whole, here = jnp.sum(packed, axis=1, keepdims=True), jnp.zeros(1, jnp.int32)
            got = variance_of_rows(k, jnp.asarray(m[1:] @ x[0])[:, None], [whole], [here])
            np.testing.assert_allclose(got, variance, rtol=1e-10)
