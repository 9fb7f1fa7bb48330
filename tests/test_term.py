"""The FM as a term of a model: values, sites, densities, means of features, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density
from scipy import stats

from bayesfm.design import Block, Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.on_device import OnDevice, on_device
from bayesfm.priors import Fixed, HalfT, Horseshoe, Intercept, NormalGamma, NormalWishart, PerGroup, Prior
from bayesfm.term import fm_dims, fm_term
from tests import designs, reference
from tests.design.strategies import naive_rows

RANK = 2
FAMILIES: dict[str, tuple[Prior, Prior]] = {
    "normal-gamma": (NormalGamma(), NormalGamma(b0=0.5)),
    "half-t, normal-Wishart": (HalfT(), NormalWishart()),
    "horseshoe, fixed": (Horseshoe(), Fixed(precision=2.0)),
}


def values_of(model: Any, *args: Any) -> dict[str, Any]:
    """A draw of all sites."""
    return quickly(lambda *args: draw(model, *args))(*args)


def draw(model: Any, *args: Any) -> dict[str, Any]:
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(*args)
    return {name: x["value"] for name, x in trace.items()}


def quickly(function: Any) -> Any:
    """Compiled for a single run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def density(model: Any, sites: dict[str, Any], *args: Any, **settings: Any) -> Any:
    """Log density of a model at given sites."""
    return quickly(lambda sites, *args: log_density(model, args, settings, sites)[0])(sites, *args)


@pytest.mark.parametrize("name", [None, "film"])
@pytest.mark.parametrize("kind", ["everything", "field with gaps"])
def test_values_are_those_of_the_equation(kind: str, name: str | None) -> None:
    design, at = designs.make(kind), "film." if name else ""

    def model(on: OnDevice) -> None:
        numpyro.deterministic("eta", fm_term(on, RANK, intercept=Intercept(), name=name))

    with jax.enable_x64():
        drawn = values_of(model, on_device(design))
        w0, w, v = (np.asarray(drawn[f"{at}{x}"]) for x in ("w0", "w", "v"))
        np.testing.assert_allclose(drawn["eta"], reference.eta(naive_rows(design), w0, w, v), rtol=1e-12)
        assert set(drawn) == {"eta", f"{at}w0", *fm_dims(name=name)}


def test_without_sorting_gradients_are_the_same_and_batches_of_fields_have_one_shape() -> None:
    design = designs.make("everything")

    def model(on: OnDevice) -> None:
        eta = fm_term(on, RANK)
        numpyro.sample("y", dist.Normal(eta, 1.0), obs=jnp.ones(design.num_rows))

    with jax.enable_x64():
        sites = {x: y for x, y in values_of(model, on_device(design)).items() if x != "y"}
        gradients = [
            quickly(jax.grad(lambda sites, on: log_density(model, (on,), {}, sites)[0]))(sites, on)
            for on in (on_device(design), on_device(design, sort=False))
        ]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), *gradients)

    rng = np.random.default_rng(0)
    fields = Design([Block.field(name, rng.integers(0, 30, 200), range(30)) for name in ("user", "item")])
    batches = [rng.permutation(200)[:100] for _ in range(5)]
    shapes = {
        sort: {str(jax.eval_shape(lambda x: x, on_device(fields.take(rows), sort=sort))) for rows in batches}
        for sort in (True, False)
    }
    assert len(shapes[False]) == 1 < len(shapes[True])


