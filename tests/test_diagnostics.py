"""Convergence diagnostics: what is judged, and that failures are seen."""

from __future__ import annotations

import os
import warnings
from typing import Any

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from bayesfm.design import Block, Design
from bayesfm.diagnostics import (
    ConvergenceWarning,
    check_convergence,
    identified,
    pareto_k,
    summary,
    warn_if_not_converged,
)
from bayesfm.inference.draws import Draws
from bayesfm.model import default_spec, site_dims
from bayesfm.posterior import to_datatree

N, RANK, PROBES = 30, 3, 10
DESIGN = Design([Block.field("user", np.arange(N) % 4, list("abcd")), Block.create("x", np.ones((N, 1)))])
SPEC = default_spec(np.arange(N, dtype=float), rank=RANK)
NAMES = [
    *["w0", "alpha", "mu_w[user]", "mu_w[x]", "lambda_w[user]", "lambda_w[x]"],
    *["mu_v_rms[user]", "mu_v_rms[x]", "lambda_v_mean[user]", "lambda_v_mean[x]", "lp", "eta[worst]"],
]


def make_sites(chains: int = 2, draws: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """Independent draws: nothing to complain about."""
    rng = np.random.default_rng(seed)
    sizes = {"feature": 5, "factor": RANK, "group": 2, "probe": PROBES}
    dims = {**site_dims(SPEC), "eta": ("probe",)}
    return {x: np.exp(rng.normal(size=(chains, draws, *(sizes[d] for d in own)))) for x, own in dims.items()}


def make_tree(sites: dict[str, np.ndarray] | None = None, **options: int) -> xr.DataTree:
    sites = make_sites(**options) if sites is None else sites
    lead = sites["w0"].shape
    dims = {**site_dims(SPEC), "eta": ("probe",)}
    stats = {"lp": np.random.default_rng(9).normal(size=lead), "train_rmse": np.ones(lead)}
    draws = Draws(sites, {x: dims[x] for x in sites}, stats, np.arange(PROBES) * 3)
    return to_datatree(draws, SPEC, DESIGN, np.arange(N, dtype=float))


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree()


def test_summary_of_everything_identified(tree: xr.DataTree) -> None:
    table = summary(tree)
    assert table.index.tolist() == NAMES
    assert {"mean", "sd", "ess_bulk", "ess_tail", "r_hat", "mcse_mean"} <= set(table.columns)
    for name in ("w0", "alpha"):
        x = tree["posterior"][name].values
        assert table.loc[name, "mean"] == pytest.approx(x.mean())
        assert table.loc[name, "sd"] == pytest.approx(x.std(ddof=0), rel=1e-2)
        assert table.loc[name, "r_hat"] == pytest.approx(float(arviz_stats.rhat(x)))
        labelled = tree["posterior"][name]
        assert table.loc[name, "ess_tail"] == pytest.approx(float(arviz_stats.ess(labelled, method="tail")))
        assert table.loc[name, "mcse_mean"] == pytest.approx(float(arviz_stats.mcse(x)))
    low, high = np.quantile(tree["posterior"]["w0"], [0.25, 0.75])
    narrow = summary(tree, ci_prob=0.5).loc["w0"]
    assert (narrow["eti50_lb"], narrow["eti50_ub"]) == pytest.approx((low, high), rel=1e-2)
    lam = tree["posterior"]["lambda_v"].sel(group="x").values
    assert table.loc["lambda_v_mean[x]", "mean"] == pytest.approx(lam.mean())
    assert np.isfinite(table.to_numpy()).all()


def test_worst_probe_is_shown(tree: xr.DataTree) -> None:
    sites = make_sites()
    sites["eta"][0, :, 7] += 3.0
    table = summary(make_tree(sites))
    every = summary(make_tree(sites), "eta")
    assert table.loc["eta[worst]", "r_hat"] == every["r_hat"].max() == every.loc["eta[21]", "r_hat"] > 1.1
    assert table.loc["eta[worst]", "mean"] == pytest.approx(sites["eta"][..., 7].mean())


def test_order_and_signs_of_factors_do_not_matter() -> None:
    sites = make_sites()
    turned = {name: x.copy() for name, x in sites.items()}
    for name in ("v", "mu_v", "lambda_v"):
        turned[name][1] = sites[name][1][..., [2, 0, 1]]
    for name in ("v", "mu_v"):
        turned[name][1, ..., 0] *= -1.0
    one, other = (identified(make_tree(x)) for x in (sites, turned))
    xr.testing.assert_allclose(one, other)
    assert check_convergence(make_tree(turned)) == []
    assert arviz_stats.rhat(turned["mu_v"][..., 0, 0]) > 1.1  # what would have been seen


def test_names_can_be_chosen(tree: xr.DataTree) -> None:
    assert summary(tree, "w").index.tolist() == [f"w[{x}]" for x in DESIGN.feature_names]
    assert summary(tree, ["alpha", "lp"]).index.tolist() == ["alpha", "lp"]
    with pytest.raises(ValueError, match=r"unknown quantities \['beta'\]; known are w0, alpha, "):
        summary(tree, ["alpha", "beta"])
    for prob in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="ci_prob"):
            summary(tree, ci_prob=prob)


