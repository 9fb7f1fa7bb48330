"""The sweep as a block of a composed sampler: exact given the rest of the model, and refused where it is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.infer import MCMC, NUTS, Gibbs, Predictive
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, conditioned
from numpyro.infer.reparam import LocScaleReparam

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.design.on_device import OnDevice, on_device
from bayesfm.inference.gibbs import numpyro_block, numpyro_rows
from bayesfm.inference.gibbs.numpyro_block import FMBlock, FMBlockState
from bayesfm.inference.gibbs.numpyro_rows import row_information, run_with
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, BinomialLogit, StudentT
from bayesfm.likelihoods.base import Observed
from bayesfm.likelihoods.distributions import Probit
from bayesfm.priors import Intercept, NormalGamma, shifted
from bayesfm.term import FMTerm, fm_term
from tests.keys import quick
from tests.statistics import alarms, assert_no_alarm, ks, mcse, z_test

N, RANK = 20, 2
RNG = np.random.default_rng(0)
DESIGN = Design(
    [Block.field("user", np.arange(N) % 5, range(5)), Block.field("item", RNG.permutation(N) % 3, range(3))]
)
TIME, KNOWN, SPREAD = RNG.normal(size=N), RNG.normal(size=(3, 2)), RNG.uniform(0.5, 2.0, N)
SEEN = np.arange(N) % 7 != 3
PRIOR_W = NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5)
PRIOR_V = NormalGamma(
    a0=7.0, b0=4.0, beta0=1.5, mu0=0.0
)  # rotations and scalings are exact for mu0 = 0 alone

type Model = Callable[..., None]
type Sites = dict[str, Any]


def regression(design: OnDevice, y: Any = None) -> None:
    """Means of items from what is known of them, a trend, a scale per row, rows that are left out, a second term."""
    trend = numpyro.sample("trend", dist.Normal(0.5, 1.0))
    scale = numpyro.sample("scale", dist.Gamma(8.0, 8.0))
    on_w = numpyro.sample("on_w", dist.Normal(0.5, 1.0).expand([2]).to_event(1))
    on_v = numpyro.sample("on_v", dist.Normal(0.5, 1.0).expand([2, RANK]).to_event(2))
    eta = fm_term(
        design,
        RANK,
        PRIOR_W,
        PRIOR_V,
        intercept=Intercept(mean=0.7, precision=2.0),
        mean_w=design.per_feature({"item": KNOWN @ on_w}),
        mean_v=design.per_feature({"item": KNOWN @ on_v}),
        name="fm",
    )
    with numpyro.plate("row", N), numpyro.handlers.mask(mask=SEEN):
        numpyro.sample("y", dist.Normal(0.8 * eta + trend * TIME, scale * SPREAD), obs=y)


def clicks(design: OnDevice, y: Any = None) -> None:
    """Two outcomes of one FM: clicks, and a normal one."""
    trend = numpyro.sample("trend", dist.Normal(0.5, 1.0))
    mild = NormalGamma(a0=12.0, b0=3.0, beta0=2.0, mu0=0.2)
    eta = fm_term(design, RANK, mild, NormalGamma(a0=14.0, b0=3.0, beta0=1.5))
    y = {"click": None, "time": None} if y is None else y
    numpyro.sample("click", dist.Bernoulli(logits=0.7 * eta + trend * TIME), obs=y["click"])
    numpyro.sample("time", dist.Normal(trend - eta, 2.0), obs=y["time"])


MODELS: dict[str, Model] = {"regression": regression, "clicks": clicks}


def values_of(name: str, sites: Sites) -> dict[str, np.ndarray]:
    """What distributions are compared in: the term's sites alone, with each other, with the data and the rest."""
    at = "fm." if name == "regression" else ""
    s = {site: np.asarray(x, np.float64) for site, x in sites.items()}
    w, v = s[f"{at}w"], s[f"{at}v"]
    user, item = (block.index for block in DESIGN.blocks)
    pairs = np.einsum("cnk,cnk->cn", v[:, user], v[:, 5 + item])
    e = s.get("fm.w0", np.zeros(len(w)))[:, None] + w[:, user] + w[:, 5 + item] + pairs
    values = {
        "w user": w[:, 0],
        "w item": w[:, 6],
        "w^2": (w[:, 5:] ** 2).sum(1),
        "inner product": pairs[:, 2],
        "v^2": (v[:, 5:] ** 2).sum((1, 2)),
        "e": e[:, 4],
        "e trend": (e @ TIME) * s["trend"],
        "w v": w[:, 0] * v[:, 0, 0],
        "mu_w": s[f"{at}mu_w"][:, 1],
        "lambda_w": s[f"{at}lambda_w"][:, 1],
        "mu_v": s[f"{at}mu_v"][:, 1, 0],
        "lambda_v": s[f"{at}lambda_v"][:, 1, 1],
        "lambda mu^2": s[f"{at}lambda_w"][:, 0] * s[f"{at}mu_w"][:, 0] ** 2,
    }
    if name == "regression":
        means = KNOWN[None, :, :] @ s["on_v"]
        residual = (s["y"] - 0.8 * e - s["trend"][:, None] * TIME) / (s["scale"][:, None] * SPREAD) * SEEN
        rest_w = w[:, 5:] - s["on_w"] @ KNOWN.T - s["fm.mu_w"][:, 1:]
        rest_v = v[:, 5:] - means - s["fm.mu_v"][:, 1:]
        return values | {
            "w0": s["fm.w0"],
            "chi-square": (residual**2).sum(1),
            "residual trend": (residual @ TIME) * s["trend"],
            "residual mean": residual.mean(1),
            "chi-square of w": s["fm.lambda_w"][:, 1] * (rest_w**2).sum(1),
            "chi-square of v": (s["fm.lambda_v"][:, 1] * (rest_v**2).sum(1)).sum(1),
            "v on_v": (v[:, 5:] * means).sum((1, 2)),
            "w on_w": (w[:, 5:] * (s["on_w"] @ KNOWN.T)).sum(1),
        }
    return values | {
        "clicks e": (s["click"] * e).sum(1),
        "clicks trend": ((s["click"] - 0.5) * e).sum(1) * s["trend"],
        "time e": (s["time"] * e).sum(1),
        "residual": ((s["time"] - s["trend"][:, None] + e) ** 2).sum(1),
    }


