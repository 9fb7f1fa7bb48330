"""The front doors: closed forms, early stopping, what comes back, bad arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optax
import pytest

from bayesfm import AscentOptions, Block, Design, default_spec, find_map
from bayesfm.inference.stochastic import EpochProgress, HeldOut, MinibatchOptions, stochastic_map, svi
from bayesfm.inference.stochastic.run import learn
from bayesfm.inference.stochastic.scales import given_scales
from bayesfm.likelihoods import BernoulliLogit
from bayesfm.model import site_dims
from bayesfm.posterior import to_datatree
from tests import reference
from tests.design.strategies import naive_rows
from tests.inference.stochastic.problems import KEY, PROBLEMS, QUIET, ridge
from tests.inference.test_agreement import Case

pytestmark = pytest.mark.usefixtures("full_optimisation")  # the engine as users run it


def fitted(engine: Any, case: Case, **settings: Any) -> Any:
    return engine(KEY, case.spec, case.design, case.y, **{"options": QUIET, **case.keywords(), **settings})


def linear_posterior(case: Case, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of (w0, w) and precision matrix given alpha, by linear algebra."""
    X = np.column_stack([np.ones(case.design.num_rows), case.design.to_csr().toarray()])
    p = case.design.num_features
    precision = np.diag(np.append(0.5, np.full(p, 1.5)))
    b = precision @ np.append(4.0, np.full(p, 0.2))
    P = alpha * X.T @ X + precision
    return np.linalg.solve(P, alpha * X.T @ case.y + b), P


def long(case: Case, **settings: Any) -> MinibatchOptions:
    """Enough to settle."""
    return MinibatchOptions(
        **{"num_epochs": 500, "batch_size": case.design.num_rows, "progress": False, **settings}
    )


NUMBERS = {"a0": 6.0, "b0": 3.0, "beta0": 2.0, "mu0": 0.2}
"""Of the priors of the Gaussian problem."""
A_FRACTION = 1e-2
"""Of a posterior standard deviation: what an optimiser may leave."""


def test_rank_zero_is_ridge_regression() -> None:
    """Given alpha at the mode, and alpha is at its mode given the weights."""
    case = ridge()
    draws = fitted(stochastic_map, case, options=long(case, learning_rate=0.5))
    alpha = float(draws.sites["alpha"][0, 0])
    mean, P = linear_posterior(case, alpha)
    found = np.append(draws.sites["w0"][0, 0], draws.sites["w"][0, 0])
    np.testing.assert_array_less(np.abs(found - mean), A_FRACTION * np.diag(np.linalg.inv(P)) ** 0.5)
    X = np.column_stack([np.ones(60), case.design.to_csr().toarray()])
    a0, b0 = case.spec.likelihood.a0, case.spec.likelihood.b0
    mode = (60 + a0 - 2) / (np.sum((case.y - X @ found) ** 2) + b0)
    sd = alpha / (30 + a0 / 2) ** 0.5
    assert abs(alpha - mode) < A_FRACTION * sd


def test_rank_zero_has_the_best_independent_normals() -> None:
    """Mean of the posterior, variances one over the diagonal of its precision, given alpha; any scale of lambda."""
    case = ridge()
    draws = fitted(
        svi,
        case,
        options=long(case, learning_rate=0.3),
        num_samples=1000,
    )
    alpha = float(draws.sites["alpha"][0, 0])
    mean, P = linear_posterior(case, alpha)
    x = np.concatenate([draws.sites["w0"][0][:, None], draws.sites["w"][0]], axis=1)
    sd = np.diag(P) ** -0.5
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - mean), (A_FRACTION + 5 / 1000**0.5) * sd)
    np.testing.assert_array_less(np.abs(x.std(axis=0) / sd - 1), A_FRACTION + 5 / 2000**0.5)
    correlation = np.corrcoef(x.T)[np.triu_indices(len(mean), 1)]
    assert np.all(np.abs(correlation) < 5 / 1000**0.5)


