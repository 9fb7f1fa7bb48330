"""Groupwise noise against SciPy: the distribution, the marginal of a group, the conditionals, and their limits."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.likelihoods import GroupwiseGaussian
from bayesfm.likelihoods.base import Observed
from bayesfm.likelihoods.groupwise import GroupNoise, rise_of_marginal
from bayesfm.likelihoods.log_gamma_ratios import stirling_remainder
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictive import FittedModel, predictive_cdf, predictive_moments
from bayesfm.predictors import FM
from tests.statistics import assert_no_alarm, ks_exact

EPS = np.finfo(np.float32).eps
RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------------ the distribution

Y, KNOWN = np.array([-3.0, 0.5, 0.7, 9.0]), np.array([True, False, True, False])


@pytest.mark.parametrize("known", [KNOWN, np.ones(4, bool), np.zeros(4, bool)])
def test_distribution_of_known_and_unseen_groups(known: np.ndarray) -> None:
    loc, precision, df = np.array([0.0, 1.0, 0.5, -2.0]), np.array([0.3, 1.0, 2.0, 0.1]), 3.5
    scale = precision**-0.5
    with jax.enable_x64():
        ours = GroupNoise(jnp.asarray(loc), jnp.asarray(precision), jnp.asarray(df), jnp.asarray(known))
        for name, value in (("logpdf", ours.log_prob(Y)), ("cdf", ours.cdf(Y))):
            normal = getattr(stats.norm, name)(Y, loc, scale)
            t = getattr(stats.t, name)(Y, df, loc, scale)
            np.testing.assert_allclose(value, np.where(known, normal, t), rtol=1e-9)
        np.testing.assert_allclose(ours.mean, loc)
        np.testing.assert_allclose(ours.variance, np.where(known, 1.0, df / (df - 2)) / precision)


def test_draws_of_known_and_unseen_groups() -> None:
    y = GroupNoise(jnp.asarray(1.0), jnp.asarray(4.0), jnp.asarray(3.0), jnp.asarray([True, False]))
    draws = np.asarray(y.sample(jax.random.key(0), (20_000,)))
    assert draws.shape == (20_000, 2)
    p = {
        "known": ks_exact(draws[:, 0], stats.norm(1.0, 0.5)),
        "unseen": ks_exact(draws[:, 1], stats.t(3.0, 1.0, 0.5)),
    }
    assert_no_alarm(p)


def test_density_of_t_keeps_its_digits_where_df_is_large() -> None:
    """log Gamma of 5e6 is rounded by eight in float32."""
    df = jnp.asarray(1e7)
    got = GroupNoise(jnp.zeros(4), jnp.asarray(2.0), df, jnp.zeros(4, bool)).log_prob(Y)
    np.testing.assert_allclose(got, stats.norm.logpdf(Y, 0, 0.5**0.5), rtol=1e-4)


# --------------------------------------------------------------------------------------- the marginal


def test_remainder_of_stirlings_formula() -> None:
    x = np.concatenate([np.logspace(-3, 4, 200), [4.0, np.nextafter(4.0, 0)]])
    with jax.enable_x64():
        x = jnp.asarray(x)
        expected = gammaln(x) - (x - 0.5) * jnp.log(x) + x - 0.5 * jnp.log(2 * jnp.pi)
        rounding = np.finfo(float).eps * (np.abs(gammaln(x)) + x * (1 + np.abs(np.log(x))) + 1)
        double = np.asarray(stirling_remainder(x))
        assert np.all(np.abs(double - expected) < 1e-11 + 4 * rounding)
    single = stirling_remainder(jnp.asarray(np.asarray(x), jnp.float32))
    np.testing.assert_allclose(single, double, atol=32 * EPS, rtol=8 * EPS)


def log_marginal(alpha: float, df: float, r: np.ndarray) -> float:
    return float(stats.multivariate_t.logpdf(r, np.zeros(len(r)), np.eye(len(r)) / alpha, df))


@pytest.mark.parametrize("n", [1, 4, 50])
@pytest.mark.parametrize("there", [(0.7, 3.0), (1.4, 30.0), (5.0, 0.2), (0.01, 1e6)])
def test_marginal_of_a_group_is_a_multivariate_t(n: int, there: tuple[float, float]) -> None:
    here, r = (1.3, 5.0), np.random.default_rng(n).normal(size=n)
    W, S = np.array([float(n), 0.0]), np.array([np.sum(r**2), 0.0])
    with jax.enable_x64():
        got = rise_of_marginal(*map(jnp.asarray, (W, S, *here, *there)))
    expected = log_marginal(*there, r) - log_marginal(*here, r)
    np.testing.assert_allclose(
        got, [expected, 0.0], rtol=1e-9, atol=1e-9
    )  # a group without rows says nothing


@pytest.mark.parametrize("there", [(1.32, 5.0), (1.3, 5.2), (2.0, 20.0)])
def test_marginal_of_a_huge_group_keeps_its_digits(there: tuple[float, float]) -> None:
    """Its logarithm is of the size of 1e7, a difference of two of them of the size of one."""
    arguments = [np.array([1e7]), np.array([0.9e7]), 1.3, 5.0, *there]
    with jax.enable_x64():
        exact = rise_of_marginal(*map(jnp.asarray, arguments))
    got = rise_of_marginal(*(jnp.asarray(x, jnp.float32) for x in arguments))
    np.testing.assert_allclose(got, exact, atol=100 * EPS * max(there[1], 5.0))


# ------------------------------------------------------------------------------------ the conditionals

GROUP = np.resize([0, 2, 1, 0, 2, 2], 30)
CHAINS, STEPS = 1000, 40


def observed() -> tuple[Observed, np.ndarray, np.ndarray]:
    """30 rows in three of four groups, some of weight zero or two; W and S of each group."""
    y = RNG.normal(size=30) * np.array([0.3, 1.0, 2.0])[GROUP]
    weight = np.resize([1.0, 0.0, 2.0, 0.5, 1.0], 30)
    W, S = np.bincount(GROUP, weight, 4), np.bincount(GROUP, weight * y**2, 4)
    rows = {"noise_group": jnp.asarray(GROUP, jnp.float32)}
    return Observed(jnp.asarray(y, jnp.float32), jnp.asarray(weight, jnp.float32), rows), W, S


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
def updated(keys: jax.Array, likelihood: GroupwiseGaussian, params: Any, rows: Observed) -> Any:
    """Parameters after some steps at eta = 0, chain by chain."""

    def chain(key: jax.Array, params: Any) -> Any:
        def step(t: jax.Array, params: Any) -> Any:
            return likelihood.update(jax.random.fold_in(key, t), rows, jnp.zeros(30), params)

        return jax.lax.fori_loop(0, STEPS, step, params)

    return jax.vmap(chain)(keys, params)


def start(likelihood: GroupwiseGaussian, rows: Observed) -> Any:
    """Half of the chains far away."""
    far = np.where(np.arange(CHAINS) < CHAINS // 2, 1.0, 8.0)
    first = likelihood.initial(rows)
    return {name: jnp.asarray(x * far.reshape(-1, *[1] * x.ndim), jnp.float32) for name, x in first.items()}


def tau_given_the_rest(draws: Any, W: np.ndarray, S: np.ndarray) -> dict[str, float]:
    """p-values of Gamma((df + W)/2, rate (df + alpha S)/2) at the df and alpha drawn with it."""
    df, alpha = (np.asarray(draws[name], float)[:, None] for name in ("df", "alpha"))
    u = stats.gamma.cdf(np.asarray(draws["tau"], float), (df + W) / 2, scale=2 / (df + alpha * S))
    return {f"tau [{g}]": ks_exact(u[:, g], stats.uniform()) for g in range(4)}


def test_updates_arrive_at_the_conditional() -> None:
    """alpha and df against a grid with tau integrated out, tau against its conditional."""
    likelihood, (rows, W, S) = GroupwiseGaussian(4, a0=3.0, b0=2.0), observed()
    keys = jax.random.split(jax.random.key(0), CHAINS)
    draws = updated(keys, likelihood, start(likelihood, rows), rows)

    axes = np.linspace(-4.0, 4.0, 401), np.linspace(-6.0, 7.0, 401)  # log alpha, log df
    alpha, df = (np.exp(x)[..., None] for x in np.meshgrid(*axes, indexing="ij"))
    prior = stats.gamma.logpdf(alpha, 1.5, scale=1.0) + stats.gamma.logpdf(df, 2, scale=10)
    lp = (prior + np.log(alpha) + np.log(df))[..., 0]
    for g in range(4):
        own = 0.5 * W[g] * np.log(alpha / df) - 0.5 * (df + W[g]) * np.log1p(alpha * S[g] / df)
        lp += (own + gammaln((df + W[g]) / 2) - gammaln(df / 2))[..., 0]
    density = np.exp(lp - lp.max())
    p = tau_given_the_rest(draws, W, S)
    for name, axis, other in (("alpha", axes[0], 1), ("df", axes[1], 0)):
        one = density.sum(other)
        assert max(one[0], one[-1]) < 1e-3 * one.max()  # the grid holds nearly all of it
        cdf = np.concatenate([[0.0], np.cumsum((one[1:] + one[:-1]) / 2)])
        own = np.log(np.asarray(draws[name], float))
        p[name] = float(stats.kstest(own, lambda x, a=axis, c=cdf: np.interp(x, a, c / c[-1])).pvalue)
    assert_no_alarm(p)


@jax.jit
def alpha_after(key: jax.Array, likelihood: GroupwiseGaussian, at: Observed, params: Any) -> jax.Array:
    """A hundred updates on."""

    def step(t: jax.Array, params: Any) -> Any:
        return likelihood.update(jax.random.fold_in(key, t), at, jnp.zeros(900), params)

    return jax.lax.fori_loop(0, 100, step, params)["alpha"]


@pytest.mark.parametrize(
    ("alpha", "df"),
    [(0.86, 5.0), *(pytest.param(*own, marks=pytest.mark.slow) for own in ((1.2, 4.0), (3.0, 7.0)))],
)
def test_a_start_from_afar_is_left(alpha: float, df: float) -> None:
    """The residuals of many groups are not what they were: alpha follows, where Metropolis steps alone stay put.

    A group is one row of a large weight.
    """
    rng = np.random.default_rng(0)
    W, tau = 10 + rng.lognormal(4.0, 1.0, 900), rng.gamma(6.5, 1 / 6.5, 900)
    y = np.sqrt(rng.chisquare(W) / (1.7 * tau * W))
    rows = {"noise_group": jnp.arange(900.0)}
    at = Observed(jnp.asarray(y, jnp.float32), jnp.asarray(W, jnp.float32), rows)
    params = {"alpha": alpha, "df": df, "tau": (df + W) / (df + alpha * W * y**2)}
    params = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    likelihood = GroupwiseGaussian(900)

    got = np.array([alpha_after(jax.random.key(i), likelihood, at, params) for i in range(20)])
    # The posterior standard deviation of log alpha is about (2/900/13)^(1/2), the mean within that of the truth.
    assert np.abs(np.log(got / 1.7)).max() < 10 * (2 / 900 / 13) ** 0.5


def test_groups_with_one_tau_are_gaussian_noise() -> None:
    """df so large that tau is one: alpha has the conditional that it has under Gaussian, and rows its density."""
    likelihood, (rows, W, S) = GroupwiseGaussian(4, df=1e7, a0=3.0, b0=2.0), observed()
    keys = jax.random.split(jax.random.key(1), CHAINS)
    draws = updated(keys, likelihood, start(likelihood, rows), rows)
    np.testing.assert_allclose(draws["tau"], 1.0, atol=6 * (2 / 1e7) ** 0.5)
    posterior = stats.gamma((3 + W.sum()) / 2, scale=2 / (2 + S.sum()))
    assert_no_alarm({"alpha": ks_exact(draws["alpha"], posterior)})
    params = jax.tree.map(lambda x: x[0], draws)
    got = likelihood.distribution(jnp.zeros(30), params, rows.rows).log_prob(rows.y)
    expected = stats.norm.logpdf(rows.y, 0, float(params["alpha"]) ** -0.5)
    np.testing.assert_allclose(got, expected, rtol=5e-3)


# -------------------------------------------------------------------------------------- fit and predict


def test_rows_to_be_learned_from_need_their_group() -> None:
    design = Design([Block.field("user", [0, 0, 1], ["ann", "bob"])])
    y, rows = np.array([1.0, 2.0, 4.0]), {"noise_group": [0, -1, 1]}
    spec = default_spec(y, 0, likelihood=GroupwiseGaussian(2), row_data=rows)
    with pytest.raises(
        ValueError, match="noise_group must be known of every row to be learned from; row 1 has -1"
    ):
        gibbs(jax.random.key(0), spec, design, y, row_data=rows)
    with pytest.raises(ValueError, match="GroupwiseGaussian needs 'noise_group' for every row"):
        gibbs(jax.random.key(0), spec, design, y)


DESIGN = Design([Block.field("user", [0, 1, 0, 1], ["ann", "bob"])])
CODES = {"noise_group": [0, 1, -1, -1]}


def fitted(df: list[float]) -> FittedModel:
    """Two draws with eta = 0."""
    sites = {
        "w0": np.zeros((1, 2)),
        "alpha": np.array([[4.0, 1.0]]),
        "df": np.array([df]),
        "w": np.zeros((1, 2, 2)),
    }
    sites["tau"] = np.array([[[1.0, 2.0], [0.5, 1.0]]])
    return FittedModel(ModelSpec(FM(0), GroupwiseGaussian(2)), np.zeros(2, int), sites)


def test_predictions_know_the_group_of_a_row() -> None:
    variance = predictive_moments(fitted([4.0, 6.0]), DESIGN, CODES).variance
    np.testing.assert_allclose(variance[:2], [(1 / 4 + 1 / 0.5) / 2, (1 / 8 + 1) / 2], rtol=1e-6)
    np.testing.assert_allclose(variance[2:], (4 / 2 / 4 + 6 / 4) / 2, rtol=1e-6)
    cdf = predictive_cdf(fitted([4.0, 6.0]), DESIGN, np.full(4, 0.8), CODES)
    known = stats.norm.cdf(0.8 * np.sqrt([[4.0, 8.0], [0.5, 1.0]])).mean(0)
    unseen = (stats.t.cdf(1.6, 4) + stats.t.cdf(0.8, 6)) / 2
    np.testing.assert_allclose(cdf, [*known, unseen, unseen], rtol=1e-5)


def test_a_variance_may_be_infinite() -> None:
    """In one draw of several, in predictions and while sampling, and of the unseen group alone."""
    variance = predictive_moments(fitted([4.0, 1.5]), DESIGN, CODES).variance
    assert np.all(np.isfinite(variance[:2]))
    assert np.all(variance[2:] == np.inf)


def test_streams_have_row_data() -> None:
    y, rows = np.array([1.0, 2.0, 4.0, 9.0]), {"noise_group": [0, 1, 0, 1]}
    spec = default_spec(y, 0, likelihood=GroupwiseGaussian(2, df=1.5), row_data=rows)
    options = ChainOptions(num_warmup=2, num_samples=5, num_chains=1, progress=False)
    data: dict[str, Any] = {"row_data": rows, "options": options, "streams": {"new": DESIGN}}
    with pytest.raises(ValueError, match="needs 'noise_group' for every row"):
        gibbs(jax.random.key(0), spec, DESIGN, y, **data)
    draws = gibbs(jax.random.key(0), spec, DESIGN, y, **data, stream_row_data={"new": CODES})
    noise = 1 / (draws.sites["alpha"][..., None] * draws.sites["tau"])
    np.testing.assert_allclose(draws.streams["new"].noise_variance[:, :2], noise.mean(1), rtol=1e-5)
    assert np.all(draws.streams["new"].noise_variance[:, 2:] == np.inf)