@lru_cache
def drawn(name: str, num: int) -> tuple[Sites, Sites]:
    """All sites and responses drawn from the model, twice."""
    prior = jax.jit(Predictive(MODELS[name], num_samples=num))
    return tuple(dict(prior(jax.random.key(seed), on_device(DESIGN))) for seed in (1, 2))


def p_values(name: str, num_chains: int = 6000, num_sweeps: int = 4) -> dict[str, float]:
    """Draw all sites and y from the model, move the term's sites, compare with other draws from the model."""
    model, design = MODELS[name], on_device(DESIGN)
    before, other = drawn(name, num_chains)
    observed = ("y",) if name == "regression" else ("click", "time")

    def data(sites: Sites) -> Any:
        return sites["y"] if name == "regression" else {site: sites[site] for site in observed}

    block = FMBlock(model, DESIGN, name="fm" if name == "regression" else None).wrap_model(conditioned)
    block._prepare((design, jax.tree.map(lambda x: x[0], data(before))), {})
    own = tuple(block._own.values())

    def chain(key: jax.Array, sites: Sites) -> Sites:
        given = {site: x for site, x in sites.items() if site not in (*own, *observed)}

        def body(_: int, state: FMBlockState) -> FMBlockState:
            return block.sample(state, (design, data(sites)), {GIBBS_SITES_KWARG: given})

        state = FMBlockState({site: sites[site] for site in own}, key)
        return {**sites, **lax.fori_loop(0, num_sweeps, body, state).z}

    run = jax.jit(jax.vmap(chain), compiler_options={"xla_backend_optimization_level": 0})
    after = run(jax.random.split(jax.random.key(3), num_chains), before)
    return ks(values_of(name, after), values_of(name, other))