def test_noisy_steps_settle_at_the_mode() -> None:
    """Small batches: within a tenth of a posterior standard deviation after the learning rate has fallen."""
    case = ridge()
    draws = fitted(stochastic_map, case, options=long(case, num_epochs=300, batch_size=8))
    mean, P = linear_posterior(case, float(draws.sites["alpha"][0, 0]))
    found = np.append(draws.sites["w0"][0, 0], draws.sites["w"][0, 0])
    np.testing.assert_array_less(np.abs(found - mean), 0.1 * np.diag(np.linalg.inv(P)) ** 0.5)


@pytest.mark.parametrize(
    ("engine", "name"),
    [pytest.param(stochastic_map, "ordinal", marks=pytest.mark.slow), (svi, "relation blocks")],
)
def test_draws_are_those_of_every_engine(engine: Any, name: str) -> None:
    """Sites, dimensions and shapes as model.site_dims has them; a posterior can be made of them."""
    case = PROBLEMS[name]()
    more = {} if engine is stochastic_map else {"num_samples": 2, "statistics": True}
    draws = fitted(engine, case, **more)
    assert list(draws.sites) == [*site_dims(case.spec), "eta"]
    assert draws.dims == {**site_dims(case.spec), "eta": (*case.spec.likelihood.output_dims, "probe")}
    assert draws.num_chains == 1
    assert draws.num_draws == (1 if engine is stochastic_map else 2)
    tree = to_datatree(draws, case.spec, case.design, case.y, **case.keywords())
    assert set(tree["posterior"].data_vars) >= set(site_dims(case.spec))
    assert set(draws.stats) >= {"lp", "log_likelihood"}
    again = fitted(engine, case, **more)
    for site, x in draws.sites.items():
        np.testing.assert_array_equal(x, again.sites[site], err_msg=site)


def test_statistics_and_eta_are_those_of_the_draws() -> None:
    """In float64 from the stored sites; the user's units."""
    case = PROBLEMS["gaussian"]()
    draws = fitted(svi, case, num_samples=5, statistics=True)
    user, item = (np.asarray(b.index) for b in case.design.blocks)
    w, v = (np.asarray(draws.sites[name], float) for name in ("w", "v"))
    eta = draws.sites["w0"][..., None] + w[..., user] + w[..., 4 + item]
    eta = eta + (v[:, :, user] * v[:, :, 4 + item]).sum(-1)
    np.testing.assert_allclose(draws.sites["eta"], eta, atol=1e-5)
    square = ((case.y - eta) ** 2).sum(-1)
    alpha = np.asarray(draws.sites["alpha"], float)
    np.testing.assert_allclose(
        draws.stats["log_likelihood"], 0.5 * (40 * np.log(alpha / (2 * np.pi)) - alpha * square), rtol=1e-4
    )
    np.testing.assert_allclose(draws.stats["train_rmse"], np.sqrt(square / 40), rtol=1e-4)
    case_prior = {"a0": 4.0, "b0": 2.0, "mean": 5.0, "precision": 0.5}
    case_prior |= {f"{c}_{x}": value for x in "wv" for c, value in NUMBERS.items()}
    for draw in range(5):
        sites = {name: np.asarray(x[0, draw], float) for name, x in draws.sites.items()}
        lp = reference.log_joint(
            naive_rows(case.design), case.y, np.ones(40), case.design.groups, sites, case_prior
        )
        np.testing.assert_allclose(draws.stats["lp"][0, draw], lp, rtol=1e-4)
    assert draws.info["engine"] == "svi"
    assert draws.info["expectation"] == "moments"


