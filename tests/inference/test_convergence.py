"""R-hat and effective sample sizes beside those of ArviZ."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from bayesfm.inference.convergence import MIN_DRAWS, ess, judge, rhat, wanted_ess


def walks(chains: int, draws: int, rho: float, seed: int = 0) -> np.ndarray:
    """Quantities of all kinds: smooth, rounded (ties), of two values, one chain elsewhere, constant, antithetic."""
    x = np.random.default_rng(seed).normal(size=(chains, draws, 8))
    for t in range(1, draws):
        x[:, t] += rho * x[:, t - 1]
    x[..., 3] = np.round(x[..., 3])
    x[..., 4] = x[..., 4] > 0.5
    x[0, :, 5] += 3.0
    x[..., 6] = 1.0
    x[:, ::2, 7] *= -1.0
    return x


@pytest.mark.parametrize("rho", [-0.9, -0.4, 0.0, 0.6, 0.97, 1.0])
@pytest.mark.parametrize(
    ("chains", "draws"), [(2, 8), (2, 9), (3, 10), (2, 11), (4, 12), (1, 30), (3, 101), (2, 400)]
)
def test_statistics_are_those_of_arviz(chains: int, draws: int, rho: float) -> None:
    """To rounding: sums of up to 400 terms in float64, differences of which lose some three digits more."""
    x = walks(chains, draws, rho)
    labelled = xr.DataArray(x, dims=("chain", "draw", "quantity"))
    for kind in ("bulk", "tail"):
        theirs = np.asarray(arviz_stats.ess(labelled, method=kind))
        np.testing.assert_allclose(ess(x, kind), theirs, rtol=1e-10, err_msg=kind)
    if chains > 1:  # ArviZ compares a single chain with nothing
        moving = [0, 1, 2, 3, 5, 7]
        theirs = np.asarray(arviz_stats.rhat(labelled[..., moving]))
        np.testing.assert_allclose(rhat(x)[moving], theirs, rtol=1e-10)


def test_judgement_is_made_of_them() -> None:
    x = walks(3, 200, 0.5)
    x[1, 7, 2] = np.inf
    judged = judge(x)
    use = [0, 1, 3, 4, 5, 7]
    np.testing.assert_array_equal(judged.finite, [True, True, False, *[True] * 5])
    np.testing.assert_array_equal(judged.moving, [*[True] * 6, False, True])
    np.testing.assert_array_equal(judged.rhat[use], rhat(x[..., use]))
    np.testing.assert_array_equal(judged.bulk[use], ess(x[..., use], "bulk"))
    np.testing.assert_array_equal(judged.tail[use], ess(x[..., use], "tail"))
    assert np.all(np.isnan([judged.rhat[[2, 6]], judged.bulk[[2, 6]], judged.tail[[2, 6]]]))
    assert judged.worst_rhat == judged.rhat[use].max() == judged.rhat[5]
    assert judged.smallest_ess == min(judged.bulk[use].min(), judged.tail[use].min())


def test_one_chain_is_two() -> None:
    x = walks(1, 401, 0.5)
    halves = np.concatenate([x[:, :200], x[:, 201:]])
    for name in ("rhat", "bulk", "tail"):
        np.testing.assert_array_equal(getattr(judge(x), name), getattr(judge(halves), name))
    assert judge(x).num_chains == 2


def spoil_location(x: np.ndarray) -> None:
    x[1, :, 1] += 0.5


def spoil_spread(x: np.ndarray) -> None:
    x[1, :, 1] *= 2.0


def spoil_mixing(x: np.ndarray) -> None:
    for t in range(1, x.shape[1]):
        x[:, t, 1] = 0.9 * x[:, t - 1, 1] + 0.436 * x[:, t, 1]


def spoil_tail(x: np.ndarray) -> None:
    """One long excursion makes up the upper tail; ranks of the bulk hardly know of it."""
    x[:, 500:740, 1] = np.abs(x[:, 500:740, 1]) + 2.0


@pytest.mark.parametrize("spoil", [spoil_location, spoil_spread, spoil_mixing, spoil_tail])
def test_enough_is_all_of_it(spoil: object) -> None:
    x = np.random.default_rng(1).normal(size=(2, 2000, 3))
    assert judge(x).enough(1000)
    assert not judge(x).enough(5000)
    spoil(x)  # type: ignore[operator]
    assert not judge(x).enough(1000)


def test_what_never_moved_is_never_enough() -> None:
    x = np.random.default_rng(1).normal(size=(2, 2000, 3))
    x[..., 0] = 4.0
    assert not judge(x).enough(10)
    x[..., 0] = np.nan
    assert not judge(x).enough(10)
    nothing = judge(np.ones((2, 20, 1)))
    assert np.isnan(nothing.worst_rhat)
    assert np.isnan(nothing.smallest_ess)


def test_few_draws() -> None:
    judge(np.random.default_rng(0).normal(size=(2, MIN_DRAWS, 1)))
    with pytest.raises(ValueError, match="from 8 draws per chain on, got 7"):
        judge(np.zeros((2, MIN_DRAWS - 1, 1)))


def test_a_hundred_per_chain_at_least() -> None:
    assert wanted_ess(2) == 200
    assert wanted_ess(2, 400) == 400
    assert wanted_ess(8, 400) == 800