@pytest.mark.parametrize("name", ["regression", pytest.param("clicks", marks=pytest.mark.slow)])
def test_sweeps_leave_the_joint_distribution(name: str) -> None:
    assert_no_alarm(p_values(name))


def without_offset(patch: pytest.MonkeyPatch) -> None:
    def run(model: Model, name: str | None, args: Any, kwargs: Any, sites: Any) -> Any:
        given = {**kwargs[GIBBS_SITES_KWARG], "trend": jnp.zeros(())}
        return run_with(model, name, args, {**kwargs, GIBBS_SITES_KWARG: given}, sites)

    patch.setattr(numpyro_block, "run_with", run)


def other_scale(patch: pytest.MonkeyPatch) -> None:
    def rows(*args: Any, **kwargs: Any) -> Any:
        omega, z = row_information(*args, **kwargs)
        return 1.25 * omega, z

    patch.setattr(numpyro_block, "row_information", rows)


def means_ignored(patch: pytest.MonkeyPatch) -> None:
    own = numpyro_block._spec_of

    def spec(term: FMTerm) -> Any:
        return own(term._replace(prior_w=term.prior_w.base, prior_v=term.prior_v.base))

    patch.setattr(numpyro_block, "_spec_of", spec)


def means_in_the_group_means(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shifted, "_without", lambda features, offset: features)


def means_rotated_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shifted.Shifted, "rotation", lambda self, key, sums: self.base.rotation(key, sums))


def slope_forgotten(patch: pytest.MonkeyPatch) -> None:
    own = numpyro_rows._augment

    def augment(key: Any, site: Any, eta: Any, native: bool) -> Any:
        omega, z = own(key, site, eta, native)
        return omega, eta + (z - eta) / 0.7

    patch.setattr(numpyro_rows, "_augment", augment)


MUTANTS = {
    "no offset": ("regression", without_offset),
    "another scale": ("regression", other_scale),
    "means ignored": ("regression", means_ignored),
    "means in the group means": ("regression", means_in_the_group_means),
    "means rotated away": ("regression", means_rotated_away),
    "slope forgotten": ("clicks", slope_forgotten),
    "no offset of clicks": ("clicks", without_offset),
}
QUICK = {"means rotated away"}


@pytest.mark.parametrize(
    "mutant", [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in MUTANTS]
)
def test_planted_bugs_are_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = MUTANTS[mutant]
    drawn(name, 6000)
    plant(monkeypatch)
    assert alarms(p_values(name))


@pytest.mark.slow
def test_agrees_with_nuts_on_the_whole_model() -> None:
    """The composition, on one data set: means of what is identified."""
    design = on_device(DESIGN)
    y = Predictive(regression, num_samples=1)(jax.random.key(5), design)["y"][0]
    block = FMBlock(regression, DESIGN, name="fm")
    kernels = {
        "block": (Gibbs([(block, block.sites), (NUTS(regression), None)]), 3000),
        "nuts": (NUTS(regression, target_accept_prob=0.9), 1000),
    }
    found = []
    settings = {"num_chains": 2, "chain_method": "sequential", "progress_bar": False}
    for kernel, num in kernels.values():
        mcmc = MCMC(kernel, num_warmup=400, num_samples=num, **settings)
        mcmc.run(jax.random.key(6), design, y)
        sites = mcmc.get_samples()
        values = values_of("regression", {**sites, "y": np.broadcast_to(y, (2 * num, N))})
        values |= {name: np.asarray(sites[name], float) for name in ("trend", "scale")}
        left_out = {"w v", "mu_v", "lambda_v"}  # not identified: v turns
        found.append({k: x.reshape(2, num) for k, x in values.items() if k not in left_out})
    block_draws, nuts_draws = found
    p = {}
    for name, a in block_draws.items():
        b = nuts_draws[name]
        p[name] = float(z_test(a.mean() - b.mean(), np.hypot(mcse(a), mcse(b))))
    assert_no_alarm(p)


WEIGHT = np.resize([1.0, 2.0, 0.5], N)


