"""Sites to coordinates and back, and the density of the coordinates."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

from bayesfm.inference.nuts.coordinates import _centre_of_constrained, loc_scale_sites
from bayesfm.inference.nuts.kernel import NutsKernel
from bayesfm.inference.nuts.run import nuts_kernel
from bayesfm.predictors import FM
from tests import designs, reference
from tests.design.strategies import naive_rows
from tests.test_model import NUMBERS, SPEC, data_of, random_sites

PARAMETRIZATIONS = ("non-centred", "centred")


def kernel_and_sites(parametrization: str, rank: int = 2) -> tuple[NutsKernel, dict[str, jax.Array]]:
    """Of an uncentred problem: SPEC thinks of w0 near 0.7, and y is taken as it is."""
    design = designs.make("everything")
    y, weight = data_of(design)
    spec = replace(SPEC, predictor=FM(rank))
    kernel, problem = nuts_kernel(spec, design, y, weight=weight, parametrization=parametrization)
    sites = {name: jnp.asarray(x) for name, x in random_sites(design, rank).items() if x.size}
    return replace(kernel, spec=spec, y=jnp.asarray(problem.y + problem.centre)), sites


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_there_and_back(parametrization: str, rank: int) -> None:
    with jax.enable_x64():
        kernel, sites = kernel_and_sites(parametrization, rank)
        z = jax.jit(kernel.coordinates.of_sites)(sites)
        back = jax.jit(kernel.coordinates.sites)(z)
        for name, x in sites.items():
            np.testing.assert_allclose(back[name], x, rtol=1e-12, atol=1e-13, err_msg=name)
        assert ("v_decentered" in z) == (parametrization == "non-centred" and rank > 0)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_potential_is_the_density_of_the_coordinates(parametrization: str) -> None:
    """Minus log p(sites, y) by the naive loops, minus the log determinant of d sites / d z."""
    with jax.enable_x64():
        kernel, sites = kernel_and_sites(parametrization)
        design = designs.make("everything")
        y, weight = data_of(design)
        z, to_z = ravel_pytree(jax.jit(kernel.coordinates.of_sites)(sites))

        def sites_at(z: jax.Array) -> jax.Array:
            all_sites = kernel.coordinates.sites(to_z(z))
            return ravel_pytree({name: all_sites[name] for name in sites})[0]

        log_jacobian = jnp.linalg.slogdet(jax.jit(jax.jacrev(sites_at))(z))[1]
        lp = reference.log_joint(
            naive_rows(design), y, weight, design.groups, jax.tree.map(np.asarray, sites), NUMBERS
        )
        np.testing.assert_allclose(
            jax.jit(kernel.coordinates.potential)(to_z(z)), -lp - log_jacobian, rtol=1e-11
        )


def test_loc_scale_is_read_off_the_distributions() -> None:
    """Also of priors that this package does not have."""
    four = jnp.ones(4)

    def model() -> None:
        numpyro.sample("normal", dist.Normal(four, 2.0).to_event(1))
        numpyro.sample("expanded", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
        numpyro.sample("student", dist.StudentT(5.0, four, 2.0))
        numpyro.sample("not asked for", dist.Normal(0.0, 1.0))
        numpyro.sample("log", dist.LogNormal(0.0, 1.0))
        numpyro.sample("half", dist.HalfNormal(1.0))
        numpyro.sample("gamma", dist.Gamma(1.0, 1.0))
        numpyro.sample("joint", dist.MultivariateNormal(four, jnp.eye(4)))

    names = ("normal", "expanded", "student", "log", "half", "gamma", "joint", "absent")
    assert loc_scale_sites(model, names) == (("normal", ()), ("expanded", ()), ("student", ("df",)))


def test_sites_of_the_prior_are_standardised_and_others_are_not() -> None:
    kernel, _ = kernel_and_sites("non-centred")
    assert [name for name, _ in kernel.standardised] == ["mu_w", "w", "mu_v", "v"]


def test_starts_from_the_prior_differ_and_are_possible() -> None:
    kernel, _ = kernel_and_sites("non-centred")
    starts = jax.jit(jax.vmap(kernel.coordinates.from_prior))(jax.random.split(jax.random.key(0), 3))
    potential = jax.jit(jax.vmap(kernel.coordinates.potential))(starts)
    assert np.all(np.isfinite(potential))
    assert len(np.unique(potential)) == 3
    sites = jax.jit(jax.vmap(kernel.coordinates.sites))(starts)
    np.testing.assert_allclose(sites["alpha"], 3.0 / 2.0, rtol=1e-6)  # a0 / b0
    np.testing.assert_allclose(sites["lambda_w"], 4.0 / 3.0, rtol=1e-6)


def test_a_scale_without_a_mean_starts_at_the_centre_of_its_coordinates() -> None:
    site = {"type": "sample", "is_observed": False, "fn": dist.HalfCauchy(jnp.ones(3)).to_event(1)}
    np.testing.assert_array_equal(_centre_of_constrained(site), np.ones(3))
    simplex = site | {"fn": dist.LKJCholesky(3)}  # its mean is not known to NumPyro
    np.testing.assert_allclose(_centre_of_constrained(simplex), np.eye(3))
    assert _centre_of_constrained(site | {"fn": dist.Normal(jnp.ones(3), 1.0)}) is None
