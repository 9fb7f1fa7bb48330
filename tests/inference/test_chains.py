"""The chain runner: nothing but the key, the model and the data may show in the draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.inference import chains
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.conjugate.state import to_sites
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs, gibbs_kernel
from bayesfm.model import default_spec
from tests.statistics import assert_no_alarm, ks_exact

pytestmark = pytest.mark.usefixtures("full_optimisation")  # what goes on bit for bit is what users run

OPTIONS = ChainOptions(num_warmup=7, num_samples=12, num_chains=2, progress=False)
KEY = jax.random.key(3)


def ratings(n: int = 60, seed: int = 0) -> tuple[Design, np.ndarray]:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 6, n).astype(np.int32), rng.integers(0, 5, n).astype(np.int32)
    design = Design((Block.field("user", user, np.arange(6)), Block.field("item", item, np.arange(5))))
    return design, 0.3 * user - 0.2 * item + rng.normal(size=n)


def run(options: ChainOptions = OPTIONS, **kwargs: object) -> Draws:
    design, y = ratings()
    return gibbs(KEY, default_spec(y, 2), design, y, options=options, **kwargs)  # type: ignore[arg-type]


def assert_same(a: Draws, b: Draws) -> None:
    assert a.sites.keys() == b.sites.keys()
    for name in a.sites:
        np.testing.assert_array_equal(np.asarray(a.sites[name]), np.asarray(b.sites[name]), err_msg=name)
    for name in a.stats:
        np.testing.assert_array_equal(a.stats[name], b.stats[name], err_msg=name)
    for name in a.streams:
        np.testing.assert_array_equal(a.streams[name].mean, b.streams[name].mean)


def test_shapes_and_names() -> None:
    draws = run()
    assert draws.num_chains == 2
    assert draws.num_draws == 12
    assert draws.sites["v"].shape == (2, 12, 11, 2)
    assert draws.sites["eta"].shape == (2, 12, 60)
    assert set(draws.stats) == {"lp", "log_likelihood", "train_rmse"}


def test_same_key_same_draws_and_chains_differ() -> None:
    a, b = run(), run()
    assert_same(a, b)
    assert not np.array_equal(a.sites["alpha"][0], a.sites["alpha"][1])
    design, y = ratings()
    other = gibbs(jax.random.key(4), default_spec(y, 2), design, y, options=OPTIONS)
    assert not np.array_equal(a.sites["alpha"], other.sites["alpha"])


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_size_of_pieces_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    whole = run()
    monkeypatch.setattr(chains, "PIECE_SECONDS", seconds)
    monkeypatch.setattr(chains, "BUFFER_BYTES", 1)
    assert_same(run(), whole)


def test_thinning_keeps_every_third_sweep() -> None:
    every = run(replace(OPTIONS, num_samples=12, thin=1))
    third = run(replace(OPTIONS, num_samples=4, thin=3))
    np.testing.assert_array_equal(third.sites["w"], every.sites["w"][:, 2::3])


@pytest.mark.slow
def test_chain_methods_agree_up_to_rounding() -> None:
    sequential = run(replace(OPTIONS, chain_method="sequential", num_warmup=0, num_samples=2))
    vectorized = run(replace(OPTIONS, chain_method="vectorized", num_warmup=0, num_samples=2))
    parallel = run(replace(OPTIONS, chain_method="parallel", num_warmup=0, num_samples=2))
    tolerance = 2e3 * np.finfo(np.float32).eps  # two sweeps of a few hundred roundings each
    np.testing.assert_allclose(vectorized.sites["v"], sequential.sites["v"], rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(parallel.sites["v"], sequential.sites["v"])


@pytest.mark.slow
def test_several_devices() -> None:
    """Two host devices, one chain each: the same draws as one chain after the other, up to rounding."""
    program = """
    import jax
    jax.config.update("jax_num_cpu_devices", 2)
    from dataclasses import replace
    import numpy as np
    from tests.inference.test_chains import OPTIONS, run
    short = replace(OPTIONS, num_warmup=0, num_samples=2)
    auto = run(short)
    assert auto.info["chain_method"] == "parallel", auto.info
    sequential = run(replace(short, chain_method="sequential"))
    np.testing.assert_allclose(auto.sites["v"], sequential.sites["v"], rtol=2e-4, atol=2e-4)
    three = run(replace(short, num_chains=3, chain_method="parallel"))
    assert three.sites["v"].shape[0] == 3
    """
    _python(program)


def test_callback_stops_and_keeps_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "PIECE_SECONDS", 0.0)
    seen = []

    def stop_at_fifteen(progress: chains.Progress) -> bool:
        seen.append(progress)
        return progress.sweep >= 15

    draws = run(replace(OPTIONS, callback=stop_at_fifteen))
    assert draws.num_draws == 15 - OPTIONS.num_warmup
    assert seen[0].warming_up
    assert seen[-1].num_sweeps == 19
    assert seen[-1].stats["train_rmse"].shape == (2,)
    np.testing.assert_array_equal(draws.sites["w"], run().sites["w"][:, : draws.num_draws])


def test_streams_are_the_moments_of_the_draws() -> None:
    design, _ = ratings()
    draws = run(streams={"first": design.take(np.arange(10))})
    eta = draws.sites["w0"][..., None] + _eta(draws, design.take(np.arange(10)))
    stream = draws.streams["first"]
    rounding = 8 * np.finfo(np.float32).eps * np.abs(eta).max()  # a mean near zero is as exact as its terms
    np.testing.assert_allclose(stream.mean, eta.mean(axis=1), rtol=1e-5, atol=rounding)
    np.testing.assert_allclose(stream.parameter_variance, eta.var(axis=1), rtol=1e-3)
    np.testing.assert_allclose(
        stream.noise_variance, np.tile((1 / draws.sites["alpha"]).mean(1), (10, 1)).T, rtol=1e-5
    )
    assert stream.num_draws == 12
    mean, parameter, _ = stream.pooled()
    np.testing.assert_allclose(mean, eta.mean(axis=(0, 1)), rtol=1e-5, atol=rounding)
    np.testing.assert_allclose(parameter, eta.var(axis=(0, 1)), rtol=1e-3)


def _eta(draws: Draws, design: Design) -> np.ndarray:
    X = design.to_csr().toarray()
    w, v = (draws.sites[name].astype(np.float64) for name in ("w", "v"))
    q = np.einsum("np,cdpk->cdnk", X, v)
    squares = np.einsum("np,cdpk->cdnk", X**2, v**2)
    return np.einsum("np,cdp->cdn", X, w) + 0.5 * (q**2 - squares).sum(-1)


@pytest.mark.parametrize("on_disk", [False, True])
def test_checkpointed_run_is_the_same_run(tmp_path: Path, on_disk: bool) -> None:
    design, _ = ratings()
    streams = {"all": design}
    draws = run(replace(OPTIONS, checkpoint=tmp_path / "run", draws_on_disk=on_disk), streams=streams)
    assert_same(draws, run(streams=streams))
    assert isinstance(draws.sites["v"], np.ndarray) is not on_disk


@pytest.mark.parametrize("stop", [3, 9, 18])
def test_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(chains, "PIECE_SECONDS", 0.0)
    design, _ = ratings()
    options = replace(OPTIONS, checkpoint=tmp_path / "run")

    class Interrupted(Exception):
        pass

    def interrupt(progress: chains.Progress) -> None:
        if progress.sweep >= stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(replace(options, callback=interrupt), streams={"all": design})
    resumed = run(replace(options, resume=True), streams={"all": design})
    assert_same(resumed, run(streams={"all": design}))


def test_killed_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 between two writes of the state, with draws of the next piece already on disk."""
    program = f"""
    import os, signal
    from dataclasses import replace
    from bayesfm.inference import chains, checkpoint
    from tests.inference.test_chains import OPTIONS, run
    chains.PIECE_SECONDS = 0.0
    save = checkpoint.FolderStore.save
    def save_until(self, leaves, sweeps, draws):
        if draws == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, leaves, sweeps, draws)
    checkpoint.FolderStore.save = save_until
    run(replace(OPTIONS, checkpoint={str(tmp_path / "run")!r}))
    """
    _python(program, status=-signal.SIGKILL)
    assert_same(run(replace(OPTIONS, checkpoint=tmp_path / "run", resume=True)), run())


