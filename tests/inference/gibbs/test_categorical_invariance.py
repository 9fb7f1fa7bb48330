"""Sweeps over several linear predictors leave the joint distribution as it is, and bugs planted there are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from bayesfm import native
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.likelihoods import Categorical
from tests.design.strategies import naive_rows
from tests.inference.gibbs import joint
from tests.inference.gibbs.together import Choice, Together
from tests.priors import families
from tests.statistics import alarms, assert_no_alarm, ks

L = 2
"""Classes but the reference."""
DESIGNS: dict[str, dict[str, Any]] = {
    "two fields": {"kind": "fields"},
    "relation block": {"kind": "table", "rank": 3, "factor_block": 2},
    "rows, factor by factor": {"kind": "rows", "factor_block": 1},
}
if native.available():
    DESIGNS["kernels, two fields"] = {"kind": "fields", "native": True}
    DESIGNS["kernels, rows"] = {"kind": "rows", "native": True}


def problem(design: str = "two fields") -> joint.Problem:
    return joint.problem(**DESIGNS[design], likelihood=Categorical(L + 1), weighted=True)


def of_class(sites: joint.Sites, c: int) -> joint.Sites:
    """Parameters of one linear predictor."""
    return {name: np.asarray(x, np.float64)[:, c] for name, x in sites.items()}


def log_probabilities(own: joint.Problem, sites: joint.Sites) -> tuple[np.ndarray, np.ndarray]:
    """Of all classes in the last axis, and eta of those but the first in the first."""
    X = naive_rows(own.design)
    eta = np.stack([joint._eta(X, of_class(sites, c)) for c in range(L)])
    logits = np.moveaxis(np.concatenate([np.zeros_like(eta[:1]), eta]), 0, -1)
    return logits - logsumexp(logits, axis=-1, keepdims=True), eta


def draw_from_model(own: joint.Problem, rng: np.random.Generator, num: int) -> tuple[joint.Sites, np.ndarray]:
    """Sites and classes, in NumPy."""
    spec, group = own.spec, own.design.groups
    sites = {"w0": rng.normal(spec.intercept.mean, spec.intercept.precision**-0.5, num * L)}
    sites |= joint._draw_features(spec, group, len(own.design.group_names), rng, num * L)
    sites = {name: x.reshape(num, L, *x.shape[1:]) for name, x in sites.items()}
    p = np.exp(log_probabilities(own, sites)[0])
    y = (rng.random((*p.shape[:2], 1)) > np.cumsum(p, -1)[..., :-1]).sum(-1)
    return sites, np.where(own.weight > 0, y, 1.0)


def quantities(own: joint.Problem, sites: joint.Sites, y: Any) -> dict[str, np.ndarray]:
    """Functions of parameters and data, one value per chain."""
    X, group, weight, spec = naive_rows(own.design), own.design.groups, own.weight, own.spec
    log_p, eta = log_probabilities(own, sites)
    y, seen = np.asarray(y, int), np.flatnonzero(weight > 0)
    log_likelihood = np.take_along_axis(log_p, y[..., None], -1)[..., 0][:, seen].sum(1)
    out = {"log likelihood": log_likelihood, "log joint": log_likelihood}
    for c in range(L):
        s = of_class(sites, c)
        out["log joint"] = out["log joint"] + joint._log_prior_of_features(spec, s, group)
        e = weight * ((y == c + 1) - np.exp(log_p[..., c + 1]))
        w, v = s["w"], s["v"]
        q = v[:, :, 0] @ X.T
        values = {"w0": s["w0"], "w0 sum e": s["w0"] * e.sum(1), "eta": eta[c][:, seen[:4]]}
        values |= {"eta e": (eta[c] * e)[:, seen], "w v": w * v[:, :, 0], "w w'": w[:, :-1] * w[:, -1:]}
        values |= {"w score": w * (e @ X), "v score": v[:, :, 0] * ((e * q) @ X)}
        for prior, name in ((spec.prior_w, "w"), (spec.prior_v, "v")):
            values |= families.quantities(prior, joint._hyper(prior, s, name), s[name], group, name)
        for name, x in values.items():
            out |= joint._columns(f"{name} of {c + 1}", x)
    out |= joint._columns("eta eta'", (eta[0] * eta[1])[:, seen[:4]])
    return out | joint._columns("w w' of two classes", sites["w"][:, 0] * sites["w"][:, 1])


def p_values(own: joint.Problem, num_chains: int, num_sweeps: int, seed: int = 0, **changed: Any) -> Any:
    """As ``joint.p_values``."""
    rng = np.random.default_rng([2006, seed])
    sites, y = joint._float32(draw_from_model(own, rng, num_chains))
    fresh = quantities(own, *draw_from_model(own, rng, num_chains))
    settings = {
        "factor_block": own.factor_block,
        "transition": joint.engine_sweep,
        "one_key": False,
        "planted": (),
    }
    key = jax.random.key(seed)
    after = joint.after_sweeps(key, sites, y, own.spec, own.data, num_sweeps, **settings | changed)
    after = {name: x.astype(np.float64) for name, x in after.items()}
    return ks(quantities(own, after, y), fresh)


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_sweeps_leave_the_joint_distribution_at_full_size(design: str) -> None:
    assert_no_alarm(p_values(problem(design), 60_000, 30, seed=1))


def changed_others(change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """What all other classes come to, as a function of it and of eta."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = Categorical.augment_output

        def wrong(
            self: Any, key: Any, observed: Any, output: Any, eta: Any, others: Any, params: Any, **kwargs: Any
        ) -> Any:
            return right(self, key, observed, output, eta, change(others, eta), params, **kwargs)

        patch.setattr(Categorical, "augment_output", wrong)

    return plant


