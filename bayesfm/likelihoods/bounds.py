"""Lower bounds that are quadratic in eta once their points of contact are chosen."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["log_two_cosh", "logistic_bound"]


def logistic_bound(
    a: Float[Array, " n"], b: Float[Array, " n"], mean: Float[Array, " n"], variance: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Lower bound of E[a psi - b log(1 + exp(psi))], psi ~ N(mean, variance), at its best point of contact.

    -log cosh is convex in the square of its argument, so that it lies above its tangent there; the best point of
    contact is c^2 = mean^2 + variance. Pólya-Gamma variables lead to the same bound.

    References
    ----------
    Jaakkola & Jordan (2000), Bayesian parameter estimation via variational methods, Statistics and Computing 10.
    Durante & Rigon (2019), Conditionally conjugate mean-field variational Bayes for logistic models, Statistical
    Science 34 (that both bounds are one).
    """
    return (a - 0.5 * b) * mean - b * log_two_cosh(mean * mean + variance)


def log_two_cosh(square: Float[Array, " n"]) -> Float[Array, " n"]:
    """log(2 cosh(c / 2)) as a function of c^2, with a derivative that is right at 0 too."""
    small = square < 0.04
    s = jnp.where(small, square, 0.0)
    series = s / 8 * (1 - s / 24 * (1 - s / 15 * (1 - 17 * s / 224)))
    c = jnp.sqrt(jnp.where(small, 1.0, square))
    return jnp.where(small, jnp.log(2.0) + series, 0.5 * c + jnp.log1p(jnp.exp(-c)))
