"""R-hat and effective sample sizes of many quantities at once, and what is asked of them.

The statistics are those of ArviZ, written for arrays of shape (chain, draw, quantity), so that a run may look at itself
as it goes, below everything that knows labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["MAX_RHAT", "MIN_DRAWS", "MIN_ESS_PER_CHAIN", "Judgement", "ess", "judge", "rhat", "wanted_ess"]

MAX_RHAT = 1.01
MIN_ESS_PER_CHAIN = 100
"""Both from Vehtari et al. (2021), section 4."""
MIN_DRAWS = 8
"""Per chain, so that a quarter of it has a variance."""
TAILS = (1 - 0.89, 0.89)
"""Quantiles of the tail effective sample size, as ArviZ has them by default."""


@dataclass(frozen=True)
class Judgement:
    """What the draws say of themselves, quantity by quantity.

    Attributes
    ----------
    finite, moving : array of bool, shape (quantity,)
        Whether all draws are finite, and whether any two differ.
    rhat, bulk, tail : array of shape (quantity,)
        R-hat and effective sample sizes; NaN where the draws are not finite, or never moved.
    num_chains : int
        Chains that were compared: one is two, its halves.
    """

    finite: Bool[np.ndarray, " quantity"]
    moving: Bool[np.ndarray, " quantity"]
    rhat: Float[np.ndarray, " quantity"]
    bulk: Float[np.ndarray, " quantity"]
    tail: Float[np.ndarray, " quantity"]
    num_chains: int

    @property
    def worst_rhat(self) -> float:
        """The largest R-hat; NaN if there is none."""
        return float(np.max(self.rhat[~np.isnan(self.rhat)], initial=-np.inf)) if self._any else np.nan

    @property
    def smallest_ess(self) -> float:
        """The smallest effective sample size, of bulk or tail; NaN if there is none."""
        both = np.concatenate([self.bulk, self.tail])
        return float(np.min(both[~np.isnan(both)], initial=np.inf)) if self._any else np.nan

    @property
    def _any(self) -> bool:
        return bool(np.any(~np.isnan(self.rhat)))

    def enough(self, wanted: float) -> bool:
        """Whether nothing speaks against the draws, ``wanted`` being the effective sample size asked for."""
        if not np.all(self.finite & self.moving):
            return False
        short = np.any(self.bulk < wanted) or np.any(self.tail < wanted)
        return not (short or np.any(self.rhat > MAX_RHAT))


def wanted_ess(num_chains: int, target: float = 0) -> float:
    """Effective draws asked for of every quantity: the target, and a hundred per chain at least."""
    return max(target, MIN_ESS_PER_CHAIN * num_chains)


def judge(x: Float[np.ndarray, "chain draw quantity"]) -> Judgement:
    """R-hat, bulk and tail effective sample size of every quantity.

    Parameters
    ----------
    x : array of shape (chain, draw, quantity)
        With at least 8 draws. One chain is taken for two, its halves: R-hat then compares its parts.

    Returns
    -------
    Judgement

    Raises
    ------
    ValueError
        If there are too few draws.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.inference.convergence import judge
    >>> x = np.random.default_rng(0).normal(size=(2, 2000, 3))
    >>> judge(x).enough(400)
    True
    >>> x[1, :, 2] += 1.0  # one chain is elsewhere
    >>> judge(x).enough(400)
    False
    """
    if x.shape[1] < MIN_DRAWS:
        raise ValueError(f"convergence can be judged from {MIN_DRAWS} draws per chain on, got {x.shape[1]}")
    if len(x) == 1:
        x = _halves(x)
    finite = np.all(np.isfinite(x), axis=(0, 1))
    moving = np.zeros(x.shape[2], bool)
    moving[finite] = np.ptp(x[..., finite], axis=(0, 1)) > 0
    use = finite & moving
    r, bulk, tail = (np.full(x.shape[2], np.nan) for _ in range(3))
    if np.any(use):
        r[use], bulk[use], tail[use] = _statistics(x[..., use])
    return Judgement(finite, moving | ~finite, r, bulk, tail, len(x))


def rhat(x: Float[np.ndarray, "chain draw quantity"]) -> Float[np.ndarray, " quantity"]:
    """Rank-normalised split R-hat, the larger of that of location and that of spread (folded).

    Parameters
    ----------
    x : array of shape (chain, draw, quantity)
        Finite numbers, at least 4 draws.

    Returns
    -------
    array of shape (quantity,)

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Rank-normalization, folding, and localization: an improved
    R-hat, Bayesian Analysis 16.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.inference.convergence import rhat
    >>> bool(rhat(np.random.default_rng(0).normal(size=(4, 1000, 1)))[0] < 1.01)
    True
    """
    split = _halves(x)
    return _rhat(split, _z_scale(split))


def ess(x: Float[np.ndarray, "chain draw quantity"], kind: str) -> Float[np.ndarray, " quantity"]:
    """Effective sample size of ``kind`` "bulk" (rank-normalised) or "tail" (the smaller of those of two quantiles).

    Parameters
    ----------
    x : array of shape (chain, draw, quantity)
        Finite numbers, at least 8 draws.
    kind : {"bulk", "tail"}
        Of what.

    Returns
    -------
    array of shape (quantity,)

    References
    ----------
    Vehtari et al. (2021), as for :func:`rhat`. Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.inference.convergence import ess
    >>> walk = np.random.default_rng(0).normal(size=(2, 1000, 1)).cumsum(axis=1)
    >>> bool(ess(walk, "bulk")[0] < 20)
    True
    """
    return _ess(_z_scale(_halves(x))) if kind == "bulk" else _tail(x)


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    split = _halves(x)
    z = _z_scale(split)  # the ranks are most of the work, and serve both
    return _rhat(split, z), _ess(z), _tail(x)


def _halves(x: np.ndarray) -> np.ndarray:
    """Every chain as two; the draw in the middle of an odd number is left out."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, x.shape[1] - half :]])


