"""At rank 0 a model is a generalised linear model: statsmodels' fits and standard errors.

The log density of the package is maximised under flat priors, its mode and curvature being those of the maximum
likelihood fit; under normal priors statsmodels' score at the mode is the pull of the prior. The samplers' means and
variances are those of the fit, with what theory says of their difference: see :func:`expected_mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from numpyro.infer.util import log_density
from scipy import optimize
from statsmodels.discrete.discrete_model import NegativeBinomialP
from statsmodels.miscmodels.ordinal_model import OrderedModel

from bayesfm.design import Block, Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.likelihoods import (
    BernoulliProbit,
    BinomialLogit,
    Likelihood,
    NegativeBinomial,
    OrdinalProbit,
    Poisson,
)
from bayesfm.model import ModelSpec, numpyro_model
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, Intercept
from tests.inference.gibbs.chains import data_of, draw_chains
from tests.inference.gibbs.joint import row_data
from tests.likelihoods.reference import reference
from tests.statistics import assert_no_alarm, means_test, named

N, P = 600, 3
FLAT = 1e-12
"""Prior precision: against a curvature of a hundred and more, less than rounding."""

FAST_COMPILE = {"xla_backend_optimization_level": 0}

type Vector = np.ndarray
"""Intercept where there is one, weights, and the parameters of the likelihood as statsmodels has them."""


@pytest.fixture(autouse=True)
def _x64() -> Iterator[None]:
    with jax.enable_x64():
        yield


def no_params(extra: Any) -> dict[str, Any]:
    return {}


def concentration(extra: Any) -> dict[str, Any]:
    """Statsmodels' alpha is one over it."""
    return {"concentration": 1.0 / extra[0]}


def cutpoints(extra: Any) -> dict[str, Any]:
    """The first one, and logarithms of the distances."""
    return {"cutpoints": jnp.cumsum(jnp.concatenate([extra[:1], jnp.exp(extra[1:])]))}


class Case(NamedTuple):
    """A likelihood, the same in statsmodels, and how its parameters are written there."""

    likelihood: Likelihood
    model: Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray]], Any]
    fit: dict[str, Any] = {}  # noqa: RUF012  never written to
    params_of: Callable[[Any], dict[str, Any]] = no_params
    params: dict[str, Any] = {}  # noqa: RUF012  those the data are drawn with


def binomial_model(y: np.ndarray, X: np.ndarray, rows: dict[str, np.ndarray]) -> Any:
    return sm.GLM(np.column_stack([y, rows["trials"] - y]), X, family=sm.families.Binomial())


def negative_binomial_model(y: np.ndarray, X: np.ndarray, rows: dict[str, np.ndarray]) -> Any:
    """That with any variance function; the one made for NB2 has an exposure wrong in statsmodels 0.15."""
    return NegativeBinomialP(y, X, p=2, exposure=rows["exposure"])


QUASI_NEWTON = {"method": "bfgs", "gtol": 1e-6, "maxiter": 500}
NEWTON = {"method": "newton", "tol": 1e-12, "maxiter": 100}
CASES: dict[str, Case] = {
    "probit": Case(BernoulliProbit(), lambda y, X, rows: sm.Probit(y, X), NEWTON),
    "binomial": Case(BinomialLogit(), binomial_model, {"tol": 1e-12}),
    "ordinal": Case(
        OrdinalProbit(num_classes=4, concentration=1.0),
        lambda y, X, rows: OrderedModel(y.astype(int), X, distr="probit"),
        QUASI_NEWTON,
        cutpoints,
        {"cutpoints": np.array([[-0.8, 0.1, 1.0]])},
    ),
    "negative binomial": Case(
        NegativeBinomial(2.0, 0.5),
        negative_binomial_model,
        QUASI_NEWTON,
        concentration,
        {"concentration": np.array([2.5])},
    ),
    "Poisson": Case(Poisson(), lambda y, X, rows: sm.Poisson(y, X, exposure=rows["exposure"]), NEWTON),
}


class Data(NamedTuple):
    """Rows, some of which count twice (not under probit, whose sampler knows 0 and 1 only), or not at all."""

    design: Design
    y: np.ndarray
    weight: np.ndarray
    rows: dict[str, np.ndarray]


def data_for(case: Case) -> Data:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P)) * (rng.random((N, P)) < 0.8)
    rows = row_data(case.likelihood, N)
    eta = (0.3 * case.likelihood.identifies_intercept + X @ [0.6, -0.4, 0.2])[None]
    y = reference(case.likelihood).draw(np.random.default_rng(1), eta, case.params, rows)[0]
    most = 1.0 if isinstance(case.likelihood, BernoulliProbit | OrdinalProbit) else 2.0
    return Data(Design([Block.create("x", X)]), y, np.resize([1.0, most, 1.0, 1.0, 0.0], N), rows)


