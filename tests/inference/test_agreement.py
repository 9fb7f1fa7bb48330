"""The agreement matrix: engines that know nothing of each other sample one posterior.

A new likelihood or prior adds a line to :data:`CASES`. Compared are the means and the variances of all identified
quantities (``diagnostics.identified``: w0, parameters of the likelihood, hyperparameters, lp, eta at the probe rows),
in units of their Monte Carlo standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import numpy as np
import pytest

from bayesfm.design import Block, Design
from bayesfm.diagnostics import identified, labelled_draws
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.inference.nuts.run import nuts
from bayesfm.likelihoods import Gaussian
from bayesfm.model import ModelSpec
from bayesfm.posterior import to_datatree
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma
from tests import designs
from tests.statistics import assert_no_alarm, mcse, z_test

type Case = tuple[ModelSpec, Design, np.ndarray]

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
    return spec, *small_ratings()


def relation_blocks() -> Case:
    """The same on a table, plain rows and a field."""
    spec, _, _ = gaussian()
    design = designs.make("everything")
    return spec, design, np.random.default_rng(1).normal(5.0, 1.0, design.num_rows)


CASES: dict[str, Callable[[], Case]] = {"gaussian": gaussian, "relation blocks": relation_blocks}
SLOW = {"relation blocks"}
"""Cases that ``make test`` leaves out: every case compiles two samplers."""


def quantities(draws: Draws, case: Case) -> tuple[list[str], np.ndarray]:
    """Names, and draws of shape (chain, draw, quantity)."""
    return labelled_draws(identified(to_datatree(draws, *case)))


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
    if engine == "gibbs":
        return gibbs(jax.random.key(1), *case, options=GIBBS)
    return nuts(
        jax.random.key(2),
        *case,
        options=NUTS,
        start=sampled(name, "gibbs"),
        parametrization=engine,
        target_accept=0.95,
    )


NAMES = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES]


@pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning")  # z-scores judge
@pytest.mark.parametrize("engine", ["non-centred", "centred"])
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
    one, two = (to_datatree(d, *case)["posterior"].dataset.isel(draw=[0]) for d in (by_nuts, by_gibbs))
    assert list(one.data_vars) == list(two.data_vars)
    assert one.coords.to_dataset().equals(two.coords.to_dataset())
    assert all(one[site].dims == two[site].dims for site in two.data_vars)
