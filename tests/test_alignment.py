"""Alignment: what was turned is turned back, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ortho_group

from bayesfm.alignment import align
from tests.test_diagnostics import make_sites, make_tree

CHAINS, DRAWS = 2, 50


def turned_tree(noise: float, rank: int = 3) -> tuple[xr.DataTree, np.ndarray]:
    """v of all draws near one matrix, each by a rotation or reflection of its own; the matrix."""
    rng = np.random.default_rng(0)
    sites = make_sites(chains=CHAINS, draws=DRAWS)
    true = rng.normal(size=(5, rank)) * [3.0, 2.0, 1.0]
    R = ortho_group(rank, seed=1).rvs(CHAINS * DRAWS).reshape(CHAINS, DRAWS, rank, rank)
    v = true + noise * rng.normal(size=(CHAINS, DRAWS, 5, rank))
    sites["v"] = np.einsum("cdpk,cdkl->cdpl", v, R)
    sites["mu_v"] = np.einsum("gk,cdkl->cdgl", true[:2], R)
    return make_tree(sites), true


def test_draws_that_differ_by_a_rotation_become_one() -> None:
    tree, true = turned_tree(noise=0.0)
    aligned = align(tree)
    v = aligned["v"].to_numpy()
    np.testing.assert_allclose(v, np.broadcast_to(v[0, 0], v.shape), rtol=0, atol=1e-12)
    np.testing.assert_allclose(v[0, 0] @ v[0, 0].T, true @ true.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(aligned["mu_v"], v[:, :, :2], rtol=0, atol=1e-12)
    gram = v[0, 0].T @ v[0, 0]  # principal axes, the largest first, its largest element positive
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), rtol=0, atol=1e-12)
    assert np.all(np.diff(np.diag(gram)) < 0)
    assert np.all(v[0, 0][np.abs(v[0, 0]).argmax(axis=0), np.arange(3)] > 0)


def test_means_of_single_groups_are_turned_alike() -> None:
    """Those of a prior per group have no axis of groups."""
    tree, _ = turned_tree(noise=0.1)
    posterior = tree["posterior"].to_dataset()
    posterior["mu_user_v"] = posterior["mu_v"].isel(group=0, drop=True)
    aligned = align(xr.DataTree.from_dict({"/posterior": posterior}))
    assert aligned["mu_user_v"].dims == ("chain", "draw", "factor")
    xr.testing.assert_allclose(aligned["mu_user_v"], aligned["mu_v"].isel(group=0, drop=True), rtol=1e-12)


def test_eta_stays_and_chains_agree_again() -> None:
    from arviz_stats import rhat

    tree, true = turned_tree(noise=0.2)
    aligned = align(tree)
    assert aligned["v"].dims == ("chain", "draw", "feature", "factor")
    assert aligned["v"].sizes == {"chain": CHAINS, "draw": DRAWS, "feature": 5, "factor": 3}
    old, new = (np.einsum("cdik,cdjk->cdij", x, x) for x in (tree["posterior"]["v"].to_numpy(), aligned["v"]))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-12)
    mean = aligned["v"].mean(["chain", "draw"]).to_numpy()
    # 100 draws with sd 0.2: standard error 0.02 per element; signs and axes are those of ``true`` up to sign.
    np.testing.assert_allclose(mean @ mean.T, true @ true.T, rtol=0, atol=1.0)
    np.testing.assert_allclose(aligned["r_hat"], rhat(aligned[["v"]])["v"], rtol=1e-12)
    assert aligned.attrs["max_r_hat"] == float(aligned["r_hat"].max()) < 1.2


def test_chains_that_disagree_stay_apart() -> None:
    tree, _ = turned_tree(noise=0.05)
    posterior = tree["posterior"].to_dataset()
    posterior["v"][1] *= 1.5
    assert align(xr.DataTree.from_dict({"/posterior": posterior})).attrs["max_r_hat"] > 1.5


def test_one_chain_is_judged_by_its_halves() -> None:
    tree, _ = turned_tree(noise=0.05)
    one = xr.DataTree.from_dict({"/posterior": tree["posterior"].to_dataset().isel(chain=[0])})
    assert np.isfinite(align(one)["r_hat"]).all()


def test_blocks_of_draws_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, _ = turned_tree(noise=0.2)
    whole = align(tree)[["v", "mu_v"]]
    monkeypatch.setattr("bayesfm.factors.AT_ONCE", 7 * 15)
    xr.testing.assert_allclose(align(tree)[["v", "mu_v"]], whole, rtol=1e-10)


def test_without_draws_of_v() -> None:
    tree, _ = turned_tree(noise=0.2)
    without = xr.DataTree.from_dict({"/posterior": tree["posterior"].to_dataset().drop_vars("v")})
    with pytest.raises(ValueError, match="draws of v"):
        align(without)
    with pytest.raises(TypeError, match="refinements"):
        align(tree, refinements=1.5)  # type: ignore[arg-type]
