"""Pareto-smoothed importance sampling for many rows side by side: leave-one-out densities from pointwise densities.

The conventions are those of ``arviz_stats`` (tail length, fit, prior of the shape), so that the numbers are, too; what
differs is that the rows are done together, a chunk of them at a time.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

__all__ = ["LeaveOneOut", "fit_pareto", "leave_one_out", "tail_length"]

CHUNK = 1 << 20
"""Numbers of a chunk of rows, about: some arrays of doubles of that size are in memory at once, for every thread."""

THREADS = min(4, os.cpu_count() or 1)

PRIOR_OF_B, PRIOR_OF_K = 3.0, 10.0
"""Zhang & Stephens (2009), and Vehtari et al. (2024), appendix C: the shape is drawn towards 1/2 as by ten draws."""


class LeaveOneOut(NamedTuple):
    """Per row: log leave-one-out density, Pareto k, effective number of parameters."""

    elpd: Float[np.ndarray, " n"]
    pareto_k: Float[np.ndarray, " n"]
    p: Float[np.ndarray, " n"]


def tail_length(num_draws: int, relative_ess: float = 1.0) -> int:
    """Number of largest weights that are smoothed: 3 sqrt(S/r), or a fifth of few draws."""
    if num_draws * relative_ess > 225:
        return int(3 * (num_draws / relative_ess) ** 0.5)
    return num_draws // 5


def leave_one_out(log_lik: Float[np.ndarray, "n S"], relative_ess: float = 1.0) -> LeaveOneOut:
    """PSIS-LOO of every row from the log densities of its S draws.

    A row with a draw of density zero (log density -inf) has no such estimate, since the weight of that draw is
    infinite: its elpd is -inf and its k infinite; the others are not affected. A row whose tail is flat has weights as
    they are and k = -inf: nothing has to be smoothed.

    Parameters
    ----------
    log_lik : array of shape (n, S)
        log p(y_n | draw), in any order of the draws.
    relative_ess : float
        Effective number of draws over S.

    Returns
    -------
    LeaveOneOut
        In float64.

    Raises
    ------
    ValueError
        If there are fewer than 25 draws, log densities that are NaN or +inf, or no effective draws.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25. Zhang & Stephens (2009),
    A new and efficient estimation method for the generalized Pareto distribution, Technometrics 51.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.psis import leave_one_out
    >>> log_lik = -0.5 * np.random.default_rng(0).normal(size=(3, 400)) ** 2
    >>> leave_one_out(log_lik).elpd.shape
    (3,)
    """
    n, S = log_lik.shape
    if not relative_ess > 0:
        raise ValueError(f"relative_ess must be above zero, got {relative_ess!r}")
    M = tail_length(S, relative_ess)
    if M < 5:
        raise ValueError(f"leave-one-out needs 25 draws at least, got {S}")
    out = LeaveOneOut(*(np.empty(n) for _ in range(3)))
    rows = max(1, CHUNK // S)

    def do(first: int) -> None:
        own = slice(first, first + rows)
        for whole, piece in zip(out, _chunk(np.asarray(log_lik[own], np.float64), M), strict=True):
            whole[own] = piece

    with ThreadPoolExecutor(THREADS) as pool:  # NumPy lets go of the interpreter
        list(pool.map(do, range(0, n, rows)))
    return out


def _chunk(log_lik: Float[np.ndarray, "m S"], M: int) -> LeaveOneOut:
    if np.any(np.isnan(log_lik) | (log_lik == np.inf)):
        raise ValueError("log densities must be numbers or -inf")
    S = log_lik.shape[1]
    impossible = np.any(log_lik == -np.inf, axis=1)
    lppd = logsumexp(log_lik, axis=1) - np.log(S)
    # A weight is one over a density: the tail has the M smallest densities, the cutoff the next one.
    ordered = np.partition(np.where(impossible[:, None], 0.0, log_lik), M, axis=1)
    tail = np.sort(ordered[:, :M], axis=1)[:, ::-1]  # by rising weight
    least, cutoff = tail[:, -1:], ordered[:, M : M + 1]
    log_weight = least - tail  # relative to the largest one
    flat = -log_weight[:, 0] < np.finfo(float).tiny
    k, sigma = fit_pareto(np.exp(log_weight) - np.exp(least - cutoff))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        smoothed = np.log(_quantiles(M, k, sigma, np.exp(least - cutoff)))
    use = np.isfinite(k) & ~flat
    log_weight = np.where(use[:, None], np.minimum(smoothed, 0.0), log_weight)
    # Below the tail every weight times its density is the least density.
    log_numerator = np.logaddexp(np.log(S - M) + least[:, 0], logsumexp(log_weight + tail, axis=1))
    log_denominator = np.log(np.exp(least - ordered[:, M:]).sum(axis=1) + np.exp(log_weight).sum(axis=1))
    elpd = log_numerator - log_denominator
    return LeaveOneOut(
        np.where(impossible, -np.inf, elpd),
        np.where(impossible, np.inf, np.where(flat, -np.inf, k)),
        np.where(impossible, np.inf, lppd - elpd),
    )


def fit_pareto(x: Float[np.ndarray, "m M"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Shape and scale of generalized Pareto distributions, one for each row of rising numbers above zero.

    The posterior mean of b = -k/sigma over a grid (Zhang & Stephens 2009), and from it k, drawn towards 1/2. NaN where
    the first quarter of the numbers is no larger than the least, as those of no such distribution are.
    """
    M = x.shape[1]
    size = 30 + int(M**0.5)
    quartile, largest = x[:, int(M / 4 + 0.5) - 1], x[:, -1]
    good = (quartile > x[:, 0]) & (largest > 0)
    quartile, largest = (np.where(good, q, 1.0)[:, None] for q in (quartile, largest))
    x = np.where(good[:, None], x, 0.5)
    grid = 1 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))
    b = grid / (PRIOR_OF_B * quartile) + 1 / largest
    k = _mean_log1p(-b, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_density = M * (np.log(-b / k) - k - 1)
    weight = np.exp(log_density - logsumexp(log_density, axis=1, keepdims=True))
    weight = np.where(weight >= 10 * np.finfo(float).eps, weight, 0.0)
    mean_b = np.sum(b * weight, axis=1) / weight.sum(axis=1)
    k = np.log1p(-mean_b[:, None] * x).mean(axis=1)
    sigma = -k / mean_b
    k = (M * k + PRIOR_OF_K * 0.5) / (M + PRIOR_OF_K)
    k, sigma = np.where(np.isnan(k), np.inf, k), np.where(np.isnan(k), np.nan, sigma)
    return np.where(good, k, np.nan), np.where(good, sigma, np.nan)


def _mean_log1p(b: Float[np.ndarray, "m e"], x: Float[np.ndarray, "m M"]) -> Float[np.ndarray, "m e"]:
    """Mean over x of log(1 + b x): the logarithm of products of a few factors, which is most of the time."""
    few = 4
    M = x.shape[1]
    out = np.empty_like(b)
    wide = np.abs(b).max(axis=1) * x[:, -1] > 1e70  # products of four would leave the numbers
    for row in np.flatnonzero(wide):
        out[row] = np.log1p(b[row, :, None] * x[row]).mean(axis=1)
    x, b = np.pad(x[~wide], ((0, 0), (0, -M % few))), b[~wide]
    x = x.reshape(len(x), few, -(-M // few))
    product = 1 + b[:, :, None] * x[:, None, 0]
    for i in range(1, few):
        product *= 1 + b[:, :, None] * x[:, None, i]
    out[~wide] = np.log(product, out=product).sum(axis=2) / M
    return out


def _quantiles(
    M: int, k: Float[np.ndarray, " m"], sigma: Float[np.ndarray, " m"], cutoff: Float[np.ndarray, "m 1"]
) -> Float[np.ndarray, "m M"]:
    """Of generalized Pareto distributions above the cutoff, at (i - 1/2)/M."""
    log_survival = np.log1p(-(np.arange(M) + 0.5) / M)
    k, sigma = k[:, None], sigma[:, None]
    return cutoff + sigma * np.where(
        k == 0, -log_survival, np.expm1(-k * log_survival) / np.where(k == 0, 1.0, k)
    )
