"""What a run leaves behind: draws that repeat, streams, checkpoints, warnings, and the model that was fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bayesfm.diagnostics import ConvergenceWarning
from bayesfm.estimators import FMRegressor
from bayesfm.inference.chains import Progress
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictors import FM
from tests.estimators.data import assert_same_draws, matrix, quick, ratings, sites

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


def test_specification_brings_its_rank() -> None:
    spec = replace(default_spec(Y, 2), predictor=FM(1))
    for options in ({}, {"rank": 1}):
        model = FMRegressor(spec=spec, num_warmup=5, num_samples=5, random_state=0, **options).fit(X, Y)
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
        quick(num_warmup=0, num_samples=8).fit(X, Y)


def test_streams_agree_with_predictions(tmp_path: Path) -> None:
    """The same chain, with the moments taken while it runs."""
    seen = FRAME.iloc[::7]
    full = quick(predict_rows={"some": seen}).fit(FRAME, STARS)
    lean = quick(predict_rows={"some": seen}, keep="hyper").fit(FRAME, STARS)
    wanted = full.predict_moments(seen)
    tolerance = 64 * np.finfo(np.float32).eps
    for model in (full, lean):
        got = model.streams_["some"]
        np.testing.assert_allclose(got.mean, wanted.mean, rtol=tolerance)
        np.testing.assert_allclose(got.sd, wanted.sd, rtol=8 * tolerance)
    assert "w" not in sites(lean)
    with pytest.raises(ValueError, match="keep"):
        lean.predict(FRAME)
    lean.save(tmp_path / "lean.nc")
    again = FMRegressor.load(tmp_path / "lean.nc")
    np.testing.assert_array_equal(again.streams_["some"].sd, lean.streams_["some"].sd)


def test_stream_of_unseen_levels_is_wide() -> None:
    rows = FRAME.iloc[:2].assign(user=["ann", "nobody"])
    _, sd = quick(num_samples=200).fit(FRAME, STARS).predict(rows, return_std=True)
    stream = quick(num_samples=200, predict_rows={"new": rows}).fit(FRAME, STARS).streams_["new"]
    assert sd[1] > 1.2 * sd[0]
    assert stream.sd[1] > 1.2 * stream.sd[0]


def test_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def stop(progress: Progress) -> bool:
        return not progress.warming_up

    whole = quick().fit(X, Y)
    folder = tmp_path / "run"
    part = quick(callback=stop, checkpoint=folder).fit(X, Y)
    assert 0 < part.posterior_["posterior"].sizes["draw"] < 40
    assert_same_draws(quick(checkpoint=str(folder), resume=True).fit(X, Y), whole)
    with pytest.raises(ValueError, match="other data, model, options, seed"):
        quick(checkpoint=folder, resume=True, random_state=1).fit(X, Y)


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


@pytest.mark.parametrize("option", [{"thin": 2}, {"factor_block": 1}, {"chain_method": "vectorized"}])
def test_options_reach_the_engine(option: dict) -> None:
    model = quick(**option).fit(X, Y)
    name, value = next(iter(option.items()))
    if name == "thin":
        assert not np.any(sites(model)["w"] == sites(quick().fit(X, Y))["w"])
    else:
        assert model.fit_info_[name] == value


def test_groups_reach_the_prior() -> None:
    model = quick(groups=["a", "b", "a"]).fit(X, Y)
    assert model.posterior_["posterior"]["group"].values.tolist() == ["a", "b"]
    assert model.model_.groups.tolist() == [0, 1, 0]


def test_specification_of_another_kind_of_object() -> None:
    assert isinstance(quick(spec=default_spec(Y, 2)).fit(X, Y).spec_, ModelSpec)
