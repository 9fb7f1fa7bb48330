"""Predictive distributions against loops over draws in float64, against SciPy, and against themselves."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from bayesfm import mixture
from bayesfm.design import Block, Design
from bayesfm.model import ModelSpec
from bayesfm.predictive import (
    FittedModel,
    expected_draws,
    log_likelihood,
    log_predictive_density,
    predictive_cdf,
    predictive_draws,
    predictive_moments,
)
from bayesfm.predictors import FM
from bayesfm.quantiles import predictive_quantiles
from tests.design.strategies import designs, naive_rows
from tests.fitted import CLOSE, EPS, make_design, naive_eta, noise_sd, random_model, random_sites


@settings(max_examples=12)  # each compiles anew
@given(design=designs(), rank=st.sampled_from([0, 1, 3]))
def test_expected_draws_and_moments_are_those_of_a_loop(design: Design, rank: int) -> None:
    model = random_model(design, rank)
    eta = naive_eta(model, naive_rows(design))
    known = np.all(
        [b.index < b.num_features if b.is_field else np.full(b.num_rows, True) for b in design.blocks], 0
    )
    drawn = expected_draws(model, design).reshape(eta.shape)
    np.testing.assert_allclose(drawn[:, known], eta[:, known], **CLOSE)
    moments = predictive_moments(model, design)
    np.testing.assert_allclose(moments.mean, drawn.mean(0), **CLOSE)
    np.testing.assert_allclose(moments.parameter_variance, drawn.var(0), **CLOSE)
    np.testing.assert_allclose(moments.noise_variance, np.mean(noise_sd(model) ** 2), **CLOSE)
    np.testing.assert_allclose(moments.sd**2, moments.parameter_variance + moments.noise_variance)


def test_densities_and_distribution_function_are_those_of_a_loop() -> None:
    design = make_design()
    model = random_model(design)
    y = np.random.default_rng(2).normal(3, 2, design.num_rows)
    eta, sd = naive_eta(model, naive_rows(design)), noise_sd(model)
    logs = stats.norm.logpdf(y, eta, sd)
    weight = np.linspace(0.0, 2.0, design.num_rows)
    np.testing.assert_allclose(log_likelihood(model, design, y).reshape(logs.shape), logs, **CLOSE)
    np.testing.assert_allclose(
        log_likelihood(model, design, y, weight).reshape(logs.shape), weight * logs, **CLOSE
    )
    np.testing.assert_allclose(
        log_predictive_density(model, design, y), logsumexp(logs, axis=0) - np.log(len(logs)), **CLOSE
    )
    np.testing.assert_allclose(predictive_cdf(model, design, y), stats.norm.cdf(y, eta, sd).mean(0), **CLOSE)


def test_log_density_far_from_all_draws_does_not_underflow() -> None:
    design = make_design(3)
    model = random_model(design)
    logs = stats.norm.logpdf(500.0, naive_eta(model, naive_rows(design)), noise_sd(model))
    got = log_predictive_density(model, design, np.full(3, 500.0))
    assert np.all(logs.max(0) < np.log(np.finfo(np.float64).tiny))
    np.testing.assert_allclose(got, logsumexp(logs, axis=0) - np.log(len(logs)), rtol=1e3 * EPS)


def test_draws_have_the_predictive_distribution() -> None:
    design = make_design(8)
    model = random_model(design, draws=2000)
    y = predictive_draws(jax.random.key(3), model, design)
    assert y.shape == (2, 2000, 8)
    r = (y - expected_draws(model, design)) * np.sqrt(np.asarray(model.sites["alpha"]))[..., None]
    assert stats.kstest(r.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(r.reshape(-1, 8).T)[np.triu_indices(8, 1)]).max() < 4.5 / np.sqrt(4000)
    again = predictive_draws(jax.random.key(3), model, design)
    np.testing.assert_array_equal(y, again)
    assert not np.any(predictive_draws(jax.random.key(4), model, design) == y)


def test_large_offset_keeps_its_digits() -> None:
    """In float32 a mean of 1e7 is known to 1 only."""
    design = make_design()
    model = random_model(design)
    far = replace(model, sites={**model.sites, "w0": model.sites["w0"] + 1e7})
    here, there = predictive_moments(model, design), predictive_moments(far, design)
    np.testing.assert_allclose(there.mean - 1e7, here.mean, **CLOSE)
    np.testing.assert_allclose(there.sd, here.sd, **CLOSE)
    quantile = predictive_quantiles(far, design, [0.9]) - 1e7
    np.testing.assert_allclose(quantile, predictive_quantiles(model, design, [0.9]), **CLOSE)
    y = here.mean
    np.testing.assert_allclose(
        log_predictive_density(far, design, y + 1e7), log_predictive_density(model, design, y), **CLOSE
    )


@pytest.mark.parametrize("rows", [slice(3, 4), slice(None, None, -1), [7, 7, 30, 2]])
def test_a_subset_has_the_predictions_of_the_whole(rows: slice | list[int]) -> None:
    design = with_unseen(make_design())
    model = random_model(make_design())
    whole, part = predictive_moments(model, design), predictive_moments(model, design.take(rows))
    np.testing.assert_allclose(part.mean, whole.mean[rows], rtol=8 * EPS)
    np.testing.assert_allclose(part.parameter_variance, whole.parameter_variance[rows], rtol=64 * EPS)
    np.testing.assert_allclose(
        predictive_quantiles(model, design.take(rows), [0.1]),
        predictive_quantiles(model, design, [0.1])[rows],
        rtol=64 * EPS,
    )


def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Design(make_design(150, num_users=100).blocks[:2])  # pieces of one size each: less to compile
    design, model = with_unseen(known), random_model(known, draws=21)
    y = np.random.default_rng(0).normal(3, 1, 150)

    def everything() -> list[np.ndarray]:
        return [
            *predictive_moments(model, design),
            expected_draws(model, design),
            predictive_draws(jax.random.key(0), model, design),
            log_predictive_density(model, design, y),
            predictive_quantiles(model, design, [0.05, 0.5]),
        ]

    whole = everything()
    monkeypatch.setattr(mixture, "MAX_DRAWS", 8)
    monkeypatch.setattr("bayesfm.quantiles.HELD_VALUES", 42 * 80)
    monkeypatch.setattr(mixture.Mixture.__init__, "__defaults__", (80,))
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(other, one, rtol=256 * EPS, atol=16 * EPS)


def test_similar_requests_share_one_program() -> None:
    model = random_model(make_design(200, num_users=150))
    design = make_design(200, num_users=150)
    predictive_moments(model, with_unseen(design.take(slice(70, 90))))
    compiled = mixture._evaluate._cache_size()
    for more, rows in enumerate((slice(0, 17), slice(5, 23), slice(33, 80), [4])):
        predictive_moments(model, with_unseen(design.take(rows), more=more + 1))
    assert mixture._evaluate._cache_size() == compiled
    predictive_moments(model, design)
    assert mixture._evaluate._cache_size() == compiled + 1


# ---------------------------------------------------------------------------------------------- unseen levels


def with_unseen(design: Design, more: int = 3) -> Design:
    """Some rows of the first field have levels that are not known."""
    user, *others = design.blocks
    names = [f"new {t}" for t in range(more)]
    index = user.index.copy()
    index[::4] = user.num_features + np.arange(len(index[::4])) % more
    levels = [name.removeprefix("user=") for name in user.feature_names]
    return Design([Block.field("user", index, levels, unseen=names), *others])


def one_row(unseen: str, other: float) -> Design:
    """An unseen user together with a value of another feature."""
    return Design(
        [Block.field("user", [1], ["ann"], unseen=[unseen]), Block.create("x", [[other]], groups=["x"])]
    )


def test_unseen_levels_are_drawn_from_the_prior_of_their_group() -> None:
    """eta - w0 - w x = w_new + x <v_new, v>, of which all moments given the hyperparameters are known."""
    design = one_row("new", 2.0)
    S, rank = 4000, 2
    sites = random_sites(design, rank, draws=S)
    model = FittedModel(ModelSpec(FM(rank)), design.groups, sites)
    own = expected_draws(model, design)[..., 0] - sites["w0"] - 2.0 * sites["w"][..., 1]
    mu_w, lambda_w = sites["mu_w"][..., 0], sites["lambda_w"][..., 0]
    mu_v, lambda_v, v = sites["mu_v"][..., 0, :], sites["lambda_v"][..., 0, :], sites["v"][..., 1, :]
    mean = mu_w + 2.0 * np.sum(mu_v * v, -1)
    sd = np.sqrt(1.0 / lambda_w + 4.0 * np.sum(v**2 / lambda_v, -1))
    z = ((own - mean) / sd).ravel()
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 4 / np.sqrt(len(z))


def test_different_unseen_levels_blocks_and_chains_are_independent() -> None:
    rank, S = 0, 2000
    blocks = [Block.field(b, [1, 2], ["known"], unseen=["u", "v"]) for b in ("user", "item")]
    design = Design(blocks)
    sites = random_sites(design, rank, draws=S)
    sites |= {"mu_w": np.zeros((2, S, 2)), "lambda_w": np.ones((2, S, 2)), "w0": np.zeros((2, S))}
    zero = Block.field("item", [0, 0], ["known"])
    sites["w"] = np.zeros((2, S, 2), np.float32)
    model = FittedModel(ModelSpec(FM(rank)), design.groups, sites)
    user = expected_draws(model, Design([blocks[0], zero]))
    both = expected_draws(model, design)
    theta = np.concatenate([user, both - user], axis=-1)  # user u, user v, item u, item v
    series = np.concatenate([theta[0], theta[1]], axis=-1).T  # the two chains apart
    limit = 4.5 / np.sqrt(S)
    assert abs(np.corrcoef(series)[np.triu_indices(8, 1)]).max() < limit
    assert stats.kstest(series.ravel(), "norm").pvalue > 1e-3


def test_an_unseen_level_is_the_same_in_every_request() -> None:
    model = random_model(one_row("a", 1.0), draws=20)
    alone = expected_draws(model, one_row("b", 1.0))[..., 0]
    X = np.ones((3, 1))
    crowd = Design(
        [
            Block.field("user", [3, 0, 2], ["ann"], unseen=["a", "b", "c"]),
            Block.create("x", X, groups=["x"]),
        ]
    )
    np.testing.assert_allclose(expected_draws(model, crowd)[..., 2], alone, rtol=8 * EPS)
    assert not np.any(np.isclose(expected_draws(model, crowd)[..., 0], alone))


def test_a_cold_row_is_wider() -> None:
    design = make_design()
    model = random_model(design, draws=200)
    late = with_unseen(design)
    cold = np.arange(design.num_rows) % 4 == 0
    before, after = predictive_moments(model, design), predictive_moments(model, late)
    assert np.all(after.sd[cold] > before.sd[cold])
    np.testing.assert_allclose(after.sd[~cold], before.sd[~cold], rtol=8 * EPS)


# ------------------------------------------------------------------------------------------- sites and errors


class Sliced:
    """An array that counts what is read of it and cannot be read as a whole."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, key: tuple[int, slice]) -> np.ndarray:
        part = self.array[key]
        self.most = max(self.most, part.nbytes)
        return part