def test_resume_refuses_what_is_not_the_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="holds no run"):
        run(replace(OPTIONS, checkpoint=folder, resume=True))
    run(replace(OPTIONS, checkpoint=folder))
    with pytest.raises(ValueError, match="already holds a run"):
        run(replace(OPTIONS, checkpoint=folder))
    with pytest.raises(ValueError, match="other data, model, options"):
        run(replace(OPTIONS, checkpoint=folder, resume=True, num_samples=13))
    design, y = ratings(seed=1)
    with pytest.raises(ValueError, match="other data, model, options"):
        gibbs(KEY, default_spec(y, 2), design, y, options=replace(OPTIONS, checkpoint=folder, resume=True))


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("num_warmup", -1, ValueError),
        ("num_samples", 0, ValueError),
        ("num_samples", 2.5, TypeError),
        ("thin", 0, ValueError),
        ("num_chains", 0, ValueError),
        ("num_chains", True, TypeError),
        ("chain_method", "fast", ValueError),
        ("callback", 3, TypeError),
        ("resume", True, ValueError),
        ("draws_on_disk", True, ValueError),
    ],
)
def test_silly_options(option: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=option):
        ChainOptions(**{option: value})  # type: ignore[arg-type]


def test_non_finite_chain_is_reported() -> None:
    _, y = ratings()
    design = Design((Block.create("x", np.full((60, 2), 1e25)),))
    with pytest.raises(FloatingPointError, match="not finite"):
        gibbs(KEY, default_spec(y, 2), design, y, options=OPTIONS)


