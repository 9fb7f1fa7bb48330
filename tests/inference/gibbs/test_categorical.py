"""Runs with several linear predictors: against logistic regression, under another coding, stopped and resumed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bayesfm.design import Block, Design, design_from_matrix
from bayesfm.inference import chains
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs, gibbs_kernel
from bayesfm.likelihoods import BernoulliLogit, Categorical
from bayesfm.model import ModelSpec
from bayesfm.posterior import restore, to_datatree
from bayesfm.posterior_files import load, save
from bayesfm.predictive import predictive_probabilities
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, Intercept
from tests.statistics import assert_no_alarm, mcse, named, z_test

C, N, P = 3, 2000, 3
WEAK = 1e-2
"""Prior precision."""
OPTIONS = ChainOptions(num_warmup=200, num_samples=1000, num_chains=2, progress=False)
SPEC = ModelSpec(FM(0), Categorical(C), Fixed(precision=WEAK), Fixed(), Intercept(precision=WEAK))


@lru_cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Many rows of three columns: the priors say next to nothing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    logits = np.column_stack([np.zeros(N), X @ rng.normal(size=P) + 0.5, X @ rng.normal(size=P) - 0.5])
    return X, np.argmax(logits + rng.gumbel(size=(N, C)), axis=1).astype(float)


@lru_cache
def sampled(shift: int = 0) -> Draws:
    """Draws under classes counted from another one; one program for all."""
    X, y = data()
    return gibbs(jax.random.key(shift), SPEC, design_from_matrix(X), (y + shift) % C, options=OPTIONS)


def probabilities(draws: Draws, X: np.ndarray) -> np.ndarray:
    """Of every draw: (chain, draw, n, class)."""
    eta = draws.sites["w0"][..., None, :] + np.einsum("np,sdcp->sdnc", X, draws.sites["w"].astype(float))
    p = np.exp(np.concatenate([np.zeros_like(eta[..., :1]), eta], axis=-1))
    return p / p.sum(-1, keepdims=True)


def test_posterior_is_centred_where_logistic_regression_is() -> None:
    """In n rows posterior mean and mode are O(1/n) apart, a share O(1/sqrt(n)) of the standard deviation.

    A quarter of it is left for that, and for the priors: the penalty of scikit-learn is that of all C classes, which is
    another one, but a hundredth of an observation's worth.
    """
    X, y = data()
    fitted = LogisticRegression(C=1 / WEAK, tol=1e-8, max_iter=1000).fit(X, y)
    theirs = np.column_stack([fitted.intercept_, fitted.coef_])
    draws = sampled()
    ours = np.concatenate([draws.sites["w0"][..., None], draws.sites["w"]], axis=-1)
    gap = np.abs(ours.mean((0, 1)) - (theirs[1:] - theirs[:1]))
    assert np.all(gap < 0.25 * ours.std((0, 1)) + 4 * mcse(ours))


@pytest.mark.parametrize("shift", [1])
def test_probabilities_do_not_depend_on_the_coding(shift: int) -> None:
    """Up to the prior, which is not symmetric in the reference: here it is weak, and moves eta by about 1e-5."""
    X, _ = data()
    one, two = (probabilities(sampled(s), X[:10]) for s in (0, shift))
    two = two[..., (np.arange(C) + shift) % C]
    error = np.hypot(mcse(one), mcse(two))
    assert_no_alarm(named("p", z_test(one.mean((0, 1)) - two.mean((0, 1)), error)))


def test_a_class_without_rows_keeps_its_prior_and_takes_little_from_the_others() -> None:
    """Below 1/N on average if the prior of its log odds were flat, times E exp(x w) = exp(P/2) for its weights."""
    X, y = data()
    spec = ModelSpec(FM(0), Categorical(C), Fixed(), Fixed(), Intercept(precision=WEAK))
    seen = np.where(y == 2, 0, y)
    draws = gibbs(jax.random.key(5), spec, design_from_matrix(X), seen, options=OPTIONS)
    p = probabilities(draws, X).mean((0, 1, 2))
    assert p[2] < np.exp(P / 2) / N


def test_a_run_goes_on_where_it_was_stopped_and_its_posterior_survives_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data()
    design, whole = design_from_matrix(X), sampled()
    folder = {"checkpoint": tmp_path / "run", "draws_on_disk": True}
    stopped = replace(OPTIONS, **folder, callback=lambda seen: not seen.warming_up)
    with monkeypatch.context() as patch:
        patch.setattr(chains, "PIECE_SECONDS", 0.0)  # small pieces, however fast the machine
        part = gibbs(jax.random.key(0), SPEC, design, y, options=stopped)
    assert 0 < part.num_draws < whole.num_draws
    again = gibbs(jax.random.key(0), SPEC, design, y, options=replace(OPTIONS, **folder, resume=True))
    assert whole.sites["w"].shape == (2, 1000, C - 1, P)
    assert whole.dims["eta"] == ("class", "probe")
    assert set(whole.stats) == {"lp", "log_likelihood"}
    for name, x in whole.sites.items():
        np.testing.assert_array_equal(np.asarray(again.sites[name]), x, err_msg=name)
    tree, rows = to_datatree(again, SPEC, design, y), design.take([0, 5])
    expected = predictive_probabilities(restore(tree)[0], rows, range(C))
    for name in ("posterior.nc", "posterior.zarr"):
        save(tree, tmp_path / name)
        loaded = load(tmp_path / name)
        assert loaded["posterior"]["w"].dims == ("chain", "draw", "class", "feature")
        assert loaded["posterior"]["class"].to_numpy().tolist() == [1, 2]
        np.testing.assert_array_equal(predictive_probabilities(restore(loaded)[0], rows, range(C)), expected)


def test_streams_are_refused() -> None:
    X, y = data()
    design = design_from_matrix(X)
    with pytest.raises(ValueError, match="neither under Categorical: keep w and v"):
        gibbs(jax.random.key(0), SPEC, design, y, streams={"new": design})


def test_a_model_without_intercept() -> None:
    """Nothing takes up what the weights of a field could be shifted by: there is no such move."""
    design = Design([Block.field("user", np.arange(12) % 3, range(3))])
    y = np.resize([0.0, 1.0, 1.0], 12)
    for likelihood in (BernoulliLogit(), Categorical(2)):
        kernel, _ = gibbs_kernel(ModelSpec(FM(0), likelihood, intercept=None), design, y)
        after = jax.eval_shape(lambda key, own: own.sweep(key, own.init(key)), jax.random.key(0), kernel)
        assert after.w0.shape == likelihood.outputs
