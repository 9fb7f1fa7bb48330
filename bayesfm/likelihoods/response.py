"""What the likelihoods ask of a response, on the host."""

from __future__ import annotations

import numpy as np

__all__ = [
    "check_codes",
    "check_real_response",
    "check_whole_numbers",
    "check_zero_one_weight",
    "share_of_ones",
    "spread",
]

MAX_RESPONSE = 1e18
MAX_SCALE = 1e12
"""Of the standard deviation of y, and of its inverse: measured, with three orders of magnitude to spare."""


def check_real_response(y: np.ndarray) -> np.ndarray:
    """Finite real numbers whose squares are finite, too, in float32."""
    largest = float(np.max(np.abs(y), initial=0.0))
    if not largest <= MAX_RESPONSE:
        raise ValueError(
            f"y must lie within +-{MAX_RESPONSE:.0e}, got {largest:.3g}: divide y by a constant (other units)"
        )
    return y


def check_whole_numbers(name: str, y: np.ndarray, most: float = 2**24) -> np.ndarray:
    """Whole numbers from 0 to ``most``; beyond 2^24 float32 does not hold them all."""
    y = np.asarray(y, np.float64)
    wrong = ~((y >= 0) & (y <= most) & (y == np.round(y)))
    if wrong.any():
        raise ValueError(f"{name} must hold whole numbers from 0 to {most:.0f}, got {y[wrong].flat[0]:g}")
    return y


def check_zero_one_weight(likelihood: str, weight: np.ndarray | None, instead: str) -> None:
    """Weights of zero and one only."""
    if weight is not None and not np.all((weight == 0) | (weight == 1)):
        wrong = weight[(weight != 0) & (weight != 1)].flat[0]
        raise ValueError(
            f"{likelihood} has no Gibbs sweep for row weights other than 0 and 1, got {wrong:g}: {instead}"
        )


def share_of_ones(y: np.ndarray, weight: np.ndarray | None, trials: np.ndarray | float = 1.0) -> float:
    """Share of successes in all trials, drawn towards a half by one trial: finite log odds whatever y is."""
    weight = np.ones(len(y)) if weight is None else weight
    return float((np.sum(weight * y) + 0.5) / (np.sum(weight * trials) + 1.0))


def spread(y: np.ndarray, weight: np.ndarray | None) -> float:
    """Standard deviation of y; 1 for a constant y.

    Raises
    ------
    ValueError
        If it is below 1e-12 or above 1e12: sums of squares would leave the range of float32.
    """
    y = np.asarray(check_real_response(np.asarray(y)), np.float64)
    mean = float(np.average(y, weights=weight))
    s = float(np.sqrt(np.average((y - mean) ** 2, weights=weight)))
    if s <= 1e-12 * abs(mean):
        return 1.0  # constant y: any scale will do
    if not 1.0 / MAX_SCALE <= s <= MAX_SCALE:
        raise ValueError(
            f"y must have a standard deviation between {1 / MAX_SCALE:.0e} and {MAX_SCALE:.0e}, as float32 cannot hold "
            f"its square times everything else; got {s:.3g}: multiply y by a constant (other units)"
        )
    return s


def check_codes(likelihood: str, num_classes: int, y: np.ndarray, face: str) -> np.ndarray:
    """Codes 0, ..., num_classes - 1 as floats; not every class has to occur."""
    y = np.asarray(y, np.float64)
    wrong = ~((y >= 0) & (y <= num_classes - 1) & (y == np.round(y)))
    if wrong.any():
        raise ValueError(
            f"{likelihood}(num_classes={num_classes}) needs y of 0, ..., {num_classes - 1}, got "
            f"{y[wrong].flat[0]:g}: {face}"
        )
    return y