def information(name: str, weight: np.ndarray) -> tuple[Any, ...]:
    """(omega, z) of rows with linear predictor c + s e, from the model and from the likelihood; e, c, s, y, key."""
    rng = np.random.default_rng(1)
    c, s, e = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, N)))
    of_site = {
        "logit": lambda eta: dist.Bernoulli(logits=eta),
        "binomial": lambda eta: dist.Binomial(jnp.full(N, 7), logits=eta),
        "probit": Probit,
        "student-t": lambda eta: dist.StudentT(4.0, eta, 0.5),
        "normal": lambda eta: dist.Normal(eta, 0.5),
    }[name]
    y = of_site(jnp.zeros(N)).sample(jax.random.key(2))

    def model(design: OnDevice) -> None:
        eta = c + s * fm_term(design, 1)
        config = {"scale": jnp.asarray(weight, jnp.float32)} if name != "probit" else {"scale": 1.0}
        with numpyro.handlers.mask(mask=SEEN), numpyro.handlers.scale(**config):
            numpyro.sample("y", of_site(eta), obs=y)

    design = on_device(DESIGN)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(design)
    sites = {site: x["value"] for site, x in trace.items() if x["type"] == "sample" and site != "y"}
    run, key = run_with(model, None, (design,), {}, sites), quick(jax.random.key(7))
    augmented = () if name == "normal" else ("y",)
    return row_information(key, run, e, tuple(sites), augmented, native=native.available()), (e, c, s, y, key)


SLOW = pytest.mark.slow  # these take seconds to compile; the test of joint invariance has clicks


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("logit", marks=SLOW),
        pytest.param("binomial", marks=SLOW),
        pytest.param("probit", marks=SLOW),
        "student-t",
    ],
)
def test_rows_are_augmented_as_by_the_likelihood(name: str) -> None:
    weight = np.ones(N) if name == "probit" else WEIGHT
    (omega, z), (e, c, s, y, key) = information(name, weight)
    likelihood, params, rows = {
        "logit": (BernoulliLogit(), {}, {}),
        "binomial": (BinomialLogit(), {}, {"trials": jnp.full(N, 7.0)}),
        "probit": (BernoulliProbit(), {}, {}),
        "student-t": (StudentT(), {"alpha": jnp.asarray(4.0), "df": jnp.asarray(4.0)}, {}),
    }[name]
    observed = Observed(*(jnp.asarray(x, jnp.float32) for x in (y, weight * SEEN)), rows)
    (sub,) = jax.random.split(key, 1)
    ours, working = likelihood.augment(sub, observed, c + s * e, params, native=native.available())
    np.testing.assert_allclose(omega, ours * s**2, rtol=1e-5)
    np.testing.assert_allclose(omega * z, ours * s * (working - c), rtol=1e-4, atol=1e-5)
    assert not np.any(omega[~SEEN])
    assert np.all(omega[SEEN] > 0)


def test_rows_of_normal_noise() -> None:
    (omega, z), (_, c, s, y, _) = information("normal", WEIGHT)
    np.testing.assert_allclose(omega, SEEN * WEIGHT * s**2 / 0.25, rtol=1e-5)
    np.testing.assert_allclose((s * z + c)[SEEN], y[SEEN], rtol=1e-4, atol=1e-5)


def with_rest(rest: Callable[[Any], None], **settings: Any) -> Model:
    """A model of one term, and of what ``rest`` makes of its values."""

    def model(design: OnDevice) -> None:
        rest(fm_term(design, 1, **settings))

    return model


def normal(eta: Any) -> None:
    numpyro.sample("y", dist.Normal(eta, 1.0), obs=jnp.zeros(N))


def scaled_prior(design: OnDevice) -> None:
    with numpyro.handlers.scale(scale=0.5):
        eta = fm_term(design, 1)
    normal(eta)


def known_w(design: OnDevice) -> None:
    with numpyro.handlers.condition(data={"w": jnp.zeros(8)}):
        normal(fm_term(design, 1))


def reparametrized(design: OnDevice) -> None:
    with numpyro.handlers.reparam(config={"w": LocScaleReparam(0)}):
        normal(fm_term(design, 1))


