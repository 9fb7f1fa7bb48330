"""Draws that do not fit into memory are refused before the first of them is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesfm import FMRegressor
from bayesfm.inference import room

FLOAT = np.dtype("float32")


@pytest.fixture
def two_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free, as far as the package is told."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        8000000 kB\nMemAvailable:       2000 kB\n")
    monkeypatch.setattr(room, "MEMINFO", meminfo)


@pytest.mark.usefixtures("two_megabytes")
def test_what_fits_fits() -> None:
    room.check_room((2, 100), {"v": ((2, 1280), FLOAT)})
    with pytest.raises(MemoryError, match=r"2 x 101 draws take 0\.0 GB \('v' alone 0\.0 GB\)"):
        room.check_room((2, 101), {"v": ((2, 1280), FLOAT)})


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (None, "MemTotal: 1 kB\n"):
        file = tmp_path / "meminfo"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(room, "MEMINFO", file)
        room.check_room((1,), {"v": ((10**12,), FLOAT)})


@pytest.mark.usefixtures("two_megabytes")
@pytest.mark.parametrize(
    ("inference", "options"),
    [
        ("gibbs", {"num_warmup": 1, "num_chains": 1}),
        ("cavi", {"engine_options": {"max_iterations": 1}}),
        ("svi", {"engine_options": {"num_epochs": 1}}),
    ],
)
def test_engines_ask(inference: str, options: dict) -> None:
    """Chains, normals around a point, and normals learned from minibatches."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    model = FMRegressor(rank=2, inference=inference, num_samples=20_000, progress=False, **options)
    with pytest.raises(MemoryError, match="lower num_samples, let keep= name fewer sites"):
        model.fit(X, y)
