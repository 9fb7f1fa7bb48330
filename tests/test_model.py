from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

from bayesfm.design import Block, Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.conjugate.state import from_sites
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.likelihoods import Gaussian
from bayesfm.model import ModelSpec, default_spec, log_joint, numpyro_model, site_dims
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma
from tests import designs, reference
from tests.design.strategies import naive_rows

SPEC = ModelSpec(
    predictor=FM(2),
    likelihood=Gaussian(a0=3.0, b0=2.0),
    prior_w=NormalGamma(a0=4.0, b0=3.0, beta0=0.5, mu0=0.3),
    prior_v=NormalGamma(a0=5.0, b0=2.0, beta0=2.0, mu0=-0.4),
    intercept=Intercept(mean=0.7, precision=0.6),
)
NUMBERS = {
    "a0": 3.0,
    "b0": 2.0,
    "mean": 0.7,
    "precision": 0.6,
    **{"a0_w": 4.0, "b0_w": 3.0, "beta0_w": 0.5, "mu0_w": 0.3},
    **{"a0_v": 5.0, "b0_v": 2.0, "beta0_v": 2.0, "mu0_v": -0.4},
}


def random_sites(design: Design, rank: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    G = len(design.group_names)
    w0, w, v = designs.random_parameters(rng, design.num_features, rank)
    return {
        "alpha": np.asarray(1.3),
        "w0": np.asarray(w0),
        "lambda_w": rng.uniform(0.5, 2, G),
        "mu_w": rng.normal(size=G),
        "lambda_v": rng.uniform(0.5, 2, (G, rank)),
        "mu_v": rng.normal(size=(G, rank)),
        "w": w,
        "v": v,
    }


def data_of(design: Design) -> tuple[np.ndarray, np.ndarray]:
    y = np.random.default_rng(1).normal(size=design.num_rows)
    return y, np.resize([1.0, 2.0, 0.0, 0.5], design.num_rows)


def numpyro_log_density(design: Design, rank: int, sites: dict[str, Any], y: Any, weight: Any) -> jax.Array:
    arrays = DesignArrays.from_design(design, jnp.zeros(()).dtype)
    args = (replace(SPEC, predictor=FM(rank)), arrays, jnp.asarray(design.groups), len(design.group_names))
    sites = {
        name: jnp.asarray(x) for name, x in sites.items() if rank or name not in ("v", "mu_v", "lambda_v")
    }
    given = {"y": jnp.asarray(y), "weight": weight}
    return jax.jit(lambda sites: log_density(numpyro_model, args, given, sites)[0])(sites)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", ["everything", "field with gaps", "one row"])
def test_log_density_is_the_sum_over_sites(kind: str, rank: int) -> None:
    design = designs.make(kind)
    sites, (y, weight) = random_sites(design, rank), data_of(design)
    expected = reference.log_joint(naive_rows(design), y, weight, design.groups, sites, NUMBERS)
    with jax.enable_x64():
        np.testing.assert_allclose(
            numpyro_log_density(design, rank, sites, y, jnp.asarray(weight)), expected, rtol=1e-12
        )


@pytest.mark.parametrize("rank", [0, 2])
def test_log_joint_is_the_log_density(rank: int) -> None:
    design = designs.make("everything")
    sites, (y, weight) = random_sites(design, rank), data_of(design)
    with jax.enable_x64():
        spec = replace(SPEC, predictor=FM(rank))
        on_device = {name: jnp.asarray(x) for name, x in sites.items()}
        eta = reference.eta(naive_rows(design), float(sites["w0"]), sites["w"], sites["v"])
        rows = spec.likelihood.distribution(jnp.asarray(eta), on_device, {}).log_prob(y)
        ours = log_joint(spec, jnp.asarray(design.groups), on_device, jnp.sum(weight * rows))
        expected = numpyro_log_density(design, rank, sites, y, jnp.asarray(weight))
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
def test_what_the_kernel_reports_is_the_log_density(rank: int) -> None:
    """lp of a Gibbs state, which is centred and in another order, against the model as the user states it."""
    design = designs.make("everything")
    sites, (y, weight) = random_sites(design, rank), data_of(design)
    y = y + 50.0
    sites["w0"] = sites["w0"] + 50.0
    with jax.enable_x64():
        spec = replace(SPEC, predictor=FM(rank), intercept=Intercept(mean=50.7, precision=0.6))
        kernel, centre = gibbs_kernel(spec, design, y, weight=weight, factor_block="joint")
        centred = {name: jnp.asarray(x) for name, x in (sites | {"w0": sites["w0"] - centre}).items()}
        eta = reference.eta(naive_rows(design), float(sites["w0"]), sites["w"], sites["v"])
        state = from_sites(centred, kernel.spec, kernel.data)
        padded = jnp.pad(jnp.asarray(eta - centre), (0, len(state.eta) - len(eta)))
        reported, stats = kernel.report(state._replace(eta=padded))
        numbers = NUMBERS | {"mean": 50.7}
        expected = reference.log_joint(naive_rows(design), y, weight, design.groups, sites, numbers)
        np.testing.assert_allclose(stats["lp"], expected, rtol=1e-11)
        np.testing.assert_allclose(
            stats["train_rmse"], np.sqrt(np.average((y - eta) ** 2, weights=weight)), rtol=1e-10
        )
        np.testing.assert_allclose(reported["eta"] + centre, eta[kernel.probe_rows], rtol=1e-10)


def test_a_row_of_weight_two_is_two_rows_and_of_weight_zero_none() -> None:
    design = designs.make("everything")
    sites, (y, _) = random_sites(design, 2), data_of(design)
    count = np.resize([1, 2, 0, 3], design.num_rows)
    rows = np.repeat(np.arange(design.num_rows), count)
    with jax.enable_x64():
        weighted = numpyro_log_density(design, 2, sites, y, jnp.asarray(count, float))
        repeated = numpyro_log_density(design.take(rows), 2, sites, y[rows], None)
        np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


def test_sites_and_their_dims() -> None:
    design = designs.make("everything")
    arrays, groups = DesignArrays.from_design(design), jnp.asarray(design.groups)

    def drawn() -> dict[str, Any]:
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
            numpyro_model(SPEC, arrays, groups, len(design.group_names))
        return {name: site["value"] for name, site in trace.items() if site["type"] != "plate"}

    sizes = {"group": len(design.group_names), "factor": 2, "feature": design.num_features}
    shapes = {name: tuple(sizes[d] for d in dims) for name, dims in site_dims(SPEC).items()}
    got = {name: x.shape for name, x in jax.eval_shape(drawn).items()}
    assert got == shapes | {"eta": (design.num_rows,), "y": (design.num_rows,)}


def test_an_empty_group_keeps_its_prior() -> None:
    """A group without features, as a schema may have, adds its prior and nothing else."""
    design = Design([Block.field("user", [0, 1, 0], range(2))])
    sites = random_sites(design, 1)
    y = np.array([0.1, 0.2, 0.3])
    more = dict(sites)
    for name in ("lambda_w", "mu_w", "lambda_v", "mu_v"):
        more[name] = np.concatenate([sites[name], np.full_like(sites[name], 0.5)])
    with jax.enable_x64():
        arrays, groups = DesignArrays.from_design(design, np.float64), jnp.asarray(design.groups)
        one, two = (
            log_density(
                numpyro_model,
                (replace(SPEC, predictor=FM(1)), arrays, groups, G),
                {"y": jnp.asarray(y)},
                jax.tree.map(jnp.asarray, s),
            )[0]
            for G, s in ((1, sites), (2, more))
        )
        half = {"mu": jnp.asarray([0.5]), "lambda": jnp.asarray([0.5])}
        np.testing.assert_allclose(
            two - one, SPEC.prior_w.log_hyper(half) + SPEC.prior_v.log_hyper(half), rtol=1e-9
        )


def test_dictionary_and_back() -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_unknown_parts_are_refused() -> None:
    state = SPEC.to_dict()
    state["prior_w"] = {"class": "Spike"}
    with pytest.raises(ValueError, match=r"unknown model part 'Spike'; known are .*NormalGamma"):
        ModelSpec.from_dict(state)


@pytest.mark.parametrize("name", ["predictor", "likelihood", "prior_w", "prior_v", "intercept"])
def test_parts_of_the_wrong_kind_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a"):
        replace(SPEC, **{name: 3.0})


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_default_spec_follows_the_scale_of_y(scale: float) -> None:
    """Of y times c the sites alpha, w and v are c^-2, c and c^(1/2) times those of y: so are their priors."""
    y = np.array([1.0, 4.0, 2.0, 7.0])
    one, scaled = default_spec(y, rank=3), default_spec(scale * y, rank=3)
    assert scaled.predictor == FM(3)
    np.testing.assert_allclose(scaled.likelihood.b0, scale**2 * one.likelihood.b0)
    np.testing.assert_allclose(scaled.prior_w.b0, scale**2 * one.prior_w.b0)
    np.testing.assert_allclose(scaled.prior_v.b0, scale * one.prior_v.b0)
    np.testing.assert_allclose(scaled.intercept.mean, scale * one.intercept.mean)
    np.testing.assert_allclose(scaled.intercept.precision, one.intercept.precision / scale**2)
    np.testing.assert_allclose(one.likelihood.b0, np.var(y))
    np.testing.assert_allclose(one.intercept.mean, y.mean())


@pytest.mark.parametrize("scale", [1e-11, 1e11])
def test_default_spec_takes_no_small_y_for_a_constant(scale: float) -> None:
    y = scale * np.array([1.0, 2.0])
    np.testing.assert_allclose(default_spec(y).likelihood.b0, (0.5 * scale) ** 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e13])
def test_default_spec_refuses_scales_beyond_float32(scale: float) -> None:
    with pytest.raises(
        ValueError, match=r"y must have a standard deviation between .* multiply y by a constant"
    ):
        default_spec(scale * np.array([1.0, 2.0]))


def test_default_spec_weighs_rows_and_takes_constants() -> None:
    y, weight = np.array([1.0, 4.0, 9.0]), np.array([2.0, 1.0, 0.0])
    assert default_spec(y, weight=weight) == default_spec(np.array([1.0, 1.0, 4.0]))
    for constant in (3.0, 1e-30, 0.0):
        assert default_spec(np.full(5, constant)).likelihood.b0 == 1.0