def test_without_intercept_and_without_factors() -> None:
    design = designs.make("two fields")

    def model(on: OnDevice) -> None:
        numpyro.deterministic("eta", fm_term(on, 0))

    drawn = values_of(model, on_device(design))
    assert set(drawn) == {"lambda_w", "mu_w", "w", "eta"}
    np.testing.assert_allclose(
        drawn["eta"], naive_rows(design) @ np.asarray(drawn["w"]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_have_the_dimensions_of_the_table(family: str) -> None:
    design, (prior_w, prior_v) = designs.make("everything"), FAMILIES[family]
    sizes = {"group": len(design.group_names), "feature": design.num_features, "factor": RANK, "class": 3}
    sizes["factor_other"] = RANK
    for outputs, output_dims in (((), ()), ((3,), ("class",))):
        settings = {"outputs": outputs, "name": "a"}
        model = partial(fm_term, rank=RANK, prior_w=prior_w, prior_v=prior_v, **settings)
        drawn = jax.eval_shape(partial(draw, model), on_device(design))
        expected = fm_dims(prior_w, prior_v, output_dims=output_dims, name="a")
        assert {site: x.shape for site, x in drawn.items()} == {
            site: tuple(sizes[d] for d in dims) for site, dims in expected.items()
        }


@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_added_to_those_of_the_prior(family: str) -> None:
    """Density of x with means m is that of x - m without."""
    design, (prior_w, prior_v) = designs.make("two fields"), FAMILIES[family]
    rng = np.random.default_rng(0)
    means = {"mean_w": rng.normal(size=7), "mean_v": rng.normal(size=(7, RANK))}

    def model(on: OnDevice, **settings: Any) -> None:
        fm_term(on, RANK, prior_w, prior_v, **settings)

    with jax.enable_x64():
        on = on_device(design)
        drawn = values_of(model, on)
        there = {**drawn, "w": drawn["w"] + means["mean_w"], "v": drawn["v"] + means["mean_v"]}
        here, moved = density(model, drawn, on), density(model, there, on, **means)
        np.testing.assert_allclose(moved, here, rtol=1e-10)
        unmoved = density(model, drawn, on, **means)
        assert abs(unmoved - here) > 1e-3


def test_means_of_several_outputs() -> None:
    design, mean = designs.make("two fields"), np.arange(14.0).reshape(2, 7)

    def model(on: OnDevice) -> None:
        fm_term(on, 1, Fixed(precision=1e12), Fixed(), mean_w=mean, outputs=(2,))

    np.testing.assert_allclose(values_of(model, on_device(design))["w"], mean, atol=1e-4)


def test_normal_density_by_hand() -> None:
    design = Design([Block.field("user", [0, 1, 0], range(2))])

    def model(on: OnDevice, b: Any) -> None:
        eta = fm_term(on, 0, Fixed(mean=0.5, precision=4.0), mean_w=on.per_feature({"user": b}))
        numpyro.sample("y", dist.Normal(eta, 1.0), obs=jnp.array([1.0, 2.0, 3.0]))

    b, w = np.array([1.0, -1.0]), np.array([0.3, 0.4])
    expected = stats.norm.logpdf(w, 0.5 + b, 0.5).sum() + stats.norm.logpdf([1, 2, 3], w[[0, 1, 0]], 1).sum()
    got = density(model, {"w": jnp.asarray(w)}, on_device(design), jnp.asarray(b))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_weights_with_means_can_be_standardised() -> None:
    """What NUTS wants of a regression: the sites stay locations and scales."""
    on = on_device(designs.make("two fields"))
    config = {"w": LocScaleReparam(0), "v": LocScaleReparam(0)}
    model = numpyro.handlers.reparam(
        lambda: fm_term(on, 1, mean_w=np.ones(7), mean_v=np.ones((7, 1))), config
    )
    drawn = values_of(model)
    expected = 1 + drawn["mu_w"][on.groups] + drawn["w_decentered"] / np.sqrt(drawn["lambda_w"][on.groups])
    np.testing.assert_allclose(drawn["w"], expected, rtol=1e-5)


def test_values_per_feature() -> None:
    on = on_device(designs.make("two fields"))  # 4 users, 3 items
    np.testing.assert_array_equal(on.per_feature({"item": [1.0, 2.0, 3.0]}), [0, 0, 0, 0, 1, 2, 3])
    both = on.per_feature({"item": np.ones((3, 2)), "user": 2 * np.ones((4, 2))})
    np.testing.assert_array_equal(both, np.r_[2 * np.ones((4, 2)), np.ones((3, 2))])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"film": np.ones(3)}, r"values must name blocks of the design \(user, item\), got film"),
        ({}, "got none"),
        ({"item": np.ones(4)}, r"block 'item' must have shape \(3,\) or \(3, rank\).*got \(4,\)"),
        ({"item": np.ones(())}, r"block 'item' must have shape"),
        ({"item": np.ones((3, 2)), "user": np.ones((4, 1))}, "must have the same columns"),
    ],
)
def test_wrong_values_per_feature_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_device(designs.make("two fields")).per_feature(values)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"design": designs.make("two fields")},
            TypeError,
            r"got Design: write design = bayesfm.on_device\(design\)",
        ),
        ({"design": DesignArrays.from_design(designs.make("two fields"))}, TypeError, "got DesignArrays"),
        ({"rank": 1.5}, TypeError, "rank must be an integer"),
        ({"rank": -1}, ValueError, "rank must be >= 0"),
        ({"prior_w": 1.0}, TypeError, "prior_w must be a Prior, for instance HalfT.*got 1.0"),
        ({"prior_v": dist.Normal()}, TypeError, "prior_v must be a Prior"),
        ({"prior_w": NormalWishart()}, ValueError, "give it as prior_v, not as prior_w"),
        ({"intercept": 3.0}, TypeError, "intercept must be an Intercept or None"),
        (
            {"mean_w": np.ones(3)},
            ValueError,
            r"mean_w must have shape \(7,\).*got \(3,\): design.per_feature",
        ),
        ({"mean_v": np.ones(7)}, ValueError, r"mean_v must have shape \(7, 2\)"),
        ({"mean_w": np.ones(7), "outputs": (2,)}, ValueError, r"mean_w must have shape \(2, 7\)"),
        ({"name": ""}, TypeError, "name must be a string of at least one character"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    settings = {"design": on_device(designs.make("two fields")), "rank": RANK, **arguments}
    with pytest.raises(error, match=message):
        numpyro.handlers.seed(fm_term, 0)(**settings)


def test_a_matrix_is_no_design() -> None:
    with pytest.raises(TypeError, match="design must be a Design, got ndarray"):
        on_device(np.ones((3, 2)))


def test_priors_go_to_groups_by_their_names() -> None:
    """In any order, as a mapping or not; groups without one keep the default, and no name is taken for another."""
    on = on_device(Design([Block.field(name, [0, 1], range(2)) for name in ("user", "item")]))
    tight = {"item": Fixed(precision=1e12), "user": Fixed()}
    for prior in (tight, {"item": Fixed(precision=1e12)}, PerGroup.of(tight)):
        with numpyro.handlers.seed(rng_seed=0):
            trace = numpyro.handlers.trace(lambda prior=prior: fm_term(on, 1, prior)).get_trace()
        w = np.abs(trace["w"]["value"])
        assert w[:2].min() > 1e-3
        assert w[2:].max() < 1e-4
    assert (
        "lambda_user_w"
        in numpyro.handlers.trace(
            numpyro.handlers.seed(lambda: fm_term(on, 1, {"item": Fixed()}), 0)
        ).get_trace()
    )
    with numpyro.handlers.seed(rng_seed=0):
        with pytest.raises(ValueError, match=r"prior_w must map groups of the features .* got 'film'"):
            fm_term(on, 1, {"film": Fixed()})
        with pytest.raises(ValueError, match="must name all groups of the features"):
            fm_term(on, 1, prior_v=PerGroup(("user",), (Fixed(),)))
