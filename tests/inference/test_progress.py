from __future__ import annotations

import numpy as np
import pytest

from bayesfm.inference.convergence import judge
from bayesfm.inference.progress import ProgressBar


def test_bar_shows_phase_rate_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(True, num_sweeps=10, done=2) as bar:
        bar.update(4, True, 123.4, {"train_rmse": np.array([1.0, 2.0])})
        bar._bar.refresh()
        bar.update(10, False, 60.0, {})
    err = capsys.readouterr().err
    assert "warm-up" in err
    assert "4/10" in err
    assert "train rmse=1.5000" in err
    assert "sampling" in err
    assert "10/10" in err


def test_bar_shows_what_a_run_finds_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    judged = judge(np.random.default_rng(0).normal(size=(2, 50, 4)) + np.array([[[0.0]], [[1.0]]]))
    with ProgressBar(True, num_sweeps=10, done=0) as bar:
        bar.update(4, False, 123.4, {}, judged)
        bar._bar.refresh()
    err = capsys.readouterr().err
    assert f"worst R-hat={judged.rhat.max():.3f}" in err
    assert f"smallest ESS={min(judged.bulk.min(), judged.tail.min()):.0f}" in err


def test_hidden_bar_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(False, num_sweeps=3, done=0) as bar:
        bar.update(3, False, 1.0, {})
    assert capsys.readouterr().err == ""


def test_bar_is_closed_when_a_run_fails() -> None:
    with pytest.raises(KeyboardInterrupt), ProgressBar(True, num_sweeps=3, done=0) as bar:
        raise KeyboardInterrupt
    assert bar._bar.disable  # tqdm's mark of a closed bar
