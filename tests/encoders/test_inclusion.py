from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import murmurhash3_32

from bayesfm.encoders import BloomInclusion, HashedFields, PoissonInclusion
from bayesfm.encoders.inclusion import _count_up

streams = st.lists(st.lists(st.integers(0, 30), max_size=6, unique=True), min_size=1, max_size=25)


def rows_of(stream: list[list[int]]) -> list[list[str]]:
    return [[f"t{i}" for i in row] for row in stream]


def occurrences(encoder: HashedFields, rows: list[list[str]]) -> list[tuple[int, int]]:
    """(row, hashed column) one after the other, columns of a row in increasing order."""
    X = HashedFields(encoder.n_features, compact=False, empty="ignore").transform(rows).tocoo()
    return sorted(zip(X.row.tolist(), X.col.tolist(), strict=True))


@given(streams, st.sampled_from([0.2, 0.5, 1]), st.integers(0, 3))
def test_poisson_by_hand(stream: list[list[int]], p: float, seed: int) -> None:
    rows = rows_of(stream)
    encoder = HashedFields(64, inclusion=PoissonInclusion(p, seed), empty="ignore").partial_fit(rows)
    rng = np.random.Generator(np.random.PCG64(seed))
    counts: dict[int, int] = {}
    for _, column in occurrences(encoder, rows):
        u = rng.random()
        if column in counts or u < p:
            counts[column] = counts.get(column, 0) + 1
    assert dict(zip(encoder.columns_.tolist(), encoder.table_.row_counts.tolist(), strict=True)) == counts
    assert encoder.columns_.tolist() == list(counts)


@given(streams, st.integers(1, 4), st.sampled_from([1, 3, 10]), st.sampled_from([0.5, 0.2, 0.01]))
def test_counting_bloom_filter_by_hand(
    stream: list[list[int]], n: int, capacity: int, error_rate: float
) -> None:
    """Against one that counts one occurrence after the other, and stops where its column is in."""
    rows, inclusion = rows_of(stream), BloomInclusion(n, capacity, error_rate)
    encoder = HashedFields(64, inclusion=inclusion, empty="ignore").partial_fit(rows)
    tables = np.zeros((inclusion.num_hashes, inclusion.table_size), int)
    counts: dict[int, int] = {}
    for _, column in occurrences(encoder, rows):
        cells = [
            murmurhash3_32(np.int32(column), seed=seed, positive=True) % inclusion.table_size
            for seed in range(len(tables))
        ]
        if column not in counts:
            for table, cell in zip(tables, cells, strict=True):
                table[cell] += 1
        if column in counts or min(table[cell] for table, cell in zip(tables, cells, strict=True)) >= n:
            counts[column] = counts.get(column, 0) + 1
    assert encoder.columns_.tolist() == list(counts)
    assert encoder.table_.row_counts.tolist() == list(counts.values())


def test_poisson_waits_for_one_over_p_occurrences() -> None:
    """The wait of each of 2,000 columns is geometric: mean 1/p, variance (1 - p)/p^2."""
    p, num = 0.2, 2000
    encoder = HashedFields((1 << 31) - 1, inclusion=PoissonInclusion(p, seed=1))
    row, repeats = [f"t{i}" for i in range(num)], 100
    encoder.partial_fit([row] * repeats)
    assert len(encoder.columns_) == num  # one is still out with probability 2,000 * 0.8^100 = 4e-7
    waits = repeats + 1 - encoder.table_.row_counts
    assert abs(waits.mean() - 1 / p) < 4 * math.sqrt((1 - p) / p**2 / num)


def test_bloom_filter_keeps_its_error_rate() -> None:
    """At capacity, with every column seen n - 1 times, those that are in are the errors."""
    capacity, error_rate = 5000, 0.02
    encoder = HashedFields(
        (1 << 31) - 1, inclusion=BloomInclusion(3, capacity, error_rate), keep_tokens=False
    )
    row = [f"t{i}" for i in range(capacity)]
    encoder.partial_fit([row, row])
    # Half of the counters of each table are at 2 or more, about a sixth above: far fewer errors than promised.
    assert len(encoder.columns_) < error_rate * capacity
    encoder.partial_fit([row])
    assert len(encoder.columns_) == capacity  # none comes late
    strangers = HashedFields((1 << 31) - 1, inclusion=encoder.inclusion, keep_tokens=False)
    strangers.partial_fit([row] * 3)
    strangers.partial_fit([[f"s{i}" for i in range(capacity)]])
    early = len(strangers.columns_) - capacity
    # The strangers fill the tables while they are counted: from the rate at capacity up to that at twice it.
    twice = (1 - math.exp(-2 * capacity / encoder.inclusion.table_size)) ** encoder.inclusion.num_hashes
    sd = math.sqrt(twice * capacity)
    assert early < twice * capacity + 4 * sd
    at_capacity = 0.5**encoder.inclusion.num_hashes
    assert early > at_capacity * capacity / 2 - 4 * sd


def test_sizes_of_the_filter() -> None:
    inclusion = BloomInclusion(2, capacity=1000, error_rate=0.01)
    assert inclusion.num_hashes == 7
    assert inclusion.num_hashes * inclusion.table_size == pytest.approx(
        1000 * math.log2(100) / math.log(2), rel=0.06
    )
    assert inclusion.start().tables.nbytes == inclusion.num_hashes * inclusion.table_size  # type: ignore[attr-defined]


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 4))
def test_counters_count_one_after_the_other_and_stop(cells: list[int], n: int) -> None:
    table = np.array([0, 1, 0, n, 0], np.uint8)
    expected, enough = table.astype(int), []
    for cell in cells:
        enough.append(expected[cell] + 1 >= n)
        expected[cell] = min(n, expected[cell] + 1)
    assert _count_up(table, np.array(cells, np.int64), n).tolist() == enough
    assert table.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (PoissonInclusion, (0.0,), ValueError, r"p must lie in \(0, 1\)"),
        (PoissonInclusion, (1.5,), ValueError, r"p must lie in \(0, 1\)"),
        (PoissonInclusion, ("often",), TypeError, "p must be a real number"),
        (PoissonInclusion, (0.5, -1), ValueError, "seed must be >= 0"),
        (BloomInclusion, (0,), ValueError, "n must be >= 1"),
        (BloomInclusion, (256,), ValueError, "n must be <= 255"),
        (BloomInclusion, (1.5,), TypeError, "n must be an integer"),
        (BloomInclusion, (2, 0), ValueError, "capacity must be >= 1"),
        (BloomInclusion, (2, 10, 1.0), ValueError, r"error_rate must lie in \(0, 1\)"),
    ],
)
def test_bad_options(kind: Any, arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments)
