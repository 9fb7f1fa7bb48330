"""Quantiles against the distribution function of the mixture over draws, by SciPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from bayesfm.design import Block, Design
from bayesfm.model import ModelSpec
from bayesfm.predictive import FittedModel
from bayesfm.predictors import FM
from bayesfm.quantiles import extreme_probs, predictive_quantiles
from tests.design.strategies import naive_rows
from tests.fitted import EPS, make_design, naive_eta, noise_sd, random_model


def test_quantiles_are_those_of_the_mixture() -> None:
    design = make_design(12)
    model = random_model(design, draws=70)
    probs = [1e-3, 0.05, 0.5, 0.95, 0.999]
    eta, sd = naive_eta(model, naive_rows(design)), noise_sd(model)
    got = predictive_quantiles(model, design, probs)
    for n in range(design.num_rows):
        for i, p in enumerate(probs):
            gap = lambda y, n=n, p=p: stats.norm.cdf(y, eta[:, n], sd[:, 0]).mean() - p  # noqa: E731
            exact = optimize.brentq(gap, -1e3, 1e3, xtol=1e-12)
            density = stats.norm.pdf(exact, eta[:, n], sd[:, 0]).mean()
            # A float32 distribution function near p is known to a few eps; y itself to a few eps of its size.
            assert abs(got[n, i] - exact) < 16 * EPS * p / density + 64 * EPS * abs(exact)


def test_quantiles_in_the_far_tails() -> None:
    design = make_design(3)
    model = random_model(design, draws=70)
    least, most = extreme_probs()
    eta, sd = naive_eta(model, naive_rows(design)), noise_sd(model)
    probs = [least, 1e-10, most]
    for p, got in zip(probs, predictive_quantiles(model, design, probs).T, strict=True):
        for n, y in enumerate(got):
            below = np.log(stats.norm.cdf(y, eta[:, n], sd[:, 0]).mean() / p)
            above = np.log(stats.norm.sf(y, eta[:, n], sd[:, 0]).mean() / (1 - p))
            # Below, rounding y by an eps changes log F by z^2 eps; above, F is known to a few eps, 1 - F is 64 eps.
            error, bound = (
                (below, 64 * EPS * stats.norm.ppf(p) ** 2) if p < 0.5 else (above, 16 * EPS / (1 - p))
            )
            assert abs(error) < bound


@pytest.mark.parametrize("probs", [[1e-300], [0.5, 1e-32], [1 - 1e-12], [1 - 1e-6]])
def test_probabilities_lost_in_rounding_are_refused(probs: list[float]) -> None:
    design = make_design(3)
    with pytest.raises(
        ValueError, match=r"probs must lie between 9.9e-32 and 1 - 7.6e-06: .* lost in rounding"
    ):
        predictive_quantiles(random_model(design), design, probs)


def test_quantiles_of_two_far_modes() -> None:
    """Newton steps from the middle of two peaks go astray; bisection has to bring them back."""
    design = Design([Block.field("user", [0], ["ann"])])
    eta = np.where(np.arange(100) < 30, -40.0, 60.0)[None]
    model = FittedModel(
        ModelSpec(FM(0)), design.groups, {"w0": eta, "alpha": np.ones_like(eta), "w": np.zeros((1, 100, 1))}
    )
    probs = [0.01, 0.15, 0.2999, 0.3001, 0.5, 0.99]
    exact = [stats.norm.ppf(p / 0.3) - 40 if p < 0.3 else stats.norm.ppf((p - 0.3) / 0.7) + 60 for p in probs]
    density = [0.3 * stats.norm.pdf(x + 40) + 0.7 * stats.norm.pdf(x - 60) for x in exact]
    bound = 16 * EPS / np.array(density) + 16 * EPS * 60
    assert np.all(np.abs(predictive_quantiles(model, design, probs)[0] - exact) < bound)


def test_draws_that_are_not_finite_have_no_quantile() -> None:
    design = make_design(2)
    model = random_model(design)
    sites = {**model.sites, "w0": np.full((2, 7), np.nan)}
    with pytest.raises(FloatingPointError, match="all draws finite"):
        predictive_quantiles(replace(model, sites=sites), design, [0.5])


@pytest.mark.parametrize("num_draws", [22, 38, 50])
def test_median_between_two_far_modes(num_draws: int) -> None:
    """Half of the draws at 0, half at 100: every point of the flat stretch between them is a median."""
    eta = np.where(np.arange(num_draws) % 2, 100.0, 0.0)
    sites = {"w0": eta, "w": np.zeros((num_draws, 1)), "alpha": np.full(num_draws, 100.0)}
    sites |= {
        "mu_w": np.zeros((num_draws, 1)),
        "lambda_w": np.ones((num_draws, 1)),
        "v": np.zeros((num_draws, 1, 0)),
    }
    model = FittedModel(
        ModelSpec(predictor=FM(0)), np.zeros(1, np.int32), {k: x[None] for k, x in sites.items()}
    )
    design = Design((Block.field("user", np.zeros(3, np.int32), np.array(["a"])),))
    median = predictive_quantiles(model, design, [0.5])[:, 0]
    assert np.all((median > 0.2) & (median < 99.8)), (
        median
    )  # noise sd 0.1: F is 0.5 to 2e-2 of one draw there
