"""What likelihoods of a real response with a noise precision ``alpha`` share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float

from bayesfm.likelihoods.base import Likelihood, Observed
from bayesfm.likelihoods.response import check_real_response, spread
from bayesfm.sums import total

__all__ = ["RealResponse"]


class RealResponse(Likelihood):
    """A real y around eta: checks, scale and centre of y, and a start of alpha."""

    a0: float
    b0: float

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Any finite real response whose square is one, too, in float32."""
        return check_real_response(y)

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Mean and standard deviation of y."""
        return float(np.average(y, weights=weight)), spread(y, weight)

    def centre(self, y: np.ndarray, weight: np.ndarray | None) -> float:
        """The weighted mean of y: shifting y and w0 together leaves the model the same."""
        return float(np.average(y, weights=weight))

    def initial_alpha(self, observed: Observed) -> Float[Array, ""]:
        """The posterior mean of alpha if eta were the mean of y, and the noise normal."""
        y, weight, _ = observed
        mean = total(weight * y) / total(weight)
        return (self.a0 + total(weight)) / (self.b0 + total(weight * (y - mean) ** 2))
