"""The notebooks run from top to bottom, with fewer draws."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = "NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 20, 20, 2"
WITH_NUTS = "NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 60, 60, 2"
"""Its steps have to fit before draws differ."""


LAST_WORDS = {"01_ratings": "same predictions: True", "02_engines": "elpd_diff", "03_ordinal_ratings": "elpd"}
"""What the last cell has to print."""


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == [f"{name}.ipynb" for name in LAST_WORDS]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.stem != "01_ratings"), id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    parameters[0].source = WITH_NUTS if path.stem == "02_engines" else SMALL
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert LAST_WORDS[path.stem] in str(last.outputs)