def _z_scale(x: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over all chains (Blom 1958)."""
    flat = x.reshape(-1, x.shape[2])
    return ndtri((rankdata(flat, axis=0) - 0.375) / (len(flat) + 0.25)).reshape(x.shape)


def _rhat(split: np.ndarray, z: np.ndarray) -> np.ndarray:
    folded = _z_scale(np.abs(split - np.median(split, axis=(0, 1))))
    location, spread = _ratio(z), _ratio(folded)
    return np.where(spread > location, spread, location)


def _ratio(x: np.ndarray) -> np.ndarray:
    n = x.shape[1]
    between = n * np.var(x.mean(axis=1), axis=0, ddof=1)
    within = np.var(x, axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # folded draws of two values never move
        return np.sqrt((between / within + n - 1) / n)


def _tail(x: np.ndarray) -> np.ndarray:
    quantiles = np.quantile(x, TAILS, axis=(0, 1))
    low, high = (_ess(_halves((x <= q).astype(float))) for q in quantiles)
    return np.minimum(low, high)


def _ess(x: np.ndarray) -> np.ndarray:
    """Of the mean, by Geyer's initial monotone sequence: sums of pairs of autocorrelations, while they are positive."""
    chains, n, count = x.shape
    size = chains * n
    constant = np.ptp(x, axis=(0, 1)) < np.finfo(float).resolution
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = _autocorrelations(x)
    pairs = rho[: n - n % 2].reshape(-1, 2, count)
    sums = pairs.sum(axis=1)
    # The last pair looked at: the first whose sum is not positive, or the last that there is room for.
    last = max(0, -(-(n - 4) // 2))
    over = ~(sums[:last] > 0)
    k = np.where(over.any(axis=0), over.argmax(axis=0), last) if last else np.zeros(count, int)
    monotone = np.minimum.accumulate(sums, axis=0)
    before = np.concatenate([np.zeros((1, count)), np.cumsum(monotone, axis=0)])
    quantity = np.arange(count)
    even, pair = pairs[k, 0, quantity], sums[k, quantity]
    tau = -1.0 + 2.0 * before[k, quantity] + np.where((even > 0) | (pair >= 0), even, 0.0)
    return np.where(constant, size, size / np.maximum(tau, 1 / np.log10(size)))


def _autocorrelations(x: np.ndarray) -> np.ndarray:
    """Of all lags, (draw, quantity): within chains, in units of the variance over all of them."""
    chains, n, _ = x.shape
    means = x.mean(axis=1)
    length = next_fast_len(2 * n, real=True)
    spectrum = rfft(x - means[:, None], n=length, axis=1)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)
    covariance = irfft(power, n=length, axis=0)[:n] / n
    within = covariance[0] * n / (n - 1.0)
    total = covariance[0] + (np.var(means, axis=0, ddof=1) if chains > 1 else 0.0)
    rho = 1.0 - (within - covariance) / total
    rho[0] = 1.0
    return rho
