"""Modes by either optimiser, and the normals around them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density

from bayesfm import AscentOptions, ChainOptions, cavi, default_spec, find_map, gibbs, laplace, nuts
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.gradient import GradientArrays
from bayesfm.inference.draws import Draws
from bayesfm.inference.map.lbfgs import LBFGS
from bayesfm.inference.problem import prepare
from bayesfm.likelihoods import (
    BernoulliLogit,
    Categorical,
    Gaussian,
    Likelihood,
    OrdinalLogit,
    Poisson,
)
from bayesfm.likelihoods.base import Observed
from bayesfm.model import ModelSpec, numpyro_model
from bayesfm.priors import Fixed, HalfT, Horseshoe, MultiplicativeGamma, NormalWishart
from tests.inference.vi.test_cavi import CASES, one_field, ratings
from tests.statistics import assert_no_alarm, mcse, named, z_test

KEY = jax.random.key(0)
LONG = AscentOptions(max_iterations=2000, tolerance=1e-12, progress=False)
SHORT = AscentOptions(max_iterations=30, progress=False)


def problem(name: str = "gaussian", n: int = 150) -> tuple[ModelSpec, Any, np.ndarray]:
    design, eta = ratings(n)
    likelihood, draw = CASES[name]
    y = draw(eta, np.random.default_rng(1))
    return default_spec(y, 2, likelihood=likelihood), design, y


def slope(draws: Draws, spec: ModelSpec, design: Any, y: np.ndarray) -> dict[str, np.ndarray]:
    """Gradient of NumPyro's log density of the model by w0, w and v at a draw."""
    sites = {name: jax.numpy.asarray(x[0, 0]) for name, x in draws.sites.items() if name != "eta"}
    own = {name: sites[name] for name in ("w0", "w", "v") if name in sites}

    def height(own: dict[str, jax.Array]) -> jax.Array:
        args = spec, DesignArrays.from_design(design, np.float64), jax.numpy.asarray(design.groups)
        model = (*args, len(design.group_names), jax.numpy.asarray(y))
        return log_density(numpyro_model, model, {}, {**sites, **own})[0]

    return {name: np.asarray(x) for name, x in jax.jit(jax.grad(height))(own).items()}


