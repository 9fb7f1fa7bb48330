"""The notebooks run from top to bottom, on a slice of their data and with fewer draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
CHAINS = "NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 20, 20, 2"


class Small(NamedTuple):
    """What stands for the cell tagged "parameters", what the last cell has to print, and the data file it needs."""

    parameters: str
    last_words: str
    data: str | None = None


NOTEBOOKS = {
    "01_ratings": Small(CHAINS, "same predictions: True"),
    # Steps of NUTS have to fit before draws differ.
    "02_engines": Small("NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 60, 60, 2", "elpd_diff"),
    "03_newsgroups": Small(
        "NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS, RANK = 10, 10, 2, 2\nNUM_POSTS = 300",
        "weight of",
        "20news-bydate.parquet",
    ),
    "04_sms_spam": Small(f"{CHAINS}\nNUM_MESSAGES = 600", "target .998", "sms.tsv.gz"),
    "05_movielens_gpu": Small(f"RANK, NUM_EPOCHS, ROWS = 2, 2, 3000\n{CHAINS}", "backend", "ml-100k.zip"),
    "06_feature_hashing": Small(
        "ROWS, TEST_ROWS, CHUNK = 8000, 2000, 2000\n"
        "USERS, PAGES, COUNTRIES = 500, 50, 5\n"
        "BITS = (6, 9)\n"
        "GIBBS_ROWS, NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 2000, 20, 20, 2",
        "one pass gained",
    ),
    "07_ordinal_ratings": Small(CHAINS, "elpd"),
}


def test_all_notebooks_are_run() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_as_the_format_wants_it(name: str) -> None:
    nbformat.validate(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = NOTEBOOKS[name]
    if small.data is not None:
        data_file: Callable[[str], Path] = request.getfixturevalue("data_file")
        monkeypatch.setenv("BAYESFM_DATA_HOME", str(data_file(small.data).parent))
    monkeypatch.setenv(
        "JAX_DISABLE_MOST_OPTIMIZATIONS", "1"
    )  # the notebook's process compiles as the tests do
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    parameters[0].source = small.parameters
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert small.last_words in str(last.outputs)
