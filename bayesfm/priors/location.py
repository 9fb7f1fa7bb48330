"""The mean of a group with mu | lambda ~ N(mu0, 1/(beta0 lambda)), which families with a conjugate mean share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesfm.priors.base import Features
from bayesfm.priors.rotation import SquareSums

__all__ = ["draw_mean", "square_sums", "sum_of_squares"]


def sum_of_squares(features: Features, beta0: float, mu0: float) -> Float[Array, "G *d"]:
    """B in p(x | lambda) = const lambda^(p/2) exp(-lambda B/2), mu being integrated out."""
    count = features.number_per_column
    shrink = beta0 * count / (beta0 + count)
    return features.scatter + shrink * (features.mean - mu0) ** 2


def square_sums(sums: SquareSums, beta0: float) -> Float[Array, "G k k"]:
    """The matrix of which :func:`sum_of_squares` is the diagonal, for mu0 = 0."""
    count = sums.number[:, None, None]
    mean = sums.mean
    return sums.scatter + beta0 * count / (beta0 + count) * mean[:, :, None] * mean[:, None, :]


def best_mean(features: Features, beta0: float, mu0: float) -> Float[Array, "G *d"]:
    """The mean of mu given x, whatever lambda: (p_g mean + beta0 mu0)/(p_g + beta0)."""
    count = features.number_per_column
    return (count * features.mean + beta0 * mu0) / (count + beta0)


def draw_mean(
    key: Key[Array, ""], features: Features, lam: Float[Array, "G *d"], beta0: float, mu0: float
) -> Float[Array, "G *d"]:
    """Mu given lambda and x: N((p_g mean + beta0 mu0)/(p_g + beta0), 1/((p_g + beta0) lambda))."""
    count = features.number_per_column
    noise = jax.random.normal(key, lam.shape, lam.dtype)
    return best_mean(features, beta0, mu0) + noise / jnp.sqrt((count + beta0) * lam)