def test_the_best_epoch_is_kept() -> None:
    """Descent that worsens: held-out scores say which epoch was best, and its parameters come back."""
    case = PROBLEMS["gaussian"]()
    held_out = (case.design.take(slice(0, 10)), case.y[:10])
    rates = [0.5, 0.5, -0.5, -0.5, -0.5, -0.5, -0.5]  # up the hill, then down again
    options = MinibatchOptions(
        num_epochs=7,
        batch_size=40,
        optimiser="sgd",
        learning_rate=lambda step: rates[step],
        patience=3,
        progress=False,
    )
    draws = fitted(stochastic_map, case, options=options, held_out=held_out)
    scores = draws.info["history"]["held_out_log_density"]
    assert draws.info["best_epoch"] == 1 + int(np.argmax(scores)) == 2
    assert draws.info["num_epochs"] == 5 == len(draws.info["history"]["objective"])
    short = fitted(stochastic_map, case, options=replace(options, num_epochs=2))
    for name in ("w0", "w", "v", "alpha"):
        np.testing.assert_array_equal(draws.sites[name], short.sites[name])
    assert draws.info["history"]["held_out_rmse"][1] == min(draws.info["history"]["held_out_rmse"])


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 7), ("constant", 3)])
def test_patience_begins_half_way_down_a_falling_rate(schedule: str, last: int) -> None:
    """Held-out rows that say the opposite: all epochs but the first two predict them worse and worse."""
    case = PROBLEMS["gaussian"]()
    opposite = (case.design, 2 * case.y.mean() - case.y)
    options = MinibatchOptions(num_epochs=12, batch_size=40, schedule=schedule, patience=1, progress=False)
    draws = fitted(stochastic_map, case, options=options, held_out=opposite, scales="prior")
    assert np.all(np.diff(draws.info["history"]["held_out_log_density"])[1:] < 0)
    assert draws.info["num_epochs"] == last
    assert draws.info["best_epoch"] == 2


def test_scales_of_a_point_are_those_of_an_approximation() -> None:
    """Of some epochs before, unless they are given or left where the prior starts; given ones cost no epochs."""
    case = PROBLEMS["gaussian"]()
    known = {"options": QUIET, **case.keywords()}
    before = learn(KEY, case.spec, case.design, case.y, "auto", None, update_scales=True, **known)
    estimated = fitted(stochastic_map, case, options=QUIET, scale_epochs=QUIET.num_epochs)
    for name, x in before.learner.scales.items():
        np.testing.assert_array_equal(estimated.sites[name][0, 0], x)
    start = given_scales(case.spec, None, len(case.design.group_names), case.design.num_features, np.float32)
    left = fitted(stochastic_map, case, options=QUIET, scales="prior")
    np.testing.assert_array_equal(left.sites["lambda_v"][0, 0], start[1]["lambda"])
    given = fitted(stochastic_map, case, options=QUIET, scales={"lambda_v": 3.0})
    np.testing.assert_array_equal(given.sites["lambda_v"], 3.0)
    assert not np.allclose(estimated.sites["lambda_v"], left.sites["lambda_v"])


