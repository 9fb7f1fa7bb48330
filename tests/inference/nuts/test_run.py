"""The front door of NUTS: sites as Gibbs has them, starts, options, divergences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bayesfm.inference import chains
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.nuts import run as run_module
from bayesfm.inference.nuts.run import DivergenceWarning, nuts, nuts_kernel
from bayesfm.inference.start import start_sites
from tests.inference.test_agreement import gaussian
from tests.inference.test_chains import assert_same

CASE = gaussian()[:3]
SPEC, DESIGN, Y = CASE
OPTIONS = ChainOptions(num_warmup=30, num_samples=12, num_chains=2, progress=False)
KEY = jax.random.key(0)
STATS = {"lp", "log_likelihood", "train_rmse"}
STATS |= {"diverging", "n_steps", "tree_depth", "acceptance_rate", "energy", "step_size"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.inference.nuts.run.DivergenceWarning"),
    pytest.mark.usefixtures("full_optimisation"),  # the engine as users run it
]


def sites() -> dict[str, np.ndarray]:
    """Somewhere to start."""
    rng = np.random.default_rng(0)
    k, p, G = SPEC.predictor.rank, DESIGN.num_features, len(DESIGN.group_names)
    return {
        "w0": np.asarray(5.0),
        "alpha": np.asarray(1.0),
        **{"mu_w": np.zeros(G), "lambda_w": np.ones(G), "w": np.zeros(p)},
        **{"mu_v": np.zeros((G, k)), "lambda_v": np.ones((G, k)), "v": 0.3 * rng.normal(size=(p, k))},
    }


def run(options: ChainOptions = OPTIONS, **kwargs: Any) -> Draws:
    return nuts(KEY, *CASE, options=options, **{"start": sites(), "streams": {"train": DESIGN}, **kwargs})


def test_statistics_are_those_of_the_draws() -> None:
    """lp, log-likelihood and RMSE from the stored sites, in float64; eta at the probes, which are all rows here."""
    draws = run()
    user, item = (np.asarray(b.index) for b in DESIGN.blocks)
    w, v = (draws.sites[name].astype(float) for name in ("w", "v"))
    u, i = user, 4 + item
    eta = draws.sites["w0"][..., None] + w[..., u] + w[..., i] + (v[:, :, u] * v[:, :, i]).sum(-1)
    np.testing.assert_allclose(draws.sites["eta"], eta, rtol=0, atol=1e-5)
    square = ((Y - eta) ** 2).sum(-1)
    alpha = draws.sites["alpha"].astype(float)
    log_likelihood = 0.5 * (len(Y) * np.log(alpha / (2 * np.pi)) - alpha * square)
    np.testing.assert_allclose(draws.stats["log_likelihood"], log_likelihood, rtol=1e-4)
    np.testing.assert_allclose(draws.stats["train_rmse"], np.sqrt(square / len(Y)), rtol=1e-4)
    assert set(draws.stats) == STATS
    assert draws.stats["diverging"].dtype == bool
    steps = draws.stats["n_steps"]
    np.testing.assert_array_equal(
        draws.stats["tree_depth"], [[int(n).bit_length() for n in c] for c in steps]
    )
    assert np.all(draws.stats["lp"] > draws.stats["lp"].max() - 100)


def test_same_key_same_draws_and_a_second_run_compiles_nothing() -> None:
    before = run()
    compiled = run_module._start_at._cache_size()
    assert_same(run(), before)
    assert run_module._start_at._cache_size() == compiled
    assert not np.array_equal(before.sites["alpha"][0], before.sites["alpha"][1])


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()
    monkeypatch.setattr(chains, "PIECE_SECONDS", 0.0)
    stopped = replace(OPTIONS, checkpoint=tmp_path / "run", callback=lambda progress: progress.sweep >= 34)
    assert run(stopped).num_draws < 12
    # where the resumed run would have started does not matter
    again = run(replace(OPTIONS, checkpoint=tmp_path / "run", resume=True), start="prior")
    assert_same(again, whole)


def test_a_run_can_start_where_another_ended() -> None:
    earlier = run()
    _, problem = nuts_kernel(*CASE)
    shapes = {name: x.shape for name, x in sites().items()}
    starts = start_sites(earlier, shapes, 3, problem.centre)
    for name in shapes:
        shift = problem.centre if name == "w0" else 0.0
        x = earlier.sites[name]
        np.testing.assert_array_equal(starts[name], np.stack([x[0, -1], x[1, -1], x[0, -2]]) - shift)


def test_chains_start_where_they_are_told() -> None:
    kernel, problem = nuts_kernel(*CASE)
    starts = start_sites(sites(), kernel.site_shapes(), 2, problem.centre)
    states = run_module._start_at(kernel, jax.random.split(KEY), starts)
    back = jax.jit(jax.vmap(kernel.coordinates.sites))(states.z)
    for name, x in starts.items():
        np.testing.assert_allclose(back[name], x, rtol=1e-5, atol=1e-6, err_msg=name)


def test_streams() -> None:
    draws = run()
    np.testing.assert_allclose(draws.streams["train"].mean, draws.sites["eta"].mean(axis=1), rtol=1e-5)
    assert draws.streams["train"].num_draws == 12


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"parametrization": "both"}, ValueError, "parametrization must be one of 'non-centred', 'centred'"),
        ({"target_accept": 1.0}, ValueError, r"target_accept must lie in \(0, 1\)"),
        ({"target_accept": "high"}, TypeError, "target_accept must be a real number"),
        ({"max_tree_depth": 0}, ValueError, "max_tree_depth must be >= 1"),
        ({"keep": ["beta"]}, ValueError, "keep names unknown site"),
        ({"factor_block": 2}, TypeError, "factor_block"),
        ({"start": "somewhere"}, TypeError, "start must be 'prior', Draws or a mapping of sites"),
        ({"start": {"w0": 1.0}}, ValueError, "start lacks the site.* alpha"),
        ({"start": sites() | {"w": np.zeros(3)}}, ValueError, r"start\['w'\] must have shape \(7,\)"),
        ({"start": sites() | {"w0": np.nan}}, ValueError, r"start\['w0'\] must be finite"),
        ({"start": sites() | {"alpha": -1.0}}, ValueError, r"no finite log density in chain\(s\) \[0, 1\]"),
        ({"start": "too few draws"}, ValueError, "start has 24 draws, too few for 25 chains"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    chosen = OPTIONS
    if options.get("start") == "too few draws":
        options, chosen = {"start": run()}, replace(OPTIONS, num_chains=25)
    with pytest.raises(error, match=message):
        run(chosen, **options)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"y must have shape \(40,\)"):
        nuts(KEY, SPEC, DESIGN, Y[:-1])
    with pytest.raises(ValueError, match=r"weight must have shape \(40,\)"):
        nuts(KEY, *CASE, weight=np.ones(3))


@pytest.mark.filterwarnings("error")
def test_divergences_are_reported_once_with_their_number() -> None:
    diverging = np.zeros((2, 10), bool)
    info = {"target_accept": 0.8, "parametrization": "centred"}
    draws = Draws({}, {}, {"diverging": diverging}, np.arange(0), info=info)
    run_module._report_divergences(draws)
    assert draws.info["num_divergences"] == 0
    diverging[0, :3] = True
    with pytest.warns(
        DivergenceWarning, match=r"^3 of 20 draws .* target_accept closer to 1 \(it was 0.8\)"
    ) as seen:
        run_module._report_divergences(draws)
    assert len(seen) == 1


@pytest.mark.filterwarnings("error")
def test_steps_that_are_too_long_diverge_with_a_warning() -> None:
    with pytest.warns(DivergenceWarning, match="of 24 draws"):
        run(target_accept=0.01)
