"""Simulation-based calibration: ranks of the truth among posterior draws are uniform.

``python -m tests.inference.gibbs.sbc --data-sets 10000`` runs every case and prints a table.

References
----------
Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv:1804.06788.
Modrák et al. (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities
shapes sensitivity, Bayesian Analysis (the log likelihood as a quantity).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from bayesfm.inference.conjugate.state import ModelData
from bayesfm.likelihoods import Categorical, Gaussian
from bayesfm.model import ModelSpec
from bayesfm.priors import PerGroup, Prior
from tests.inference.gibbs import joint
from tests.inference.gibbs import test_categorical_invariance as categorical
from tests.inference.gibbs.chains import draw_chain
from tests.inference.gibbs.sbc_cases import CASES, Case
from tests.keys import quick
from tests.likelihoods.reference import reference
from tests.priors import families
from tests.statistics import alarms, level, uniform_ranks_test

type Values = dict[str, np.ndarray]
"""Quantities by name, the first axis numbers draws from the model or from posteriors."""

NUM_DRAWS = 31
"""Ranks are 0, ..., 31."""

BATCH = 1000
"""Data sets that are run side by side; programs are compiled for this many."""

LARGEST_AUTOCORRELATION = 0.1
"""Of successive draws, of any quantity: ranks among dependent draws are not uniform."""


class Result(NamedTuple):
    """Of one case: ranks, one per data set, and the autocorrelation of successive draws, by quantity."""

    ranks: Values
    autocorrelation: dict[str, float]

    @property
    def p_values(self) -> dict[str, float]:
        """Of "all ranks are equally likely"."""
        return {name: uniform_ranks_test(r, NUM_DRAWS + 1, 16) for name, r in self.ranks.items()}


# ------------------------------------------------------------------------------------------------ what is ranked


def quantities(problem: joint.Problem, sites: joint.Sites, y: np.ndarray) -> Values:
    """Functions of parameters and data that no exchange of factors changes, in float64 and NumPy."""
    s = {name: np.asarray(x, np.float64) for name, x in sites.items()}
    spec, seen = problem.spec, np.flatnonzero(problem.weight > 0)
    if isinstance(spec.likelihood, Categorical):
        return _of_classes(problem, s, y, seen)
    eta = joint.eta_of(problem, s)
    e = np.where(problem.weight > 0, y - eta, 0.0)
    if isinstance(spec.likelihood, Gaussian):
        log_density = stats.norm.logpdf(e, 0, s["alpha"][:, None] ** -0.5)
    else:
        rows = joint.row_data(spec.likelihood, len(problem.weight))
        log_density = reference(spec.likelihood).log_density(y, eta, s, rows)
    out = joint._columns("eta", eta[:, seen[:4]])
    for name in spec.likelihood.dims:
        out |= joint._columns(name, s[name])
    out["log likelihood"] = (problem.weight * log_density)[:, seen].sum(1)
    if isinstance(spec.likelihood, Gaussian):
        out["sum e^2"] = (e**2).sum(1)
    return out | _of_features(spec, s)


def _of_classes(problem: joint.Problem, s: Values, y: np.ndarray, seen: np.ndarray) -> Values:
    log_p, eta = categorical.log_probabilities(problem, s)
    own = np.take_along_axis(log_p, y.astype(int)[..., None], -1)[..., 0]
    out = {"log likelihood": (problem.weight * own)[:, seen].sum(1)}
    for c in range(len(eta)):
        values = joint._columns("eta", eta[c][:, seen[:3]])
        values |= _of_features(problem.spec, categorical.of_class(s, c))
        out |= {f"{name} of {c + 1}": x for name, x in values.items()}
    return out


def _of_features(spec: ModelSpec, s: Values) -> Values:
    """Of w, v and their hyperparameters."""
    w0 = {"w0": s["w0"]} if spec.intercept is not None else {}
    products = np.einsum("nf,nf->n", s["v"][:, 0], s["v"][:, -1])
    out = {**w0, "w [0]": s["w"][:, 0], "<v, v'>": products}
    for prior, x in ((spec.prior_w, "w"), (spec.prior_v, "v")):
        out |= _of_prior(prior, {name: s[f"{name}_{x}"] for name in prior.hyper_names()}, x)
    return out


def _of_prior(prior: Prior, hyper: Values, x: str) -> Values:
    """Of the hyperparameters of w or v."""
    if isinstance(prior, PerGroup):
        of_groups = zip(prior.groups, families.parts(prior, hyper), strict=True)
        each = {group: _of_prior(own, part, x) for group, (own, part) in of_groups}
        return {f"{name} of {group}": values for group, own in each.items() for name, values in own.items()}
    out: Values = {}
    for name, values in hyper.items():
        out |= _of_hyper(f"{name}_{x}", values, of_w=x == "w")
    return out


def _of_hyper(name: str, x: np.ndarray, of_w: bool) -> Values:
    """One value per group, over all factors; the first feature's where there is one per feature."""
    if name.startswith("local"):
        return {f"log {name} [0]": np.log(x[:, 0]).reshape(len(x), -1).mean(1)}
    if of_w:
        return joint._columns(name, x)
    if name == "precision_v":
        trace = np.trace(x, axis1=-2, axis2=-1)
        return joint._columns("log det precision_v", np.linalg.slogdet(x)[1]) | joint._columns(
            "trace precision_v", trace
        )
    if name == "mu_v":
        return joint._columns("sum mu_v^2", (x**2).sum(-1))
    return joint._columns(f"mean log {name}", np.log(x).mean(-1))


