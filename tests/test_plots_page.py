"""The code of docs/plots.md runs and finds what the page says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from bayesfm import nearest_features
from bayesfm.diagnostics import ConvergenceWarning

PAGE = Path(__file__).parents[1] / "docs" / "plots.md"


@pytest.mark.slow
def test_the_page() -> None:
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 draws are enough for pictures
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
    assert all(isinstance(names[x], Figure) for x in ("forest", "map_of_films", "reliability", "loss"))
    near = nearest_features(names["model"], "title=Matrix, The", n=3, among=names["films"])
    assert near.index[0].startswith("title=Star Wars")
