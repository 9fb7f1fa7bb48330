"""Mean and variance of eta under independent beliefs about features, by enumeration.

eta is affine in the parameters of each feature, so that its square is quadratic in them: its expectation depends on
their first two moments alone, and each normal may be replaced by 2 K points with the same moments.
"""

from __future__ import annotations

import itertools

import numpy as np

from tests.reference import eta as eta_of


def moments_of_eta(X: np.ndarray, w0: float, m: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[eta] and var[eta] of every row: m is (p, K), S is (p, K, K), rows have few features."""
    mean, variance = np.zeros(len(X)), np.zeros(len(X))
    K = m.shape[1]
    for n, x in enumerate(X):
        here = np.flatnonzero(x)
        points = []
        for j in here:
            root = np.sqrt(K) * np.linalg.cholesky(S[j]).T
            points.append(np.concatenate([m[j] + root, m[j] - root]))
        values = (
            [
                eta_of(
                    x[None, here],
                    w0,
                    np.array([t[0] for t in combination]),
                    np.array([t[1:] for t in combination]),
                )[0]
                for combination in itertools.product(*points)
            ]
            if len(here)
            else [w0]
        )
        mean[n], variance[n] = np.mean(values), np.var(values)
    return mean, variance


def bound(
    X: np.ndarray,
    w0: float,
    m: np.ndarray,
    S: np.ndarray,
    omega: np.ndarray,
    z: np.ndarray,
    precision: np.ndarray,
    mean: np.ndarray,
) -> float:
    """E[-1/2 sum omega (z - eta)^2 + log p(theta)] and the entropy, up to constants."""
    E, V = moments_of_eta(X, w0, m, S)
    of_rows = -0.5 * np.sum(omega * ((z - E) ** 2 + V))
    of_prior = -0.5 * np.sum(precision * ((m - mean) ** 2 + np.diagonal(S, axis1=1, axis2=2)))
    return float(of_rows + of_prior + 0.5 * np.linalg.slogdet(S)[1].sum())
