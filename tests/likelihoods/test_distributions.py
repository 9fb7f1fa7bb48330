"""Distributions in terms of eta against SciPy in double precision, in both precisions and far out in the tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Distribution
from scipy import stats
from scipy.special import comb, expit, gammaln, log_expit, log_ndtr, ndtr

from bayesfm.likelihoods.distributions import (
    BernoulliLogits,
    BinomialLogits,
    InducedDirichlet,
    LogNegativeBinomial,
    LogPoisson,
    Ordinal,
    Probit,
)
from bayesfm.likelihoods.links import LINKS, NARROW
from tests.statistics import assert_no_alarm, ks_exact

LATENT = {"probit": stats.norm, "logit": stats.logistic}
PRECISIONS = ["float32", "float64"]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(80)


@pytest.fixture(params=PRECISIONS)
def dtype(request: pytest.FixtureRequest) -> Any:
    """Both precisions, JAX's switch set accordingly."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def log_interval(link: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log(F(high) - F(low)) without cancellation: the density integrated, or tails that are far apart."""
    latent = LATENT[link]
    low, high = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    width, middle = high - low, (low + high) / 2
    short = width * (1 + np.abs(high)) < 20
    x = middle[..., None] + 0.5 * np.where(short, width, 0.0)[..., None] * NODES
    log_density = latent.logpdf(x) - latent.logpdf(middle)[..., None]
    by_density = latent.logpdf(middle) + np.log(width) + np.log(np.exp(log_density) @ WEIGHTS / 2)
    near, far = latent.logcdf(high), latent.logcdf(low)
    # Both tails where the interval holds the centre: nothing is lost, since they are small.
    tails = np.log1p(-np.where(high > 0, latent.cdf(low) + latent.sf(high), 0.0))
    by_tails = np.where(high > 0, tails, near + np.log1p(-np.exp(np.where(high > 0, -1.0, far - near))))
    return np.where(short, by_density, by_tails)