# ------------------------------------------------------------------------------------------------ ranks


@partial(
    jax.jit,
    static_argnames=("factor_block", "warmup", "thin"),
    compiler_options={"xla_backend_optimization_level": 1},
)
def draws_of(
    keys: jax.Array, y: jax.Array, spec: ModelSpec, data: ModelData, factor_block: int, warmup: int, thin: int
) -> dict[str, jax.Array]:
    """Sites, each of shape (data set, draw, ...), of one chain per data set, started far from the truth."""

    def chain(key: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        own = data._replace(y=jnp.pad(y, (0, data.y.shape[0] - y.shape[0])))
        out = draw_chain(key, spec, own, factor_block, warmup, NUM_DRAWS, thin)
        return {name: x for name, x in out.items() if name != "eta"}

    return jax.vmap(chain)(keys, y)


def calibrate(case: Case, num_data_sets: int, data: ModelData | None = None, seed: int = 0) -> Result:
    """Run a case; ``data`` may differ from what the data sets are drawn for: that is how bugs are planted."""
    problem, rng = case.problem, np.random.default_rng([2018, seed])
    draw = joint.draw_from_model
    if isinstance(problem.spec.likelihood, Categorical):
        draw = categorical.draw_from_model
    of_draws, of_truth = [], []
    for first in range(0, num_data_sets, BATCH):
        num = min(BATCH, num_data_sets - first)
        sites, y = draw(problem, rng, num)
        y = np.asarray(y, np.float32)  # what the chain sees
        keys = quick(jax.random.split(jax.random.fold_in(jax.random.key(seed), first), num))
        own = problem.data if data is None else data
        after = draws_of(keys, y, problem.spec, own, problem.factor_block, case.warmup, case.thin)
        flat = {name: np.asarray(x).reshape(num * NUM_DRAWS, *x.shape[2:]) for name, x in after.items()}
        values = quantities(problem, flat, np.repeat(y, NUM_DRAWS, axis=0))
        of_draws.append({name: x.reshape(num, NUM_DRAWS) for name, x in values.items()})
        of_truth.append(quantities(problem, sites, y))
    draws, truth = _together(of_draws), _together(of_truth)
    ranks = {name: (x < truth[name][:, None]).sum(axis=1) for name, x in draws.items()}
    return Result(ranks, {name: autocorrelation(x) for name, x in draws.items()})


def _together(batches: Sequence[Values]) -> Values:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def autocorrelation(x: np.ndarray) -> float:
    """Of successive draws, over all data sets, each draw as its rank among all: nothing hangs on tails."""
    x = stats.rankdata(x).reshape(x.shape)
    x = x - x.mean(axis=1, keepdims=True)
    # The mean of 31 draws stands for the true one: biased by about -1/31.
    return float((x[:, 1:] * x[:, :-1]).mean() / (x**2).mean() + 1 / x.shape[1])


# ------------------------------------------------------------------------------------------------ the table

HEADER = (
    "| case | data sets | quantities | smallest p-value | of | threshold | largest autocorrelation | of | seconds |\n"
    "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: |"
)


def line(name: str, num_data_sets: int, result: Result, seconds: float) -> str:
    """A case in the table."""
    p, dependence = result.p_values, result.autocorrelation
    worst, slowest = min(p, key=p.__getitem__), max(dependence, key=dependence.__getitem__)
    return (
        f"| {name} | {num_data_sets:,} | {len(p)} | {p[worst]:.1e} | `{worst}` | {level(len(p)):.1e} "
        f"| {dependence[slowest]:.2f} | `{slowest}` | {seconds:.0f} |"
    )


def failed(result: Result) -> bool:
    """Whether ranks are not uniform, or draws too dependent to tell."""
    independent = all(rho < LARGEST_AUTOCORRELATION for rho in result.autocorrelation.values())
    return bool(alarms(result.p_values)) or not independent


def main(arguments: Sequence[str] | None = None, clock: Callable[[], float] = time.perf_counter) -> int:
    """Run cases, print their table; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.inference.gibbs.sbc", description=__doc__)
    parser.add_argument("--data-sets", type=int, default=10_000, help="of every case")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print every quantity")
    chosen: Any = parser.parse_args(arguments)
    bad = []
    print(HEADER, flush=True)
    for name in chosen.cases:
        start = clock()
        result = calibrate(CASES[name], chosen.data_sets, seed=chosen.seed)
        print(line(name, chosen.data_sets, result, clock() - start), flush=True)
        if chosen.verbose:
            for own, p in result.p_values.items():
                print(f"    {own}: p = {p:.3g}, autocorrelation {result.autocorrelation[own]:.3f}")
        if failed(result):
            bad.append(name)
        jax.clear_caches()
    print("All ranks uniform." if not bad else f"FAILED: {', '.join(bad)}")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
