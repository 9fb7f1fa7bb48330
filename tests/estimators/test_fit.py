"""What a run leaves behind: draws that repeat, streams, checkpoints, warnings, and the model that was fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesfm.diagnostics import ConvergenceWarning
from bayesfm.estimators import FMRegressor, engines
from bayesfm.inference.chains import ChainOptions
from bayesfm.model import default_spec
from bayesfm.predictors import FM
from tests.estimators.data import QUICK, assert_same_draws, matrix, quick, ratings, sites

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

X, Y = matrix()
FRAME, STARS = ratings()


def test_same_seed_same_draws(fitted: FMRegressor) -> None:
    again = quick().fit(FRAME, STARS)
    assert_same_draws(again, fitted)
    np.testing.assert_array_equal(again.predict(FRAME), fitted.predict(FRAME))


def test_seeds_and_chains_differ(fitted: FMRegressor) -> None:
    other = sites(quick(random_state=1).fit(FRAME, STARS))
    for name, x in sites(fitted).items():
        assert not np.any(x == other[name]), name
        assert not np.any(x[0] == x[1]), name


def test_generators_give_a_new_run_each_time() -> None:
    rng = np.random.default_rng(0)
    model = quick(random_state=rng).fit(X, Y)
    first = sites(model)["w"]
    assert not np.any(sites(model.fit(X, Y))["w"] == first)
    assert_same_draws(
        quick(random_state=np.random.RandomState(5)).fit(X, Y),
        quick(random_state=np.random.RandomState(5)).fit(X, Y),
    )


def test_no_seed_is_a_new_run_each_time() -> None:
    model = quick(random_state=None)
    assert not np.any(sites(model.fit(X, Y))["w"] == sites(model.fit(X, Y))["w"])


def test_default_specification_follows_y_and_weights() -> None:
    weight = np.linspace(0.0, 2.0, len(Y))
    model = quick().fit(X, Y, sample_weight=weight)
    assert model.spec_ == default_spec(Y[1:], 2, weight[1:])
    assert model.spec_ != default_spec(Y, 2)


@pytest.mark.usefixtures("no_sampling")
def test_default_rank() -> None:
    assert FMRegressor().fit(X, Y).spec_ == default_spec(Y, 8)


@pytest.mark.usefixtures("no_sampling")
def test_specification_brings_its_rank() -> None:
    spec = replace(default_spec(Y, 2), predictor=FM(1))
    for options in ({}, {"rank": 1}):
        model = FMRegressor(spec=spec, **options).fit(X, Y)
        assert model.spec_ == spec
        assert sites(model)["v"].shape[-1] == 1


def test_posterior_is_labelled(fitted: FMRegressor) -> None:
    posterior = fitted.posterior_["posterior"]
    assert posterior.sizes["chain"], posterior.sizes["draw"] == (2, 40)
    assert posterior["w"].sel(feature="user=ann").shape == (2, 40)
    assert posterior["lambda_v"].sel(group="item").shape == (2, 40, 2)
    assert fitted.fit_info_["engine"] == "gibbs"
    assert {"w0", "alpha", "lp"} <= set(fitted.summary().index)


def test_short_chains_draw_a_warning() -> None:
    with pytest.warns(ConvergenceWarning, match="raise num_samples"):
        quick(num_warmup=0).fit(X, Y)


def test_streams_agree_with_predictions(fitted: FMRegressor, tmp_path: Path) -> None:
    """The chain of ``fitted``, with the moments taken while it runs, and without its large sites."""
    seen = FRAME.iloc[::7]
    new = seen.iloc[:2].assign(user=["ann", "nobody"])
    lean = quick(predict_rows={"seen": seen, "new": new}, keep="hyper").fit(FRAME, STARS)
    got, wanted = lean.streams_["seen"], fitted.predict_moments(seen)
    tolerance = 64 * np.finfo(np.float32).eps
    np.testing.assert_allclose(got.mean, wanted.mean, rtol=tolerance)
    np.testing.assert_allclose(got.sd, wanted.sd, rtol=tolerance)
    known, unknown = lean.streams_["new"].sd
    assert unknown > known
    assert "w" not in sites(lean)
    with pytest.raises(ValueError, match="keep"):
        lean.predict(FRAME)
    lean.save(tmp_path / "lean.nc")
    again = FMRegressor.load(tmp_path / "lean.nc")
    np.testing.assert_array_equal(again.streams_["seen"].sd, got.sd)


def test_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def go_on(**options: Any) -> FMRegressor:
        return quick(num_warmup=0, checkpoint=tmp_path / "run", **options).fit(X, Y)

    part = go_on(callback=lambda progress: True)
    assert 0 < part.posterior_["posterior"].sizes["draw"] < QUICK["num_samples"]
    assert_same_draws(go_on(resume=True), quick(num_warmup=0).fit(X, Y))
    with pytest.raises(ValueError, match="other data, model, options, seed"):
        go_on(resume=True, random_state=1)


def test_draws_may_stay_on_disk(tmp_path: Path) -> None:
    on_disk = quick(checkpoint=tmp_path / "run", draws_on_disk=True).fit(X, Y)
    np.testing.assert_array_equal(
        on_disk.predict(X, return_std=True), quick().fit(X, Y).predict(X, return_std=True)
    )


def test_run_stopped_in_its_warm_up_has_no_draws() -> None:
    with pytest.raises(RuntimeError, match="callback stopped the run in its warm-up"):
        quick(callback=lambda progress: True).fit(X, Y)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    quick(progress=True).fit(X, Y)
    assert "sweep" in capsys.readouterr().err
    quick().fit(X, Y)
    assert not capsys.readouterr().err


def test_options_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {
        "thin": 2,
        "factor_block": 1,
        "chain_method": "vectorized",
        "keep": ["w0"],
        "num_chains": 3,
    }
    chosen |= {
        "num_samples": "auto",
        "target_ess": 350,
        "max_sweeps": 999,
        "max_seconds": 9.0,
        "max_draws": 800,
    }
    seen: dict[str, Any] = {}

    def spy(*args: Any, options: ChainOptions, factor_block: int, keep: list[str], **rest: Any) -> None:
        seen.update(vars(options), factor_block=factor_block, keep=keep)
        raise InterruptedError

    monkeypatch.setattr(engines, "gibbs", spy)
    with pytest.raises(InterruptedError):
        quick(**chosen).fit(X, Y)
    assert {name: seen[name] for name in chosen} == chosen
    assert seen["num_warmup"] == QUICK["num_warmup"]


@pytest.mark.filterwarnings("error::bayesfm.diagnostics.ConvergenceWarning")
def test_a_run_that_knows_when_it_is_done(tmp_path: Path) -> None:
    """No warning, since nothing is missing; and the estimator says how long it took."""
    model = quick(num_samples="auto", num_warmup=50, rank=0).fit(X, Y)
    info = model.fit_info_
    assert info["stopped_by"] == "target"
    assert info["num_samples"] == model.posterior_["posterior"].sizes["draw"]
    assert info["num_sweeps"] >= info["num_warmup"] + info["num_samples"]
    table = model.summary()
    assert table[["ess_bulk", "ess_tail"]].to_numpy().min() >= 400
    assert table["r_hat"].max() <= 1.01
    model.save(tmp_path / "model.nc")
    assert FMRegressor.load(tmp_path / "model.nc").fit_info_ == info
    assert FMRegressor.load(tmp_path / "model.nc").get_params()["num_samples"] == "auto"


def test_a_run_that_ends_at_its_limit_says_what_is_missing() -> None:
    with pytest.warns(ConvergenceWarning, match="below 400 .as target_ess.*: raise max_sweeps"):
        quick(num_samples="auto", max_sweeps=90, rank=0).fit(X, Y)


@pytest.mark.usefixtures("no_sampling")
def test_groups_reach_the_prior() -> None:
    model = quick(groups=["a", "b", "a"]).fit(X, Y)
    assert model.posterior_["posterior"]["group"].values.tolist() == ["a", "b"]
    assert model.model_.groups.tolist() == [0, 1, 0]
