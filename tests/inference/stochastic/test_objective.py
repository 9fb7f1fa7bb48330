"""The parts of all batches add up to the one model's log joint density; those of an approximation to its bound."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.stochastic import Learner
from bayesfm.inference.stochastic.objective import (
    Dense,
    Model,
    constrained,
    eta_of_draw,
    expected_log_prior,
    normals_of_features,
    normals_of_intercept,
)
from bayesfm.inference.stochastic.rowwise import eta_moments
from bayesfm.model import numpyro_model
from bayesfm.priors import Horseshoe, NormalWishart, Prior, Sizes
from tests.inference.stochastic.problems import PROBLEMS, learner_of, random_point, ridge, rows_of, summed
from tests.inference.test_agreement import Case
from tests.statistics import assert_no_alarm, means_test


def sites_of(learner: Learner, x: jax.Array, dense: Dense) -> dict[str, jax.Array]:
    """Named sites of a point."""
    theta = jnp.moveaxis(x[:-1, 0], 0, -2)
    sites = constrained(learner.spec.likelihood, dense["params"])
    sites |= {f"{n}_w": a for n, a in learner.hyper_w.items()} | {
        f"{n}_v": a for n, a in learner.hyper_v.items()
    }
    if "w0" in dense:
        sites["w0"] = dense["w0"][0]
    return {**sites, "w": theta[..., 0], "v": theta[..., 1:]}


def full(learner: Learner, case: Case, source: Any) -> Any:
    """Log joint density less that of the hyperparameters, by NumPyro, of all rows at once."""
    arrays = DesignArrays.from_design(case.design, learner.dtype)
    arguments = (learner.spec, arrays, jnp.asarray(case.design.groups), learner.num_groups)
    data = tuple(jnp.asarray(a) for a in (source.y, source.weight))
    rows = {name: jnp.asarray(a) for name, a in source.rows.items()}

    def total(x: jax.Array, dense: Dense) -> jax.Array:
        return log_density(numpyro_model, (*arguments, *data, rows), {}, sites_of(learner, x, dense))[0]

    return total


@pytest.mark.parametrize("name", ["groupwise", "categorical", "priors", "unseen"])
def test_parts_and_their_gradients_add_up(name: str) -> None:
    """In float64, against automatic differentiation of the one model; batches of 7 rows, the last one smaller."""
    case = PROBLEMS[name]()
    with jax.enable_x64():
        learner = learner_of(case)
        source = rows_of(learner, case)
        order = np.random.default_rng(1).permutation(case.design.num_rows)
        x, dense = random_point(learner)
        parts, whole = (
            jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, dense)
            for f in (summed(learner, source, order, 7), full(learner, case, source))
        )
        hyper = float(jax.jit(of_hyper)(learner.model))
        unseen = learner.totals.entries == 0  # rows say nothing of them, nor of their priors
        outside = sum(prior_of(learner, x, unseen))
        np.testing.assert_allclose(parts[0], whole[0] - hyper - outside, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), parts[1][1], whole[1][1]
        )
        of_x, of_all = (np.asarray(g[1][0]) for g in (parts, whole))
        np.testing.assert_allclose(of_x[:-1][~unseen], of_all[:-1][~unseen], rtol=1e-11, atol=1e-11)
        assert not of_x[-1].any()
        assert not of_x[:-1][unseen].any()


def of_hyper(model: Model) -> jax.Array:
    """Log density of all hyperparameters."""

    def of_output(hyper_w: Any, hyper_v: Any) -> jax.Array:
        return model.spec.prior_w.log_hyper(hyper_w) + model.spec.prior_v.log_hyper(hyper_v)

    outputs = model.spec.likelihood.outputs
    return jnp.sum((jax.vmap(of_output) if outputs else of_output)(model.hyper_w, model.hyper_v))


def prior_of(learner: Learner, x: jax.Array, which: np.ndarray) -> list[float]:
    """Log prior densities of some features."""
    assert not learner.rule.outputs or not which.any()
    if not which.any():
        return [0.0]
    group, out = learner.model.groups[:-1], []
    for prior, hyper, at in (
        (learner.spec.prior_w, learner.hyper_w, 0),
        (learner.spec.prior_v, learner.hyper_v, slice(1, None)),
    ):
        lp = expected_log_prior(prior, hyper, group, x[:-1, 0, ..., at], None, learner.num_groups)
        out.append(float(lp[which].sum()))
    return out


@pytest.mark.parametrize("size", [1, 4, 40])
def test_any_batches_add_up_to_the_same_bound(size: int) -> None:
    case = PROBLEMS["gaussian"]()
    with jax.enable_x64():
        learner = learner_of(case, "moments")
        source, (x, dense) = rows_of(learner, case), random_point(learner)
        one = summed(learner, source, np.arange(40), 8)(x, dense)
        other = summed(learner, source, np.random.default_rng(size).permutation(40), size)(x, dense)
        np.testing.assert_allclose(other, one, rtol=1e-12)


def test_bound_of_a_linear_model_in_closed_form() -> None:
    """E log p(y, w0, w) + entropy, written out."""
    case = ridge()
    with jax.enable_x64():
        learner = learner_of(case, "moments")
        source, (x, dense) = rows_of(learner, case), random_point(learner)
        bound = summed(learner, source, np.arange(60), 7)(x, dense)
        alpha = float(np.exp(dense["params"]["alpha"]))
        X = np.column_stack([np.ones(60), case.design.to_csr().toarray()])
        used = np.append(True, learner.totals.entries > 0)
        mean = np.append(dense["w0"][0], x[:-1, 0, 0])
        var = np.exp(2 * np.append(dense["w0"][1], x[:-1, 1, 0]))
        precision = np.append(0.5, np.full(case.design.num_features, 1.5))
        centre = np.append(4.0 - learner.centre, np.full(case.design.num_features, 0.2))
        square = (source.y - X @ mean) ** 2 + X**2 @ var
        expected = np.sum(0.5 * np.log(alpha / (2 * np.pi)) - 0.5 * alpha * square)
        prior = 0.5 * np.log(precision / (2 * np.pi)) - 0.5 * precision * ((mean - centre) ** 2 + var)
        entropy = 0.5 * np.log(2 * np.pi * np.e * var)
        expected += np.sum((prior + entropy)[used]) + float(
            learner.spec.likelihood.log_prior({"alpha": alpha})
        )
        np.testing.assert_allclose(bound, expected, rtol=1e-12)


def test_samples_are_unbiased() -> None:
    """One draw per batch: values and gradients have the integrated ones as their means; Gaussian noise."""
    case = PROBLEMS["gaussian"]()
    with jax.enable_x64():
        learner = learner_of(case, "moments")
        source, (x, dense) = rows_of(learner, case), random_point(learner)
        x = x.at[:, 1].add(-0.7)
        expected = jax.value_and_grad(summed(learner, source, np.arange(40), 13))(x, dense)
        learner.rule = replace(learner.rule, expectation="samples")

        def estimate(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.value_and_grad(summed(learner, source, np.arange(40), 13, key))(x, dense)

        values, gradients = jax.lax.map(estimate, jax.random.split(jax.random.key(1), 1000), batch_size=100)
        draws = np.concatenate([np.asarray(values)[:, None], np.asarray(gradients).reshape(1000, -1)], axis=1)
        moves = draws.std(axis=0) > 1e-9 * (1 + np.abs(draws.mean(axis=0)))
        centre = np.append(np.asarray(expected[0]), np.asarray(expected[1]).ravel())
        np.testing.assert_allclose(draws[0, ~moves], centre[~moves], rtol=1e-9, atol=1e-9)
        p = means_test(draws[:, None, moves], centre[moves])
        assert_no_alarm({str(i): float(value) for i, value in enumerate(p)})


def test_a_draw_is_independent_in_all_parameters() -> None:
    """eta of a draw has the variance that it has in closed form, w0 and every feature with noise of its own."""
    case = ridge()
    learner = learner_of(case, "samples")
    source, (x, dense) = rows_of(learner, case), random_point(learner)
    stack, layout = learner.batcher.stack(source, [np.arange(5)], learner.totals)
    batch = jax.tree.map(lambda a: jnp.asarray(a[0]), stack)
    features = normals_of_features(learner.model, batch, x[batch.touched])
    w0 = normals_of_intercept(learner.rule, dense, x)
    design = batch.design(layout)
    mean, variance = eta_moments(design, w0.mean, w0.variance, features.mean, features.variance)
    keys = jax.random.split(jax.random.key(2), 4000)
    eta = jax.lax.map(lambda key: eta_of_draw(learner.rule, layout, batch, features, w0, key), keys)
    p = means_test((np.asarray(eta) - mean)[:, None] ** 2, np.asarray(variance))
    assert_no_alarm({str(i): float(value) for i, value in enumerate(p)})


@pytest.mark.parametrize("prior", [Horseshoe(), NormalWishart(a0=2.0)], ids=["local", "full"])
def test_expected_log_priors(prior: Prior) -> None:
    """A quadratic's mean is that over all patterns of signs of mean +- sd."""
    rng = np.random.default_rng(0)
    group, mean, sd = np.array([0, 1, 1]), rng.normal(size=(3, 2)), rng.uniform(0.3, 2.0, (3, 2))
    hyper = {name: np.asarray(x) for name, x in prior.initial(Sizes(2, 3, (2,))).items()}
    if prior.full:
        hyper["precision"] = np.array([[[2.0, 0.7], [0.7, 1.5]], [[1.0, -0.4], [-0.4, 3.0]]])
    else:
        hyper["local_scale"] = rng.uniform(0.5, 2.0, (3, 2))

    def at(m: np.ndarray, variance: Any) -> np.ndarray:
        own = {name: jnp.asarray(x) for name, x in hyper.items()}
        spread = None if variance is None else jnp.asarray(variance)
        return np.asarray(expected_log_prior(prior, own, jnp.asarray(group), jnp.asarray(m), spread, 2))

    with jax.enable_x64():
        signs = [np.array(s) for s in product([-1.0, 1.0], repeat=2)]
        expected = np.mean([at(mean + s * sd, None) for s in signs], axis=0)
        np.testing.assert_allclose(at(mean, sd**2), expected, rtol=1e-12)


def test_a_random_batch_is_unbiased() -> None:
    """N/B times the part of a batch of B rows, averaged over all batches of neighbours on a circle."""
    case = PROBLEMS["gaussian"]()
    with jax.enable_x64():
        learner = learner_of(case)
        source, (x, dense) = rows_of(learner, case), random_point(learner)
        whole = summed(learner, source, np.arange(40), 40)(x, dense)
        circle = np.concatenate([(np.arange(6) + first) % 40 for first in range(40)])
        parts = summed(learner, source, circle, 6)(x, dense)
        np.testing.assert_allclose(parts / 40 * (40 / 6), whole, rtol=1e-12)
