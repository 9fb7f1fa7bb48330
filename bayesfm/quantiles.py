"""Quantiles of predictive distributions: the distribution function of the mixture over draws, inverted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import Distribution

from bayesfm import summaries
from bayesfm.design import Design
from bayesfm.likelihoods import Likelihood
from bayesfm.mixture import MAX_ROWS, Components, FittedModel, Mixture, average, per_draw
from bayesfm.predictive import Rows, check_continuous

__all__ = ["extreme_probs", "invert", "predictive_quantiles"]

HELD_VALUES = 1 << 25
"""Values of eta, draws times rows, held at once."""
MAX_STEPS = 100
"""Of a search; ten are usual."""


def predictive_quantiles(
    model: FittedModel,
    design: Design,
    probs: Sequence[float] | Float[np.ndarray, " q"],
    row_data: Rows | None = None,
) -> Float[np.ndarray, "n q"]:
    """Quantiles of the predictive distribution, the noise included.

    The distribution function of the mixture over draws is inverted, to about 1e-6 in probability; nothing is
    simulated.

    Parameters
    ----------
    model : FittedModel
        Draws of a model with a continuous likelihood.
    design : Design
        n rows.
    probs : sequence of q floats
        Strictly between 0 and 1, and not beyond :func:`extreme_probs`; ``(0.05, 0.95)`` bounds the central
        90 % interval.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (n, q)
        float64.

    Raises
    ------
    ValueError
        If a probability is outside (0, 1) or too close to its ends, or the likelihood is not continuous.
    """
    levels = np.asarray(probs, np.float64)
    if levels.ndim != 1 or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"probs must be a sequence of numbers strictly between 0 and 1, got {probs!r}")
    least, most = extreme_probs()
    if not np.all((levels >= least) & (levels <= most)):
        raise ValueError(
            f"probs must lie between {least:.2g} and 1 - {1 - most:.2g}: closer to 0 or 1 the distribution function "
            f"is lost in rounding; got {probs!r}"
        )
    check_continuous(model)
    mixture = Mixture(model, design, row_data, max_rows=min(MAX_ROWS, max(1, HELD_VALUES // model.num_draws)))
    out = np.empty((design.num_rows, len(levels)))
    for piece in mixture.pieces:
        parts = [
            c._replace(share=at.share * c.share)
            for at, c in mixture.run(summaries.components, pieces=[piece])
        ]
        components = jax.tree.map(lambda *x: jnp.stack(x), *parts)
        for i, p in enumerate(levels):
            y, steps = invert(model.spec.likelihood, components, p)
            if steps == MAX_STEPS or not jnp.all(jnp.isfinite(y)):
                raise FloatingPointError(
                    f"the predictive quantile at {p} was not found: are all draws finite?"
                )
            out[piece.rows, i] = np.asarray(y)[: piece.num_rows]
    return out + mixture.shift


def extreme_probs() -> tuple[float, float]:
    """The probabilities closest to 0 and to 1 whose quantiles can be found in the precision of the device."""
    info = jnp.finfo(jnp.zeros(()).dtype)
    return float(info.tiny / info.eps), 1.0 - 64 * float(info.eps)


class _Search(NamedTuple):
    """The root is between low and high; y is the next guess."""

    y: Float[Array, " R"]
    low: Float[Array, " R"]
    high: Float[Array, " R"]
    done: Bool[Array, " R"]
    steps: Int[Array, ""]


@jax.jit
def invert(
    likelihood: Likelihood, components: Components, p: Float[Array, ""]
) -> tuple[Float[Array, " R"], Int[Array, ""]]:
    """Solve F(y) = p for the mixture, by Newton steps that fall back on bisection; also count the steps.

    ``components`` has the draws in pieces along its first axis.
    """
    zero, eps = jnp.zeros_like(components.eta[0, 0]), jnp.finfo(components.eta.dtype).eps

    def over_draws(f: Callable[[Distribution], Array]) -> Float[Array, " R"]:
        def add(total: Array, part: Components) -> tuple[Array, None]:
            return total + average(
                part.share, per_draw(f, likelihood, part.eta, part.params, part.rows)
            ), None

        return lax.scan(add, zero, components)[0]

    mean = over_draws(lambda d: d.mean)
    variance = over_draws(lambda d: d.variance + (d.mean - mean) ** 2)
    scale = jnp.where((variance > 0) & jnp.isfinite(variance), jnp.sqrt(variance), 1.0)

    def step(s: _Search) -> _Search:
        gap = over_draws(lambda d: d.cdf(s.y)) - p
        density = over_draws(lambda d: jnp.exp(d.log_prob(s.y)))
        low, high = jnp.where(gap < 0, s.y, s.low), jnp.where(gap < 0, s.high, s.y)
        reach = scale * 2.0 ** jnp.minimum(s.steps, 60)
        # Between two far modes the density underflows: without a finite slope go downhill by the reach, or not at all.
        slope = jnp.where(density > 0, gap / density, jnp.sign(gap) * reach)
        newton = s.y - jnp.clip(slope, -reach, reach)
        # Newton steps have to stay inside; later every second one is a bisection, so that the bracket shrinks.
        turn = (s.steps < 8) | (s.steps % 2 == 0)
        trusted = ((newton > low) & (newton < high) & turn) | ~jnp.isfinite(high - low)
        y = jnp.where(trusted, newton, 0.5 * (low + high))
        close = jnp.abs(gap) <= 8 * eps * p
        # A last Newton step polishes a root; a large one from a point that is good already would only leave it.
        polish = trusted & (jnp.abs(newton - s.y) <= jnp.sqrt(eps) * scale)
        still = jnp.abs(y - s.y) <= 4 * eps * jnp.maximum(jnp.abs(y), scale)
        y = jnp.where(s.done | (close & ~polish), s.y, y)
        return _Search(y, low, high, s.done | close | still, s.steps + 1)

    start = jnp.where(jnp.isfinite(mean), mean, 0.0) + ndtri(p) * scale
    search = _Search(start, zero - jnp.inf, zero + jnp.inf, zero > 0, jnp.asarray(0))
    search = lax.while_loop(lambda s: ~jnp.all(s.done) & (s.steps < MAX_STEPS), step, search)
    return search.y, search.steps
