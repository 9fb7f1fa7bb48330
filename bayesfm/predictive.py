"""Predictive distributions of new rows: moments, distribution functions, densities and draws of y."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution

from bayesfm import summaries
from bayesfm._checks import check_weight
from bayesfm.design import Design
from bayesfm.mixture import (
    FittedModel,
    Mixture,
)

__all__ = [
    "FittedModel",
    "PredictiveMoments",
    "Rows",
    "check_continuous",
    "expected_draws",
    "log_likelihood",
    "log_predictive_density",
    "predictive_cdf",
    "predictive_draws",
    "predictive_moments",
    "predictive_probabilities",
    "probability_sds",
]

Rows = Mapping[str, Any]
"""Row data of a likelihood, arrays of shape (n,) by name: ``{"exposure": ...}`` of counts."""


class PredictiveMoments(NamedTuple):
    """Mean and variance of y at every row, over draws and noise.

    ``parameter_variance`` is the variance over draws of E[y | draw], ``noise_variance`` the mean over draws
    of var[y | draw]; by the law of total variance they add up to ``variance``.
    """

    mean: Float[np.ndarray, " n"]
    parameter_variance: Float[np.ndarray, " n"]
    noise_variance: Float[np.ndarray, " n"]

    @property
    def variance(self) -> Float[np.ndarray, " n"]:
        """Predictive variance, the noise included."""
        return self.parameter_variance + self.noise_variance

    @property
    def sd(self) -> Float[np.ndarray, " n"]:
        """Predictive standard deviation, the noise included."""
        return np.sqrt(self.variance)


def predictive_moments(model: FittedModel, design: Design, row_data: Rows | None = None) -> PredictiveMoments:
    """Predictive mean and variance of y.

    Parameters
    ----------
    model : FittedModel
        Draws of a model.
    design : Design
        n rows. The parameters of a level that training never saw are drawn from its group's prior, anew for
        every posterior draw, and the same in every request.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    PredictiveMoments
        Three arrays of shape (n,), float64.

    Raises
    ------
    ValueError
        If w or v were not kept, the design does not match the model, or y is no number (unordered classes).

    References
    ----------
    Chan, Golub & LeVeque (1983), Algorithms for computing the sample variance, The American Statistician 37:
    how the variances of pieces of draws are put together.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.model import ModelSpec
    >>> from bayesfm.predictive import FittedModel, predictive_moments
    >>> from bayesfm.predictors import FM
    >>> sites = {"w0": np.array([[1.0, 3.0]]), "alpha": np.full((1, 2), 4.0), "w": np.zeros((1, 2, 1))}
    >>> model = FittedModel(ModelSpec(FM(rank=0)), np.array([0]), sites)
    >>> predictive_moments(model, Design([Block.field("user", [0], ["ann"])])).variance
    array([1.25])
    """
    _check_moments(model)
    mixture = Mixture(model, design, row_data)
    mean, variance, noise, seen = np.zeros((4, design.num_rows))
    for at, out in mixture.run(summaries.moments):
        m, s, e = np.asarray(out, np.float64)[:, : at.num_rows]
        seen[at.rows] += at.share
        new, delta = at.share / seen[at.rows], m - mean[at.rows]
        variance[at.rows] += new * (s - variance[at.rows] + (1.0 - new) * delta**2)
        mean[at.rows] += new * delta
        noise[at.rows] += at.share * e
    return PredictiveMoments(mean + mixture.shift, variance, noise)


def expected_draws(
    model: FittedModel, design: Design, row_data: Rows | None = None
) -> Float[np.ndarray, "chain draw n"]:
    """E[y | draw] at every row: eta itself under a Gaussian likelihood.

    Parameters
    ----------
    model : FittedModel
        Draws of a model.
    design : Design
        n rows.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (chain, draw, n)
        float64.
    """
    _check_moments(model)
    mixture = Mixture(model, design, row_data)
    return mixture.collect(summaries.means, np.float64) + mixture.shift


def predictive_draws(
    key: Key[Array, ""], model: FittedModel, design: Design, row_data: Rows | None = None
) -> Float[np.ndarray, "chain draw n"]:
    """One draw of y for every posterior draw and row.

    Parameters
    ----------
    key : typed key
        ``jax.random.key(seed)``; the noise of row n depends on it, on the draw and on n alone.
    model : FittedModel
        Draws of a model.
    design : Design
        n rows.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (chain, draw, n)
        float64.
    """
    mixture = Mixture(model, design, row_data)
    n = design.num_rows
    seed = np.broadcast_to(jax.random.bits(key, (2,), np.uint32), (n, 2))
    rows = {"row": np.arange(n, dtype=np.uint32), "seed": seed}
    return mixture.collect(summaries.samples, np.float64, rows) + mixture.shift


def log_likelihood(
    model: FittedModel,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Rows | None = None,
) -> Float[np.ndarray, "chain draw n"]:
    """Pointwise log p(y_n | draw), for instance for leave-one-out cross-validation.

    Parameters
    ----------
    model : FittedModel
        Draws of a model.
    design : Design
        n rows.
    y : array of shape (n,)
        Response.
    weight : array of shape (n,), optional
        A row of weight c counts as c equal rows.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (chain, draw, n)
        In the precision of the device, float32 by default.
    """
    weight = check_weight(weight, design.num_rows)
    mixture = Mixture(model, design, row_data)
    out = mixture.collect(summaries.log_densities, mixture.dtype, {"y": _response(y, mixture, design)})
    return out if weight is None else out * weight.astype(mixture.dtype)


def log_predictive_density(
    model: FittedModel, design: Design, y: Float[np.ndarray, " n"], row_data: Rows | None = None
) -> Float[np.ndarray, " n"]:
    """Log predictive density of y: the log of the mean over draws of p(y_n | draw).

    Parameters
    ----------
    model : FittedModel
        Draws of a model.
    design : Design
        n rows.
    y : array of shape (n,)
        Response.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (n,)
        float64.
    """
    mixture = Mixture(model, design, row_data)
    out = np.full(design.num_rows, -np.inf)
    for at, part in mixture.run(summaries.log_density, {"y": _response(y, mixture, design)}):
        part = np.asarray(part, np.float64)[: at.num_rows] + np.log(at.share)
        out[at.rows] = np.logaddexp(out[at.rows], part)
    return out


def predictive_cdf(
    model: FittedModel, design: Design, y: Float[np.ndarray, " n"], row_data: Rows | None = None
) -> Float[np.ndarray, " n"]:
    """Predictive distribution function at y_n: uniform on (0, 1) over new rows where the model is right.

    Parameters
    ----------
    model : FittedModel
        Draws of a model with a continuous likelihood.
    design : Design
        n rows.
    y : array of shape (n,)
        Where the distribution function of row n is taken.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (n,)
        float64.
    """
    check_continuous(model)
    mixture = Mixture(model, design, row_data)
    out = np.zeros(design.num_rows)
    for at, part in mixture.run(summaries.cdf, {"y": _response(y, mixture, design)}):
        out[at.rows] += at.share * np.asarray(part, np.float64)[: at.num_rows]
    return out


def predictive_probabilities(
    model: FittedModel,
    design: Design,
    values: Sequence[float] | Float[np.ndarray, " c"],
    row_data: Rows | None = None,
) -> Float[np.ndarray, "n c"]:
    """Predictive probability of each of some values of y: the mean over draws of p(y_n = value | draw).

    Parameters
    ----------
    model : FittedModel
        Draws of a model with a discrete likelihood.
    design : Design
        n rows.
    values : sequence of c numbers
        For classes their codes 0, 1, ...; for counts any whole numbers.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row.

    Returns
    -------
    array of shape (n, c)
        float64; over all classes each row sums to one.

    Raises
    ------
    ValueError
        If the likelihood is continuous.
    """
    if not _example(model).support.is_discrete:
        raise ValueError(
            f"{model.spec.likelihood!r} has densities, not probabilities: use log_predictive_density"
        )
    return _mean_probabilities(model, design, values, row_data)[0]


def probability_sds(
    model: FittedModel,
    design: Design,
    values: Sequence[float] | Float[np.ndarray, " c"],
    row_data: Rows | None = None,
) -> Float[np.ndarray, "n c"]:
    """Standard deviation over draws of the probability of each value: how well the probability is known.

    Parameters
    ----------
    model, design, values, row_data
        As for :func:`predictive_probabilities`.

    Returns
    -------
    array of shape (n, c)
        float64.
    """
    mean, square = _mean_probabilities(model, design, values, row_data)
    return np.sqrt(np.maximum(square - mean**2, 0.0))


def _mean_probabilities(
    model: FittedModel,
    design: Design,
    values: Sequence[float] | Float[np.ndarray, " c"],
    row_data: Rows | None,
) -> Float[np.ndarray, "2 n c"]:
    mixture = Mixture(model, design, row_data)
    shared = {"values": np.asarray(values, mixture.dtype)}
    out = np.zeros((2, design.num_rows, len(values)))
    for at, part in mixture.run(summaries.probabilities, shared=shared):
        out[:, at.rows] += at.share * np.asarray(part, np.float64)[..., : at.num_rows].transpose(0, 2, 1)
    return out


def _response(y: Any, mixture: Mixture, design: Design) -> np.ndarray:
    """Response on the scale of the device."""
    y = np.asarray(y)
    if y.shape != (design.num_rows,):
        raise ValueError(
            f"y must have shape ({design.num_rows},), one value per row of the design; got {y.shape}"
        )
    y = mixture.model.spec.likelihood.validate(y, None, mixture.row_data)
    return (y - mixture.shift).astype(mixture.dtype)


def _check_moments(model: FittedModel) -> None:
    if not model.spec.likelihood.has_moments:
        raise ValueError(
            f"{model.spec.likelihood!r} has classes without order, which have no mean and no variance: use "
            "predictive_probabilities (predict_proba of an estimator)"
        )


def check_continuous(model: FittedModel) -> None:
    """Raise ValueError if the predictive distribution has no continuous distribution function."""
    y = _example(model)
    if y.support.is_discrete or type(y).cdf is Distribution.cdf:
        raise ValueError(
            f"{model.spec.likelihood!r} has no continuous distribution function: take what you need from "
            "predictive_probabilities or predictive_draws"
        )


def _example(model: FittedModel) -> Distribution:
    """The distribution of y at eta = 0 under the first draw."""
    likelihood = model.spec.likelihood
    model.require(tuple(likelihood.dims))
    params = {name: jnp.asarray(np.asarray(model.sites[name][0, 0])) for name in likelihood.dims}
    return likelihood.distribution(
        jnp.zeros(likelihood.outputs), params, {name: jnp.ones(()) for name in likelihood.row_data}
    )
