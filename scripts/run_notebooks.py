"""Run notebooks from top to bottom and store what they print and draw: all of them, or those named.

usage: python scripts/run_notebooks.py [NAME ...]    such as 01_ratings; data files as for the tests (CONTRIBUTING.md)
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"


def run(path: Path) -> None:
    """Execute one notebook in an empty folder, and write it back without what would differ from run to run."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # no other kind may have outputs
            cell["outputs"] = [
                x for x in cell.outputs if "application/vnd.jupyter.widget-view+json" not in x.get("data", {})
            ]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    """Run the notebooks named, in order."""
    paths = [NOTEBOOKS / f"{Path(name).stem}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    missing = [path.stem for path in paths if not path.exists()]
    if missing:
        there = ", ".join(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))
        raise SystemExit(f"no notebook {', '.join(missing)}: there are {there}")
    shared = ROOT.parent / "shared" / "data"
    if shared.exists():
        os.environ.setdefault("BAYESFM_DATA_HOME", str(shared))
    for path in paths:
        print(path.stem, end=" ", flush=True)
        start = time.perf_counter()
        run(path)
        print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
