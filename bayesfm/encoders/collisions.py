"""How many tokens share a column, and how many were to be expected to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Collisions", "count_collisions"]

_WORST = 5
_SHOWN = 6


@dataclass(frozen=True)
class Collisions:
    """Collisions of the tokens that an encoder has met.

    Attributes
    ----------
    n_features : int
        Size m of the table of hashed columns.
    num_tokens : int
        Distinct tokens T.
    num_columns : int
        Columns that they fall on.
    num_colliding : int
        Tokens that share their column with another one.
    worst : tuple of (column, tokens)
        The columns with most tokens, at most five, the fullest first; tokens by their frequency.

    Examples
    --------
    >>> from bayesfm.encoders import HashedText
    >>> HashedText(n_features=16).fit(["the quick brown fox jumps over the lazy dog"]).collisions()
    Collisions of 8 tokens in 16 columns
      columns used:          7 (6.5 expected)
      tokens that share one: 2 = 25.0 % (36.3 % expected)
      column 7: fox, lazy
    """

    n_features: int
    num_tokens: int
    num_columns: int
    num_colliding: int
    worst: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def rate(self) -> float:
        """Share of tokens that share their column; 0 where there are none."""
        return self.num_colliding / max(self.num_tokens, 1)

    @property
    def expected_rate(self) -> float:
        """That share under a perfectly random hash: 1 - (1 - 1/m)^(T - 1)."""
        return -math.expm1((self.num_tokens - 1) * self._log_missed) if self.num_tokens > 1 else 0.0

    @property
    def expected_columns(self) -> float:
        """Columns in use under a perfectly random hash: m (1 - (1 - 1/m)^T)."""
        return -self.n_features * math.expm1(self.num_tokens * self._log_missed) if self.num_tokens else 0.0

    @property
    def _log_missed(self) -> float:
        """log(1 - 1/m): that a token misses a column."""
        return math.log1p(-1 / self.n_features) if self.n_features > 1 else -math.inf

    def __repr__(self) -> str:
        lines = [
            f"Collisions of {self.num_tokens:,} tokens in {self.n_features:,} columns",
            f"  columns used:          {self.num_columns:,} ({self.expected_columns:,.1f} expected)",
            f"  tokens that share one: {self.num_colliding:,} = {self.rate:.1%} ({self.expected_rate:.1%} expected)",
        ]
        lines = [line.replace("%", " %") for line in lines]
        for column, tokens in self.worst:
            more = [f"and {len(tokens) - _SHOWN} more"] if len(tokens) > _SHOWN else []
            lines.append(f"  column {column}: {', '.join([*tokens[:_SHOWN], *more])}")
        return "\n".join(lines)


def count_collisions(tokens_of: Mapping[int, Sequence[str]], n_features: int) -> Collisions:
    """The report on a reverse index, column -> tokens."""
    shared = {column: tokens for column, tokens in tokens_of.items() if len(tokens) > 1}
    fullest = sorted(shared, key=lambda column: (-len(shared[column]), column))[:_WORST]
    return Collisions(
        n_features,
        num_tokens=sum(map(len, tokens_of.values())),
        num_columns=len(tokens_of),
        num_colliding=sum(map(len, shared.values())),
        worst=tuple((column, tuple(shared[column])) for column in fullest),
    )