def in_statsmodels(case: Case, data: Data) -> Any:
    """The model there, rows of weight two given twice."""
    X = data.design.blocks[0].X.toarray()
    if case.likelihood.identifies_intercept:
        X = sm.add_constant(X)
    times = data.weight.astype(int)
    rows = {name: np.repeat(x, times) for name, x in data.rows.items()}
    return case.model(np.repeat(data.y, times), np.repeat(X, times, axis=0), rows)


def spec_of(case: Case, mean: float = 0.0, precision: float = FLAT) -> ModelSpec:
    prior = Fixed(mean, precision)
    intercept = Intercept(mean, precision) if case.likelihood.identifies_intercept else None
    return ModelSpec(FM(0), case.likelihood, prior, prior, intercept)


class Density:
    """Log density of w0, w and the likelihood's parameters, in statsmodels' coordinates."""

    def __init__(self, case: Case, data: Data) -> None:
        self.case = case
        arrays = DesignArrays.from_design(data.design, np.float64)
        groups, G = jnp.asarray(data.design.groups), len(data.design.group_names)
        observed = {"y": jnp.asarray(data.y), "weight": jnp.asarray(data.weight)}
        observed["rows"] = {name: jnp.asarray(x) for name, x in data.rows.items()}

        def density(u: Any, spec: ModelSpec) -> Any:
            """That of the model, without the prior of the likelihood's parameters."""
            own = self.sites(u)
            joint = log_density(numpyro_model, (spec, arrays, groups, G), observed, own)[0]
            return joint - spec.likelihood.log_prior({name: own[name] for name in spec.likelihood.dims})

        def along(u: Any, direction: Any, spec: ModelSpec) -> Any:
            return jax.jvp(lambda u: jax.grad(density)(u, spec), (u,), (direction,))[1]

        self.value_and_gradient = jax.jit(jax.value_and_grad(density), compiler_options=FAST_COMPILE)
        self._along = jax.jit(along, compiler_options=FAST_COMPILE)

    @property
    def num_linear(self) -> int:
        """How many coordinates are w0 and w."""
        return P + self.case.likelihood.identifies_intercept

    def sites(self, u: Any) -> dict[str, Any]:
        w0 = {"w0": u[0]} if self.case.likelihood.identifies_intercept else {}
        linear = self.num_linear
        return {**w0, "w": u[linear - P : linear], **self.case.params_of(u[linear:])}

    def hessian(self, u: Vector, spec: ModelSpec) -> np.ndarray:
        return np.stack([np.asarray(self._along(u, one, spec)) for one in np.eye(len(u))])

    def mode(self, start: Vector, spec: ModelSpec) -> Vector:
        """By quasi-Newton from afar, by Newton's method in the end."""

        def falling(u: Vector) -> tuple[float, Vector]:
            value, gradient = self.value_and_gradient(u, spec)
            if not np.isfinite(value):  # a parameter below zero
                return np.inf, np.zeros_like(u)
            return -float(value), -np.asarray(gradient)

        u = optimize.minimize(falling, start, jac=True, method="BFGS").x
        for _ in range(3):
            u = u - np.linalg.solve(self.hessian(u, spec), self.value_and_gradient(u, spec)[1])
        return u


@lru_cache
def density_of(name: str) -> Density:
    return Density(CASES[name], data_for(CASES[name]))


@lru_cache
def model_and_fit(name: str) -> tuple[Any, Any]:
    model = in_statsmodels(CASES[name], data_for(CASES[name]))
    return model, model.fit(disp=False, **CASES[name].fit)


def start_of(case: Case, size: int) -> Vector:
    """Zero but for a positive parameter."""
    return np.concatenate([np.zeros(size - 1), [1.0]]) if case.params_of is concentration else np.zeros(size)


