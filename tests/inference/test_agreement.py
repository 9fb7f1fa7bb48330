"""The agreement matrix: engines that know nothing of each other sample one posterior.

A new likelihood or prior adds a line to :data:`CASES`. Compared are the means and the variances of all identified
quantities (``diagnostics.identified``: w0, parameters of the likelihood, hyperparameters, lp, eta at the probe rows),
in units of their Monte Carlo standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.diagnostics import identified, labelled_draws
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.inference.nuts.run import nuts
from bayesfm.likelihoods import (
    BernoulliLogit,
    BernoulliProbit,
    BinomialLogit,
    Categorical,
    Gaussian,
    GroupwiseGaussian,
    Likelihood,
    NegativeBinomial,
    OrdinalLogit,
    OrdinalProbit,
    Poisson,
    StudentT,
)
from bayesfm.model import ModelSpec
from bayesfm.posterior import to_datatree
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, Intercept, NormalGamma
from tests import designs
from tests.likelihoods.reference import reference
from tests.statistics import assert_no_alarm, mcse, z_test

pytestmark = pytest.mark.usefixtures("full_optimisation")  # engines as users run them; long runs


class Case(NamedTuple):
    """A model and its data."""

    spec: ModelSpec
    design: Design
    y: np.ndarray
    row_data: dict[str, np.ndarray] = {}  # noqa: RUF012  never written to
    weight: np.ndarray | None = None

    def keywords(self) -> dict[str, Any]:
        """What engines and posteriors take by name."""
        return {"row_data": self.row_data, "weight": self.weight}


GIBBS = ChainOptions(num_warmup=500, num_samples=4000, num_chains=2, thin=2, progress=False)
NUTS = ChainOptions(num_warmup=300, num_samples=1000, num_chains=2, chain_method="vectorized", progress=False)


def small_ratings(n: int = 40) -> tuple[Design, np.ndarray]:
    """Few ratings, so that the priors matter."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 4, n), rng.integers(0, 3, n)
    design = Design([Block.field("user", user, range(4)), Block.field("item", item, range(3))])
    a, b = rng.normal(size=4), rng.normal(size=3)
    return design, 5 + a[user] + b[item] + a[user] * b[item] + 0.7 * rng.normal(size=n)


def gaussian() -> Case:
    """Normal noise, normal-gamma priors."""
    prior = NormalGamma(a0=6.0, b0=3.0, beta0=2.0, mu0=0.2)
    spec = ModelSpec(FM(2), Gaussian(4.0, 2.0), prior, prior, Intercept(mean=5.0, precision=0.5))
    return Case(spec, *small_ratings())


def relation_blocks() -> Case:
    """The same on a table, plain rows and a field."""
    design = designs.make("everything")
    return Case(gaussian().spec, design, np.random.default_rng(1).normal(5.0, 1.0, design.num_rows))


ROWS = {
    "trials": np.resize([1.0, 3.0, 2.0], 40),
    "exposure": np.resize([1.0, 0.5, 3.0], 40),
    "noise_group": np.resize([0.0, 2.0, 1.0], 40),
}
LIKELIHOODS: dict[str, Likelihood] = {
    "student-t": StudentT(a0=4.0, b0=2.0),
    "student-t, df given": StudentT(df=4.0, a0=4.0, b0=2.0),
    "groupwise": GroupwiseGaussian(num_groups=4, a0=4.0, b0=2.0),
    "probit": BernoulliProbit(),
    "logit": BernoulliLogit(),
    "binomial": BinomialLogit(),
    "ordinal": OrdinalProbit(num_classes=4, concentration=2.0),
    "negative binomial": NegativeBinomial(4.0, 1.0),
}


