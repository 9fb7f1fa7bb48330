"""Hyperparameters drawn with a field's features integrated out: their density, and whole sweeps that rest on it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.design.layout import build_layout
from bayesfm.inference.conjugate import collapsed, units
from bayesfm.inference.conjugate.elimination import eliminate, known_of
from bayesfm.inference.conjugate.normal import pack
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.priors import HalfT, NormalGamma, Prior
from tests.inference.gibbs import joint
from tests.inference.gibbs.together import Choice, Together
from tests.statistics import alarms

PRIORS: dict[str, Prior] = {
    "normal-gamma": NormalGamma(a0=3.0, b0=2.0, beta0=1.5, mu0=0.3),
    "half-t": HalfT(scale=0.7, df=4.0, beta0=0.8, mu0=-0.2),
}


class Field:
    """Six features with rows of their own, in float64; what the data say of them, and the evidence by brute force."""

    rows_of = (1, 3, 0, 5, 2, 4)

    def __init__(self, rank: int) -> None:
        rng = np.random.default_rng(rank)
        self.code = np.repeat(np.arange(6), self.rows_of)
        n, self.K = len(self.code), rank + 1
        self.h = np.concatenate([np.ones((n, 1)), rng.normal(size=(n, rank))], axis=1)
        self.omega, self.z = rng.uniform(0.5, 2.0, n), rng.normal(size=n)
        self.theta = rng.normal(size=(self.K, 6))
        self.precision, self.mean = rng.uniform(0.5, 3.0, self.K), rng.normal(size=self.K)

    def packed(self) -> np.ndarray:
        """Information of every feature at the residual of theta."""
        r = self.z - np.sum(self.h * self.theta[:, self.code].T, axis=1)
        out = []
        for j in range(6):
            h, omega = self.h[self.code == j], self.omega[self.code == j]
            out.append(
                pack(jnp.asarray(h.T @ (omega[:, None] * h)), jnp.asarray(h.T @ (omega * r[self.code == j])))
            )
        return np.stack(out)

    def log_evidence(self, i: int, sigma: float, prior: Prior) -> float:
        """log p(z | sigma of parameter i) with all parameters and the mean of i integrated out, plus log p(sigma)."""
        variance, mean = 1 / self.precision, self.mean.copy()
        variance[i], mean[i] = sigma**2, prior.mu0  # type: ignore[attr-defined]
        same = self.code[:, None] == self.code[None]
        cov = np.diag(1 / self.omega) + same * (self.h @ np.diag(variance) @ self.h.T)
        cov = cov + sigma**2 / prior.beta0 * np.outer(self.h[:, i], self.h[:, i])  # type: ignore[attr-defined]
        log = stats.multivariate_normal.logpdf(self.z, self.h @ mean, cov)
        return float(log + prior.log_sigma_density(jnp.log(sigma)))


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_density_is_the_evidence(rank: int, name: str) -> None:
    """Of w and of every factor; value, slope and curvature."""
    prior, field = PRIORS[name], Field(rank)
    with jax.enable_x64():
        unit = build_layout(Design([Block.field("f", field.code, range(6))]), dtype=np.float64).units[0]
        place = np.asarray(unit.features)
        packed, theta = jnp.asarray(field.packed())[place], jnp.asarray(field.theta)[:, place]
        of_v = [jnp.broadcast_to(jnp.asarray(x)[1:, None], (rank, 6)) for x in (field.precision, field.mean)]
        of = lambda i: (jnp.full(6, field.precision[i]), jnp.full(6, field.mean[i]))  # noqa: E731
        for f in range(max(1, rank)):
            corner = eliminate(packed, theta, *of_v, jnp.asarray(f)).corner
            none = jnp.ones(6), jnp.zeros(6)
            check(prior, unit, field, 0, known_of(corner, None, of(1 + f) if rank else none))
            if rank:
                check(prior, unit, field, 1 + f, known_of(corner, of(0), None))


def check(prior: Prior, unit: Any, field: Field, i: int, known: tuple[jax.Array, jax.Array]) -> None:
    mu = jnp.asarray([0.4])
    hyper = {"mu": mu, "lambda": jnp.ones(1), "sigma": jnp.ones(1)}
    scales = prior.location_scale(hyper)
    target = collapsed._Target(scales, unit, known[0], known[1] - known[0] * mu, None, prior, native=False)
    grid = np.log(np.array([0.3, 0.8, 2.5]))
    start = jnp.asarray([0.1])
    here = target.look(start, start)
    expected = [field.log_evidence(i, float(np.exp(u)), prior) for u in (0.1, *grid)]
    for u, value in zip(grid, expected[1:], strict=True):
        seen = target.look(start, jnp.asarray([u]))
        rise = float((seen.rise + seen.rest - here.rest)[0])
        np.testing.assert_allclose(rise, value - expected[0], rtol=1e-9, atol=1e-9)
        by = 1e-3
        below, at, above = (field.log_evidence(i, float(np.exp(x)), prior) for x in (u - by, u, u + by))
        np.testing.assert_allclose(float(seen.gradient[0]), (above - below) / (2 * by), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            float(seen.curvature[0]), (above - 2 * at + below) / by**2, rtol=1e-3, atol=1e-3
        )


def test_compiled_sums_are_those_of_xla() -> None:
    """In float64."""
    rng = np.random.default_rng(0)
    design = Design([Block.field("f", rng.integers(0, 50, 99), range(50))])
    with jax.enable_x64():
        unit = jax.tree.map(jnp.asarray, build_layout(design, dtype=np.float64)).units[0]
        c, d = jnp.asarray(rng.gamma(0.5, 2.0, 50)), jnp.asarray(rng.normal(size=50))
        before, at = jnp.asarray([0.7]), jnp.asarray([1.9])
        by_xla, by_kernel = (
            collapsed.shrunk(unit, c, d, before, at, native=native) for native in (False, True)
        )
    for got, expected in zip(jax.tree.leaves(by_kernel), jax.tree.leaves(by_xla), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


# ---------------------------------------------------------- sweeps in which nothing else draws hyperparameters


def features_before_their_scales(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    """Features drawn given the old hyperparameters, with which the new ones have nothing to do."""
    drawn = collapsed.FieldPrior.drawn

    def changed(self: Any, key: Any, hyper: Any, corner: Any, f: Any) -> Any:
        new, right = drawn(self, key, hyper, corner, f)
        return new, either(drawn(self, None, hyper, corner, f)[1], right)

    patch.setattr(collapsed.FieldPrior, "drawn", changed)


def determinant_left_out(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    """Of the integral over the features: what is left of F where they are known to be zero is the determinant."""
    shrunk = collapsed.shrunk

    def changed(unit: Any, c: Any, d: Any, *rest: Any, **options: Any) -> Any:
        right = shrunk(unit, c, d, *rest, **options)
        alone = shrunk(unit, c, jnp.zeros_like(d), *rest, **options).F
        return right._replace(F=either(jax.tree.map(jnp.subtract, right.F, alone), right.F))

    patch.setattr(collapsed, "shrunk", changed)


def other_parameter_not_integrated(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    """What is known of w, as if the last factor were known to be at its mean of zero; and the reverse."""
    known_of = collapsed.known_of

    def changed(corner: Any, of_w: Any, of_f: Any) -> Any:
        right = known_of(corner, of_w, of_f)
        return either((corner.C_ww, corner.D_w) if of_w is None else (corner.C_ff, corner.D_f), right)

    patch.setattr(collapsed, "known_of", changed)


def own_contribution_missing(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    """What is left of w lacks a part of the present w times its information."""
    eliminate = units.eliminate

    def changed(packed: Any, theta: Any, *rest: Any) -> Any:
        right = eliminate(packed, theta, *rest)
        wrong = right.corner._replace(D_w=right.corner.D_w - 0.3 * right.corner.C_ww * theta[0])
        return right._replace(corner=either(wrong, right.corner))

    patch.setattr(units, "eliminate", changed)


def way_back_left_out(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    """The Metropolis step of the scales accepts everything."""
    step = collapsed.newton_step

    def changed(key: Any, look: Any, x: Any) -> Any:
        return step(
            key, lambda a, b: look(a, b)._replace(rise=either(look(a, b).rise + 50.0, look(a, b).rise)), x
        )

    patch.setattr(collapsed, "newton_step", changed)


BUGS = {
    "features before their scales": features_before_their_scales,
    "determinant left out": determinant_left_out,
    "the other parameter not integrated": other_parameter_not_integrated,
    "own contribution missing": own_contribution_missing,
    "every proposal accepted": way_back_left_out,
}
TOGETHER = Together(*BUGS.values())


@pytest.mark.parametrize("name", ["no bug", *BUGS])
def test_sweeps_without_other_draws_of_scales(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditional draws given the features would hide what is wrong here; they and rotations are left out."""
    problem = joint.problem("fields", rank=2, factor_block=2)
    monkeypatch.setattr(NormalGamma, "update", lambda self, key, hyper, features: hyper)
    monkeypatch.setattr(sweep_module, "rotate", lambda key, theta, *_: theta)
    overrides = TOGETHER.plant(monkeypatch, ["no bug", *BUGS].index(name))
    found = alarms(joint.p_values(problem, 20_000, 10, **overrides))
    assert bool(found) is (name != "no bug"), found