def penalised(design: OnDevice) -> None:
    with numpyro.handlers.trace() as trace:
        normal(fm_term(design, 1))
    numpyro.factor("penalty", -jnp.abs(trace["w"]["value"]).sum())


def two_terms(design: OnDevice) -> None:
    normal(fm_term(design, 1, name="a") + fm_term(design, 1, name="b"))


def poisson(eta: Any) -> None:
    numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=jnp.ones(N, int))


def correlated(eta: Any) -> None:
    numpyro.sample("y", dist.MultivariateNormal(eta, jnp.eye(N) + 0.5), obs=jnp.zeros(N))


def curved(eta: Any) -> None:
    numpyro.sample("y", dist.Bernoulli(logits=eta + eta**2), obs=jnp.ones(N, int))


def weighted_probit(eta: Any) -> None:
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("y", Probit(eta), obs=jnp.ones(N, int))


REFUSED = {
    "counts": (with_rest(poisson), r"site 'y' \(Poisson\) has no Gibbs update.*quadratic.*NUTS"),
    "correlated rows": (with_rest(correlated), r"site 'y' \(MultivariateNormal\) has no Gibbs update"),
    "no linear predictor": (with_rest(curved), r"site 'y' \(BernoulliLogits\) has no Gibbs update"),
    "weights under probit": (
        with_rest(weighted_probit),
        r"\(Probit with weights: repeat the rows\) has no Gibbs update",
    ),
    "two predictors": (
        with_rest(lambda eta: normal(eta.sum(0)), outputs=(2,)),
        "one linear predictor.*use NUTS",
    ),
    "scaled": (scaled_prior, "the prior of the term's sites is not what fm_term made it"),
    "observed": (known_w, "not observed or reparametrized: w$"),
    "reparametrized": (reparametrized, "not observed or reparametrized: w, w_decentered"),
    "used elsewhere": (penalised, r"site\(s\) penalty depend on the sites of the term otherwise"),
    "another name": (two_terms, "one fm_term of name None, it has terms of these names: 'a', 'b'"),
    "no term": (lambda design: normal(0.0), "one fm_term of name None, it has terms of these names: none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_conjugate_is_refused(case: str) -> None:
    model, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        FMBlock(model, DESIGN)._prepare((on_device(DESIGN),), {})


def test_a_term_that_is_in_the_means_of_another_is_refused() -> None:
    def model(design: OnDevice) -> None:
        own = fm_term(design, 1, name="a")
        normal(own + fm_term(design, 1, mean_w=jnp.full(8, own.sum()), name="b"))

    with pytest.raises(ValueError, match=r"site 'b.w' \(Normal\) has no Gibbs update"):
        FMBlock(model, DESIGN, name="a")._prepare((on_device(DESIGN),), {})
    FMBlock(model, DESIGN, name="b")._prepare((on_device(DESIGN),), {})


def test_another_design_is_refused() -> None:
    other = Design([DESIGN.blocks[0], Block.field("item", np.roll(DESIGN.blocks[1].index, 1), range(3))])
    with pytest.raises(ValueError, match="design is not the one that the model's fm_term has"):
        FMBlock(with_rest(normal), other)._prepare((on_device(DESIGN),), {})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a NumPyro model, got 3"),
        ({"design": on_device(DESIGN)}, TypeError, "design must be a Design, got OnDevice"),
        ({"start": "best"}, ValueError, "start must be one of 'own', 'given'"),
        ({"kernels": "cuda"}, ValueError, "kernels must be one of"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FMBlock(**{"model": regression, "design": DESIGN, **arguments})


def test_starts_where_it_is_told() -> None:
    model, design = with_rest(normal), on_device(DESIGN)
    block = FMBlock(model, DESIGN, start="given").wrap_model(conditioned)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(design)
    z = {site: x["value"] for site, x in trace.items() if x["type"] == "sample" and site != "y"}
    state = block.init(jax.random.key(0), 0, z, (design,), {GIBBS_SITES_KWARG: {}})
    for site, x in z.items():
        np.testing.assert_array_equal(state.z[site], x)