def test_zarr_sites_are_read_a_few_draws_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "MAX_DRAWS", 8)
    design = make_design()
    model = random_model(design, draws=30)
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    on_disk = {name: group.create_array(name, data=x) for name, x in model.sites.items()}
    v = Sliced(model.sites["v"])
    for sites in (on_disk, {**model.sites, "v": v}):
        got = predictive_moments(replace(model, sites=sites), design)
        np.testing.assert_array_equal(got, predictive_moments(model, design))
    assert 0 < v.most <= v.array.nbytes * 8 / 60


def test_sites_that_were_not_kept_are_named() -> None:
    design = with_unseen(make_design())
    model = random_model(make_design())
    small = replace(model, sites={name: x for name, x in model.sites.items() if name not in "wv"})
    with pytest.raises(
        ValueError, match=r"site\(s\) w, v, which were not kept: fit with keep='all'.*streams="
    ):
        predictive_moments(small, design)
    bare = replace(model, sites={name: model.sites[name] for name in ("w0", "alpha", "w", "v")})
    predictive_moments(bare, make_design())
    with pytest.raises(ValueError, match=r"mu_w, lambda_w, mu_v, lambda_v, which were not kept"):
        predictive_moments(bare, design)


def test_rank_zero_needs_no_factors() -> None:
    design = with_unseen(make_design())
    model = random_model(make_design(), rank=0)
    less = replace(model, sites={name: x for name, x in model.sites.items() if not name.endswith("v")})
    np.testing.assert_array_equal(predictive_moments(less, design), predictive_moments(model, design))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"w": np.zeros((2, 7, 3))},
            r"'w' must have shape \(feature=13\) behind \(chain, draw\), got \(3,\)",
        ),
        ({"v": np.zeros((2, 7, 13, 2))}, r"'v' must have shape \(feature=13, factor=3\)"),
        ({"alpha": np.zeros((2, 6))}, "the same for all"),
        ({"alpha": np.zeros(7)}, "the same for all"),
    ],
)
def test_sites_of_wrong_shape_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    model = random_model(make_design())
    with pytest.raises(ValueError, match=message):
        replace(model, sites={**model.sites, **change})


