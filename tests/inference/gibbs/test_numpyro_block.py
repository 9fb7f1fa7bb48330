"""The sweep as a block of a composed sampler: exact given the rest of the model, and refused where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.infer import MCMC, NUTS, Gibbs, Predictive
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, conditioned

from bayesfm.design import Block, Design
from bayesfm.inference.gibbs import numpyro_block
from bayesfm.inference.gibbs.numpyro_block import FMBlock, FMBlockState
from bayesfm.inference.gibbs.numpyro_rows import row_information, run_with
from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, BinomialLogit, StudentT
from bayesfm.likelihoods.base import Observed
from bayesfm.likelihoods.distributions import Probit
from bayesfm.priors import Intercept, NormalGamma
from bayesfm.priors.shifted import Shifted
from bayesfm.term import OnDevice, fm_term, on_device
from tests.statistics import alarms, assert_no_alarm, ks, mcse, named, z_test

N, RANK = 20, 2
RNG = np.random.default_rng(0)
DESIGN = Design(
    [Block.field("user", np.arange(N) % 5, range(5)), Block.field("item", RNG.permutation(N) % 3, range(3))]
)
TIME, KNOWN, SPREAD = RNG.normal(size=N), RNG.normal(size=(3, 2)), RNG.uniform(0.5, 2.0, N)
SEEN = np.arange(N) % 7 != 3
PRIOR_W = NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5)
PRIOR_V = NormalGamma(a0=7.0, b0=4.0, beta0=1.5, mu0=0.0)  # rotations and scalings are exact for mu0 = 0 alone

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
    """What the joint distribution is compared in: the term's sites alone, with each other, with the data and the rest."""
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


def p_values(name: str, num_chains: int = 6000, num_sweeps: int = 4) -> dict[str, float]:
    """Draw all sites and y from the model, move the term's sites, compare with other draws from the model."""
    model, design = MODELS[name], on_device(DESIGN)
    prior = jax.jit(Predictive(model, num_samples=num_chains))
    before, other = (dict(prior(jax.random.key(seed), design)) for seed in (1, 2))
    observed = ("y",) if name == "regression" else ("click", "time")

    def data(sites: Sites) -> Any:
        return sites["y"] if name == "regression" else {site: sites[site] for site in observed}

    block = FMBlock(model, DESIGN).wrap_model(conditioned) if name != "regression" else None
    block = block or FMBlock(model, DESIGN, name="fm").wrap_model(conditioned)
    first = jax.tree.map(lambda x: x[0], data(before))
    block._prepare((design, first), {})
    own = tuple(block._own.values())

    def chain(key: jax.Array, sites: Sites) -> Sites:
        given = {site: x for site, x in sites.items() if site not in (*own, *observed)}

        def body(_: int, state: FMBlockState) -> FMBlockState:
            return block.sample(state, (design, data(sites)), {GIBBS_SITES_KWARG: given})

        state = FMBlockState({site: sites[site] for site in own}, key)
        return {**sites, **lax.fori_loop(0, num_sweeps, body, state).z}

    after = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), num_chains), before)
    return ks(values_of(name, after), values_of(name, other))


@pytest.mark.parametrize("name", MODELS)
def test_sweeps_leave_the_joint_distribution(name: str) -> None:
    assert_no_alarm(p_values(name))
