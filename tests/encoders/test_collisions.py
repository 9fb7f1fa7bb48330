from __future__ import annotations

import math

import numpy as np
import pytest

from bayesfm.encoders import Collisions, HashedFields


def test_report() -> None:
    report = HashedFields(4).fit([["a", "b", "c", "d", "e", "f", "g", "h", "i"], ["a"]]).collisions()
    assert report.num_tokens == 9
    assert report.num_columns <= 4
    tokens = [token for _, some in report.worst for token in some]
    assert report.num_colliding == len(tokens) == len(set(tokens))
    sizes = [len(some) for _, some in report.worst]
    assert sizes == sorted(sizes, reverse=True)
    assert next(some for _, some in report.worst if "a" in some)[0] == "a"  # the most frequent first
    lines = repr(report).splitlines()
    assert lines[0] == "Collisions of 9 tokens in 4 columns"
    assert f"= {100 * report.num_colliding / 9:.1f} %" in lines[2]
    assert len(lines) == 3 + len(report.worst)


def test_only_the_worst_are_shown() -> None:
    report = HashedFields(20).fit([[f"t{i}" for i in range(300)]]).collisions()
    assert len(report.worst) == 5
    assert f"and {len(report.worst[0][1]) - 6} more" in repr(report)


def test_expectations_against_random_columns() -> None:
    m, num_tokens, repeats = 50, 40, 4000
    columns = np.random.default_rng(0).integers(m, size=(repeats, num_tokens))
    counts = np.array([np.bincount(row, minlength=m) for row in columns])
    used, colliding = (counts > 0).sum(axis=1), np.where(counts > 1, counts, 0).sum(axis=1)
    report = Collisions(m, num_tokens, 0, 0, ())
    for simulated, expected in (
        (used, report.expected_columns),
        (colliding, report.expected_rate * num_tokens),
    ):
        assert abs(simulated.mean() - expected) < 4 * simulated.std() / math.sqrt(repeats)


@pytest.mark.parametrize(
    ("n_features", "num_tokens", "rate", "columns"),
    [(10, 0, 0.0, 0.0), (10, 1, 0.0, 1.0), (1, 1, 0.0, 1.0), (1, 3, 1.0, 1.0)],
)
def test_ends(n_features: int, num_tokens: int, rate: float, columns: float) -> None:
    report = Collisions(n_features, num_tokens, 0, 0, ())
    assert report.expected_rate == pytest.approx(rate)
    assert report.expected_columns == pytest.approx(columns)
    assert report.rate == 0
    assert "0 = 0.0 %" in repr(report)
