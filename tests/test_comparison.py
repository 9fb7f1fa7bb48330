"""Leave-one-out results with labels, and models compared row by row."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pandas as pd
import pytest

from bayesfm import FMRegressor, compare, comparison
from bayesfm.comparison import loo_results
from bayesfm.psis import leave_one_out
from tests.estimators.data import ratings

pytestmark = [
    pytest.mark.filterwarnings("ignore:Pareto k is above"),
    pytest.mark.filterwarnings("ignore::bayesfm.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter"),
]
FRAME, STARS = ratings()
QUICK = {"rank": 1, "num_warmup": 5, "num_samples": 30, "progress": False, "random_state": 0}


def result(rng: np.random.Generator, labels: object, by: float = 0.0) -> object:
    log_lik = np.random.default_rng(0).normal(size=(len(labels), 200)) - by * rng.normal(
        size=(len(labels), 1)
    )  # type: ignore[arg-type]
    return loo_results(leave_one_out(log_lik), 200, labels)


def test_loo_of_a_model_is_that_of_arviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the log densities that it keeps, piece by piece; arviz_stats takes the efficiency that it is given."""
    model = FMRegressor(**QUICK).fit(FRAME, STARS)
    monkeypatch.setattr(comparison, "PIECE", 3 * model.model_.num_draws)
    found = model.loo(FRAME, STARS, keep=True)
    from bayesfm.diagnostics import relative_ess

    expected = arviz_stats.loo(model.posterior_, pointwise=True, reff=relative_ess(model.posterior_))
    for name in ("elpd", "se", "p", "good_k", "n_samples", "n_data_points", "warning"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    np.testing.assert_allclose(found.elpd_i, expected.elpd_i, rtol=1e-5)
    np.testing.assert_allclose(found.pareto_k, expected.pareto_k, rtol=1e-4, atol=1e-4)


def test_rows_have_the_labels_of_the_table() -> None:
    model = FMRegressor(**QUICK)
    frame = FRAME.set_axis([f"row {i}" for i in range(len(FRAME))])
    weight = np.ones(len(FRAME))
    weight[[1, 4]] = 0
    found = model.fit(frame, STARS, weight).loo(frame, STARS, weight)
    expected = [f"row {i}" for i in range(len(FRAME)) if i not in (1, 4)]
    assert found.elpd_i["row"].to_numpy().tolist() == expected
    assert "log_likelihood" not in model.posterior_
    numbered = model.loo(frame.reset_index(drop=True), STARS, weight).elpd_i["row"].to_numpy()
    assert numbered.tolist() == [i for i in range(len(FRAME)) if i not in (1, 4)]


def test_rows_are_paired_by_label() -> None:
    """The same results in another order differ by nothing; by position they would."""
    rng = np.random.default_rng(0)
    log_lik = np.random.default_rng(3).normal(size=(50, 200)) + 3 * rng.normal(size=(50, 1))
    order, labels = rng.permutation(50), np.array([f"r{i}" for i in range(50)])
    one = loo_results(leave_one_out(log_lik), 200, labels)
    other = loo_results(leave_one_out(log_lik[order]), 200, labels[order])
    table = compare({"one": one, "other": other}, round_to="none")
    np.testing.assert_allclose(table["dse"].astype(float), 0.0, atol=1e-9)
    by_position = arviz_stats.compare({"one": one, "other": other}, round_to="none")
    assert by_position["dse"].astype(float).max() > 1


def test_other_rows_are_refused() -> None:
    rng = np.random.default_rng(0)
    a, b = result(rng, list("abcdefgh")), result(rng, list("abcdefgx"))
    with pytest.raises(ValueError, match="'b' lacks h, which 'a' has"):
        compare({"a": a, "b": b})
    with pytest.raises(ValueError, match="'a' has 8, 'b' 7"):
        compare({"a": a, "b": result(rng, list("abcdefg"))})
    with pytest.raises(ValueError, match="of which a occur more than once"):
        compare({"a": a, "b": result(rng, list("aacdefgh"))})
    with pytest.raises(ValueError, match="two models or more, got 1"):
        compare({"a": a})
    with pytest.raises(TypeError, match="for 'b'; got dict"):
        compare({"a": a, "b": {}})


def test_shuffled_arrays_are_refused() -> None:
    """Both are labelled 0, 1, 2, ..., and would be paired by position."""
    X, y = FRAME.reset_index(drop=True), np.asarray(STARS)
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = X.iloc[order].reset_index(drop=True)
    found = {
        "as it is": FMRegressor(**QUICK).fit(X, y).loo(X, y),
        "shuffled": FMRegressor(**QUICK).fit(shuffled, y[order]).loo(shuffled, y[order]),
    }
    with pytest.raises(ValueError, match="have another y under 'shuffled' than under 'as it is'"):
        compare(found)


def test_impossible_rows_are_named_and_left_out() -> None:
    log_lik = np.random.default_rng(0).normal(size=(9, 200))
    labels = pd.Index([f"r{i}" for i in range(9)])
    whole = loo_results(leave_one_out(log_lik), 200, labels)
    log_lik[[2, 5], 0] = -np.inf
    with pytest.warns(UserWarning, match=r"2 of 9 rows \(r2, r5\): some draw gives y a density of zero"):
        found = loo_results(leave_one_out(log_lik), 200, labels)
    rest = np.delete(whole.elpd_i.to_numpy(), [2, 5])
    np.testing.assert_allclose(found.elpd, rest.sum())
    assert found.n_data_points == 7
    with pytest.warns(UserWarning, match=r"2 of 9 rows \(r2, r5\) left out"):
        table = compare({"whole": whole, "found": found}, round_to="none")
    np.testing.assert_allclose(table["elpd"].astype(float), rest.sum())


def test_rows_of_large_influence_are_named() -> None:
    log_lik = 0.1 * np.random.default_rng(0).normal(size=(3, 400))
    log_lik[1] = -3 * np.random.default_rng(1).exponential(size=400)
    with pytest.warns(UserWarning, match=r"Pareto k is above 0.62 in 1 of 3 rows \(b\)"):
        found = loo_results(leave_one_out(log_lik), 400, list("abc"))
    assert found.warning