@pytest.mark.parametrize(
    ("name", "optimiser"),
    [
        ("gaussian", "als"),
        pytest.param("gaussian", "lbfgs", marks=pytest.mark.slow),
        pytest.param("logit", "als", marks=pytest.mark.slow),
        ("ordinal", "lbfgs"),
    ],
)
def test_no_slope_is_left(name: str, optimiser: str) -> None:
    """By NumPyro's log density of the one model, which knows neither optimiser."""
    spec, design, y = problem(name)
    with jax.enable_x64():
        draws = find_map(KEY, spec, design, y, optimiser=optimiser, shrinkage=1.0, options=LONG)
        assert draws.sites["w"].shape == (1, 1, 14)
        for x, left in slope(draws, spec, design, y).items():
            assert np.max(np.abs(left)) < 1e-2 * len(y) ** 0.5, x


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        pytest.param("student-t", marks=pytest.mark.slow),
        "probit",
        "logit",
        "ordinal",
        pytest.param("negative binomial", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """What L-BFGS climbs, coordinate by coordinate, away from the mode; in float64, by central differences."""
    spec, design, y = problem(name)
    rng = np.random.default_rng(2)
    with jax.enable_x64():
        draws = find_map(KEY, spec, design, y, options=SHORT)
        sites = {x: jax.numpy.asarray(values[0, 0]) for x, values in draws.sites.items() if x != "eta"}
        moving = {x: sites[x] + 0.3 * rng.normal(size=sites[x].shape) for x in ("w0", "w", "v") if x in sites}
        prepared = prepare(spec, design, y, None, None)
        observed = Observed(*jax.tree.map(jax.numpy.asarray, (prepared.y, prepared.weight, prepared.rows)))
        arrays = GradientArrays.from_design(design, np.float64)
        climber = LBFGS(spec, arrays, observed, jax.numpy.asarray(design.groups), None)
        height = jax.jit(lambda own: climber.start({**sites, **own}).height)
        slopes = jax.grad(height)(moving)
        for x, value in moving.items():
            for at in np.ndindex(value.shape):
                ends = [height({**moving, x: value.at[at].add(h)}) for h in (1e-5, -1e-5)]
                found = float(ends[0] - ends[1]) / 2e-5
                np.testing.assert_allclose(slopes[x][at], found, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_draws_of_nuts_surround_the_mode() -> None:
    """Of a posterior that is normal they have the mode for their mean; of any other, none lies higher."""
    design, eta = ratings()
    y = eta + 0.3 * np.random.default_rng(1).normal(size=len(eta))
    known = {"prior_w": Fixed(precision=2.0), "prior_v": Fixed(precision=3.0)}
    noise = Gaussian(a0=1e6, b0=1e6 / 4.0)  # as good as known
    chains = ChainOptions(num_warmup=300, num_samples=500, num_chains=2, progress=False)
    p_values = {}
    for rank, likelihood, response in ((0, noise, y), (2, BernoulliLogit(), (y > 0) * 1.0)):
        spec = replace(default_spec(response, rank, likelihood=likelihood), **known)
        mode = find_map(KEY, spec, design, response, options=LONG, shrinkage=1.0)
        draws = nuts(KEY, spec, design, response, options=chains)
        if rank:
            assert np.all(draws.stats["lp"] < mode.stats["lp"][0, 0])
        else:
            for x in ("w0", "w", "eta"):
                away = draws.sites[x].mean(axis=(0, 1)) - mode.sites[x][0, 0]
                p_values |= named(x, z_test(away, mcse(draws.sites[x])))
    assert_no_alarm(p_values)


@pytest.mark.parametrize("name", ["gaussian", "probit", "student-t"])
def test_optimisers_agree(name: str) -> None:
    """From one start, with the same scales, to 1e-5 of the objective; least squares never go down."""
    spec, design, y = problem(name)
    with jax.enable_x64():
        ends = []
        for optimiser in ("als", "lbfgs"):
            draws = find_map(KEY, spec, design, y, optimiser=optimiser, options=LONG, start="mean-field")
            ends.append(draws.info["objective"][-1])
            rises = np.diff(draws.info["objective"])
            if optimiser == "als":
                assert np.all(rises >= -1e-9 * np.abs(ends[0]))
    np.testing.assert_allclose(*ends, rtol=1e-5)


@pytest.mark.parametrize(
    "likelihood",
    [
        pytest.param(Poisson(), marks=pytest.mark.slow),
        pytest.param(OrdinalLogit(num_classes=3), marks=pytest.mark.slow),
        Categorical(num_classes=3),
    ],
)
def test_likelihoods_without_a_bound(likelihood: Likelihood) -> None:
    """L-BFGS takes them; so does the Laplace approximation."""
    design, eta = ratings()
    y = np.digitize(eta, [-0.5, 0.5]) * 1.0
    spec = default_spec(y, 2, likelihood=likelihood)
    draws = laplace(KEY, spec, design, y, options=SHORT, num_samples=20)
    start, end = draws.info["objective"][0], draws.info["objective"][-1]
    assert end > start + 10
    assert draws.sites["v"].shape[:2] == (1, 20)
    assert all(np.all(np.isfinite(x)) for x in draws.sites.values())
    with pytest.raises(ValueError, match="has no bound for least squares"):
        find_map(KEY, spec, design, y, optimiser="als", options=SHORT)


@pytest.mark.parametrize(
    "prior",
    [
        HalfT(),
        pytest.param(MultiplicativeGamma(), marks=pytest.mark.slow),
        pytest.param(NormalWishart(), marks=pytest.mark.slow),
    ],
)
def test_every_prior(prior: Any) -> None:
    spec, design, y = problem()
    draws = find_map(KEY, replace(spec, prior_v=prior, prior_w=Horseshoe()), design, y, options=SHORT)
    assert np.mean((draws.sites["eta"][0, 0] - y[draws.probe_rows]) ** 2) < 0.5 * np.var(y)


def test_laplace_is_exact_where_the_posterior_is_a_product_of_normals() -> None:
    spec, design, y, code = one_field()
    with jax.enable_x64():
        draws = laplace(KEY, spec, design, y, options=LONG, num_samples=4000, sample_scales="point")
    precision = 2.0 + 4.0 * np.bincount(code)
    mean = (2.0 * 0.3 + 4.0 * np.bincount(code, weights=y)) / precision
    w = draws.sites["w"][0]
    assert np.all(np.abs(w.mean(axis=0) - mean) < 5 / np.sqrt(precision * 4000))
    np.testing.assert_allclose(w.var(axis=0), 1 / precision, rtol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(draws.stats["log_weight"].std(), 0.0, atol=1e-6)


def test_held_out_rows_choose_the_shrinkage() -> None:
    """And stop the ascent: no look has a better score than the one that is kept."""
    spec, design, y = problem(n=150)
    train, held = np.arange(100), np.arange(100, 150)
    draws = find_map(
        KEY, spec, design.take(train), y[train], options=SHORT, validation=(design.take(held), y[held])
    )
    scores = draws.info["shrinkage_scores"]
    assert len(scores) >= 2
    assert draws.info["shrinkage"] == float(max(scores, key=scores.__getitem__))
    assert max(draws.info["validation"].values()) == max(scores.values())
    fixed = find_map(KEY, spec, design.take(train), y[train], options=SHORT)
    assert fixed.info["shrinkage"] == 2.0


def test_given_scales_stay() -> None:
    spec, design, y = problem()
    G = len(design.group_names)
    given = {
        "mu_w": np.zeros(G),
        "lambda_w": np.full(G, 3.0),
        "mu_v": np.zeros((G, 2)),
        "lambda_v": np.full((G, 2), 5.0),
    }
    draws = find_map(KEY, spec, design, y, scales=given, options=SHORT)
    np.testing.assert_allclose(draws.sites["lambda_v"], 5.0)
    prior = find_map(KEY, spec, design, y, scales="prior", options=SHORT)
    np.testing.assert_allclose(prior.sites["lambda_w"], 1 / spec.prior_w.b0, rtol=1e-5)
    with pytest.raises(ValueError, match="scales must name the hyperparameters mu_w, lambda_w") as error:
        find_map(KEY, spec, design, y, scales={"lambda_w": 1.0, "sigma_w": 1.0}, options=SHORT)
    assert str(error.value).endswith("missing: lambda_v, mu_v, mu_w; unknown: sigma_w")


def test_nothing_is_estimated_where_all_is_known() -> None:
    """Scales held, and a likelihood without parameters; what precedes the climb leaves the mode where it is."""
    spec, design, y = problem("logit")
    fixed = replace(spec, prior_w=Fixed(precision=0.5), prior_v=Fixed(precision=2.0))
    held = find_map(KEY, spec, design, y, scales="prior", options=LONG)
    for own, scales in ((spec, "prior"), (fixed, "estimate")):
        draws = find_map(KEY, own, design, y, scales=scales, options=LONG)
        assert draws.info["seconds_for_scales"] == 0.0
        start = {name: held.sites[name][0, 0] for name in ("w0", "w", "v")}
        again = find_map(KEY, own, design, y, scales=scales, start="mean-field", options=LONG)
        assert again.info["seconds_for_scales"] > 0.0
        one = find_map(KEY, own, design, y, scales=scales, start=start, optimiser="lbfgs", options=LONG)
        best = max(d.info["objective"][-1] for d in (draws, again, one))
        np.testing.assert_allclose(draws.info["objective"][-1], best, rtol=1e-4)
    unknown = find_map(KEY, *problem(), scales="prior", options=SHORT)
    assert unknown.info["seconds_for_scales"] > 0.0  # alpha is


def test_a_start_of_ones_own() -> None:
    """The mode of one run is where another ends at once."""
    spec, design, y = problem()
    y = y + 100.0
    spec = default_spec(y, 2)
    first = find_map(KEY, spec, design, y, options=LONG)
    start = {name: first.sites[name][0, 0] for name in ("w0", "w", "v")}
    again = find_map(KEY, spec, design, y, options=SHORT, start=start)
    assert abs(first.sites["w0"][0, 0] - 100) < 5
    np.testing.assert_allclose(again.info["objective"][0], first.info["objective"][-1], rtol=1e-4)
    with pytest.raises(ValueError, match="start lacks the site"):
        find_map(KEY, spec, design, y, options=SHORT, start={"w": start["w"]})


def test_draws_have_more_than_the_mode() -> None:
    """Scales move with their conditionals unless they are asked to stay."""
    spec, design, y = problem()
    moving = laplace(KEY, spec, design, y, options=SHORT, num_samples=30)
    staying = laplace(KEY, spec, design, y, options=SHORT, num_samples=30, sample_scales="point")
    assert np.ptp(moving.sites["alpha"]) > 0
    assert np.ptp(staying.sites["alpha"]) == 0
    assert isinstance(spec.likelihood, Gaussian)
    mean_field = cavi(KEY, spec, design, y, options=SHORT, num_samples=30)
    assert mean_field.sites["eta"].std() > 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"optimiser": "newton"}, "optimiser"),
        ({"shrinkage": 0.0}, "shrinkage must be positive"),
        ({"shrinkage": "validation"}, "needs validation="),
        ({"scales": "mode"}, "scales"),
        ({"start": "zero"}, "start"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], match: str) -> None:
    spec, design, y = problem()
    with pytest.raises(ValueError, match=match):
        find_map(KEY, spec, design, y, options=AscentOptions(max_iterations=1, progress=False), **settings)


