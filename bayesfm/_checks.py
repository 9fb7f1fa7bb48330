"""Argument checks shared by all modules: which argument, what was expected, what came."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable

import numpy as np

__all__ = [
    "check_choice",
    "check_count",
    "check_finite",
    "check_positive",
    "check_probability",
    "check_weight",
]


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


def check_weight(weight: object, num_rows: int) -> np.ndarray | None:
    """Weights of rows: finite, not negative, one per row, not zero everywhere. None stays None."""
    if weight is None:
        return None
    out = np.asarray(weight)
    if out.shape != (num_rows,):
        raise ValueError(f"weight must have shape ({num_rows},), one number per row; got {out.shape}")
    if not (np.all((out >= 0) & (out < np.inf)) and np.any(out > 0)):
        raise ValueError("weight must hold finite numbers >= 0, and one above zero at least")
    return out
