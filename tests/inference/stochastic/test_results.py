"""From what was learned to draws."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from bayesfm.inference.stochastic import results as results_module
from bayesfm.inference.stochastic.results import draws_of
from tests.inference.stochastic.problems import KEY, PROBLEMS, learner_of
from tests.statistics import assert_no_alarm, means_test, named

SITES = ("w0", "alpha", "w", "v", "eta")


def test_draws_are_from_the_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means and variances, and the log density of every draw; in several pieces."""
    monkeypatch.setattr(results_module, "NUMBERS_AT_ONCE", 7000)
    case = PROBLEMS["gaussian"]()
    learner = learner_of(case, "samples")
    draws = draws_of(KEY, learner, case.design, 1000, SITES, {}, None)
    features, w0 = learner.features(), np.asarray(learner.state.dense["w0"], float)
    mean = np.append(w0[0] + learner.centre, features.mean)
    sd = np.append(np.exp(w0[1]), features.sd)
    theta = np.concatenate([draws.sites["w"][0][..., None], draws.sites["v"][0]], axis=2).reshape(1000, -1)
    x = np.concatenate([draws.sites["w0"][0][:, None], theta], axis=1)
    np.testing.assert_allclose(draws.stats["log_q"][0], stats.norm.logpdf(x, mean, sd).sum(1), rtol=1e-4)
    z = (x - mean) / sd
    p = named("mean", means_test(z[:, None], 0.0)) | named("variance", means_test(z[:, None] ** 2, 1.0))
    assert_no_alarm(p)
    assert list(draws.sites) == list(SITES)
    assert draws.sites["alpha"].shape == (1, 1000)
    assert np.ptp(draws.sites["alpha"]) == 0


def test_a_point_is_its_only_draw() -> None:
    case = PROBLEMS["gaussian"]()
    learner = learner_of(case)
    one, other = (draws_of(key, learner, case.design, 1, SITES, {}, None) for key in jax.random.split(KEY))
    for name in SITES:
        np.testing.assert_array_equal(one.sites[name], other.sites[name])
    np.testing.assert_array_equal(one.sites["w"][0, 0], learner.features().mean[:, 0])
