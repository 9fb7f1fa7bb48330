from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import integrate, stats

from bayesfm.priors import Features, Hyper, NormalGamma, Prior, Sizes
from tests.implied import gamma_shape_and_rate, normal_mean_and_sd
from tests.priors.updates import features_of
from tests.statistics import assert_no_alarm, ks_exact, z_test

PRIOR = NormalGamma(a0=3.0, b0=2.0, beta0=0.7, mu0=0.4)


def log_density(x: np.ndarray, mu: float, lam: float, prior: NormalGamma) -> float:
    """log p(x, mu, lambda) of one group and one column, term by term."""
    lp = stats.gamma.logpdf(lam, prior.a0 / 2, scale=2 / prior.b0)
    lp += stats.norm.logpdf(mu, prior.mu0, (prior.beta0 * lam) ** -0.5)
    return float(lp + sum(stats.norm.logpdf(value, mu, lam**-0.5) for value in x))


def statistics(xs: list[np.ndarray]) -> Features:
    """What the update reads, from one (p_g, d) array per group."""
    group = np.repeat(np.arange(len(xs)), [len(x) for x in xs])
    return features_of(jnp.asarray(np.concatenate(xs)), group, len(xs))


@pytest.fixture
def groups() -> list[np.ndarray]:
    """Three groups of 5, 0 and 1 features with two columns."""
    rng = np.random.default_rng(0)
    return [rng.normal(1.0, 2.0, (size, 2)) for size in (5, 0, 1)]


def update(groups: list[np.ndarray], name: str, key: int = 0) -> np.ndarray:
    return np.asarray(PRIOR.update(jax.random.key(key), {}, statistics(groups))[name])


def test_lambda_has_mu_integrated_out(groups: list[np.ndarray]) -> None:
    """Differences of log of the density integrated over mu numerically, against the gamma that is drawn."""
    with jax.enable_x64():
        shape, rate = gamma_shape_and_rate(lambda: update(groups, "lambda"))
    grid = np.array([0.3, 0.8, 1.5, 4.0])
    for g, x in enumerate(groups):
        for f in range(2):
            own = x[:, f]
            at = [
                np.log(
                    integrate.quad(
                        lambda mu, lam=lam, own=own: np.exp(log_density(own, mu, lam, PRIOR)),
                        -30,
                        30,
                        points=[0, 1],
                        limit=200,
                        epsabs=0,
                        epsrel=1e-10,
                    )[0]
                )
                for lam in grid
            ]
            expected = stats.gamma.logpdf(grid, shape[g, f], scale=1 / rate[g, f])
            np.testing.assert_allclose(np.diff(at), np.diff(expected), rtol=1e-7, atol=1e-8)


def test_mu_given_the_new_lambda(groups: list[np.ndarray]) -> None:
    """The normal that is drawn, against the quadratic log density in mu at the lambda of the same update."""
    with jax.enable_x64():
        mean, sd = normal_mean_and_sd(lambda: update(groups, "mu"), gamma=2.5)
        rate = gamma_shape_and_rate(lambda: update(groups, "lambda"))[1]
    grid = np.array([-1.0, 0.0, 0.5, 2.0])
    for g, x in enumerate(groups):
        for f in range(2):
            at = [log_density(x[:, f], mu, 2.5 / rate[g, f], PRIOR) for mu in grid]
            expected = stats.norm.logpdf(grid, mean[g, f], sd[g, f])
            np.testing.assert_allclose(np.diff(at), np.diff(expected), rtol=1e-9, atol=1e-9)


def test_an_empty_group_keeps_its_prior(groups: list[np.ndarray]) -> None:
    shape, rate = gamma_shape_and_rate(lambda: update(groups, "lambda"))
    assert np.all(shape[1] == PRIOR.a0 / 2)
    assert np.all(rate[1] == PRIOR.b0 / 2)
    mean, sd = normal_mean_and_sd(lambda: update(groups, "mu"))
    np.testing.assert_allclose(mean[1], PRIOR.mu0, rtol=1e-6)
    np.testing.assert_allclose(sd[1], (PRIOR.beta0 / rate[1]) ** -0.5, rtol=1e-6)