def with_likelihood(name: str) -> Case:
    """Ratings around zero as what the likelihood speaks of; some rows weigh more, or nothing."""
    likelihood = LIKELIHOODS[name]
    spec = replace(
        gaussian().spec,
        likelihood=likelihood,
        intercept=Intercept(mean=0.2, precision=1.0) if likelihood.identifies_intercept else None,
    )
    design, ratings = small_ratings()
    eta = 0.5 * (ratings - ratings.mean())
    rows = {key: ROWS[key] for key in likelihood.row_data}
    params = reference(likelihood).draw_params(np.random.default_rng(3), 1)
    y = reference(likelihood).draw(np.random.default_rng(4), eta[None], params, rows)[0]
    zero_one = isinstance(likelihood, BernoulliProbit | OrdinalProbit)
    weight = np.resize([1.0, 1.0, 0.0] if zero_one else [1.0, 0.5, 2.0, 0.0], 40)
    return Case(spec, design, y, rows, weight)


def classes() -> Case:
    """Three classes without order."""
    design, ratings = small_ratings()
    rng = np.random.default_rng(4)
    eta = np.column_stack([np.zeros(40), 0.5 * (ratings - ratings.mean()), rng.normal(size=40)])
    y = np.argmax(eta + rng.gumbel(size=eta.shape), axis=1) * 1.0
    spec = replace(gaussian().spec, likelihood=Categorical(3), intercept=Intercept(mean=0.2, precision=1.0))
    return Case(spec, design, y, weight=np.resize([1.0, 0.5, 2.0, 0.0], 40))


CASES: dict[str, Callable[[], Case]] = {
    "gaussian": gaussian,
    "categorical": classes,
    "relation blocks": relation_blocks,
    **{name: partial(with_likelihood, name) for name in LIKELIHOODS},
}
SLOW = set(CASES) - {"gaussian"}
"""Cases that ``make test`` leaves out: every case compiles two samplers."""


def tree_of(draws: Draws, case: Case) -> Any:
    """The posterior."""
    return to_datatree(draws, case.spec, case.design, case.y, **case.keywords())


def quantities(draws: Draws, case: Case) -> tuple[list[str], np.ndarray]:
    """Names, and draws of shape (chain, draw, quantity)."""
    return labelled_draws(identified(tree_of(draws, case)))


def agreement(a: Draws, b: Draws, case: Case) -> dict[str, float]:
    """p-values of "both have these means and variances"."""
    (names, x), (others, y) = quantities(a, case), quantities(b, case)
    assert names == others
    out = {}
    for moment, power in (("mean", 1), ("variance", 2)):
        centre = (x.mean(axis=(0, 1)) + y.mean(axis=(0, 1))) / 2 if power == 2 else 0.0
        x_moment, y_moment = ((z - centre) ** power for z in (x, y))
        difference = x_moment.mean(axis=(0, 1)) - y_moment.mean(axis=(0, 1))
        error = np.hypot(
            [mcse(z) for z in np.moveaxis(x_moment, -1, 0)], [mcse(z) for z in np.moveaxis(y_moment, -1, 0)]
        )
        p = z_test(difference, error)
        out |= {f"{moment} of {name}": float(value) for name, value in zip(names, p, strict=True)}
    return out


@lru_cache
def sampled(name: str, engine: str) -> Draws:
    """Draws of a case, once for all tests. Chains of NUTS are vectorised here, and sequential in its own tests."""
    case = CASES[name]()
    model = case.spec, case.design, case.y
    if engine == "gibbs":
        return gibbs(jax.random.key(1), *model, **case.keywords(), options=GIBBS)
    return nuts(
        jax.random.key(2),
        *model,
        **case.keywords(),
        options=NUTS,
        start=sampled(name, "gibbs"),
        parametrization=engine,
        target_accept=0.95,
    )


NAMES = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES]


@pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning")  # z-scores judge
@pytest.mark.parametrize("engine", ["non-centred", pytest.param("centred", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_engines_agree(name: str, engine: str) -> None:
    assert_no_alarm(agreement(sampled(name, "gibbs"), sampled(name, engine), CASES[name]()))


@pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning")
@pytest.mark.parametrize("name", NAMES)
def test_draws_of_all_engines_are_laid_out_alike(name: str) -> None:
    case = CASES[name]()
    by_gibbs, by_nuts = (sampled(name, engine) for engine in ("gibbs", "non-centred"))
    assert by_nuts.dims == by_gibbs.dims
    np.testing.assert_array_equal(by_nuts.probe_rows, by_gibbs.probe_rows)
    assert list(by_nuts.sites) == list(by_gibbs.sites)
    for site, x in by_gibbs.sites.items():
        assert by_nuts.sites[site].shape[2:] == x.shape[2:], site
        assert by_nuts.sites[site].dtype == x.dtype, site
    assert set(by_nuts.stats) > set(by_gibbs.stats)
    one, two = (tree_of(d, case)["posterior"].dataset.isel(draw=[0]) for d in (by_nuts, by_gibbs))
    assert list(one.data_vars) == list(two.data_vars)
    assert one.coords.to_dataset().equals(two.coords.to_dataset())
    assert all(one[site].dims == two[site].dims for site in two.data_vars)


POISSON = "poisson"


def without_gibbs(name: str) -> Case:
    """Two levels, a known prior of w, and no interactions: few enough unknowns for a grid."""
    rng = np.random.default_rng(5)
    level = np.resize([0, 1], 30)
    eta = np.where(level, 0.8, -0.4)
    design = Design([Block.field("level", level, range(2))])
    prior = Fixed(mean=0.2, precision=1.5)
    if name == POISSON:
        exposure = np.resize([1.0, 2.0, 0.5], 30)
        spec = ModelSpec(FM(0), Poisson(), prior, prior, Intercept(mean=0.1, precision=2.0))
        return Case(spec, design, rng.poisson(exposure * np.exp(eta)) * 1.0, {"exposure": exposure})
    y = np.digitize(eta + rng.logistic(size=30), [0.0]) * 1.0
    return Case(ModelSpec(FM(0), OrdinalLogit(2, 2.0), prior, prior, None), design, y)


def grid_means(case: Case) -> dict[str, np.ndarray]:
    """Posterior means and standard deviations of the unknowns (intercept or cut-point, two weights) by summation."""
    axis = np.linspace(-4.0, 4.0, 101)
    u = np.stack([g.ravel() for g in np.meshgrid(axis, axis, axis, indexing="ij")], axis=1)
    level, own = case.design.blocks[0].index, reference(case.spec.likelihood)
    prior, intercept = case.spec.prior_w, case.spec.intercept
    lp = stats.norm.logpdf(u[:, 1:], prior.mean, prior.precision**-0.5).sum(1)
    params = {}
    if intercept is None:
        params = {"cutpoints": u[:, :1]}
        lp = lp + own.log_prior(params)
    else:
        lp = lp + stats.norm.logpdf(u[:, 0], intercept.mean, intercept.precision**-0.5)
    for value in (0, 1):  # all rows of a level have one eta
        at = np.flatnonzero(level == value)
        eta = u[:, 1 + value] + (u[:, 0] if intercept is not None else 0.0)
        rows = {key: x[at] for key, x in case.row_data.items()}
        lp = lp + own.log_density(case.y[at], np.repeat(eta[:, None], len(at), 1), params, rows).sum(1)
    p = np.exp(lp - lp.max())
    p /= p.sum()
    assert p.reshape(101, 101, 101)[[0, -1]].sum() < 1e-6  # the grid holds all of it
    return {"mean": p @ u, "square": p @ u**2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning")
@pytest.mark.parametrize("name", [POISSON, "ordinal logit"])
def test_likelihoods_without_gibbs_agree_with_a_grid(name: str) -> None:
    case = without_gibbs(name)
    draws = nuts(
        jax.random.key(3),
        case.spec,
        case.design,
        case.y,
        row_data=case.row_data,
        options=NUTS,
        target_accept=0.95,
    )
    first = draws.sites["cutpoints"] if case.spec.intercept is None else draws.sites["w0"][..., None]
    x = np.concatenate([first, draws.sites["w"]], axis=-1).astype(float)
    expected = grid_means(case)
    p = {}
    for moment, power in (("mean", 1), ("square", 2)):
        for i in range(3):
            own = x[..., i] ** power
            p[f"{moment} [{i}]"] = float(z_test(own.mean() - expected[moment][i], mcse(own)))
    assert_no_alarm(p)
