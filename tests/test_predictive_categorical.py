"""Predictive probabilities of unordered classes against loops over draws in float64, and against themselves."""

from __future__ import annotations

from functools import lru_cache

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, logsumexp

from bayesfm import mixture
from bayesfm.design import Block, Design
from bayesfm.likelihoods import Categorical
from bayesfm.model import ModelSpec
from bayesfm.predictive import (
    FittedModel,
    expected_draws,
    log_likelihood,
    log_predictive_density,
    predictive_cdf,
    predictive_draws,
    predictive_moments,
    predictive_probabilities,
    probability_sds,
)
from bayesfm.predictors import FM
from bayesfm.quantiles import predictive_quantiles
from tests.design.strategies import naive_rows
from tests.fitted import CLOSE, make_design, random_sites
from tests.statistics import assert_no_alarm

C = 4


@lru_cache
def random_model(rank: int = 2) -> tuple[FittedModel, Design]:
    """Random draws: those of C - 1 models side by side."""
    design = make_design()
    many = [random_sites(design, rank, seed=c) for c in range(C - 1)]
    sites = {name: np.stack([s[name] for s in many], axis=2) for name in many[0] if name != "alpha"}
    sites["w0"] = sites["w0"] - 3.0
    return FittedModel(ModelSpec(FM(rank), Categorical(C)), design.groups, sites), design


def naive_log_p(model: FittedModel, design: Design) -> np.ndarray:
    """Log probabilities (draw, n, class), draw by draw and class by class."""
    X = naive_rows(design)
    sites = {name: np.concatenate(np.asarray(x, np.float64)) for name, x in model.sites.items()}
    out = np.zeros((model.num_draws, len(X), C))
    for draw in range(model.num_draws):
        for c in range(1, C):
            w, v = sites["w"][draw, c - 1], sites["v"][draw, c - 1]
            pairs = 0.5 * ((X @ v) ** 2 - X**2 @ v**2).sum(1)
            out[draw, :, c] = sites["w0"][draw, c - 1] + X @ w + pairs
    return log_softmax(out, axis=-1)


@pytest.mark.parametrize("rank", [0, 2])
def test_probabilities_are_those_of_a_loop(rank: int) -> None:
    model, design = random_model(rank)
    p = np.exp(naive_log_p(model, design))
    found = predictive_probabilities(model, design, range(C))
    np.testing.assert_allclose(found, p.mean(0), **CLOSE)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=64 * np.finfo(np.float32).eps)
    sds = probability_sds(model, design, range(C))
    np.testing.assert_allclose(sds, p.std(0), rtol=1e-3, atol=1e-3)  # a difference of squares in float32


def test_densities_are_those_of_a_loop() -> None:
    model, design = random_model()
    y = np.resize(np.arange(C), design.num_rows)
    own = naive_log_p(model, design)[:, np.arange(len(y)), y]
    weight = np.resize([1.0, 0.5, 0.0], len(y))
    found = log_likelihood(model, design, y.astype(float), weight)
    assert found.shape == (2, 7, len(y))
    np.testing.assert_allclose(np.concatenate(found), own * weight, **CLOSE)
    mean = logsumexp(own, axis=0) - np.log(len(own))
    np.testing.assert_allclose(log_predictive_density(model, design, y.astype(float)), mean, **CLOSE)


def test_draws_have_the_probabilities() -> None:
    model, design = random_model()
    design = design.take(np.resize(np.arange(3), 6000))
    y = np.concatenate(predictive_draws(jax.random.key(0), model, design))
    p = np.exp(naive_log_p(model, design.take(np.arange(3)))).mean(0)
    found = {}
    for n in range(3):
        # Of every draw as many: no more spread than independent classes of mean probability have.
        counts = np.bincount(y[:, n::3].astype(int).ravel(), minlength=C)
        z = (counts - counts.sum() * p[n]) / np.sqrt(counts.sum() * p[n] * (1 - p[n]))
        found |= {f"row {n}, class {c}": float(2 * stats.norm.sf(abs(z[c]))) for c in range(C)}
    assert_no_alarm(found)


def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, design = random_model()
    whole = predictive_probabilities(model, design, range(C))
    rows = [7, 7, 30, 2]
    np.testing.assert_allclose(
        predictive_probabilities(model, design.take(rows), range(C)), whole[rows], **CLOSE
    )
    assert [x.num_rows for x in mixture.Mixture(model, design, max_rows=30).pieces] == [
        10
    ] * 4  # of three numbers
    monkeypatch.setattr(mixture, "PIECE_BYTES", 1)
    monkeypatch.setattr(mixture.Mixture.__init__, "__defaults__", (None, 30))
    np.testing.assert_allclose(predictive_probabilities(model, design, range(C)), whole, **CLOSE)


def test_an_unseen_level_has_parameters_of_its_own_in_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of mean zero, precision one and no factors: w of the classes are independent standard normals."""
    design, num = Design([Block.field("user", [0], ["ann"])]), 4000
    zeros = {
        name: np.zeros((1, num, C - 1, *shape)) for name, shape in (("w0", ()), ("w", (1,)), ("mu_w", (1,)))
    }
    sites = {**zeros, "lambda_w": np.ones((1, num, C - 1, 1))}
    model = FittedModel(ModelSpec(FM(0), Categorical(C)), design.groups, sites)
    cold = Design([Block.field("user", [1], ["ann"], unseen=["zoe"])])
    logs = np.stack([log_likelihood(model, cold, np.array([float(c)]))[0, :, 0] for c in range(C)])
    w = logs[1:] - logs[0]
    p = {f"class {c + 1}": float(stats.kstest(w[c], "norm").pvalue) for c in range(C - 1)}
    p |= {f"correlation with {c}": float(stats.pearsonr(w[0], w[c]).pvalue) for c in (1, 2)}
    assert_no_alarm(p)
    monkeypatch.setattr(mixture, "MAX_DRAWS", 8)
    again = log_likelihood(model, cold, np.array([1.0]))[0, :, 0]
    np.testing.assert_allclose(again, logs[1], **CLOSE)  # whatever it is asked with


def test_what_unordered_classes_do_not_have_is_refused() -> None:
    model, design = random_model()
    y = np.zeros(design.num_rows)
    for ask in (predictive_moments, expected_draws):
        with pytest.raises(ValueError, match="have no mean and no variance: use predictive_probabilities"):
            ask(model, design)
    with pytest.raises(ValueError, match="no continuous distribution function"):
        predictive_quantiles(model, design, [0.5])
    with pytest.raises(ValueError, match="no continuous distribution function"):
        predictive_cdf(model, design, y)
    with pytest.raises(ValueError, match=r"site 'w' must have shape \(class=3, feature=13\)"):
        FittedModel(model.spec, design.groups, {"w": np.zeros((2, 7, 2, 13))})