def test_second_run_compiles_nothing() -> None:
    run()
    size = chains._ADVANCE["sequential"]._cache_size()
    run(replace(OPTIONS, num_warmup=3, thin=2))
    design, y = ratings()
    gibbs(jax.random.key(9), default_spec(10 * y, 2), design, 10 * y, options=OPTIONS)
    assert chains._ADVANCE["sequential"]._cache_size() == size


def _python(program: str, status: int = 0) -> None:
    root = Path(__file__).parents[2]
    little = (
        {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if jax.config.read("jax_disable_most_optimizations") else {}
    )
    env = {**os.environ, **little, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr


def test_streams_draw_unseen_levels_from_the_prior() -> None:
    """With the state held fixed, E[y] of a cold row is w0 + w_item + w, w ~ N(mu_w, 1/lambda_w) of the users' group."""
    design, y = ratings()
    levels = np.arange(6)
    user = Block.field("user", np.full(4, 6, np.int32), levels, unseen=np.array([7], np.uint32))
    cold = Design((user, design.take(np.arange(4)).blocks[1]))
    kernel, _ = gibbs_kernel(default_spec(y, 0), design, y, streams={"cold": cold})
    state = kernel.sweep(jax.random.key(1), kernel.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(2), 4000)
    mean, _ = jax.vmap(lambda key: kernel.moments(key, state)["cold"])(keys)
    items = design.num_features - cold.blocks[1].num_features + np.asarray(cold.blocks[1].index)
    w_item = np.asarray(to_sites(state, kernel.data.layout)["w"])[items]
    drawn = np.asarray(mean) - float(state.w0) - w_item
    np.testing.assert_allclose(drawn, drawn[:, :1].repeat(4, axis=1), atol=1e-5)  # one level, one weight
    prior = stats.norm(float(state.hyper_w["mu"][0]), float(state.hyper_w["lambda"][0]) ** -0.5)
    assert_no_alarm({"unseen w": ks_exact(drawn[:, 0], prior)})


def test_stopped_run_on_disk_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping cuts the arrays on disk to the draws there are; going on must not lose what comes after."""
    monkeypatch.setattr(chains, "PIECE_SECONDS", 0.0)
    options = replace(OPTIONS, checkpoint=tmp_path / "run", draws_on_disk=True)
    stopped = run(replace(options, callback=lambda progress: progress.sweep >= 10))
    assert stopped.sites["w"].shape[1] == 3
    assert_same(run(replace(options, resume=True)), run())
