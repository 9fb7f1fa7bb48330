"""The prior families in NumPy and SciPy: draws and densities with nothing of the package in them but the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    PerGroup,
    Prior,
)

type Values = dict[str, np.ndarray]
"""Hyperparameters by name, the first axis numbers draws."""


def _half_t(df: float, scale: float) -> Any:
    """Distribution of |scale T|: that of T, twice."""
    return stats.norm(0, scale) if df == math.inf else stats.t(df, 0, scale)


def _draw_half_t(rng: np.random.Generator, df: float, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.abs(scale * (rng.normal(size=shape) if df == math.inf else rng.standard_t(df, shape)))


def draw_hyper(
    prior: Prior, rng: np.random.Generator, num: int, G: int, p: int, columns: tuple[int, ...]
) -> Values:
    """``num`` draws of the hyperparameters."""
    if isinstance(prior, Fixed):
        return {}
    if isinstance(prior, NormalGamma):
        lam = rng.gamma(prior.a0 / 2, 2 / prior.b0, (num, G, *columns))
        return {"lambda": lam, "mu": rng.normal(prior.mu0, (prior.beta0 * lam) ** -0.5)}
    if isinstance(prior, HalfT):
        sigma = _draw_half_t(rng, prior.df, prior.scale, (num, G, *columns))
        return {"sigma": sigma, "mu": rng.normal(prior.mu0, sigma * prior.beta0**-0.5)}
    if isinstance(prior, Horseshoe):
        hyper = {
            "local_scale": np.abs(rng.standard_cauchy((num, p, *columns))),
            "global_scale": _draw_half_t(rng, prior.global_df, prior.global_scale, (num, G, *columns)),
        }
        if prior.slab_df < math.inf:
            precision = rng.gamma(
                prior.slab_df / 2, 2 / (prior.slab_df * prior.slab_scale**2), (num, G, *columns)
            )
            hyper["slab_scale"] = precision**-0.5
        return hyper
    if isinstance(prior, MultiplicativeGamma):
        shape = np.array([prior.a1] + [prior.a2] * (columns[0] - 1))
        hyper = {"delta": rng.gamma(shape, 1.0, (num, G, *columns))}
        if prior.df < math.inf:
            hyper["local_precision"] = rng.gamma(prior.df / 2, 2 / prior.df, (num, p, *columns))
        return hyper
    if isinstance(prior, NormalWishart):
        (k,) = columns
        precision = stats.wishart.rvs(k - 1 + prior.a0, np.eye(k) / prior.b0, num * G, rng).reshape(
            num, G, k, k
        )
        deviation = _correlated(prior.beta0 * precision, rng.normal(size=(num, G, k)))
        return {"precision": precision, "mu": prior.mu0 + deviation}
    if isinstance(prior, PerGroup):
        drawn = [draw_hyper(own, rng, num, 1, p, columns) for own in prior.priors]
        return {
            f"{name}_{group}": x if name in own.local_names else x[:, 0]
            for group, own, part in zip(prior.groups, prior.priors, drawn, strict=True)
            for name, x in part.items()
        }
    raise TypeError(f"no draws for {prior!r}")


def log_hyper(prior: Prior, hyper: Values) -> np.ndarray | float:
    """Log density of every draw."""
    if isinstance(prior, Fixed):
        return 0.0
    if isinstance(prior, NormalGamma):
        lam = hyper["lambda"]
        lp = stats.gamma.logpdf(lam, prior.a0 / 2, scale=2 / prior.b0)
        return _total(lp + stats.norm.logpdf(hyper["mu"], prior.mu0, (prior.beta0 * lam) ** -0.5))
    if isinstance(prior, HalfT):
        sigma = hyper["sigma"]
        lp = math.log(2) + _half_t(prior.df, prior.scale).logpdf(sigma)
        return _total(lp + stats.norm.logpdf(hyper["mu"], prior.mu0, sigma * prior.beta0**-0.5))
    if isinstance(prior, Horseshoe):
        scale = hyper["global_scale"]
        lp = _total(math.log(2) + _half_t(prior.global_df, prior.global_scale).logpdf(scale))
        lp = lp + _total(stats.halfcauchy.logpdf(hyper["local_scale"]))
        if prior.slab_df < math.inf:
            c, df = hyper["slab_scale"], prior.slab_df
            lp = lp + _total(
                np.log(2 * c) + stats.invgamma.logpdf(c**2, df / 2, scale=df / 2 * prior.slab_scale**2)
            )
        return lp
    if isinstance(prior, MultiplicativeGamma):
        delta = hyper["delta"]
        shape = np.array([prior.a1] + [prior.a2] * (delta.shape[2] - 1))
        lp = _total(stats.gamma.logpdf(delta, shape))
        if prior.df < math.inf:
            lp = lp + _total(stats.gamma.logpdf(hyper["local_precision"], prior.df / 2, scale=2 / prior.df))
        return lp
    if isinstance(prior, NormalWishart):
        precision, deviation = hyper["precision"], hyper["mu"] - prior.mu0
        k = deviation.shape[-1]
        last = np.moveaxis(precision.reshape(-1, k, k), 0, -1)
        lp = stats.wishart.logpdf(last, k - 1 + prior.a0, np.eye(k) / prior.b0).reshape(deviation.shape[:2])
        square = np.einsum("cgf,cgfh,cgh->cg", deviation, prior.beta0 * precision, deviation)
        log_det = np.linalg.slogdet(prior.beta0 * precision)[1]
        return _total(lp + 0.5 * (log_det - square - k * math.log(2 * math.pi)))
    if isinstance(prior, PerGroup):
        return sum((log_hyper(own, part) for own, part in parts(prior, hyper)), start=0.0)
    raise TypeError(f"no density for {prior!r}")


def precision_and_mean(
    prior: Prior, hyper: Values, group: np.ndarray, columns: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Of every feature: (num, p, *columns), the precision with one more axis if it is a matrix."""
    if isinstance(prior, Fixed):
        shape = (1, len(group), *columns)
        return np.full(shape, prior.precision), np.full(shape, prior.mean)
    if isinstance(prior, NormalGamma):
        return hyper["lambda"][:, group], hyper["mu"][:, group]
    if isinstance(prior, HalfT):
        return hyper["sigma"][:, group] ** -2, hyper["mu"][:, group]
    if isinstance(prior, Horseshoe):
        free = (hyper["global_scale"][:, group] * hyper["local_scale"]) ** -2
        slab = hyper["slab_scale"][:, group] if "slab_scale" in hyper else prior.slab_scale
        return free + slab**-2.0, np.zeros_like(free)
    if isinstance(prior, MultiplicativeGamma):
        tau = np.cumprod(hyper["delta"], axis=2)[:, group] / prior.scale**2
        precision = tau * hyper.get("local_precision", 1.0)
        return precision, np.zeros_like(precision)
    if isinstance(prior, NormalWishart):
        return hyper["precision"][:, group], hyper["mu"][:, group]
    if isinstance(prior, PerGroup):
        of_groups, zeros = parts(prior, hyper), np.zeros(len(group), int)
        each = [precision_and_mean(own, part, zeros, columns) for own, part in of_groups]
        precision, mean = (
            sum((group == i).reshape(-1, *[1] * len(columns)) * x for i, x in enumerate(moment))
            for moment in zip(*each, strict=True)
        )
        return precision, mean
    raise TypeError(f"no moments for {prior!r}")


