"""Which columns of a stream get a parameter: probabilistic feature inclusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int, Int32
from sklearn.utils import murmurhash3_32

from bayesfm._checks import check_count, check_finite, check_probability

__all__ = ["Admission", "BloomInclusion", "PoissonInclusion"]

_MAX_COUNT = 255
"""Counters of the Bloom filter have eight bits."""


class Admission(Protocol):
    """What an inclusion remembers while a stream goes by."""

    def admits(self, columns: Int32[np.ndarray, " z"], new: Int[np.ndarray, " c"]) -> Bool[np.ndarray, " c"]:
        """Which occurrences admit their column; the first one of a column counts.

        ``columns`` has the columns of all occurrences in their order, ``new`` the positions of those whose column
        is not in the table.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What has to be saved: JSON, and arrays."""
        ...


@dataclass(frozen=True)
class PoissonInclusion:
    """Every occurrence of a column that is not in the table yet includes it with probability p.

    A column then waits for 1/p occurrences on average, frequent ones come in soon, most of those that occur once or
    twice never do, and nothing has to be remembered of columns outside the table. The occurrences draw
    their uniforms in the order of the rows (of the columns within a row), one each, whether they are needed or not:
    the result depends on the seed and on the order of the rows, not on how they are cut into chunks.

    Parameters
    ----------
    p : float
        Probability in (0, 1].
    seed : int, default=0

    References
    ----------
    McMahan et al. (2013), Ad click prediction: a view from the trenches. KDD, section 4.1.

    Examples
    --------
    >>> from bayesfm.encoders import HashedText, PoissonInclusion
    >>> encoder = HashedText(inclusion=PoissonInclusion(p=0.1))
    >>> for chunk in (["a rare word"], ["the usual words"] * 100):
    ...     encoder = encoder.partial_fit(chunk)
    >>> sorted(encoder.get_feature_names_out())
    ['the', 'usual', 'words']
    """

    p: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.p != 1:
            check_probability("p", self.p)
        check_count("seed", self.seed)

    def start(self, state: Mapping[str, Any] | None = None) -> Admission:
        """Begin a stream, or go on with one."""
        admission = _Poisson(self.p, np.random.Generator(np.random.PCG64(self.seed)))
        if state is not None:
            admission.rng.bit_generator.state = state["rng"]
        return admission


@dataclass
class _Poisson:
    p: float
    rng: np.random.Generator

    def admits(self, columns: np.ndarray, new: np.ndarray) -> np.ndarray:
        return self.rng.random(len(columns))[new] < self.p

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}


@dataclass(frozen=True)
class BloomInclusion:
    """A column is included by its n-th occurrence, as a counting Bloom filter counts.

    The filter has about ``1.44 log2(1 / error_rate)`` bytes per column of ``capacity``, in ``log2(1 / error_rate)``
    tables of counters, each addressed by a MurmurHash3 of its own; the count of a column is the smallest of its
    counters. It is never too small, so that no column comes late. It is too large, and a column comes early, where
    all its counters are shared with other columns: for about the share ``error_rate`` of columns once ``capacity``
    columns have been seen n times, for fewer before. Counters stop at n. The result depends on the order of the rows,
    not on how they are cut into chunks.

    An occurrence is a row in which the column is not zero.

    Parameters
    ----------
    n : int
        Occurrences that a column needs, 1 to 255.
    capacity : int, default=2**20
        Distinct columns to be expected in the stream.
    error_rate : float, default=0.01
        Share of columns that may be included early.

    References
    ----------
    McMahan et al. (2013), Ad click prediction: a view from the trenches. KDD, section 4.1.

    Fan, Cao, Almeida & Broder (2000), Summary cache: a scalable wide-area web cache sharing protocol. IEEE/ACM
    Transactions on Networking 8(3).

    Examples
    --------
    >>> from bayesfm.encoders import BloomInclusion, HashedText
    >>> encoder = HashedText(inclusion=BloomInclusion(n=2, capacity=1000))
    >>> for chunk in (["one word"], ["another word"], ["one more"]):
    ...     encoder = encoder.partial_fit(chunk)
    >>> encoder.get_feature_names_out().tolist()
    ['word', 'one']
    """

    n: int
    capacity: int = 1 << 20
    error_rate: float = 0.01

    def __post_init__(self) -> None:
        if check_count("n", self.n, 1) > _MAX_COUNT:
            raise ValueError(f"n must be <= {_MAX_COUNT}, got {self.n}")
        check_count("capacity", self.capacity, 1)
        check_probability("error_rate", check_finite("error_rate", self.error_rate))

    @property
    def num_hashes(self) -> int:
        """Number of tables, log2(1 / error_rate) rounded up."""
        return math.ceil(-math.log2(self.error_rate))

    @property
    def table_size(self) -> int:
        """Counters of each table: half of them are in use when the capacity is reached."""
        return math.ceil(self.capacity / math.log(2))

    def start(self, state: Mapping[str, Any] | None = None) -> Admission:
        """Begin a stream, or go on with one."""
        if state is None:
            return _Bloom(self.n, np.zeros((self.num_hashes, self.table_size), np.uint8))
        return _Bloom(self.n, np.array(state["tables"], np.uint8))


@dataclass
class _Bloom:
    """An admitted column has n in all its counters. Occurrences after that change nothing, and are left out."""

    n: int
    tables: np.ndarray = field(repr=False)

    def admits(self, columns: np.ndarray, new: np.ndarray) -> np.ndarray:
        keys = columns[new].astype(np.int32)
        enough = np.ones(len(keys), bool)
        for seed, table in enumerate(self.tables):
            cells = murmurhash3_32(keys, seed=seed, positive=True) % np.uint32(len(table))
            enough &= _count_up(table, cells.astype(np.int64), self.n)
        return enough

    def state(self) -> dict[str, Any]:
        return {"tables": self.tables}


def _count_up(table: np.ndarray, cells: np.ndarray, n: int) -> np.ndarray:
    """Add occurrences to counters that stop at n, one after the other; whether each finds n, itself included."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    first = np.ones(len(cells), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    start = np.flatnonzero(first)
    size = np.diff(start, append=len(cells))
    count = np.arange(1, len(cells) + 1) - np.repeat(start, size) + table[ordered]
    table[ordered[start]] = np.minimum(n, count[start + size - 1])
    enough = np.empty(len(cells), bool)
    enough[order] = count >= n
    return enough
