"""One engine's draws as the start of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bayesfm.inference import engines
from bayesfm.inference.chains import ChainOptions
from bayesfm.model import default_spec
from tests.inference.test_chains import KEY, ratings

DESIGN, Y = ratings()
SPEC = default_spec(Y, 1)
WEIGHT = np.ones(60)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What the engines are asked for: they return their names."""
    seen: dict[str, tuple[Any, dict[str, Any]]] = {}

    def engine(name: str) -> Any:
        def record(key: Any, *case: Any, **options: Any) -> str:
            assert case == (SPEC, DESIGN, Y)
            assert options["weight"] is WEIGHT
            seen[name] = (key, options)
            return name

        return record

    monkeypatch.setattr(engines, "gibbs", engine("draws of gibbs"))
    monkeypatch.setattr(engines.engine, "nuts", engine("draws of nuts"))
    return seen


def nuts(**options: Any) -> Any:
    return engines.nuts(KEY, SPEC, DESIGN, Y, weight=WEIGHT, **options)


def test_nuts_starts_where_a_short_gibbs_run_ends(calls: dict[str, Any]) -> None:
    options = ChainOptions(num_chains=3, chain_method="vectorized")
    assert nuts(options=options, warm_sweeps=70, target_accept=0.9, keep="hyper") == "draws of nuts"
    key_gibbs, short = calls["draws of gibbs"]
    short = short["options"]
    assert (short.num_sweeps, short.num_samples, short.num_chains) == (70, 1, 3)
    assert (short.chain_method, short.progress, short.checkpoint) == ("vectorized", False, None)
    key_nuts, asked = calls["draws of nuts"]
    assert asked["start"] == "draws of gibbs"
    assert asked["options"] is options
    assert (asked["target_accept"], asked["keep"]) == (0.9, "hyper")
    assert len({tuple(jax.random.key_data(k).tolist()) for k in (KEY, key_gibbs, key_nuts)}) == 3


@pytest.mark.parametrize("start", ["prior", {"w0": 1.0}])
def test_other_starts_need_no_gibbs(calls: dict[str, Any], start: Any) -> None:
    nuts(start=start)
    assert set(calls) == {"draws of nuts"}
    assert calls["draws of nuts"][1]["start"] == start


def test_a_resumed_run_is_not_started_again(calls: dict[str, Any], tmp_path: Path) -> None:
    nuts(options=ChainOptions(checkpoint=tmp_path, resume=True))
    assert set(calls) == {"draws of nuts"}


def test_silly_numbers_of_sweeps() -> None:
    with pytest.raises(ValueError, match="warm_sweeps must be >= 1"):
        nuts(warm_sweeps=0)