@pytest.mark.parametrize("name", CASES)
def test_mode_and_curvature_are_those_of_the_fit(name: str) -> None:
    """With flat priors, and without that of the likelihood's parameters."""
    density, (model, fit), flat = density_of(name), model_and_fit(name), spec_of(CASES[name])
    mode = density.mode(start_of(CASES[name], len(fit.params)), flat)
    # Quasi-Newton stops at gradients below 1e-6, per row in statsmodels: a step of this size is left.
    np.testing.assert_allclose(mode, fit.params, rtol=0, atol=1e-6 * N * fit.bse.max() ** 2)
    hessian = density.hessian(mode, flat)
    np.testing.assert_allclose(hessian, model.hessian(mode), rtol=0, atol=1e-6 * np.abs(hessian).max())
    value = float(density.value_and_gradient(mode, flat)[0])
    prior = 0.5 * density.num_linear * np.log(FLAT / (2 * np.pi))  # of w0 and w
    np.testing.assert_allclose(value - prior, fit.llf, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_score_at_the_mode_is_the_pull_of_the_prior(name: str) -> None:
    """Gradients of log likelihood and log prior cancel."""
    mean, precision = 0.5, 30.0
    density, (model, fit) = density_of(name), model_and_fit(name)
    mode = density.mode(start_of(CASES[name], len(fit.params)), spec_of(CASES[name], mean, precision))
    pull = np.where(np.arange(len(mode)) < density.num_linear, precision * (mode - mean), 0.0)
    np.testing.assert_allclose(model.score(mode), pull, rtol=0, atol=1e-9 * N)
    assert np.abs(pull).max() > 1


# ------------------------------------------------------------------------------------------- samplers


def expected_mean(density: Density, fit: Any, spec: ModelSpec) -> Vector:
    """Posterior mean in statsmodels' coordinates, of which the next term is smaller by a factor of n.

    With gradient g of the log prior and third derivatives l_jkm of the log likelihood at the fit, whose covariance is
    S, it is fit + S (g + [sum_km l_jkm S_km / 2]_j) (Tierney & Kadane 1986).
    """
    mle, S = np.asarray(fit.params), np.linalg.inv(-density.hessian(fit.params, spec))
    skew, h = np.zeros(len(mle)), 1e-4
    for j, one in enumerate(np.eye(len(mle))):
        third = (density.hessian(mle + h * one, spec) - density.hessian(mle - h * one, spec)) / (2 * h)
        skew[j] = 0.5 * np.sum(third * S)

    def log_prior(extra: Any) -> Any:
        """Of the likelihood's parameters, in these coordinates."""

        def params(extra: Any) -> Any:
            return jnp.concatenate([jnp.ravel(x) for x in density.case.params_of(extra).values()])

        log_det = jnp.linalg.slogdet(jax.jacobian(params)(extra))[1]
        return spec.likelihood.log_prior(density.case.params_of(extra)) + log_det

    gradient = np.zeros(len(mle))
    if density.case.likelihood.dims:
        gradient[density.num_linear :] = jax.grad(log_prior)(jnp.asarray(mle[density.num_linear :]))
    return mle + S @ (gradient + skew)


SAMPLED = ("probit", "binomial", "ordinal", "negative binomial")
QUICK = "probit"
"""Which compiles fastest."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != QUICK)) for name in SAMPLED]
)
def test_gibbs_has_the_mean_and_variance_of_the_fit(name: str) -> None:
    """Weights and the likelihood's parameters."""
    case, density, (_, fit) = CASES[name], density_of(name), model_and_fit(name)
    spec, data, expected = spec_of(case), data_for(case), expected_mean(density, fit, spec_of(case))
    with jax.enable_x64(False):
        own = data_of(data.design, data.y, data.weight)
        own = own._replace(rows={key: padded_like(x, own.y) for key, x in data.rows.items()})
        settings = {"num_chains": 100, "factor_block": 0, "num_warmup": 100, "num_draws": 100}
        draws = draw_chains(jax.random.key(0), spec, own, **settings)
    sites = {key: np.asarray(x, np.float64) for key, x in draws.items()}
    u = np.concatenate(
        [_columns(sites, key) for key in ("w0", "w") if key in density.sites(expected)], axis=-1
    )
    if case.likelihood.dims:
        u = np.concatenate([u, EXTRA[name](sites)], axis=-1)
    squares = (u - expected) ** 2
    assert_no_alarm(
        named("mean", means_test(u, expected))
        | named("variance", means_test(squares, np.asarray(fit.bse) ** 2))
    )


EXTRA: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "ordinal": lambda sites: np.concatenate(
        [sites["cutpoints"][..., :1], np.log(np.diff(sites["cutpoints"], axis=-1))], axis=-1
    ),
    "negative binomial": lambda sites: 1 / sites["concentration"][..., None],
}
"""Draws of the likelihood's parameters, as statsmodels has them."""


def _columns(sites: dict[str, np.ndarray], name: str) -> np.ndarray:
    return sites[name][..., None] if name == "w0" else sites[name]


def padded_like(x: np.ndarray, y: jax.Array) -> jax.Array:
    return jnp.pad(jnp.asarray(x, y.dtype), (0, len(y) - len(x)), constant_values=1.0)
