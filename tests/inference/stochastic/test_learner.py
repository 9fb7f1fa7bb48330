"""Streams of chunks, determinism, compilations, divergence."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.inference.stochastic import Learner, MinibatchOptions
from bayesfm.inference.stochastic import learner as learner_module
from bayesfm.inference.stochastic.steps import advance, score_stack
from bayesfm.model import default_spec
from tests.inference.stochastic.problems import KEY, PROBLEMS, learner_of, ridge, rows_of
from tests.inference.test_agreement import Case


def two_fields(n: int = 400) -> Case:
    rng = np.random.default_rng(0)
    user, item = (50 * rng.random(n) ** 2).astype(int), rng.integers(0, 20, n)
    y = rng.normal(3.0, 1.0, n)
    design = Design([Block.field("user", user, range(50)), Block.field("item", item, range(20))])
    return Case(default_spec(y, 2), design, y)


def fed(learner: Learner, case: Case, cuts: list[int]) -> Learner:
    """Fed in chunks that end at these rows."""
    for start, stop in zip([0, *cuts], [*cuts, case.design.num_rows], strict=True):
        rows = slice(start, stop)
        data = {name: x[rows] for name, x in case.row_data.items()}
        weight = None if case.weight is None else case.weight[rows]
        learner.partial_fit(case.design.take(rows), case.y[rows], row_data=data, weight=weight)
    return learner


def assert_same_state(a: Learner, b: Learner) -> None:
    jax.tree.map(np.testing.assert_array_equal, a.state, b.state)


@pytest.mark.parametrize(
    ("name", "expectation", "known"), [("gaussian", "samples", True), ("relation blocks", "point", False)]
)
def test_chunks_are_one_pass_bit_for_bit(name: str, expectation: str, known: bool) -> None:
    case = PROBLEMS[name]()
    options = MinibatchOptions(batch_size=4, progress=False)
    settings: dict[str, Any] = {"options": options} if known else {"options": options, "totals": None}
    whole, chunks = (fed(learner_of(case, expectation, **settings), case, cuts) for cuts in ([], [4, 12]))
    assert_same_state(whole, chunks)
    assert whole.totals.num_rows == case.design.num_rows
    other = fed(learner_of(case, expectation, **settings), case, [3])
    assert not np.array_equal(whole.state.table, other.state.table)


def test_a_learner_goes_on_from_its_arrays() -> None:
    """State, hyperparameters, totals and number of steps, carried over to another learner as plain arrays."""
    case = PROBLEMS["gaussian"]()
    whole = fed(learner_of(case, "samples", totals=None), case, [20])
    first = learner_of(case, "samples", totals=None)
    first.partial_fit(case.design.take(slice(0, 20)), case.y[:20])
    second = learner_of(case, "samples", totals=None)
    second.state = jax.tree.map(lambda x: jax.numpy.asarray(np.asarray(x)), first.state)
    second.totals, second.steps = first.totals, first.steps
    second.partial_fit(case.design.take(slice(20, 40)), case.y[20:])
    assert_same_state(whole, second)


def test_the_order_of_rows_is_that_of_key_and_epoch() -> None:
    case = PROBLEMS["gaussian"]()
    a, b = learner_of(case), learner_of(case)
    np.testing.assert_array_equal(a.order(3, 100), b.order(3, 100))
    assert sorted(a.order(3, 100)) == list(range(100))
    assert not np.array_equal(a.order(3, 100), a.order(4, 100))
    other = Learner(jax.random.key(1), case.spec, case.design, case.y)
    assert not np.array_equal(a.order(3, 100), other.order(3, 100))


def test_compilations_do_not_grow_with_the_number_of_batches() -> None:
    case = two_fields()
    options = MinibatchOptions(batch_size=32, progress=False)
    learner = learner_of(case, "moments", options=options)
    learner.batcher.stack_size = 3
    source = rows_of(learner, case)

    def epochs(first: int, last: int) -> tuple[int, int]:
        for epoch in range(first, last):
            for _ in learner.run(source, learner.order(epoch, 400)):
                pass
            learner.score(source)
        return advance._cache_size(), score_stack._cache_size()

    after_one = epochs(0, 1)
    assert epochs(1, 8) == after_one
    again = learner_of(case, "moments", options=MinibatchOptions(batch_size=32, learning_rate=0.2))
    again.batcher.stack_size = 3
    for _ in again.run(source, np.arange(400)):
        pass
    assert advance._cache_size() == after_one[0]


def test_a_run_that_diverges_says_so() -> None:
    case = two_fields()
    options = MinibatchOptions(batch_size=32, optimiser="sgd", learning_rate=1e6, progress=False)
    learner = learner_of(case, options=options)
    message = (
        r"no longer finite: the last finite one was [\d.e+]+ per row, at a learning rate of 1e\+06 \(sgd\)\. "
        r"Try a learning_rate of 1e\+05, optimiser='adam', a larger batch_size"
    )
    with pytest.raises(FloatingPointError, match=message):
        learner.partial_fit(case.design, case.y)


def test_the_last_step_is_looked_at() -> None:
    """Its effect is in no loss: parameters are."""
    case = PROBLEMS["gaussian"]()
    learner = learner_of(case)
    learner.check_finite()
    learner.state = learner.state._replace(table=learner.state.table.at[0, 1].set(np.nan))
    with pytest.raises(FloatingPointError, match="no longer finite: no finite one was seen"):
        learner.check_finite()


def test_scores_do_not_count_as_seen() -> None:
    case = PROBLEMS["gaussian"]()
    learner = fed(learner_of(case, totals=None), case, [])
    learner.score(rows_of(learner, case))
    assert learner.totals.num_rows == 40
    assert learner.totals.entries.sum() == 80


def test_scores_are_those_of_all_rows() -> None:
    """Of a point, in float64 by hand; rows count by their weights."""
    weight = np.resize([1.0, 0.5, 2.0, 0.0], 40)
    case = PROBLEMS["gaussian"]()._replace(weight=weight)
    learner = learner_of(case)
    source = rows_of(learner, case)
    score = learner.score(source)
    theta = np.asarray(learner.state.table[:-1, : learner.rule.width], np.float64)
    user, item = (np.asarray(b.index) for b in case.design.blocks)
    a, b = theta[user], theta[4 + item]
    eta = float(learner.state.dense["w0"][0]) + a[:, 0] + b[:, 0] + (a[:, 1:] * b[:, 1:]).sum(1)
    alpha = float(np.exp(learner.state.dense["params"]["alpha"]))
    square = np.average((source.y.astype(np.float64) - eta) ** 2, weights=weight)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(score.rmse, np.sqrt(square), rtol=100 * eps)
    expected = 0.5 * np.log(alpha / (2 * np.pi)) - 0.5 * alpha * square
    np.testing.assert_allclose(score.log_density, expected, rtol=100 * eps)


def test_every_step_has_noise_of_its_own() -> None:
    """The same rows twice, and parameters that stay: the two estimates of the bound differ."""
    case = PROBLEMS["gaussian"]()
    options = MinibatchOptions(batch_size=40, optimiser="sgd", learning_rate=lambda _: 0.0, progress=False)
    learner = learner_of(case, "samples", options=options)
    learner.batcher.stack_size = 1
    first, second = learner.run(rows_of(learner, case), np.tile(np.arange(40), 2))
    assert first[1] != second[1]


def test_an_approximation_is_scored_by_its_predictive_density(monkeypatch: pytest.MonkeyPatch) -> None:
    """At rank 0 that is normal, of variance 1/alpha + var eta; the mean over draws within its Monte Carlo error."""
    monkeypatch.setattr(learner_module, "SCORE_DRAWS", 2000)
    case = ridge()
    learner = learner_of(case, "moments")
    learner.state = learner.state._replace(table=learner.state.table.at[:, 1].add(2.0))  # far from certain
    source = rows_of(learner, case)
    score = learner.score(source)
    features, w0 = learner.features(), np.asarray(learner.state.dense["w0"], float)
    X = case.design.to_csr().toarray()
    m = w0[0] + X @ np.asarray(features.mean[:, 0], float)
    var = np.exp(2 * w0[1]) + X**2 @ np.asarray(features.sd[:, 0], float) ** 2
    alpha = float(np.exp(learner.state.dense["params"]["alpha"]))
    density = stats.norm.pdf(source.y, m, (1 / alpha + var) ** 0.5)
    # E p^2 / (E p)^2 - 1 of a normal density p of precision alpha around a normal eta
    square = (alpha / (4 * np.pi)) ** 0.5 * stats.norm.pdf(source.y, m, (0.5 / alpha + var) ** 0.5)
    error = np.sqrt(np.max(square / density**2 - 1) / 2000)
    assert abs(score.log_density - np.log(density).mean()) < 5 * error
    of_mean = np.sqrt(np.mean((source.y - m) ** 2))
    assert abs(score.rmse - of_mean) < 5 * np.sqrt(var.max() / 2000)


def test_features_without_rows_are_as_their_prior() -> None:
    case = PROBLEMS["unseen"]()
    learner = learner_of(
        case, "moments", scales={"mu_w": 0.7, "lambda_w": 4.0, "lambda_v": 16.0, "mu_v": -0.1}
    )
    features = learner.features()
    unseen = learner.totals.entries == 0
    assert unseen.any()
    assert not unseen.all()
    np.testing.assert_allclose(features.mean[unseen], [[0.7, -0.1, -0.1]] * unseen.sum(), rtol=1e-6)
    np.testing.assert_allclose(features.sd[unseen], [[0.5, 0.25, 0.25]] * unseen.sum(), rtol=1e-6)
    assert not np.isclose(features.mean[~unseen], 0.7).any()


def test_rows_of_another_schema_are_refused() -> None:
    case = PROBLEMS["gaussian"]()
    learner = learner_of(case)
    with pytest.raises(ValueError, match="the design does not match the fitted one"):
        learner.partial_fit(two_fields().design, two_fields().y)
    with pytest.raises(ValueError, match=r"y must have shape \(40,\)"):
        learner.partial_fit(case.design, case.y[1:])
    with pytest.raises(ValueError, match=r"weight must have shape \(40,\)"):
        learner.partial_fit(case.design, case.y, weight=np.ones(3))
    with pytest.raises(ValueError, match="expectation must be one of"):
        learner_of(case, "guess")
    with pytest.raises(ValueError, match="Categorical has several: take 'samples'"):
        learner_of(PROBLEMS["categorical"](), "moments")
    with pytest.raises(ValueError, match="scales of a point are fixed"):
        learner.update_scales()


def test_key_matters() -> None:
    case = PROBLEMS["gaussian"]()
    a = Learner(KEY, case.spec, case.design, case.y)
    b = Learner(jax.random.key(1), case.spec, case.design, case.y)
    assert not np.array_equal(a.state.table, b.state.table)
