"""The likelihoods once more, in NumPy and SciPy: densities, means, and draws of parameters and of y.

Arrays of many chains: eta and y have shape (chain, n), parameters (chain, ...), row data (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit, gammaln, log_expit, log_ndtr, ndtr

from bayesfm.likelihoods import (
    BernoulliLogit,
    BernoulliProbit,
    BinomialLogit,
    GroupwiseGaussian,
    Likelihood,
    NegativeBinomial,
    OrdinalLogit,
    OrdinalProbit,
    Poisson,
    StudentT,
)

__all__ = ["Reference", "reference"]

type Params = dict[str, np.ndarray]
type Rows = dict[str, np.ndarray]


class Reference(NamedTuple):
    """One likelihood with its constants."""

    draw_params: Callable[[np.random.Generator, int], Params]
    log_prior: Callable[[Params], Any]
    draw: Callable[[np.random.Generator, np.ndarray, Params, Rows], np.ndarray]
    log_density: Callable[[np.ndarray, np.ndarray, Params, Rows], np.ndarray]
    mean: Callable[[np.ndarray, Params, Rows], np.ndarray]


def reference(likelihood: Likelihood) -> Reference:
    """That of a likelihood."""
    return REFERENCES[type(likelihood)](likelihood)


def _column(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)[:, None]


def _nothing(rng: np.random.Generator, num: int) -> Params:
    return {}


def _zero(params: Params) -> float:
    return 0.0


def _probit(likelihood: BernoulliProbit) -> Reference:
    return Reference(
        _nothing,
        _zero,
        lambda rng, eta, params, rows: (eta + rng.normal(size=eta.shape) > 0).astype(float),
        lambda y, eta, params, rows: log_ndtr(np.where(y > 0, eta, -eta)),
        lambda eta, params, rows: ndtr(eta),
    )


def _logit(likelihood: BernoulliLogit) -> Reference:
    return Reference(
        _nothing,
        _zero,
        lambda rng, eta, params, rows: (rng.random(eta.shape) < expit(eta)).astype(float),
        lambda y, eta, params, rows: log_expit(np.where(y > 0, eta, -eta)),
        lambda eta, params, rows: expit(eta),
    )


def _binomial(likelihood: BinomialLogit) -> Reference:
    return Reference(
        _nothing,
        _zero,
        lambda rng, eta, params, rows: rng.binomial(rows["trials"].astype(int), expit(eta)).astype(float),
        lambda y, eta, params, rows: stats.binom.logpmf(y, rows["trials"], expit(eta)),
        lambda eta, params, rows: rows["trials"] * expit(eta),
    )


def _poisson(likelihood: Poisson) -> Reference:
    return Reference(
        _nothing,
        _zero,
        lambda rng, eta, params, rows: rng.poisson(rows["exposure"] * np.exp(eta)).astype(float),
        lambda y, eta, params, rows: stats.poisson.logpmf(y, rows["exposure"] * np.exp(eta)),
        lambda eta, params, rows: rows["exposure"] * np.exp(eta),
    )


def _negative_binomial(likelihood: NegativeBinomial) -> Reference:
    prior = stats.gamma(likelihood.shape, scale=1 / likelihood.rate)

    def draw(rng: np.random.Generator, eta: np.ndarray, params: Params, rows: Rows) -> np.ndarray:
        r = _column(params["concentration"])
        mean = rows["exposure"] * np.exp(eta)
        return rng.poisson(mean * rng.gamma(np.broadcast_to(r, eta.shape)) / r).astype(float)

    def log_density(y: np.ndarray, eta: np.ndarray, params: Params, rows: Rows) -> np.ndarray:
        r = _column(params["concentration"])
        psi = eta + np.log(rows["exposure"]) - np.log(r)
        choose = gammaln(y + r) - gammaln(r) - gammaln(y + 1)
        return choose + y * log_expit(psi) + r * log_expit(-psi)

    return Reference(
        lambda rng, num: {"concentration": prior.rvs(num, random_state=rng)},
        lambda params: prior.logpdf(params["concentration"]),
        draw,
        log_density,
        lambda eta, params, rows: rows["exposure"] * np.exp(eta),
    )


def _student_t(likelihood: StudentT) -> Reference:
    alpha, df = stats.gamma(likelihood.a0 / 2, scale=2 / likelihood.b0), stats.gamma(2, scale=10)

    def draw_params(rng: np.random.Generator, num: int) -> Params:
        out = {"alpha": alpha.rvs(num, random_state=rng)}
        return out if likelihood.df is not None else out | {"df": df.rvs(num, random_state=rng)}

    def log_prior(params: Params) -> np.ndarray:
        out = alpha.logpdf(params["alpha"])
        return out if likelihood.df is not None else out + df.logpdf(params["df"])

    def of(eta: np.ndarray, params: Params) -> Any:
        nu = likelihood.df if likelihood.df is not None else _column(params["df"])
        return stats.t(nu, eta, _column(params["alpha"]) ** -0.5)

    return Reference(
        draw_params,
        log_prior,
        lambda rng, eta, params, rows: of(eta, params).rvs(eta.shape, random_state=rng),
        lambda y, eta, params, rows: of(eta, params).logpdf(y),
        lambda eta, params, rows: eta,
    )


def _groupwise(likelihood: GroupwiseGaussian) -> Reference:
    """tau of row n is that of its group; integrated out, a t, where the group is unseen."""
    alpha, df = stats.gamma(likelihood.a0 / 2, scale=2 / likelihood.b0), stats.gamma(2, scale=10)

    def df_of(params: Params) -> np.ndarray:
        return np.asarray(params.get("df", np.full(len(params["alpha"]), likelihood.df)))[:, None]

    def draw_params(rng: np.random.Generator, num: int) -> Params:
        out = {"alpha": alpha.rvs(num, random_state=rng)}
        out |= {} if likelihood.df is not None else {"df": df.rvs(num, random_state=rng)}
        tau = stats.gamma(df_of(out) / 2, scale=2 / df_of(out))
        drawn = tau.rvs((num, likelihood.num_groups), random_state=rng)
        return out | {"tau": np.maximum(drawn, np.finfo(np.float32).tiny)}  # df near zero: tau would be zero

    def log_prior(params: Params) -> np.ndarray:
        out = alpha.logpdf(params["alpha"]) + (0 if likelihood.df is not None else df.logpdf(params["df"]))
        return out + stats.gamma.logpdf(params["tau"], df_of(params) / 2, scale=2 / df_of(params)).sum(1)

    def scale_of(params: Params, rows: Rows) -> np.ndarray:
        return (_column(params["alpha"]) * params["tau"][:, rows["noise_group"].astype(int)]) ** -0.5

    def log_density(y: np.ndarray, eta: np.ndarray, params: Params, rows: Rows) -> np.ndarray:
        unseen = stats.t.logpdf(y, df_of(params), eta, _column(params["alpha"]) ** -0.5)
        return np.where(rows["noise_group"] < 0, unseen, stats.norm.logpdf(y, eta, scale_of(params, rows)))

    return Reference(
        draw_params,
        log_prior,
        lambda rng, eta, params, rows: eta + scale_of(params, rows) * rng.normal(size=eta.shape),
        log_density,
        lambda eta, params, rows: eta,
    )


def _ordinal(likelihood: OrdinalProbit | OrdinalLogit) -> Reference:
    C, concentration, scale = likelihood.num_classes, likelihood.concentration, likelihood.scale
    latent = stats.norm if isinstance(likelihood, OrdinalProbit) else stats.logistic

    def draw_params(rng: np.random.Generator, num: int) -> Params:
        p = rng.dirichlet(np.full(C, concentration), num)
        return {"cutpoints": scale * latent.ppf(np.cumsum(p, 1)[:, :-1])}

    def log_prior(params: Params) -> np.ndarray:
        at = params["cutpoints"] / scale
        p = np.diff(np.pad(latent.cdf(at), ((0, 0), (1, 1)), constant_values=(0, 1)), axis=1)
        constant = gammaln(C * concentration) - C * gammaln(concentration)
        jacobian = (latent.logpdf(at) - np.log(scale)).sum(1)
        return ((concentration - 1) * np.log(p)).sum(1) + jacobian + constant

    def probabilities(eta: np.ndarray, params: Params) -> np.ndarray:
        edges = np.pad(params["cutpoints"], ((0, 0), (1, 1)), constant_values=(-np.inf, np.inf))
        low, high = edges[:, None, :-1] - eta[..., None], edges[:, None, 1:] - eta[..., None]
        return np.where(low > 0, latent.sf(low) - latent.sf(high), latent.cdf(high) - latent.cdf(low))

    def draw(rng: np.random.Generator, eta: np.ndarray, params: Params, rows: Rows) -> np.ndarray:
        z = eta + latent.rvs(size=eta.shape, random_state=rng)
        return (z[..., None] > params["cutpoints"][:, None]).sum(-1).astype(float)

    def log_density(y: np.ndarray, eta: np.ndarray, params: Params, rows: Rows) -> np.ndarray:
        p = probabilities(eta, params)
        y = np.broadcast_to(y, eta.shape).astype(int)
        return np.log(np.take_along_axis(p, y[..., None], -1)[..., 0])

    return Reference(
        draw_params,
        log_prior,
        draw,
        log_density,
        lambda eta, params, rows: probabilities(eta, params) @ np.arange(C),
    )


REFERENCES: dict[type, Callable[[Any], Reference]] = {
    BernoulliProbit: _probit,
    BernoulliLogit: _logit,
    BinomialLogit: _binomial,
    Poisson: _poisson,
    NegativeBinomial: _negative_binomial,
    StudentT: _student_t,
    GroupwiseGaussian: _groupwise,
    OrdinalProbit: _ordinal,
    OrdinalLogit: _ordinal,
}
