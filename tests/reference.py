"""The mathematics once more, as slow and obvious as possible: float64 loops over rows, features and factors."""

from __future__ import annotations

import numpy as np
from scipy import stats


def eta(X: np.ndarray, w0: float, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """w0 + sum_j w_j x_j + sum_{j < l} <v_j, v_l> x_j x_l, the sum over pairs of features as it stands."""
    n, p = X.shape
    out = np.zeros(n)
    for row in range(n):
        out[row] = w0
        for j in range(p):
            out[row] += w[j] * X[row, j]
            for other in range(j + 1, p):
                for f in range(v.shape[1]):
                    out[row] += v[j, f] * v[other, f] * X[row, j] * X[row, other]
    return out


def summary(X: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(E, Q) of every row, of shape (K, n): its features' own contribution to eta, and sum_j x_j v_j."""
    n, p = X.shape
    s = np.zeros((1 + v.shape[1], n))
    s[0] = eta(X, 0.0, w, v)
    for row in range(n):
        for j in range(p):
            for f in range(v.shape[1]):
                s[1 + f, row] += X[row, j] * v[j, f]
    return s


def derivative(X: np.ndarray, v: np.ndarray, row: int, j: int) -> np.ndarray:
    """h = d eta / d (w_j, v_j) of one row."""
    k = v.shape[1]
    h = np.zeros(1 + k)
    h[0] = X[row, j]
    for f in range(k):
        for other in range(X.shape[1]):
            if other != j:
                h[1 + f] += X[row, j] * X[row, other] * v[other, f]
    return h


def conditional(
    X: np.ndarray,
    z: np.ndarray,
    omega: np.ndarray,
    w0: float,
    theta: np.ndarray,
    precision: np.ndarray,
    mean: np.ndarray,
    j: int,
    own: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """(P, b) of the Gaussian full conditional of the parameters ``own`` of feature j.

    ``theta``, ``precision`` and ``mean`` have shape (K, p); ``own`` are rows of theta (0 is w).
    """
    D = len(own)
    P, b = np.zeros((D, D)), np.zeros(D)
    for a in range(D):
        P[a, a] = precision[own[a], j]
        b[a] = precision[own[a], j] * mean[own[a], j]
    now = eta(X, w0, theta[0], theta[1:].T)
    for row in range(len(X)):
        h = derivative(X, theta[1:].T, row, j)[own]
        without = now[row] - h @ theta[own, j]
        for a in range(D):
            b[a] += omega[row] * h[a] * (z[row] - without)
            for c in range(D):
                P[a, c] += omega[row] * h[a] * h[c]
    return P, b


def factor_blocks(rank: int, size: int) -> list[list[int]]:
    """Rows of theta that are drawn jointly: w and ``size`` factors; the last block reaches back."""
    if rank == 0:
        return [[0]]
    starts = [min(s, rank - size) for s in range(0, rank, size)]
    return [[0, *range(1 + s, 1 + s + size)] for s in starts]


def log_joint(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    sites: dict[str, np.ndarray],
    prior: dict[str, float],
) -> float:
    """Log joint density of the Gaussian model with normal-gamma priors, site by site.

    ``prior`` has a0, b0 (noise), mean, precision (w0) and a0_x, b0_x, beta0_x, mu0_x for x = w, v.
    """
    alpha, w0 = float(sites["alpha"]), float(sites["w0"])
    lp = stats.gamma.logpdf(alpha, prior["a0"] / 2, scale=2 / prior["b0"])
    lp += stats.norm.logpdf(w0, prior["mean"], prior["precision"] ** -0.5)
    for x in ("w", "v"):
        values, lam, mu = (
            a[:, None] if a.ndim == 1 else a for a in (sites[x], sites[f"lambda_{x}"], sites[f"mu_{x}"])
        )
        for f in range(values.shape[1]):
            for g in range(len(lam)):
                lp += stats.gamma.logpdf(lam[g, f], prior[f"a0_{x}"] / 2, scale=2 / prior[f"b0_{x}"])
                lp += stats.norm.logpdf(
                    mu[g, f], prior[f"mu0_{x}"], (prior[f"beta0_{x}"] * lam[g, f]) ** -0.5
                )
            for j, g in enumerate(group):
                lp += stats.norm.logpdf(values[j, f], mu[g, f], lam[g, f] ** -0.5)
    at = eta(X, w0, sites["w"], sites["v"])
    for row in range(len(y)):
        lp += weight[row] * stats.norm.logpdf(y[row], at[row], alpha**-0.5)
    return float(lp)


def matrix_factorization_conditional(
    R: np.ndarray,
    seen: np.ndarray,
    alpha: float,
    factors: np.ndarray,
    bias: np.ndarray,
    precision: np.ndarray,
    mean: np.ndarray,
    i: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (bias_i, u_i) in R_ij ~ N(bias_i + bias_j + <u_i, v_j>, 1/alpha), over the cells seen.

    References
    ----------
    Salakhutdinov & Mnih (2008), Bayesian probabilistic matrix factorization using MCMC, ICML, equations 11-13.
    """
    P = np.diag(precision)
    b = precision * mean
    for j in range(R.shape[1]):
        for _ in range(seen[i, j]):
            h = np.concatenate([[1.0], factors[j]])
            P = P + alpha * np.outer(h, h)
            b = b + alpha * h * (R[i, j] - bias[j])
    covariance = np.linalg.inv(P)
    return covariance @ b, covariance
