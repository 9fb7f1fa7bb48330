from __future__ import annotations

import numpy as np
import pytest

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


def test_hidden_bar_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(False, num_sweeps=3, done=0) as bar:
        bar.update(3, False, 1.0, {})
    assert capsys.readouterr().err == ""


def test_bar_is_closed_when_a_run_fails() -> None:
    with pytest.raises(KeyboardInterrupt), ProgressBar(True, num_sweeps=3, done=0) as bar:
        raise KeyboardInterrupt
    assert bar._bar.disable  # tqdm's mark of a closed bar
