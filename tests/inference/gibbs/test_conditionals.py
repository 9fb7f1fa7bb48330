"""Every draw of a sweep against the NumPyro model's log density along the variable that is drawn.

With random numbers replaced by constants a sweep is a function, and every step of it can be held against
``numpyro.infer.util.log_density`` at the values that the steps before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import integrate, stats

from bayesfm.design import Block, Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, RowsUnit, TableUnit, Unit
from bayesfm.inference.conjugate import elimination, normal, units
from bayesfm.inference.conjugate.elimination import Ends
from bayesfm.inference.conjugate.state import ModelData, from_sites, to_sites
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.likelihoods import Gaussian
from bayesfm.model import ModelSpec, numpyro_model
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma
from tests import designs
from tests.implied import random_numbers
from tests.inference.holding import hold_scales

FAST_COMPILE = {"xla_backend_optimization_level": 0}

SPEC = ModelSpec(
    predictor=FM(2),
    likelihood=Gaussian(a0=3.0, b0=2.0),
    prior_w=NormalGamma(a0=4.0, b0=3.0, beta0=0.5, mu0=0.3),
    prior_v=NormalGamma(a0=5.0, b0=2.0, beta0=2.0, mu0=-0.4),
    intercept=Intercept(mean=0.7, precision=0.6),
)

type Sites = dict[str, jax.Array]


@pytest.fixture(autouse=True)
def _x64() -> Iterator[None]:
    with jax.enable_x64():
        yield


class Noise(NamedTuple):
    """What stands for random numbers.

    A standard gamma of shape a is a^alpha_power for alpha, a^lambda_power for lambda: 1 is its mean, 0 a constant.
    Normals are ``normal``, those of theta zero but for coordinate ``coordinate`` of the feature of prior mean ``mean``.
    """

    alpha_power: float = 1.0
    lambda_power: float = 1.0
    normal: float = 0.0
    mean: float = np.inf
    coordinate: int = 0


class Case:
    """A design with data and a start, the log density, and a sweep as a function of start and noise."""

    def __init__(self, design: Design, y: np.ndarray, weight: np.ndarray) -> None:
        self.design, self.y, self.weight = design, y, weight
        self.start = start_of(design)

    @cached_property
    def log_density(self) -> Callable[[Sites], jax.Array]:
        arrays = DesignArrays.from_design(self.design, np.float64)
        groups, G = jnp.asarray(self.design.groups), len(self.design.group_names)
        data = {"y": jnp.asarray(self.y), "weight": jnp.asarray(self.weight)}
        return jax.jit(lambda sites: log_density(numpyro_model, (SPEC, arrays, groups, G), data, sites)[0])

    def sweep(self, noise: Noise) -> Sites:
        """One sweep, without the moves that follow the full conditionals (they have their own test)."""
        layout = jax.tree.map(jnp.asarray, build_layout(self.design, dtype=np.float64))
        y, weight = (jnp.pad(jnp.asarray(x), (0, layout.num_padded - len(x))) for x in (self.y, self.weight))
        data = ModelData(layout, y, weight)

        fields = [unit for unit in layout.units if isinstance(unit, FieldUnit)]

        def noise_of(theta: jax.Array, mean: jax.Array) -> jax.Array:
            one = (jnp.arange(len(theta)) == noise.coordinate)[:, None] * (jnp.abs(mean - noise.mean) < 1e-12)
            return one.astype(theta.dtype)

        def draw(packed: jax.Array, theta: jax.Array, *prior: jax.Array) -> jax.Array:
            return normal.draw(packed, theta, *prior[:2], noise_of(theta, prior[1][:1]))

        def substitute(L: jax.Array, known: Ends, last: jax.Array, like: jax.Array) -> jax.Array:
            mean = (
                self.start["mu_w"][fields[0].group][None]
                if len(fields) == 1
                else jnp.full_like(like[:1], jnp.inf)
            )
            return elimination.substitute(L, known, last, noise_of(like, mean))

        def gamma(a: jax.Array) -> jax.Array:
            return a ** (noise.alpha_power if a.ndim == 0 else noise.lambda_power)

        with pytest.MonkeyPatch.context() as patch, random_numbers(gamma, noise.normal):
            patch.setattr(units, "draw", draw)
            patch.setattr(units, "substitute", substitute)
            hold_scales(patch)
            patch.setattr(sweep_module, "rotate", lambda key, theta, *_: theta)
            for move in ("interweave", "rescale_eta", "invariant_moves"):
                patch.setattr(sweep_module, move, lambda key, state, *_: state)
            state = from_sites(self.start, SPEC, data)
            state = sweep_module.sweep(jax.random.key(0), state, SPEC, data, SPEC.predictor.rank)
        return {**to_sites(state, layout), "eta": state.eta[: len(self.y)]}

    @cached_property
    def swept(self) -> Callable[[list[Noise]], list[Sites]]:
        """One sweep for each noise, all in one program."""
        run = jax.jit(jax.vmap(self.sweep), compiler_options=FAST_COMPILE)

        def many(noises: list[Noise]) -> list[Sites]:
            out = run(Noise(*(jnp.asarray(x) for x in zip(*noises, strict=True))))
            return [{name: x[i] for name, x in out.items()} for i in range(len(noises))]

        return many


def start_of(design: Design) -> Sites:
    rng = np.random.default_rng(0)
    G, k = len(design.group_names), SPEC.predictor.rank
    w0, w, v = designs.random_parameters(rng, design.num_features, k)
    sites = {
        "alpha": 1.3,
        "w0": w0,
        "lambda_w": rng.uniform(0.5, 2, G),
        "mu_w": rng.normal(size=G),
        "lambda_v": rng.uniform(0.5, 2, (G, k)),
        "mu_v": rng.normal(size=(G, k)),
        "w": w,
        "v": v,
    }
    return {name: jnp.asarray(x, jnp.float64) for name, x in sites.items()}


def order_of(unit: Unit) -> list[int]:
    if isinstance(unit, FieldUnit):
        return unit.features.tolist()
    p = len(unit.features)
    return unit.features[
        [j for bucket in unit.steps for step in bucket.feature for j in step if j < p]
    ].tolist()


@lru_cache
def case_of(kind: str) -> Case:
    design = one_group_per_feature() if kind == "one group per feature" else designs.make(kind)
    y = np.random.default_rng(0).normal(size=design.num_rows)
    case = Case(design, y, np.resize([1.0, 2.0, 0.0, 0.5, 1.0], design.num_rows))
    assert case.log_density  # made here, not while something is traced that asks for it first
    return case


def one_group_per_feature() -> Design:
    """A table, a field and rows; every feature has its own prior mean, by which a draw recognizes it."""
    rng = np.random.default_rng(3)
    one_hot = np.eye(3)[rng.integers(0, 3, designs.N)]
    blocks = [
        Block.create("rows", designs.sparse_values(rng, designs.N, 3), groups=range(3)),
        Block.create("field", one_hot, groups=range(3)),
        Block.create("table", designs.sparse_values(rng, 4, 3), np.arange(designs.N) % 4, groups=range(3)),
    ]
    return Design(blocks)


@pytest.fixture
def case() -> Case:
    return case_of("one group per feature")


def test_the_units_are_of_all_kinds(case: Case) -> None:
    kinds = [type(unit) for unit in build_layout(case.design).units]
    assert kinds == [FieldUnit, TableUnit, RowsUnit]


def noises_of_theta(case: Case) -> list[Noise]:
    """Means first, then a unit noise in every coordinate of every feature."""
    means = np.asarray(case.start["mu_w"])[case.design.groups]
    return [Noise(), *(Noise(mean=mean, coordinate=d) for mean in means for d in range(SPEC.predictor.width))]


def test_alpha_given_the_start(case: Case) -> None:
    mean, inverse_rate = (float(s["alpha"]) for s in case.swept([Noise(), Noise(alpha_power=0.0)]))
    grid = np.array([0.3, 0.8, 1.5, 3.0])
    lp = [float(case.log_density({**case.start, "alpha": jnp.asarray(alpha)})) for alpha in grid]
    drawn = stats.gamma.logpdf(grid, mean / inverse_rate, scale=inverse_rate)
    np.testing.assert_allclose(np.diff(lp), np.diff(drawn), rtol=1e-9, atol=1e-9)


def test_w0_given_the_new_alpha(case: Case) -> None:
    mean, up = case.swept([Noise(), Noise(normal=1.0)])
    fixed = {**case.start, "alpha": mean["alpha"]}
    along = lambda w0: case.log_density({**fixed, "w0": w0})  # noqa: E731
    np.testing.assert_allclose(jax.grad(along)(mean["w0"]), 0.0, atol=1e-9)
    np.testing.assert_allclose(-jax.hessian(along)(mean["w0"]), (up["w0"] - mean["w0"]) ** -2, rtol=1e-9)


def theta_of(sites: Sites) -> jax.Array:
    return jnp.concatenate([sites["w"][None], sites["v"].T])


def test_theta_given_everything_drawn_before(case: Case) -> None:
    """Mean and covariance of every feature, of each kind of unit.

    In the first sweep all noises are zero; in each of the others one coordinate of one feature has a unit noise. What
    that moves the feature by is a column of a root of its covariance.
    """
    K, p = SPEC.predictor.width, case.design.num_features
    after, *moved = case.swept(noises_of_theta(case))
    centre = theta_of(after)
    root = np.stack([theta_of(s) - centre for s in moved]).reshape(p, K, K, p)
    fixed = {**case.start, "alpha": after["alpha"], "w0": after["w0"]}
    along = lambda theta: case.log_density({**fixed, "w": theta[0], "v": theta[1:].T})  # noqa: E731
    gradient, hessian = jax.jit(jax.grad(along)), jax.jit(jax.hessian(along))
    theta = theta_of(case.start)
    for unit in build_layout(case.design).units:
        for j in order_of(unit):
            theta = theta.at[:, j].set(centre[:, j])
            np.testing.assert_allclose(gradient(theta)[:, j], 0.0, atol=1e-8)
            covariance = root[j, :, :, j].T @ root[j, :, :, j]
            np.testing.assert_allclose(covariance, np.linalg.inv(-hessian(theta)[:, j, :, j]), rtol=1e-7)


@pytest.mark.parametrize("kind", ["one group per feature", "two fields"])
def test_hyperparameters_given_the_new_theta(kind: str) -> None:
    """lambda with mu integrated out numerically, then mu given lambda."""
    case = case_of(kind)
    after, rates = case.swept([Noise(), Noise(lambda_power=0.0)])
    sites = {name: x for name, x in after.items() if name != "eta"}
    np.testing.assert_array_equal(after["eta"], rates["eta"])  # the same up to the hyperparameters
    for x in ("w", "v"):
        rate = 1 / np.asarray(rates[f"lambda_{x}"])
        shape = np.asarray(after[f"lambda_{x}"]) * rate
        for i in np.ndindex(shape.shape):
            check_lambda(case, sites, x, i, shape[i], rate[i])
        mode = jax.grad(lambda mu, x=x: case.log_density({**sites, f"mu_{x}": mu}))(sites[f"mu_{x}"])
        np.testing.assert_allclose(mode, 0.0, atol=1e-8)


def check_lambda(case: Case, sites: Sites, x: str, i: tuple[int, ...], shape: float, rate: float) -> None:
    grid, nodes = np.array([0.4, 1.0, 2.5]), np.linspace(-12, 12, 1201)
    lam, mu = jnp.meshgrid(jnp.asarray(grid), jnp.asarray(nodes), indexing="ij")

    def along(lam: jax.Array, mu: jax.Array) -> jax.Array:
        changed = {
            f"lambda_{x}": sites[f"lambda_{x}"].at[i].set(lam),
            f"mu_{x}": sites[f"mu_{x}"].at[i].set(mu),
        }
        return case.log_density({**sites, **changed})

    lp = np.asarray(jax.vmap(jax.vmap(along))(lam, mu))
    # The integrand is a normal density in mu, for which the trapezoidal rule converges exponentially.
    integral = integrate.trapezoid(np.exp(lp - lp.max()), nodes, axis=1)
    drawn = stats.gamma.logpdf(grid, shape, scale=1 / rate)
    np.testing.assert_allclose(np.diff(np.log(integral)), np.diff(drawn), rtol=1e-7, atol=1e-8)


def test_sd_of_mu(case: Case) -> None:
    """A unit noise moves w0 and with it theta, but mu given theta is linear in the noise at any theta."""
    up, down = case.swept([Noise(normal=1.0), Noise(normal=-1.0)])
    for sites in (up, down):
        sites.pop("eta")
        for x in ("w", "v"):
            along = lambda mu, x=x, sites=sites: case.log_density({**sites, f"mu_{x}": mu})  # noqa: E731
            mu = sites[f"mu_{x}"]
            information = np.diag(-jax.hessian(along)(mu).reshape(mu.size, mu.size)).reshape(mu.shape)
            mode = mu + jax.grad(along)(mu) / information  # one Newton step: the log density is quadratic
            sign = 1.0 if sites is up else -1.0
            np.testing.assert_allclose(mu - mode, sign * information**-0.5, rtol=1e-9)


def test_eta_of_the_new_state(case: Case) -> None:
    (after,) = case.swept([Noise(normal=0.5)])
    arrays = DesignArrays.from_design(case.design, np.float64)
    eta = SPEC.predictor.eta(arrays, after["w0"], after["w"], after["v"])
    np.testing.assert_allclose(after["eta"], eta, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_a_row_of_weight_two_is_two_rows_and_of_weight_zero_none() -> None:
    design = designs.make("everything")
    rng = np.random.default_rng(0)
    y, count = rng.normal(size=design.num_rows), np.resize([1, 2, 0, 1, 3], design.num_rows)
    rows = np.repeat(np.arange(design.num_rows), count)
    cases = Case(design, y, count.astype(float)), Case(design.take(rows), y[rows], np.ones(len(rows)))
    weighted, repeated = (case.swept([Noise(normal=0.5)])[0] for case in cases)
    np.testing.assert_allclose(weighted.pop("eta")[rows], repeated.pop("eta"), rtol=1e-9, atol=1e-10)
    for name, x in repeated.items():
        np.testing.assert_allclose(weighted[name], x, rtol=1e-9, atol=1e-10, err_msg=name)