def test_no_draws_are_refused() -> None:
    design = make_design()
    with pytest.raises(ValueError, match="not empty"):
        FittedModel(ModelSpec(FM(0)), design.groups, {})
    with pytest.raises(ValueError, match="not empty"):
        FittedModel(ModelSpec(FM(0)), design.groups, {"w0": np.zeros((2, 0))})


def test_designs_that_do_not_match_are_refused() -> None:
    model = random_model(make_design())
    with pytest.raises(ValueError, match="8 features, the fitted model 13"):
        predictive_moments(model, Design(make_design().blocks[1:]))
    with pytest.raises(TypeError, match="must be a Design, got ndarray"):
        predictive_moments(model, np.zeros((3, 13)))
    user, genre, age = make_design().blocks
    with pytest.raises(ValueError, match="prior groups"):
        predictive_moments(model, Design([user, replace(genre, group_names=("user",)), age]))


def test_wrong_arguments_are_named() -> None:
    design = make_design()
    model = random_model(design)
    y = np.zeros(design.num_rows)
    for function in (log_likelihood, log_predictive_density, predictive_cdf):
        with pytest.raises(ValueError, match=r"y must have shape \(40,\)"):
            function(model, design, y[:-1])
    with pytest.raises(ValueError, match="weight must hold finite numbers >= 0"):
        log_likelihood(model, design, y, -np.ones(40))
    for probs in ([0.0], [1.0], [np.nan], 0.5):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            predictive_quantiles(model, design, probs)