def stale_eta(patch: pytest.MonkeyPatch) -> None:
    """The classes that follow see eta as it was."""
    right = sweep_module._sweep_output

    def wrong(keys: Any, state: Any, *rest: Any) -> Any:
        return right(keys, state, *rest)._replace(eta=state.eta)

    patch.setattr(sweep_module, "_sweep_output", wrong)


def later_classes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Only the reference and the classes before."""
    patch.setattr(Categorical, "others_after", lambda self, eta: jnp.full_like(eta, -jnp.inf))


def response_not_shifted(patch: pytest.MonkeyPatch) -> None:
    """kappa / omega for kappa / omega + others."""
    right = Categorical.augment_output

    def wrong(
        self: Any, key: Any, observed: Any, output: Any, eta: Any, others: Any, *rest: Any, **kwargs: Any
    ) -> Any:
        omega, z = right(self, key, observed, output, eta, others, *rest, **kwargs)
        return omega, z - others

    patch.setattr(Categorical, "augment_output", wrong)


def class_among_the_others(patch: pytest.MonkeyPatch, now: Together, either: Choice) -> None:
    changed_others(lambda others, eta: either(jnp.logaddexp(others, eta), others))(patch)


TOGETHER = Together(class_among_the_others)
MORE_MUTANTS = {
    "stale eta": stale_eta,
    "no reference": changed_others(lambda others, eta: jnp.log(jnp.expm1(jnp.maximum(others, 1e-3)))),
    "later classes ignored": later_classes_ignored,
    "response not shifted": response_not_shifted,
}


def is_found(
    plant: Callable[[pytest.MonkeyPatch], None], patch: pytest.MonkeyPatch, num_chains: int = 5000
) -> None:
    plant(patch)
    with np.errstate(all="ignore"):
        found = p_values(
            problem(), num_chains, 10, transition=lambda *arguments: sweep_module.sweep(*arguments)
        )
    assert alarms(found)


@pytest.mark.parametrize("bug", [0, 1], ids=["no bug", "the class among the others"])
def test_sweeps_leave_the_joint_distribution_and_a_mutant_does_not(
    bug: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one program."""
    overrides = TOGETHER.plant(monkeypatch, bug)
    with np.errstate(all="ignore"):
        found = p_values(problem(), 5000, 10, **overrides)
    if bug:
        assert alarms(found)
    else:
        assert_no_alarm(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_MUTANTS)
def test_further_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    is_found(MORE_MUTANTS[name], monkeypatch, 40_000)