def intervals(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Ends as the precision at hand has them: from narrow ones to half-lines, in the centre and far out."""
    middle = np.array([0.0, 1e-3, 0.3, 1.0, 3.0, 9.0, 20.0, 40.0])
    width = np.array([1e-6, 1e-4, 3e-3, 0.009, 0.011, 0.05, 0.099, 0.11, 0.5, 1.0, 5.0, 30.0, 100.0])
    sign, middle, width = (x.ravel() for x in np.meshgrid([-1.0, 1.0], middle, width))
    low, high = ((sign * middle + s * width / 2).astype(dtype) for s in (-1, 1))
    some = high > low
    half = np.array([-40.0, -5.0, 0.0, 2.0, 40.0], dtype)
    far = np.full_like(half, 1e6)
    return np.concatenate([low[some], half, -far]), np.concatenate([high[some], far, half])


def allowed(dtype: np.dtype, size: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Rounding of terms of that size, and what a difference of nearly equal tails has lost (narrower: an expansion)."""
    eps = np.finfo(dtype).eps
    near = np.minimum(np.abs(low), np.abs(high))
    narrow = np.minimum(1.0, (high - low) * (1 + near))
    return 8 * eps * size + 16 * eps / np.maximum(narrow, NARROW[dtype.name])


@pytest.mark.parametrize("link", LINKS)
def test_log_interval(dtype: np.dtype, link: str) -> None:
    low, high = intervals(dtype)
    expected = log_interval(link, low.astype(float), high.astype(float))
    got = np.asarray(jax.jit(LINKS[link].log_interval)(low, high))
    assert got.dtype == dtype
    assert np.all(np.abs(got - expected) <= allowed(dtype, 1 + np.abs(expected), low, high))


@pytest.mark.parametrize("link", LINKS)
def test_gradient_of_log_interval(dtype: np.dtype, link: str) -> None:
    """-f(low)/p and f(high)/p: large and opposite in narrow intervals."""
    low, high = intervals(dtype)
    log_p = log_interval(link, low.astype(float), high.astype(float))
    got = jax.jit(jax.vmap(jax.grad(LINKS[link].log_interval, argnums=(0, 1))))(low, high)
    for sign, end, own in zip((-1, 1), (low, high), got, strict=True):
        expected = sign * np.exp(LATENT[link].logpdf(end.astype(float)) - log_p)
        size = (1 + np.abs(log_p)) * (1 + np.abs(expected))
        tolerance = 10 * allowed(dtype, size, low, high) * (1 + np.abs(expected))  # derivatives of fits
        assert np.all(np.isfinite(own))
        assert np.all(np.abs(np.asarray(own) - expected) <= tolerance)


def test_curvature_of_a_normal_interval(dtype: np.dtype) -> None:
    """With A = phi(low)/p and B = phi(high)/p: low A - A^2, A B and -high B - B^2."""
    low, high = intervals(dtype)
    wide_low, wide_high = low.astype(float), high.astype(float)
    log_p = log_interval("probit", wide_low, wide_high)
    A, B = (np.exp(LATENT["probit"].logpdf(x) - log_p) for x in (wide_low, wide_high))
    hessian = jax.hessian(LINKS["probit"].log_interval, argnums=(0, 1))
    (ll, lh), (_, hh) = jax.jit(jax.vmap(hessian))(low, high)
    relative = 20 * allowed(dtype, 1 + np.abs(log_p), low, high)
    for own, terms in ((ll, (wide_low * A, -A * A)), (lh, (A * B,)), (hh, (-wide_high * B, -B * B))):
        size = sum(np.abs(term) for term in terms)
        assert np.all(np.abs(np.asarray(own) - sum(terms)) <= relative * size + np.finfo(dtype).tiny)


@pytest.mark.parametrize("link", LINKS)
def test_links(dtype: np.dtype, link: str) -> None:
    x = np.linspace(-8, 8, 33).astype(dtype)
    latent, ours, eps = LATENT[link], LINKS[link], np.finfo(dtype).eps
    wide = x.astype(float)
    cdf, log_density = jax.jit(lambda x: (ours.cdf(x), ours.log_density(x)))(x)
    np.testing.assert_allclose(cdf, latent.cdf(wide), rtol=100 * eps)
    np.testing.assert_allclose(log_density, latent.logpdf(wide), rtol=8 * eps)
    p = np.array([1e-6, 0.01, 0.3, 0.5, 0.7], dtype)
    np.testing.assert_allclose(
        jax.jit(ours.quantile)(p), latent.ppf(p.astype(float)), rtol=30 * eps, atol=8 * eps
    )


def test_probit(dtype: np.dtype) -> None:
    eta, eps = np.linspace(-40, 40, 81).astype(dtype), np.finfo(dtype).eps
    wide = eta.astype(float)
    probit = Probit(jnp.asarray(eta))
    for y, sign in ((0, -1), (1, 1)):
        rtol = 50 * max(
            eps, 1e-12
        )  # JAX's asymptotic series from 20 on; its derivative has 200 times the error
        np.testing.assert_allclose(
            probit.log_prob(jnp.asarray(y)), log_ndtr(sign * wide), rtol=rtol, atol=eps
        )
        slope = jax.grad(lambda e, y=y: Probit(e).log_prob(jnp.asarray(y)).sum())(jnp.asarray(eta))
        expected = sign * np.exp(stats.norm.logpdf(wide) - log_ndtr(sign * wide))
        np.testing.assert_allclose(
            slope, expected, rtol=200 * max(5 * eps, 1e-12 * 50), atol=np.finfo(dtype).tiny
        )
    np.testing.assert_allclose(probit.mean, ndtr(wide), rtol=2000 * eps, atol=np.finfo(dtype).tiny)
    centre = slice(35, 46)
    np.testing.assert_allclose(
        np.asarray(probit.variance)[centre], (ndtr(wide) * ndtr(-wide))[centre], rtol=50 * eps
    )


CUTPOINTS = np.array([-1.5, -1.499, 0.0, 2.5])


@pytest.mark.parametrize("link", LINKS)
def test_ordinal(dtype: np.dtype, link: str) -> None:
    eta, cut = np.array([-40.0, -6.0, -1.5, 0.0, 0.7, 6.0, 40.0], dtype), CUTPOINTS.astype(dtype)
    ordinal = Ordinal(jnp.asarray(eta), jnp.asarray(cut), link)
    eps = np.finfo(dtype).eps
    edges = np.concatenate([[-1e6], cut.astype(dtype), [1e6]]).astype(dtype)
    low, high = ((e - eta[:, None]).astype(float) for e in (edges[:-1], edges[1:]))
    expected = log_interval(link, low, high)
    log_p = np.asarray(jax.jit(jax.vmap(ordinal.log_prob, out_axes=-1))(jnp.arange(5)))
    assert np.all(np.abs(log_p - expected) <= allowed(dtype, 1 + np.abs(expected), low, high))
    p = np.exp(expected)
    probabilities, mean, got_variance = jax.jit(lambda d: (d.probabilities(), d.mean, d.variance))(ordinal)
    np.testing.assert_allclose(np.asarray(probabilities).sum(-1), 1.0, rtol=100 * eps)
    np.testing.assert_allclose(mean, p @ np.arange(5), rtol=100 * eps, atol=100 * eps)
    variance = p @ np.arange(5) ** 2 - (p @ np.arange(5)) ** 2
    np.testing.assert_allclose(got_variance, variance, rtol=100 * eps, atol=1000 * eps)
    assert ordinal.num_classes == 5
    np.testing.assert_array_equal(ordinal.support(jnp.arange(-1, 6)), [False] + 5 * [True] + [False])


@pytest.mark.parametrize("link", LINKS)
def test_ordinal_has_finite_derivatives_everywhere(dtype: np.dtype, link: str) -> None:
    """By eta the difference of hazards, to be compared where it does not cancel; by the cut-points finite."""
    eta, cut = jnp.asarray([-40.0, 0.3, 40.0], dtype), jnp.asarray(CUTPOINTS, dtype)

    def log_prob(eta: jax.Array, cut: jax.Array, c: int) -> jax.Array:
        return Ordinal(eta, cut, link).log_prob(jnp.asarray(c))

    derivatives = jax.jit(jax.vmap(jax.grad(log_prob, argnums=(0, 1)), (0, None, None)))
    for c in range(5):
        slope, by_cut = derivatives(eta, cut, c)
        assert np.all(np.isfinite(slope))
        assert np.all(np.isfinite(by_cut))
        # A shift of eta is a shift of all cut-points.
        size = 1 + np.abs(np.asarray(by_cut)).sum(-1)
        assert np.all(np.abs(slope + by_cut.sum(-1)) <= 8 * np.finfo(dtype).eps * size)


@pytest.mark.parametrize("link", LINKS)
def test_induced_dirichlet_density(dtype: np.dtype, link: str) -> None:
    concentration, scale = 2.5, 1.3
    ours = InducedDirichlet(4, concentration, scale, link)
    cut = np.array([[-1.0, 0.2, 0.9], [-3.0, -2.9, 4.0], [0.1, 5.0, 9.0]]).astype(dtype)
    at = cut.astype(float) / scale
    edges = np.pad(at, ((0, 0), (1, 1)), constant_values=((0, 0), (-1e6, 1e6)))
    terms = (concentration - 1) * log_interval(link, edges[:, :-1], edges[:, 1:])
    jacobian = (LATENT[link].logpdf(at) - np.log(scale)).sum(1)
    constant = gammaln(4 * concentration) - 4 * gammaln(concentration)
    got = ours.log_prob(jnp.asarray(cut))
    size = np.abs(terms).sum(1) + np.abs(jacobian) + constant
    assert np.all(
        np.abs(got - (terms.sum(1) + jacobian + constant)) <= 200 * np.finfo(dtype).eps * (1 + size)
    )


@pytest.mark.parametrize("link", LINKS)
def test_induced_dirichlet_draws(link: str) -> None:
    """The probabilities of a typical row's classes are Dirichlet, each a beta variable."""
    ours = InducedDirichlet(4, 1.5, 2.0, link)
    cut = np.asarray(ours.sample(jax.random.key(0), (20_000,)), float)
    assert np.all(np.diff(cut) > 0)
    below = LATENT[link].cdf(cut / 2.0)
    p = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))))
    assert_no_alarm({f"class {c}": ks_exact(p[:, c], stats.beta(1.5, 4.5)) for c in range(4)})