@pytest.mark.parametrize("name", ["v", "mu_v", "lambda_v"])
def test_raw_factors_come_with_a_word(tree: xr.DataTree, name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name} is defined only up to a rotation of the factors") as caught:
        summary(tree, [name, "w0"])
    assert len(caught) == 1
    if os.environ.get("BAYESFM_TYPECHECK") != "1":  # which puts its own frames in between
        assert caught[0].filename == __file__


def test_good_draws_are_let_through(tree: xr.DataTree) -> None:
    assert check_convergence(tree) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_not_converged(tree)


def autocorrelated(sites: dict[str, np.ndarray], name: str, rho: float) -> None:
    x = sites[name]
    for t in range(1, x.shape[1]):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]


def shift(sites: dict[str, np.ndarray]) -> None:
    sites["lambda_w"][1, :, 1] += 2.0


def drift(sites: dict[str, np.ndarray]) -> None:
    sites["alpha"] += np.linspace(0, 4, 2000)


def shift_probe(sites: dict[str, np.ndarray]) -> None:
    sites["eta"][0, :, 4] += 2.0


def scale_chain(sites: dict[str, np.ndarray]) -> None:
    """Equal in location, unequal in spread: only the folded R-hat sees it."""
    x = np.random.default_rng(3).normal(size=(2, 2000))
    sites["w0"][...] = x * np.array([[1.0], [6.0]])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shift, r"1 of 21 identified quantities have R-hat above 1.01, worst lambda_w\[x\] with 1\.\d+"),
        (drift, r"R-hat above 1.01, worst alpha with"),
        (shift_probe, r"R-hat above 1.01, worst eta\[12\] with"),
        (scale_chain, r"R-hat above 1.01, worst w0 with"),
        (
            lambda s: autocorrelated(s, "mu_w", 0.96),
            r"bulk effective sample size below 200 \(100 per chain\)",
        ),
        (lambda s: s["w0"].fill(1.0), r"w0 never moved"),
        (lambda s: s["w0"].__setitem__((0, 3), np.nan), r"w0 has draws that are not finite"),
    ],
)
def test_bad_draws_are_seen(spoil: Any, message: str) -> None:
    sites = make_sites()
    spoil(sites)
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        warn_if_not_converged(make_tree(sites))
    assert "the chains have not converged" in str(caught[0].message)


def test_chance_is_called_chance() -> None:
    """Independent draws: R-hat above 1.01 in some runs, beyond chance in 1 % of them: 4 of 50 in 2 of 1000 suites."""
    found = [" ".join(check_convergence(make_tree(make_sites(draws=400, seed=seed)))) for seed in range(50)]
    above = [text for text in found if text]
    assert all("R-hat above 1.01" in text for text in above)
    assert len(above) > 2
    assert sum("by chance" not in text for text in above) < 4
    sites = make_sites()
    shift(sites)
    assert "by chance" not in " ".join(check_convergence(make_tree(sites)))


def test_sticky_tails_are_seen() -> None:
    """The centre mixes, but one long excursion makes up all of the upper tail."""
    sites = make_sites()
    x = np.random.default_rng(1).uniform(-1, 1, size=(2, 2000))
    x[:, 500:650] += 5.0
    sites["w0"] = x
    assert any(
        "tail effective sample size below 200" in found for found in check_convergence(make_tree(sites))
    )


def test_one_chain_is_split() -> None:
    assert check_convergence(make_tree(chains=1)) == []
    sites = make_sites(chains=1)
    sites["alpha"][:, 1000:] += 2.0
    assert any("R-hat above 1.01, worst alpha" in found for found in check_convergence(make_tree(sites)))
    assert summary(make_tree(sites)).loc["alpha", "r_hat"] > 1.2


def test_few_draws() -> None:
    assert "7 draws per chain are too few" in check_convergence(make_tree(draws=7))[0]
    assert summary(make_tree(draws=1)).shape[0] == len(NAMES)
    assert any("effective sample size" in found for found in check_convergence(make_tree(draws=60)))


def test_parts_may_be_missing() -> None:
    """Only what was kept is judged."""
    sites = {name: x for name, x in make_sites().items() if name in ("w0", "lambda_w")}
    table = summary(make_tree(sites))
    assert table.index.tolist() == ["w0", "lambda_w[user]", "lambda_w[x]", "lp"]
    assert check_convergence(make_tree(sites)) == []


@pytest.mark.parametrize("k", [0.3, 1.0])
def test_pareto_k_is_the_shape_of_the_weights(k: float) -> None:
    """Weights exp(k x) with exponential x are Pareto of shape k; weights that are all equal have none."""
    x = np.random.default_rng(0).exponential(size=(1, 4000))
    tree = xr.DataTree.from_dict({"sample_stats": xr.Dataset({"log_weight": (("chain", "draw"), k * x)})})
    assert pareto_k(tree) == pytest.approx(k, abs=5 * (1 + k) / np.sqrt(0.2 * 4000))
    few = tree["sample_stats"].dataset.isel(draw=slice(24))
    assert pareto_k(xr.DataTree.from_dict({"sample_stats": few})) is None
    few = tree["sample_stats"].dataset.isel(draw=slice(25))
    assert pareto_k(xr.DataTree.from_dict({"sample_stats": few})) is not None
    tree["sample_stats"]["log_weight"] = tree["sample_stats"]["log_weight"] * 0 + 3.0
    assert pareto_k(tree) == -np.inf
