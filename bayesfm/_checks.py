"""Argument checks shared by all modules: which argument, what was expected, what came."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable

__all__ = ["check_choice", "check_count", "check_finite", "check_positive", "check_probability"]


def check_count(name: str, value: object, minimum: int = 0) -> int:
    """An integer of at least ``minimum``, bools refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer >= {minimum}, got {value!r}")
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer >= {minimum}, got {value!r}") from None
    if count < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {count}")
    return count


def check_finite(name: str, value: object) -> float:
    """A finite real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """A finite real number above zero."""
    number = check_finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {number!r}")
    return number


def check_probability(name: str, value: object) -> float:
    """A real number strictly between zero and one."""
    number = check_finite(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {number!r}")
    return number


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """One of a few choices."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