def test_logits(dtype: np.dtype) -> None:
    """Densities, scores y - m p and curvatures -m p (1 - p) at eta = 0, too, where NumPyro's score is y or y - m."""
    eta = np.array([-30.0, -1.0, 0.0, 1e-6, 2.0, 30.0]).astype(dtype).astype(float)
    p, rounding = expit(eta), 8 * np.finfo(dtype).eps
    makes: list[tuple[int, Callable[[jax.Array], Distribution]]] = [
        (1, BernoulliLogits),
        (3, lambda eta: BinomialLogits(eta, jnp.asarray(3))),
    ]
    for m, make in makes:
        for y in range(m + 1):

            def log_density(eta: jax.Array, y: int = y, make: Any = make) -> jax.Array:
                return make(eta).log_prob(jnp.asarray(y, dtype))

            score, at = jax.grad(lambda eta: log_density(eta).sum()), jnp.asarray(eta, dtype)
            expected = y * log_expit(eta) + (m - y) * log_expit(-eta) + np.log(comb(m, y))
            np.testing.assert_allclose(log_density(at), expected, rtol=rounding, atol=rounding)
            np.testing.assert_allclose(score(at), y - m * p, rtol=rounding, atol=m * rounding)
            curvature = jax.grad(lambda eta: score(eta).sum())(at)  # noqa: B023
            np.testing.assert_allclose(curvature, -m * p * (1 - p), rtol=rounding, atol=m * rounding)


