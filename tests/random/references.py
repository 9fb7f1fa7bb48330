"""Distribution functions in float64, by formulas that the samplers do not use."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import interpolate, stats
from scipy.special import erf, erfcx, gammaln, log_ndtr


def truncated_cdf(x: np.ndarray, lower: float, upper: float, mean: float) -> np.ndarray:
    """P(X <= x) of N(mean, 1) in [lower, upper].

    Of an interval on one side of the mean by differences from its nearer end, so that nothing cancels in the tails.
    """
    a, b = lower - mean, upper - mean
    if abs(b) < abs(a):
        return 1 - truncated_cdf(-x, -upper, -lower, -mean)
    if a <= 0:
        y = (x - mean) / math.sqrt(2)
        from_, to = erf(a / math.sqrt(2)), erf(b / math.sqrt(2))  # precise around the mean
        return (erf(y) - from_) / (to - from_)

    def hazard(t: np.ndarray | float) -> np.ndarray:  # log S(a) - log S(a + t)
        log_ratio = np.log(erfcx((a + t) / math.sqrt(2))) - np.log(erfcx(a / math.sqrt(2)))
        return a * t + t * t / 2 - log_ratio

    return np.expm1(-hazard(x - lower)) / np.expm1(-hazard(min(upper - lower, 1e100)))


def polya_gamma_cdf_by_series(x: np.ndarray, b: float, c: float, terms: int = 30) -> np.ndarray:
    """P(omega <= x) for b <= 1 as an alternating series of inverse Gaussian ones (Biane, Pitman & Yor 2001)."""
    z, X = abs(c) / 2, 4 * np.asarray(x, np.float64)
    n = np.arange(terms).reshape(-1, *[1] * X.ndim)
    level, root = 2 * n + b, np.sqrt(X)
    first = np.exp(log_ndtr(z * root - level / root) - level * z)
    second = np.exp(log_ndtr(-z * root - level / root) + level * z)
    weight = np.exp(gammaln(n + b) - gammaln(b) - gammaln(n + 1))
    return (2 * math.cosh(z)) ** b * ((-1.0) ** n * weight * (first + second)).sum(axis=0)


def log_characteristic(t: np.ndarray, b: float, c: float) -> np.ndarray:
    """log E exp(i t omega) = b log(cosh(c / 2) / cosh sqrt((c^2 / 2 - i t) / 2))."""

    def log_2cosh(s: np.ndarray | complex) -> np.ndarray:
        return s + np.log1p(np.exp(-2 * s))

    return b * (log_2cosh(complex(abs(c) / 2)) - log_2cosh(np.sqrt((c * c / 2 - 1j * t) / 2)))


def cdf_by_inversion(
    log_phi: Callable[[np.ndarray], np.ndarray], x: np.ndarray, period: float, terms: int
) -> np.ndarray:
    """P(X <= x) from a characteristic function (Bohman 1975); mass beyond the period must be negligible."""
    nu = np.arange(1, terms + 1)
    eta = 2 * math.pi / period
    phi = np.exp(log_phi(eta * nu)) / nu
    total = np.array([np.imag(phi * np.exp(-1j * eta * nu * value)).sum() for value in x])
    # The Fourier series of the indicator of (0, x) on one period, which begins at 0 where there is no mass.
    base = np.imag(phi).sum()
    return x / period - (total - base) / math.pi


def moments(b: float, c: float) -> tuple[float, float]:
    """Mean and variance of PG(b, c)."""
    c = abs(c)
    if c < 0.01:
        return b / 4 * (1 - c * c / 12), b / 24 * (1 - c * c / 5)
    e = math.exp(-c)
    variance = b / (2 * c**3) * ((1 - e * e) - 2 * c * e) / (1 + e) ** 2
    return b / (2 * c) * (1 - e) / (1 + e), variance


def polya_gamma_cdf(b: float, c: float) -> Callable[[np.ndarray], np.ndarray]:
    """Distribution function of PG(b, c), interpolated for b > 1."""
    if b <= 1:
        return lambda x: polya_gamma_cdf_by_series(x, b, c)
    mean, variance = moments(b, c)
    sd = math.sqrt(variance)
    grid = np.linspace(max(0.0, mean - 9 * sd), mean + 16 * sd, 2001)
    period = 2 * grid[-1]
    cdf = cdf_by_inversion(lambda t: log_characteristic(t, b, c), grid, period, 3000)
    return interpolate.PchipInterpolator(grid, np.clip(cdf, 0, 1), extrapolate=True)


def uniform_tests(name: str, u: np.ndarray) -> dict[str, float]:
    """Kolmogorov-Smirnov p-values of uniforms: of all, and of the lowest and the highest hundredth by themselves."""
    parts = {"all": u, "low": u[u < 0.01] * 100, "high": (1 - u[u > 0.99]) * 100}
    return {
        f"{name} {part}": stats.kstest(x, "uniform").pvalue if len(x) else 0.0 for part, x in parts.items()
    }
