"""Models whose posterior is known otherwise."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.nuts.run import nuts
from bayesfm.likelihoods import Gaussian
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma
from tests import designs
from tests.design.strategies import naive_rows
from tests.statistics import assert_no_alarm, mcse, named, z_test

pytestmark = pytest.mark.usefixtures("full_optimisation")  # long runs

STRONG = 1e4
"""Prior degrees of freedom that hold a precision to 1.4 %: of second order in the posterior of (w0, w)."""


def test_rank_zero_is_bayesian_ridge() -> None:
    """Posterior mean and covariance of (w0, w), all precisions known, rows weighted."""
    alpha, precision_w, mean_w, intercept = 2.0, 1.5, 0.4, Intercept(mean=1.0, precision=0.5)
    spec = ModelSpec(
        predictor=FM(0),
        likelihood=Gaussian(STRONG, STRONG / alpha),
        prior_w=NormalGamma(STRONG, STRONG / precision_w, beta0=STRONG, mu0=mean_w),
        intercept=intercept,
    )
    design = designs.make("everything")
    y, weight = np.random.default_rng(0).normal(size=designs.N), np.resize([1.0, 2.0, 0.0], designs.N)
    options = ChainOptions(num_warmup=400, num_samples=2000, progress=False)
    draws = nuts(jax.random.key(0), spec, design, y, weight=weight, options=options)
    X = np.column_stack([np.ones(designs.N), naive_rows(design)])
    prior = np.diag([intercept.precision, *np.full(X.shape[1] - 1, precision_w)])
    P = prior + alpha * X.T @ (weight[:, None] * X)
    mean = np.linalg.solve(
        P, prior @ [intercept.mean, *np.full(X.shape[1] - 1, mean_w)] + alpha * X.T @ (weight * y)
    )
    error = np.concatenate([draws.sites["w0"][..., None], draws.sites["w"]], axis=-1) - mean
    i, j = np.tril_indices(len(mean))
    squares = error[..., i] * error[..., j] - np.linalg.inv(P)[i, j]
    assert_no_alarm(named("mean", zero_mean(error)) | named("covariance", zero_mean(squares)))


def zero_mean(draws: np.ndarray) -> np.ndarray:
    """p-values of "the mean is zero" for every quantity in the last axis."""
    errors = np.array([mcse(x) for x in np.moveaxis(draws, -1, 0)])
    return z_test(draws.mean(axis=(0, 1)), errors)