def test_log_poisson(dtype: np.dtype) -> None:
    y, log_mean = (g.ravel() for g in np.meshgrid([0.0, 1.0, 7.0, 1000.0], [-40.0, -1.0, 0.5, 7.0, 40.0]))
    ours, wide = LogPoisson(jnp.asarray(log_mean, dtype)), log_mean.astype(dtype).astype(float)
    expected = y * wide - np.exp(wide) - gammaln(y + 1)
    size = y * np.abs(wide) + np.exp(wide) * (1 + np.abs(wide)) + gammaln(y + 1)
    eps = np.finfo(dtype).eps
    got = np.asarray(ours.log_prob(jnp.asarray(y, dtype)))
    assert np.all(np.abs(got - expected) <= 8 * eps * (1 + size))
    for moment in (ours.mean, ours.variance):
        np.testing.assert_allclose(moment, np.exp(wide), rtol=100 * eps)


def test_log_negative_binomial(dtype: np.dtype) -> None:
    grid = np.meshgrid([0.0, 1.0, 7.0, 1000.0], [-40.0, -1.0, 0.5, 7.0, 40.0], [0.01, 1.0, 30.0, 1e4, 1e6])
    y, log_mean, r = (g.ravel().astype(dtype) for g in grid)
    ours = LogNegativeBinomial(jnp.asarray(log_mean), jnp.asarray(r))
    expected = negative_binomial_logpmf(*(x.astype(float) for x in (y, log_mean, r)))
    got = np.asarray(ours.log_prob(jnp.asarray(y)))
    eps = np.finfo(dtype).eps
    # y + r cannot be told from its neighbours in this precision, nor can psi from its own.
    size = 1 + np.abs(expected) + y * (np.abs(log_mean) + np.log(r + y) + 1)
    assert np.all(np.abs(got - expected) <= 20 * eps * size)
    np.testing.assert_allclose(ours.mean, np.exp(log_mean.astype(float)), rtol=100 * eps)
    mean = np.exp(log_mean.astype(float))
    np.testing.assert_allclose(ours.variance, mean + mean**2 / r, rtol=300 * eps)


def negative_binomial_logpmf(y: np.ndarray, log_mean: np.ndarray, r: np.ndarray) -> np.ndarray:
    """In double precision, the rising factorial of r as a product: no difference of large log gammas."""
    rising = np.array([np.log(own + np.arange(int(count))).sum() for own, count in zip(r, y, strict=True)])
    psi = log_mean - np.log(r)
    return rising - gammaln(y + 1) + y * log_expit(psi) + r * log_expit(-psi)


def by_hand(log_density: Callable[[np.ndarray], np.ndarray], num: int) -> np.ndarray:
    """Probabilities of 0, ..., num - 2 and of all beyond."""
    p = np.exp(log_density(np.arange(num - 1.0)))
    return np.append(p, 1 - p.sum())


def draws_cases() -> dict[str, tuple[Distribution, np.ndarray]]:
    """Distributions with the probabilities of their values, the last one that of all beyond."""
    cut = jnp.asarray([-0.5, 0.0, 1.0])
    ordinal = {
        f"ordinal {link}": (
            Ordinal(jnp.asarray(0.4), cut, link),
            np.diff(np.pad(LATENT[link].cdf(np.asarray(cut) - 0.4), 1, constant_values=(0, 1))),
        )
        for link in LINKS
    }
    return {
        "probit": (Probit(jnp.asarray(0.7)), np.array([ndtr(-0.7), ndtr(0.7)])),
        **ordinal,
        "poisson": (LogPoisson(jnp.asarray(0.9)), by_hand(stats.poisson(np.exp(0.9)).logpmf, 9)),
        "negative binomial": (
            LogNegativeBinomial(jnp.asarray(0.9), jnp.asarray(1.5)),
            by_hand(stats.nbinom(1.5, 1.5 / (1.5 + np.exp(0.9))).logpmf, 12),
        ),
    }


DRAWS = draws_cases()


@pytest.mark.parametrize("name", DRAWS)
def test_draws(name: str) -> None:
    distribution, p = DRAWS[name]
    y = np.asarray(distribution.sample(jax.random.key(1), (50_000,)))
    assert y.shape == (50_000,)
    counts = np.bincount(np.minimum(y, len(p) - 1), minlength=len(p))
    assert_no_alarm({name: float(stats.chisquare(counts, 50_000 * p).pvalue)})