def _with_axis(prior: Prior, name: str, x: np.ndarray) -> np.ndarray:
    return x if name in prior.local_names else x[:, None]


def parts(prior: PerGroup, hyper: Values) -> list[tuple[Prior, Values]]:
    """Every family and its hyperparameters, for one group."""
    return [
        (own, {name: _with_axis(own, name, hyper[f"{name}_{group}"]) for name in own.hyper_names()})
        for group, own in zip(prior.groups, prior.priors, strict=True)
    ]


def draw(
    prior: Prior, rng: np.random.Generator, num: int, group: np.ndarray, G: int, columns: tuple[int, ...] = ()
) -> tuple[Values, np.ndarray]:
    """Hyperparameters and x (num, p, *columns)."""
    hyper = draw_hyper(prior, rng, num, G, len(group), columns)
    precision, mean = precision_and_mean(prior, hyper, group, columns)
    noise = rng.normal(size=(num, len(group), *columns))
    if not prior.full:
        return hyper, noise / np.sqrt(precision) + mean
    return hyper, mean + _correlated(precision, noise)


def _correlated(precision: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Standard normals made into ones of that precision."""
    upper = np.swapaxes(np.linalg.cholesky(precision), -1, -2)
    return np.linalg.solve(upper, noise[..., None])[..., 0]


def squares(prior: Prior, hyper: Values, x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(x - mean)^2 in units of the prior variance; one number per feature where the precision is a matrix."""
    precision, mean = precision_and_mean(prior, hyper, group, x.shape[2:])
    if prior.full:
        return np.einsum("cpf,cpfh,cph->cp", x - mean, precision, x - mean)
    return precision * (x - mean) ** 2


def log_density(prior: Prior, hyper: Values, x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """log p(hyper) + log p(x | hyper) of every draw."""
    precision, _ = precision_and_mean(prior, hyper, group, x.shape[2:])
    log_det = np.linalg.slogdet(precision)[1] if prior.full else np.log(precision)
    size = int(np.prod(x.shape[1:]))
    constant = -0.5 * size * math.log(2 * math.pi)
    return (
        log_hyper(prior, hyper) + constant + 0.5 * (_total(log_det) - _total(squares(prior, hyper, x, group)))
    )


def quantities(prior: Prior, hyper: Values, x: np.ndarray, group: np.ndarray, name: str) -> Values:
    """Functions of hyperparameters and x, one value per draw."""
    out = {}
    for own, values in hyper.items():
        out |= columns_of(f"{own}_{name}", values)
    out |= columns_of(f"precision ({name} - mean)^2", squares(prior, hyper, x, group))
    precision, mean = precision_and_mean(prior, hyper, group, x.shape[2:])
    if "mu" in hyper and not prior.full:
        out |= columns_of(f"precision {name} mean^2", precision * mean**2)
    return out


def columns_of(name: str, values: np.ndarray) -> Values:
    """One array of values per column."""
    values = values.reshape(len(values), -1)
    return {f"{name} [{i}]": values[:, i] for i in range(values.shape[1])}


def _total(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(1)
