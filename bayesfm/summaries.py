"""What is computed of a piece of draws and rows on the device: the summaries behind every predictive question.

Each is a function of (likelihood, eta, draws, rows), one value per row or per draw and row; see ``mixture.Summary``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from bayesfm.likelihoods import Likelihood
from bayesfm.mixture import Components, DrawArrays, average, per_draw

__all__ = [
    "cdf",
    "components",
    "log_densities",
    "log_density",
    "means",
    "moments",
    "probabilities",
    "samples",
]


def _mean_and_variance(y: Distribution) -> tuple[Float[Array, " R"], Float[Array, " R"]]:
    return y.mean, jnp.broadcast_to(y.variance, y.mean.shape)


def moments(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, "3 R"]:
    """Mean of E[y | draw], its variance, mean of var[y | draw]."""
    expected, variance = per_draw(_mean_and_variance, likelihood, eta, draws.params, rows)
    mean = average(draws.share, expected)
    variance = jnp.where(draws.share[:, None] > 0, variance, 0.0)  # it may be infinite
    return jnp.stack([mean, average(draws.share, (expected - mean) ** 2), average(draws.share, variance)])


def means(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, "D R"]:
    """E[y | draw]."""
    return per_draw(lambda y: y.mean, likelihood, eta, draws.params, rows)


def samples(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, "D R"]:
    """One y per draw and row; the key depends on seed, row and draw alone."""
    known = {name: rows[name] for name in likelihood.row_data}

    def one(
        number: Array,
        params: dict[str, Array],
        eta: Float[Array, "*L"],
        seed: Array,
        row: Array,
        own: dict[str, Array],
    ) -> Float[Array, ""]:
        key = jax.random.wrap_key_data(seed, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, row), number)
        return likelihood.distribution(eta, params, own).sample(key).astype(eta.dtype)  # classes are integers

    over_rows = jax.vmap(one, (None, None, -1, 0, 0, 0))
    return jax.vmap(over_rows, (0, 0, 0, None, None, None))(
        draws.number, draws.params, eta, rows["seed"], rows["row"], known
    )


def log_densities(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, "D R"]:
    """Log p(y | draw)."""
    return per_draw(lambda y: y.log_prob(rows["y"]), likelihood, eta, draws.params, rows)


def log_density(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, " R"]:
    """Log of the mean over draws of p(y | draw)."""
    logs = log_densities(likelihood, eta, draws, rows)
    top = jnp.max(logs, axis=0)
    return top + jnp.log(average(draws.share, jnp.exp(logs - top)))


def probabilities(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, "2 c R"]:
    """Mean over draws of the probability of each of ``rows["values"]``, and of its square."""
    ys = per_draw(
        lambda y: y, likelihood, eta, draws.params, rows
    )  # what is shared by all values is computed once

    def one(value: Float[Array, ""]) -> Float[Array, "2 R"]:
        logs = jax.vmap(lambda y: y.log_prob(value))(ys)
        return jnp.stack([average(draws.share, jnp.exp(logs)), average(draws.share, jnp.exp(2 * logs))])

    return jnp.swapaxes(lax.map(one, rows["values"]), 0, 1)


def cdf(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Float[Array, " R"]:
    """Mean over draws of the distribution function at y."""
    return average(draws.share, per_draw(lambda y: y.cdf(rows["y"]), likelihood, eta, draws.params, rows))


def components(
    likelihood: Likelihood, eta: Float[Array, "D *L R"], draws: DrawArrays, rows: dict[str, Array]
) -> Components:
    """What is mixed, for quantiles."""
    return Components(eta, draws.params, draws.share, {name: rows[name] for name in likelihood.row_data})
