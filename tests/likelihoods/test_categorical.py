"""The softmax likelihood against NumPy: densities, priors per class, augmentations, what is refused."""

from __future__ import annotations

import json
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import log_softmax

from bayesfm.design.arrays import DesignArrays
from bayesfm.likelihoods import BernoulliLogit, Categorical
from bayesfm.likelihoods.base import Observed
from bayesfm.model import ModelSpec, log_joint, numpyro_model, site_dims
from bayesfm.predictors import FM
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    Intercept,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    Prior,
)
from tests import designs
from tests.design.strategies import naive_rows
from tests.priors import families
from tests.statistics import assert_no_alarm, named, z_test

C, N = 4, 12
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
EPS = np.finfo(np.float32).eps


def values(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """eta of shape (C - 1, N), and classes."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(0.0, 2.0, (C - 1, N))
    eta[:, 0] = [80.0, -90.0, 3.0]
    return eta, np.resize([0, 1, 2, 3], N)


def log_p(eta: np.ndarray) -> np.ndarray:
    """Log probabilities of all classes in the last axis."""
    return log_softmax(np.moveaxis(np.concatenate([np.zeros_like(eta[:1]), eta]), 0, -1), axis=-1)


def test_density_is_the_softmax() -> None:
    eta, y = values()
    of_y = Categorical(C).distribution(jnp.asarray(eta), {}, {})
    for c in range(C):
        np.testing.assert_allclose(
            of_y.log_prob(jnp.asarray(c)), log_p(eta)[:, c], rtol=16 * EPS, atol=16 * EPS
        )
    own = log_p(eta)[np.arange(N), y]
    np.testing.assert_allclose(of_y.log_prob(jnp.asarray(y)), own, rtol=16 * EPS, atol=16 * EPS)
    weight = np.resize([1.0, 0.0, 2.5], N)
    observed = Observed(*(jnp.asarray(x, jnp.float32) for x in (y, weight)), {})
    total = Categorical(C).log_likelihood(observed, jnp.asarray(eta, jnp.float32), {})
    np.testing.assert_allclose(total, weight @ own, rtol=64 * EPS)


def test_two_classes_are_the_logit() -> None:
    eta, y = values()
    one, two = (
        k.distribution(jnp.asarray(e), {}, {})
        for k, e in ((Categorical(2), eta[:1]), (BernoulliLogit(), eta[0]))
    )
    y = np.minimum(y, 1)
    np.testing.assert_allclose(
        one.log_prob(jnp.asarray(y)), two.log_prob(jnp.asarray(y)), rtol=16 * EPS, atol=16 * EPS
    )
    assert Categorical(2).expected_eta(y, None, {}) == pytest.approx(
        BernoulliLogit().expected_eta(y, None, {})
    )


def test_samples_have_the_probabilities() -> None:
    eta, _ = values(1)
    of_y = Categorical(C).distribution(jnp.asarray(eta), {}, {})
    y = np.asarray(of_y.sample(jax.random.key(0), (20_000,)))
    p = np.exp(log_p(eta))
    assert_no_alarm(
        {
            f"row {n}": float(stats.chisquare(np.bincount(y[:, n], minlength=C), 20_000 * p[n]).pvalue)
            for n in range(1, N)
        }
    )


PRIORS: dict[str, tuple[Prior, Prior]] = {
    "normal-gamma": (NormalGamma(a0=3.0, b0=2.0, mu0=0.3), NormalGamma(beta0=2.0)),
    "half-t, fixed": (HalfT(df=math.inf), Fixed(0.2, 3.0)),
    "horseshoe, multiplicative gamma": (Horseshoe(), MultiplicativeGamma()),
    "half-t, normal-Wishart": (HalfT(), NormalWishart()),
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[] if x == "half-t, fixed" else [pytest.mark.slow]) for x in PRIORS]
)
def test_every_class_has_a_prior_of_its_own(name: str) -> None:
    """The NumPyro model and ``log_joint`` against the priors in NumPy, class by class."""
    design = designs.make("everything")
    spec = ModelSpec(FM(2), Categorical(C), *PRIORS[name], Intercept(0.3, 2.0))
    arguments = spec, DesignArrays.from_design(design), jnp.asarray(design.groups), len(design.group_names)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(numpyro_model, jax.random.key(1))).get_trace(
        *arguments
    )
    sites = {x: trace[x]["value"] for x in site_dims(spec)}
    y = np.resize(np.arange(C), design.num_rows)
    y_float = jnp.asarray(y, jnp.float32)
    lp = 0.0
    eta = np.zeros((C - 1, design.num_rows))
    X = naive_rows(design)
    for c in range(C - 1):
        s = {x: np.asarray(v, np.float64)[[c]] for x, v in sites.items()}
        lp += stats.norm.logpdf(s["w0"], 0.3, 2.0**-0.5).sum()
        for prior, x in ((spec.prior_w, "w"), (spec.prior_v, "v")):
            hyper = {h: s[f"{h}_{x}"] for h in prior.hyper_names()}
            lp += families.log_density(prior, hyper, s[x], design.groups).sum()
        eta[c] = s["w0"] + s["w"] @ X.T + 0.5 * ((X @ s["v"][0]) ** 2 - X**2 @ s["v"][0] ** 2).sum(1)
    np.testing.assert_allclose(trace["eta"]["value"], eta, rtol=1e3 * EPS, atol=1e3 * EPS)
    likelihood = log_p(np.asarray(trace["eta"]["value"], np.float64))[np.arange(len(y)), y].sum()
    scale = {"rtol": 256 * EPS, "atol": 256 * EPS * (abs(lp) + abs(likelihood))}
    by_model = quickly(lambda x: log_density(numpyro_model, (*arguments, y_float), {}, x)[0])(sites)
    np.testing.assert_allclose(by_model, lp + likelihood, **scale)
    by_sites = quickly(lambda x: log_joint(spec, arguments[2], x, jnp.asarray(likelihood, jnp.float32)))(
        sites
    )
    np.testing.assert_allclose(by_sites, lp + likelihood, **scale)


def test_what_others_come_to() -> None:
    eta = values()[0][:, 1:]  # where no 1 - p is lost in rounding
    likelihood = Categorical(C)
    after = likelihood.others_after(jnp.asarray(eta))
    before = jnp.zeros(N - 1)
    for c in range(C - 1):
        others = likelihood.pooled(before, after[c])
        odds = log_p(eta)[:, c + 1] - np.log(-np.expm1(log_p(eta)[:, c + 1]))
        np.testing.assert_allclose(eta[c] - others, odds, rtol=64 * EPS, atol=64 * EPS)
        before = likelihood.pooled(before, jnp.asarray(eta[c]))


@pytest.mark.parametrize("c", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_augmentation_has_the_score_and_curvature_of_the_likelihood(c: int) -> None:
    """E s = d log p and Var s - E omega = d2 log p by eta_c, for s = omega (z - eta_c); see ``test_likelihoods``."""
    num = 10_000
    eta, y = values(2)
    eta[:, 0] = 0.1
    weight = np.resize([1.0, 0.0, 2.0, 0.4, 1.0], N)
    rest = np.delete(np.concatenate([np.zeros((1, N)), eta]), c + 1, axis=0)
    others = jnp.asarray(np.logaddexp.reduce(rest), jnp.float32)
    observed = Observed(*(jnp.asarray(x, jnp.float32) for x in (y, weight)), {})
    own = jnp.asarray(eta[c], jnp.float32)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return Categorical(C).augment_output(key, observed, jnp.asarray(c), own, others, {})

    omega, z = (
        np.asarray(x, float) for x in quickly(jax.vmap(draw))(jax.random.split(jax.random.key(c), num))
    )
    assert not omega[:, weight == 0].any()
    assert np.isfinite(z).all()
    seen = np.flatnonzero(weight)
    p = np.exp(log_p(eta)[seen, c + 1])
    score = (omega * (z - eta[c]))[:, seen]
    spread = (score - score.mean(0)) ** 2 - omega[:, seen]
    found = {}
    for name, x, expected in (
        ("score", score, weight[seen] * ((y[seen] == c + 1) - p)),
        ("curvature", spread, -weight[seen] * p * (1 - p)),
    ):
        found |= named(name, z_test(x.mean(0) - expected, x.std(0) / num**0.5))
    assert_no_alarm(found)


def test_sites_have_a_class_dimension() -> None:
    spec = ModelSpec(FM(2), Categorical(C))
    dims = site_dims(spec)
    assert dims["w0"] == ("class",)
    assert dims["v"] == ("class", "feature", "factor")
    assert dims["lambda_v"] == ("class", "group", "factor")
    assert spec.likelihood.coords["class"].tolist() == [1, 2, 3]
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            [0.0, 4.0],
            "Categorical(num_classes=4) needs y of 0, ..., 3, got 4: FMClassifier takes labels of any coding",
        ),
        ([0.0, 0.5], "needs y of 0, ..., 3, got 0.5"),
        ([0.0, -1.0], "needs y of 0, ..., 3, got -1"),
        ([0.0, np.nan], "needs y of 0, ..., 3, got nan"),
    ],
)
def test_other_responses_are_refused(y: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Categorical(C).validate(np.array(y))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        Categorical(1)
    assert Categorical.for_response(np.array([0.0, 4.0, 1.0])) == Categorical(5)


def test_likelihoods_of_one_linear_predictor_say_so() -> None:
    likelihood, x = BernoulliLogit(), jnp.zeros(2)
    with pytest.raises(NotImplementedError, match="BernoulliLogit has one linear predictor"):
        likelihood.others_after(jnp.zeros((1, 2)))
    with pytest.raises(NotImplementedError, match="BernoulliLogit has one linear predictor"):
        likelihood.pooled(x, x)
    with pytest.raises(NotImplementedError, match="BernoulliLogit has one linear predictor"):
        likelihood.augment_output(jax.random.key(0), Observed(x, x, {}), jnp.asarray(0), x, x, {})