def test_a_fraction_is_held_out_and_callbacks_may_stop() -> None:
    case = PROBLEMS["gaussian"]()
    seen: list[EpochProgress] = []

    def stop_at_two(progress: EpochProgress) -> bool:
        seen.append(progress)
        return progress.epoch == 2

    draws = fitted(stochastic_map, case, options=replace(QUIET, callback=stop_at_two), held_out=0.25)
    assert [x.epoch for x in seen] == [1, 2]
    assert all(np.isfinite([x.objective, x.held_out_log_density, x.held_out_rmse]).all() for x in seen)
    assert draws.info["num_epochs"] == 2
    # rows that are held out are not learned from: 30 rows are left
    assert draws.info["rows_per_second"] * draws.info["seconds"] == pytest.approx(2 * 30)
    with_rows = HeldOut(case.design, case.y, case.weight, case.row_data)
    fewer = fitted(stochastic_map, case, held_out=with_rows, keep="hyper")
    assert not {"w", "v"} & set(fewer.sites)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimiser": "newton"}, ValueError, "optimiser must be one of 'adam', 'adagrad', 'sgd'"),
        ({"optimiser": 3}, TypeError, "optimiser must be one of .* or an optax.GradientTransformation"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be > 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1"),
        ({"num_epochs": 0}, ValueError, "num_epochs must be >= 1"),
        ({"patience": 0}, ValueError, "patience must be >= 1"),
        ({"schedule": "linear"}, ValueError, "schedule must be one of 'cosine', 'constant'"),
        ({"callback": 1}, TypeError, "callback must be callable"),
    ],
)
def test_bad_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MinibatchOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"held_out": 1.5}, ValueError, r"held_out must lie in \(0, 1\)"),
        ({"held_out": 0.001}, ValueError, "held_out=0.001 leaves no rows on one side: there are 40"),
        ({"held_out": ("train", "test")}, TypeError, "held_out must be a fraction, or"),
        ({"keep": ["beta"]}, ValueError, "keep names unknown site"),
        ({"num_samples": 0}, ValueError, "num_samples must be >= 1"),
        ({"expectation": "point"}, ValueError, "expectation must be one of 'samples', 'moments', 'auto'"),
        ({"update_scales": 1}, TypeError, "update_scales must be True or False"),
        ({"weight": np.ones(3)}, ValueError, r"weight must have shape \(40,\)"),
        ({"row_data": {"trials": 1.0}}, ValueError, "Gaussian takes no row data 'trials'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted(svi, PROBLEMS["gaussian"](), **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scales": "best"}, ValueError, "scales must be one of 'estimate', 'prior'; got 'best'"),
        ({"scales": 3.0}, TypeError, "scales must be a mapping of hyperparameter sites to values, got 3.0"),
        ({"scales": {"lambda_v": -1.0}}, ValueError, r"scales\['lambda_v'\] must be positive; got -1"),
        ({"scale_epochs": 0}, ValueError, "scale_epochs must be >= 1"),
    ],
)
def test_bad_scales(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted(stochastic_map, PROBLEMS["gaussian"](), **arguments)


def test_schedules() -> None:
    options = MinibatchOptions(learning_rate=2.0)
    assert [options.rate(step, 100) for step in (0, 100, 1000)] == pytest.approx([2.0, 0.02, 0.02])
    assert 0.9 < options.rate(50, 100) < 1.1
    assert replace(options, schedule="constant").rate(50, 100) == 2.0
    assert options.rate(50, None) == 2.0
    assert replace(options, learning_rate=lambda step: step / 2).rate(3, 100) == 1.5
    assert MinibatchOptions(optimiser=optax.sgd(0.1)).rate(7, 10) == 1.0
    assert [MinibatchOptions().size_of_batch(n) for n in (10, 3000, 10**5, 10**7)] == [10, 64, 1024, 8192]
    assert MinibatchOptions(batch_size=100).size_of_batch(30) == 30


@pytest.mark.slow
def test_the_point_is_where_an_ascent_over_all_rows_ends() -> None:
    """Logit, rank 2, the same scales: L-BFGS from there finds next to nothing above, and predicts what it predicts."""
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, 10, 400), rng.integers(0, 8, 400)
    a, b = rng.normal(size=(10, 2)), rng.normal(size=(8, 2))
    y = (rng.random(400) < 1 / (1 + np.exp(-(a[user] * b[item]).sum(1)))).astype(float)
    design = Design([Block.field("user", user, np.arange(10)), Block.field("item", item, np.arange(8))])
    spec = default_spec(y, 2, likelihood=BernoulliLogit())
    scales = {
        "mu_w": np.zeros(2),
        "lambda_w": np.ones(2),
        "mu_v": np.zeros((2, 2)),
        "lambda_v": np.full((2, 2), 2.0),
    }
    options = MinibatchOptions(num_epochs=300, batch_size=50, progress=False)
    point = stochastic_map(KEY, spec, design, y, scales=scales, options=options)
    start = {name: point.sites[name][0, 0] for name in ("w0", "w", "v")}
    ascent = AscentOptions(max_iterations=300, tolerance=1e-7, progress=False)
    own = {"scales": scales, "shrinkage": 1.0, "optimiser": "lbfgs", "scale_iterations": 1}
    mode = find_map(KEY, spec, design, y, start=start, options=ascent, **own)
    first, last = mode.info["objective"][0], mode.info["objective"][-1]
    # Batches of 50 rows at a falling rate leave a part of a unit of log density, where chance alone moves it by ten.
    assert 0 <= last - first < 0.1
    np.testing.assert_allclose(point.sites["eta"], mode.sites["eta"], atol=0.1)
