"""The joint-distribution test: sweeps must leave the joint distribution of parameters and data as it is.

Draw (theta, y) from the model, run m sweeps with y held fixed, and compare with other draws from it. For an exact
sampler both samples have one distribution whatever m is: no burn-in, no thinning, independent values.

References
----------
Geweke (2004), Getting it right: joint distribution tests of posterior simulators, JASA 99.
Gandy & Scott (2020), Unit testing for MCMC and other Monte Carlo methods, arXiv:2001.06465.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.design import layout as layout_module
from bayesfm.inference.conjugate.state import ModelData, ModelState, from_sites, to_sites
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.likelihoods import Gaussian, Likelihood
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma, Prior
from tests.design.strategies import naive_rows
from tests.keys import quick
from tests.likelihoods.reference import reference
from tests.priors import families
from tests.statistics import ks

type Sites = dict[str, Any]
type Transition = Callable[..., ModelState]
"""(key, state, spec, data, factor_block) -> state, like ``sweep``."""


class Problem(NamedTuple):
    """A small model with data to be drawn; hashable by its name."""

    spec: ModelSpec
    design: Design
    weight: np.ndarray
    data: ModelData
    factor_block: int


DESIGNS: dict[str, Callable[[np.random.Generator], Design]] = {
    "fields": lambda rng: Design(
        [
            Block.field("user", np.arange(20) % 5, range(5)),
            Block.field("item", rng.permutation(20) % 3, range(3)),
        ]
    ),
    "three fields": lambda rng: Design(
        [
            Block.field("user", np.arange(20) % 4, range(4)),
            Block.field("item", rng.permutation(20) % 3, range(3)),
            Block.field("day", rng.permutation(20) % 2, range(2)),
        ]
    ),
    "one group": lambda rng: Design(
        [
            Block.create(
                "x",
                np.eye(4)[np.arange(20) % 4] @ np.eye(4, 7)
                + np.eye(3)[rng.permutation(20) % 3] @ np.eye(3, 7, 4),
            )
        ]
    ),
    "table": lambda rng: Design(
        [
            Block.create("genre", _values(rng, 6, 4), rng.permutation(20) % 6, groups=[0, 1, 0, 1]),
            Block.field("item", rng.permutation(20) % 3, range(3)),
        ]
    ),
    "rows": lambda rng: Design(
        [
            Block.create("x", _values(rng, 20, 4), groups=[0, 1, 0, 1]),
            Block.field("item", rng.permutation(20) % 3, range(3)),
        ]
    ),
}


def _values(rng: np.random.Generator, m: int, p: int) -> np.ndarray:
    X = rng.normal(size=(m, p)) * (rng.random((m, p)) < 0.6)
    X[0] = 0.0
    return X


MILD = {
    "prior_w": NormalGamma(a0=12.0, b0=3.0, beta0=2.0, mu0=0.2),
    "prior_v": NormalGamma(a0=14.0, b0=3.0, beta0=1.5, mu0=-0.1),
}


def row_data(likelihood: Likelihood, n: int) -> dict[str, np.ndarray]:
    """Other row data for every row."""
    values = {"trials": np.resize([1.0, 3.0, 2.0], n), "exposure": np.resize([1.0, 0.5, 3.0], n)}
    values["noise_group"] = np.resize([0.0, 2.0, 1.0, 0.0, 2.0], n)
    return {name: values[name] for name in likelihood.row_data}


@lru_cache
def problem(
    kind: str,
    rank: int = 2,
    factor_block: int = 2,
    *,
    weighted: bool = False,
    tile: int = 1 << 17,
    mu0_v: float = -0.3,
    native: bool = False,
    likelihood: Likelihood | None = None,
    prior_w: Prior | None = None,
    prior_v: Prior | None = None,
) -> Problem:
    """A problem with 20 rows and 7 or 8 features in two or three prior groups.

    Priors are informative, since a quantity with heavy tails shows no error, and no prior mean is zero unless a move
    asks for it.
    """
    spec = ModelSpec(
        predictor=FM(rank),
        prior_w=prior_w or NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5),
        prior_v=prior_v or NormalGamma(a0=7.0, b0=4.0, beta0=1.5, mu0=mu0_v),
        intercept=Intercept(mean=0.7, precision=2.0),
        likelihood=Gaussian(a0=6.0, b0=4.0),
    )
    if likelihood is not None:  # eta has to stay where y still says something
        intercept = Intercept(mean=0.3, precision=4.0) if likelihood.identifies_intercept else None
        spec = replace(spec, likelihood=likelihood, intercept=intercept, **MILD)
    design = DESIGNS[kind](np.random.default_rng(0))
    n = design.num_rows
    weights = [2.0, 0.0, 0.5, 1.0] if likelihood is None else [1.0, 0.0, 1.0]
    weight = np.resize(weights, n) if weighted else np.ones(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "CHUNK_LENGTHS", (2,))  # less to compile, and several chunks per owner
        layout = jax.tree.map(jnp.asarray, layout_module.build_layout(design, tile=tile, native=native))
    data = ModelData(layout, jnp.zeros(layout.num_padded), _padded(jnp.asarray(weight), layout.num_padded))
    rows = row_data(spec.likelihood, n)
    data = data._replace(rows={name: _padded(x, layout.num_padded, 1.0) for name, x in rows.items()})
    return Problem(spec, design, weight, data, factor_block)


def _padded(x: jax.Array, size: int, fill: float = 0.0) -> jax.Array:
    return jnp.pad(jnp.asarray(x, jnp.float32), (0, size - x.shape[0]), constant_values=fill)


LARGEST = 1e6
"""|y| in any row. With df near 0, Student's t goes beyond float32: under df ~ Gamma(2, rate 0.1) it has
P(|y| > 1e38) = (0.1 / 87.6)^2 = 1e-6, in one of 40,000 data sets of 20 rows."""


def draw_from_model(problem: Problem, rng: np.random.Generator, num: int) -> tuple[Sites, np.ndarray]:
    """Sites and responses drawn from the model, ``num`` of each, in NumPy: nothing of it is what is tested.

    Data sets with a response beyond :data:`LARGEST` are drawn anew. That conditions on an event of y alone, which
    changes no posterior, and what leaves the joint distribution as it is does so given this event, too.
    """
    sites, y = _draw_from_model(problem, rng, num)
    good = (np.abs(y) <= LARGEST).all(axis=1)
    if good.all():
        return sites, y
    more, y_more = draw_from_model(problem, rng, int((~good).sum()))
    sites = {name: np.concatenate([x[good], more[name]]) for name, x in sites.items()}
    return sites, np.concatenate([y[good], y_more])


def _draw_from_model(problem: Problem, rng: np.random.Generator, num: int) -> tuple[Sites, np.ndarray]:
    spec, weight, group = problem.spec, problem.weight, problem.design.groups
    G, n = len(problem.design.group_names), len(weight)
    sites: Sites = {}
    if spec.intercept is not None:
        sites["w0"] = rng.normal(spec.intercept.mean, spec.intercept.precision**-0.5, num)
    if not isinstance(spec.likelihood, Gaussian):
        sites |= reference(spec.likelihood).draw_params(rng, num)
        sites |= _draw_features(spec, group, G, rng, num)
        eta, rows = _eta(naive_rows(problem.design), sites), row_data(spec.likelihood, n)
        y = reference(spec.likelihood).draw(rng, eta, sites, rows)
        return sites, np.where(weight > 0, y, 1.0)
    # A row of weight c has the density N(y | eta, 1/alpha)^c. As a density of y it is N(eta, 1/(c alpha)) times
    # alpha^((c - 1)/2) and a constant, so that the factors of alpha belong to the prior from which alpha is drawn.
    surplus = (weight[weight > 0] - 1).sum()
    alpha = rng.gamma((spec.likelihood.a0 + surplus) / 2, 2 / spec.likelihood.b0, num)
    sites |= {"alpha": alpha, **_draw_features(spec, group, G, rng, num)}
    scale = (alpha[:, None] * np.where(weight > 0, weight, 1.0)) ** -0.5
    y = _eta(naive_rows(problem.design), sites) + scale * rng.normal(size=(num, n))
    # Rows of weight zero say nothing of theta, nor theta of them.
    return sites, np.where(weight > 0, y, 100.0)


def _draw_features(spec: ModelSpec, group: np.ndarray, G: int, rng: np.random.Generator, num: int) -> Sites:
    sites: Sites = {}
    for x, prior, shape in (("w", spec.prior_w, ()), ("v", spec.prior_v, (spec.predictor.rank,))):
        hyper, values = families.draw(prior, rng, num, group, G, shape)
        sites |= {f"{name}_{x}": own for name, own in hyper.items()} | {x: values}
    return sites


def eta_of(problem: Problem, sites: Sites) -> np.ndarray:
    """eta of every chain and row, in float64."""
    return _eta(naive_rows(problem.design), sites)


def _eta(X: np.ndarray, s: Sites) -> np.ndarray:
    q = np.einsum("np,cpk->cnk", X, s["v"], optimize=True)
    pairs = (q**2).sum(2) - (s["v"] ** 2).sum(2) @ (X**2).T
    w0 = s["w0"][:, None] if "w0" in s else 0.0
    return w0 + s["w"] @ X.T + 0.5 * pairs


def _run(
    keys: jax.Array,
    sites: Sites,
    y: jax.Array,
    spec: ModelSpec,
    data: ModelData,
    num_sweeps: int,
    factor_block: int,
    transition: Transition,
    one_key: bool | jax.Array,
    planted: tuple[jax.Array, ...] = (),
) -> Sites:
    def chain(key: jax.Array, sites: Sites, y: jax.Array) -> Sites:
        own = data._replace(y=_padded(y, data.y.shape[0]))

        def body(t: jax.Array, state: ModelState) -> ModelState:
            now = jax.random.fold_in(key, jnp.where(one_key, 0, t))
            return transition(now, state, spec, own, factor_block, *planted)

        state = lax.fori_loop(0, num_sweeps, body, from_sites(sites, spec, own))
        return to_sites(state, data.layout)

    return jax.vmap(chain)(keys, sites, y)


STATIC = ("factor_block", "transition")
RUN = {
    level: jax.jit(_run, static_argnames=STATIC, compiler_options={"xla_backend_optimization_level": level})
    for level in (0, 1)
}
"""Compiled quickly, for a single run of few sweeps (0), or better (1)."""


BATCH = 2500
"""Chains that are run side by side: more do not fit into the cache, and take half as long again."""


def after_sweeps(
    key: jax.Array, sites: Sites, y: jax.Array, *arguments: Any, optimization: int = 1, **settings: Any
) -> Sites:
    """Sites of all chains after the sweeps; see ``_run``."""
    num = len(y)
    size = num if num % BATCH else BATCH
    keys, out = quick(jax.random.split(key, num)), []
    for chains in (slice(first, first + size) for first in range(0, num, size)):
        own = {name: x[chains] for name, x in sites.items()}
        after = RUN[optimization](keys[chains], own, y[chains], *arguments, **settings)
        out.append({name: np.asarray(x) for name, x in after.items()})
    return {name: np.concatenate([batch[name] for batch in out]) for name in out[0]}


def engine_sweep(*args: Any) -> ModelState:
    """The sweep as it is; one function, so that it is compiled once per problem."""
    return sweep_module.sweep(*args)


def p_values(
    problem: Problem,
    num_chains: int,
    num_sweeps: int = 20,
    *,
    seed: int = 0,
    transition: Transition = engine_sweep,
    spec: ModelSpec | None = None,
    data: ModelData | None = None,
    one_key: bool = False,
    planted: tuple[int, ...] = (),
    optimization: int = 1,
) -> dict[str, float]:
    """Kolmogorov-Smirnov p-values of all quantities.

    ``transition``, ``spec`` and ``data`` may differ from what the problem's data are drawn from: that is how bugs are
    planted. ``one_key`` gives every sweep the same key. ``planted`` is handed to the transition, as numbers that need
    no other program.
    """
    rng = np.random.default_rng([2004, seed])
    sites, y = (_float32(x) for x in draw_from_model(problem, rng, num_chains))
    fresh = quantities(problem, *draw_from_model(problem, rng, num_chains))
    settings = {"factor_block": problem.factor_block, "transition": transition, "one_key": one_key}
    settings["planted"] = planted
    after = after_sweeps(
        jax.random.key(seed),
        sites,
        y,
        problem.spec if spec is None else spec,
        problem.data if data is None else data,
        num_sweeps,
        optimization=optimization,
        **settings,
    )
    return ks(quantities(problem, after, y), fresh)


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def quantities(problem: Problem, sites: Sites, y: jax.Array) -> dict[str, np.ndarray]:
    """Functions of parameters and data, one value per chain, in float64."""
    X, group, weight, spec = naive_rows(problem.design), problem.design.groups, problem.weight, problem.spec
    s = {name: np.asarray(x, np.float64) for name, x in sites.items()}
    y, w, v = np.asarray(y, np.float64), s["w"], s["v"]
    alpha = s.get("alpha", np.ones(len(y)))
    w0 = s.get("w0", np.zeros(len(y)))
    rows, gaussian = row_data(spec.likelihood, len(weight)), isinstance(spec.likelihood, Gaussian)
    q = v[:, :, 0] @ X.T  # of the first factor
    eta = _eta(X, s)
    mean = eta if gaussian else reference(spec.likelihood).mean(eta, s, rows)
    e = np.where(weight > 0, y - mean, 0.0)
    seen = np.flatnonzero(weight > 0)
    if gaussian:
        log_likelihood = (weight * stats.norm.logpdf(e, 0, alpha[:, None] ** -0.5)).sum(1)
    else:
        log_likelihood = (weight * reference(spec.likelihood).log_density(y, eta, s, rows)).sum(1)
    params = {name: s[name] for name in spec.likelihood.dims}
    out = {
        **({"w0": w0} if spec.intercept is not None else {}),
        **{name: x for name, x in params.items() if x.ndim == 1},
        "log likelihood": log_likelihood,
        "log joint": log_likelihood + _log_prior(spec, s, group),
        "alpha sum e^2": alpha * (weight * e**2).sum(1),
        "w0 alpha sum e": (w0 + eta[:, seen[0]]) * alpha * (weight * e).sum(1),
    }
    for name, x in params.items():
        out |= _columns(name, x) | _columns(f"{name} sum e", x.reshape(len(x), -1) * e.sum(1, keepdims=True))
    out |= _columns("eta", eta[:, seen[:4]])
    out |= _columns("eta e", eta[:, seen] * e[:, seen])
    out |= _columns("alpha e^2", alpha[:, None] * e[:, seen] ** 2)
    for prior, name in ((spec.prior_w, "w"), (spec.prior_v, "v")):
        out |= families.quantities(prior, _hyper(prior, s, name), s[name], group, name)
    out |= _columns("w v", w * v[:, :, 0]) | _columns("v v", v[:, :, 0] * v[:, :, -1])
    out |= _columns("w w'", w[:, :-1] * w[:, -1:]) | _columns("<v, v'>", (v[:, :-1] * v[:, -1:]).sum(2))
    out |= _columns("w score", alpha[:, None] * w * ((weight * e) @ X))
    out |= _columns("v score", alpha[:, None] * v[:, :, 0] * ((weight * e * q) @ X))
    return out


def _hyper(prior: Prior, s: Sites, name: str) -> families.Values:
    return {own: s[f"{own}_{name}"] for own in prior.hyper_names()}


def _log_prior(spec: ModelSpec, s: Sites, group: np.ndarray) -> np.ndarray:
    """Log prior density of every chain."""
    lp = _log_prior_of_features(spec, s, group)
    if isinstance(spec.likelihood, Gaussian):
        lp = lp + stats.gamma.logpdf(s["alpha"], spec.likelihood.a0 / 2, scale=2 / spec.likelihood.b0)
    else:
        lp = lp + reference(spec.likelihood).log_prior(s)
    return lp


def _log_prior_of_features(spec: ModelSpec, s: Sites, group: np.ndarray) -> np.ndarray:
    """Without the parameters of the likelihood."""
    lp = np.zeros(len(s["w"]))
    if spec.intercept is not None:
        lp = lp + stats.norm.logpdf(s["w0"], spec.intercept.mean, spec.intercept.precision**-0.5)
    for prior, x in ((spec.prior_w, "w"), (spec.prior_v, "v")):
        lp = lp + families.log_density(prior, _hyper(prior, s, x), s[x], group)
    return lp


def _columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    values = values.reshape(len(values), -1)
    return {f"{name} [{i}]": values[:, i] for i in range(values.shape[1])}
