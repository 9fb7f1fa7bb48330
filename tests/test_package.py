"""The names that ``import bayesfm`` offers, and that it costs nothing before they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bayesfm

HEAVY = ("jax", "numpy", "numpyro", "pandas", "scipy", "sklearn", "xarray", "arviz_base", "matplotlib")


def test_import_is_light() -> None:
    program = f"import sys, bayesfm; print(*(m for m in {HEAVY} if m in sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_environment()
    )
    assert not run.stdout.split()


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(bayesfm.__file__).parents[1])}


def test_every_name_is_there() -> None:
    for name in bayesfm.__all__:
        assert getattr(bayesfm, name) is not None
        assert name in dir(bayesfm)
    assert bayesfm.FMRegressor.__name__ == "FMRegressor"
    assert isinstance(bayesfm.__version__, str)


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="module 'bayesfm' has no attribute 'FMClassifer'"):
        _ = bayesfm.FMClassifer


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING against the table that is used at run time."""
    tree = ast.parse(Path(bayesfm.__file__).read_text())
    imports = [node for block in tree.body if isinstance(block, ast.If) for node in ast.walk(block)]
    seen = {
        alias.name: str(node.module)
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"bayesfm.{module}" for name, module in bayesfm._HOME.items()}
    assert {*seen, "__version__"} == set(bayesfm.__all__)