def test_random_draws_have_the_distribution(groups: list[np.ndarray]) -> None:
    """Kolmogorov-Smirnov, and lambda and the noise of mu uncorrelated: they must not share a key."""
    N = 20_000
    shape, rate = gamma_shape_and_rate(lambda: update(groups, "lambda"))
    mean, _ = normal_mean_and_sd(lambda: update(groups, "mu"))
    data = statistics(groups)
    hyper = jax.vmap(lambda key: PRIOR.update(key, {}, data))(jax.random.split(jax.random.key(1), N))
    lam, mu = (np.asarray(hyper[name], np.float64) for name in ("lambda", "mu"))
    weight = PRIOR.beta0 + np.array([5.0, 0.0, 1.0])[:, None]
    z = (mu - mean) * np.sqrt(weight * lam)
    p_values = {}
    for i in np.ndindex(3, 2):
        own = (slice(None), *i)
        p_values[f"lambda{i}"] = ks_exact(lam[own], stats.gamma(shape[i], scale=1 / rate[i]))
        p_values[f"mu{i}"] = ks_exact(z[own], stats.norm)
        p_values[f"correlation{i}"] = float(z_test(np.corrcoef(lam[own], z[own])[0, 1], N**-0.5))
        p_values[f"columns{i}"] = float(
            z_test(np.corrcoef(z[:, i[0], 0], z[:, (i[0] + 1) % 3, 1])[0, 1], N**-0.5)
        )
    assert_no_alarm(p_values)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 0)])
def test_sites_have_the_density(shape: tuple[int, ...]) -> None:
    with jax.enable_x64():
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
            hyper = PRIOR.sample_hyper("_w", Sizes(shape[0], 5, shape[1:]))
        assert list(trace) == ["lambda_w", "mu_w"]
        assert {name: x.shape for name, x in hyper.items()} == {"mu": shape, "lambda": shape}
        lam, mu = (np.asarray(hyper[name], np.float64) for name in ("lambda", "mu"))
        expected = stats.gamma.logpdf(lam, 1.5, scale=1.0).sum()
        expected += stats.norm.logpdf(mu, 0.4, (0.7 * lam) ** -0.5).sum()
        np.testing.assert_allclose(PRIOR.log_hyper(hyper), expected, rtol=1e-12)
        sites = sum(jnp.sum(site["fn"].log_prob(site["value"])) for site in trace.values())
        np.testing.assert_allclose(sites, expected, rtol=1e-12)


def test_distribution_precision_and_mean_agree() -> None:
    hyper = {"mu": jnp.array([1.0, -2.0]), "lambda": jnp.array([4.0, 0.25])}
    x = PRIOR.distribution(hyper)
    precision, mean = PRIOR.precision_and_mean(hyper, (2,))
    np.testing.assert_allclose(x.mean, mean)
    np.testing.assert_allclose(x.variance, 1 / precision, rtol=1e-6)


def test_initial_is_the_centre() -> None:
    hyper = PRIOR.initial(Sizes(2, 5, (3,)))
    assert PRIOR.hyper_names() == tuple(hyper)
    np.testing.assert_allclose(hyper["lambda"], np.full((2, 3), 1.5))
    np.testing.assert_allclose(hyper["mu"], np.full((2, 3), 0.4))


def test_numbers_are_leaves() -> None:
    """Other numbers, same program; no check of tracers."""
    traced = []

    @jax.jit
    def draw(prior: NormalGamma, features: Features) -> Hyper:
        traced.append(prior)
        return prior.update(jax.random.key(0), {}, features)

    data = statistics([np.ones((2, 1))])
    first, second = draw(PRIOR, data), draw(NormalGamma(9.0, 1.0, 1.0, 7.0), data)
    assert len(traced) == 1
    assert float(first["mu"][0, 0]) != float(second["mu"][0, 0])
    assert isinstance(PRIOR, Prior)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"a0": 0.0}, ValueError, r"NormalGamma\(a0=\) must be > 0, got 0"),
        ({"b0": -1.0}, ValueError, r"NormalGamma\(b0=\) must be > 0"),
        ({"beta0": "x"}, TypeError, r"NormalGamma\(beta0=\) must be a real number"),
        ({"mu0": np.inf}, ValueError, r"NormalGamma\(mu0=\) must be finite"),
    ],
)
def test_bad_numbers_are_refused(arguments: dict[str, float], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        NormalGamma(**arguments)
