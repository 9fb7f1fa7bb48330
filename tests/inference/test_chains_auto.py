"""Runs that find out for themselves when they are done: key, model, data and options are all that shows in them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bayesfm.diagnostics import check_convergence, identified, labelled_draws
from bayesfm.inference import chains, course
from bayesfm.inference.chains import ChainOptions, run_chains
from bayesfm.inference.checkpoint import FolderStore
from bayesfm.inference.convergence import judge
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.inference.nuts import run as nuts_run
from bayesfm.inference.nuts.run import DivergenceWarning, nuts
from bayesfm.model import default_spec
from bayesfm.posterior import to_datatree
from tests.inference.test_chains import KEY, assert_same, ratings, run

pytestmark = pytest.mark.usefixtures("full_optimisation")

AUTO = ChainOptions(
    num_warmup=5, num_samples="auto", max_sweeps=900, max_draws=300, target_ess=300, progress=False
)
"""Long enough to begin anew, and to drop every other draw twice; too short to be done."""
DONE = replace(AUTO, max_sweeps=20_000, max_draws=None, target_ess=300)
LENGTHS = ("num_warmup", "num_samples", "thin", "num_sweeps", "stopped_by")


def whole(options: ChainOptions = AUTO) -> Draws:
    return run(options, streams={"all": ratings()[0]})


def assert_same_run(a: Draws, b: Draws) -> None:
    assert_same(a, b)
    assert {name: a.info[name] for name in LENGTHS} == {name: b.info[name] for name in LENGTHS}
    for name in ("parameter_variance", "noise_variance", "num_draws"):
        np.testing.assert_array_equal(getattr(a.streams["all"], name), getattr(b.streams["all"], name))


def small_pieces(patch: pytest.MonkeyPatch, draws: int) -> None:
    """Room for so many draws of this model between two looks of the host."""
    draw_bytes = 2 * 4 * (1 + 1 + 11 + 22 + 2 + 2 + 4 + 4 + 60 + 3)
    patch.setattr(chains, "BUFFER_BYTES", draws * draw_bytes)


@pytest.fixture(scope="module")
def reference() -> Draws:
    return whole()


def test_what_the_others_are_compared_with(reference: Draws) -> None:
    """It begins anew, and drops draws more than once: else nothing below would be shown."""
    assert reference.info["num_warmup"] > 5
    assert reference.info["thin"] >= 4
    assert reference.info["stopped_by"] == "max_sweeps"
    assert reference.num_draws == reference.info["num_samples"]


@pytest.fixture(scope="module")
def every(reference: Draws) -> Draws:
    """A run of fixed length that keeps all draws after the warm-up of the reference."""
    warmup, sweeps = reference.info["num_warmup"], reference.info["num_sweeps"]
    return run(ChainOptions(num_warmup=warmup, num_samples=sweeps - warmup, progress=False))


def test_draws_are_those_after_the_warmup(reference: Draws, every: Draws) -> None:
    thin = reference.info["thin"]
    for name, x in {**every.sites, **every.stats}.items():
        ours = {**reference.sites, **reference.stats}[name]
        np.testing.assert_array_equal(ours, x[:, thin - 1 :: thin], err_msg=name)


def test_streams_weigh_draws_by_their_time(reference: Draws, every: Draws) -> None:
    """Every draw for the sweeps that it stands for, those included that were dropped later."""
    warmup, sweeps = reference.info["num_warmup"], reference.info["num_sweeps"]
    eta, noise = every.sites["eta"], 1 / every.sites["alpha"]
    stands_for = np.zeros(sweeps - warmup)
    for draw in range(1, sweeps - warmup + 1):
        step = course.draws_per_kept(draw, 300)
        stands_for[draw - 1] = step if draw % step == 0 else 0
    share = stands_for / stands_for.sum()
    stream = reference.streams["all"]
    assert stream.num_draws == sweeps - warmup == stands_for.sum()
    mean = np.einsum("cdn,d->cn", eta, share)
    rounding = 1e3 * np.finfo(np.float32).eps  # of as many terms, of size one
    np.testing.assert_allclose(stream.mean, mean, atol=rounding)
    variance = np.einsum("cdn,d->cn", (eta - mean[:, None]) ** 2, share)
    np.testing.assert_allclose(stream.parameter_variance, variance, rtol=1e-3)
    np.testing.assert_allclose(stream.noise_variance[:, 0], noise @ share, rtol=rounding)


@pytest.mark.parametrize("draws", [3, pytest.param(64, marks=pytest.mark.slow)])
def test_size_of_pieces_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, reference: Draws, draws: int
) -> None:
    small_pieces(monkeypatch, draws)
    assert_same_run(whole(), reference)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("stop", "on_disk"),
    [
        *[(60, False), (160, False), (450, True), (890, False)],
        *[pytest.param(stop, True, marks=pytest.mark.slow) for stop in (3, 60, 160, 890)],
        *[pytest.param(stop, False, marks=pytest.mark.slow) for stop in (3, 450)],
    ],
)
def test_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Draws, stop: int, on_disk: bool
) -> None:
    options = replace(AUTO, checkpoint=tmp_path / "run", draws_on_disk=on_disk)

    def interrupt(progress: chains.Progress) -> None:
        if progress.sweep >= stop:
            raise Interrupted

    with monkeypatch.context() as patch:
        small_pieces(patch, 40)
        with pytest.raises(Interrupted):
            whole(replace(options, callback=interrupt))
    assert_same_run(whole(replace(options, resume=True)), reference)
    assert_same_run(whole(replace(options, resume=True)), reference)  # it was over, and is
    groups = {
        x.name.partition("_every")[0] for x in (tmp_path / "run" / "draws.zarr").iterdir() if x.is_dir()
    }
    assert len(groups) == len([x for x in (tmp_path / "run" / "draws.zarr").iterdir() if x.is_dir()]) == 2


@pytest.mark.parametrize("where", ["before the state", "after the state"])
@pytest.mark.parametrize("when", ["beginning anew", "draws were dropped"])
def test_a_crash_between_two_writes_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Draws, when: str, where: str
) -> None:
    """The two moments in which draws that a saved state counts on are about to be written over."""
    options = replace(AUTO, checkpoint=tmp_path / "run")
    write, crashed = FolderStore._write_state, []

    def crash(store: FolderStore, leaves: list[Any], sweeps: int, draws: int) -> None:
        now = draws == 0 and sweeps > 5 if when == "beginning anew" else draws > 300
        if where == "after the state" or not now:
            write(store, leaves, sweeps, draws)
        if now:
            crashed.append(sweeps)
            raise Interrupted

    with monkeypatch.context() as patch:
        small_pieces(patch, 40)
        patch.setattr(FolderStore, "_write_state", crash)
        with pytest.raises(Interrupted):
            whole(options)
    assert crashed
    assert_same_run(whole(replace(options, resume=True)), reference)


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = replace(AUTO, max_sweeps=120, checkpoint=folder)
    whole(short)
    for other in ({"target_ess": 299}, {"max_sweeps": 121}, {"max_draws": 400}, {"num_samples": 100}):
        plain: dict[str, Any] = (
            {"max_sweeps": 20_000, "max_draws": None, "target_ess": 400} if "num_samples" in other else {}
        )
        with pytest.raises(ValueError, match="other data, model, options"):
            whole(replace(short, resume=True, **{**plain, **other}))
    whole(replace(short, resume=True, max_seconds=100.0))


@pytest.mark.parametrize("num_chains", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_done_is_what_the_diagnostics_call_done(num_chains: int) -> None:
    """The same numbers of the same draws, bit for bit; and draws one look earlier were not enough."""
    design, y = ratings()
    seen = []
    draws = run(replace(DONE, num_chains=num_chains, callback=lambda progress: seen.append(progress.judged)))
    assert draws.info["stopped_by"] == "target"
    tree = to_datatree(draws, default_spec(y, 2), design, y)
    assert check_convergence(tree) == []
    ours = judge(labelled_draws(identified(tree))[1])
    assert np.array_equal(seen[-1].rhat, ours.rhat)
    assert np.array_equal(seen[-1].bulk, ours.bulk)
    assert np.array_equal(seen[-1].tail, ours.tail)
    assert min(ours.bulk.min(), ours.tail.min()) >= max(300, 100 * num_chains)
    before = [x for x in seen if x is not None and x is not seen[-1]]
    assert before
    assert not any(x.enough(max(300, 100 * num_chains)) for x in before)


def test_what_is_missing_is_said(reference: Draws) -> None:
    design, y = ratings()
    found = check_convergence(to_datatree(reference, default_spec(y, 2), design, y))
    assert found
    assert all("raise max_sweeps." in text for text in found)
    assert any("effective sample size below 300 (as target_ess)" in text for text in found)
    late = replace(reference, info={**reference.info, "stopped_by": "max_seconds"})
    assert "raise max_seconds." in check_convergence(to_datatree(late, default_spec(y, 2), design, y))[0]
    json.dumps(reference.info)


def test_callback_stops_and_keeps_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 40)
    draws = whole(replace(AUTO, callback=lambda progress: progress.sweep >= 30))
    assert draws.info["stopped_by"] == "callback"
    assert draws.num_draws == draws.info["num_sweeps"] - 5 > 0


def test_beginning_anew_compiles_nothing() -> None:
    """One program per shape, however often the moments were set to zero in between."""
    compiled = chains._ADVANCE["sequential"]._cache_size
    before = compiled()
    whole(replace(AUTO, max_draws=302))
    assert compiled() == before + 1
    whole(replace(AUTO, max_draws=302, num_warmup=30, thin=2))
    assert compiled() == before + 1


def test_somebody_has_to_say_what_is_identified() -> None:
    design, y = ratings()
    kernel, _ = gibbs_kernel(default_spec(y, 2), design, y)
    with pytest.raises(ValueError, match="num_samples='auto' needs law="):
        run_chains(kernel, KEY, AUTO)


def test_nuts_says_that_its_warmup_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    design, y = ratings()
    said: dict[str, Any] = {}

    def no_chains(*args: Any, **kwargs: Any) -> None:
        said.update(kwargs)
        raise Interrupted

    monkeypatch.setattr(nuts_run, "run_chains", no_chains)
    with pytest.raises(Interrupted):
        nuts(KEY, default_spec(y, 0), design, y, options=AUTO)
    assert said["restarts"] is False
    assert said["law"].centre == pytest.approx(y.mean())


@pytest.mark.slow
def test_nuts_adapts_in_a_warmup_of_fixed_length() -> None:
    """It looks at its draws as well, but none of them becomes warm-up: chains far from agreeing go on."""
    design, y = ratings()
    options = replace(AUTO, num_warmup=20, max_sweeps=160)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)  # no wonder, after 20 sweeps
        draws = nuts(jax.random.key(0), default_spec(y, 0), design, y, options=options, max_tree_depth=1)
    assert draws.info["num_warmup"] == 20
    assert draws.num_draws == 140
    assert draws.info["stopped_by"] == "max_sweeps"