def test_gibbs_starts_at_a_mode() -> None:
    """The first draw has its fit, a random start a worse one; sites in the unit of y; what is missing is named."""
    spec, design, y = problem()
    y = y + 100.0
    spec = default_spec(y, 2)
    mode = find_map(KEY, spec, design, y, options=SHORT)
    options = ChainOptions(num_warmup=0, num_samples=1, num_chains=2, progress=False)
    at_random = gibbs(KEY, spec, design, y, options=options).stats["train_rmse"]
    given = {name: x[0, 0] for name, x in mode.sites.items()}
    at_mode = gibbs(KEY, spec, design, y, options=options, start=given).stats["train_rmse"]
    # A sweep that draws scales with the features integrated out goes some of the way at once.
    assert np.all(at_mode < 0.75 * at_random)
    normals = laplace(KEY, spec, design, y, options=SHORT, num_samples=5)
    assert np.all(gibbs(KEY, spec, design, y, options=options, start=normals).stats["train_rmse"] < at_random)
    with pytest.raises(ValueError, match=r"start lacks the site\(s\) .*alpha"):
        gibbs(KEY, spec, design, y, options=options, start={"w": given["w"]})
    with pytest.raises(ValueError, match="start"):
        gibbs(KEY, spec, design, y, options=options, start="mode")
