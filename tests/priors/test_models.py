"""Models of all families through the whole package: one density, fitting, saving, unseen levels."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.diagnostics import identified
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.conjugate.state import from_sites, to_sites
from bayesfm.inference.gibbs.run import gibbs, gibbs_kernel
from bayesfm.model import ModelSpec, numpyro_model
from bayesfm.posterior import restore, to_datatree
from bayesfm.posterior_files import load, save
from bayesfm.predictive import predictive_moments
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, HalfT, Horseshoe, MultiplicativeGamma, NormalWishart, Prior
from tests import designs
from tests.priors import families

MODELS: dict[str, tuple[Prior, Prior]] = {
    "horseshoe, normal-Wishart": (Horseshoe(), NormalWishart()),
    "half-normal, multiplicative gamma": (HalfT(df=math.inf), MultiplicativeGamma()),
    "fixed, half-t": (Fixed(), HalfT()),
}


@pytest.mark.parametrize("name", MODELS)
def test_reported_density_is_that_of_the_model(name: str) -> None:
    """What a chain reports of sites that went through its own order of features, against the NumPyro model."""
    design, rng = designs.make("everything"), np.random.default_rng(0)
    prior_w, prior_v = MODELS[name]
    G, p, y = len(design.group_names), design.num_features, rng.normal(size=design.num_rows)
    sites = {"alpha": np.array(1.3), "w0": np.array(0.2)}
    for x, prior, columns in (("w", prior_w, ()), ("v", prior_v, (2,))):
        hyper, values = families.draw(prior, rng, 1, design.groups, G, columns)
        sites |= {f"{own}_{x}": a[0] for own, a in hyper.items()} | {x: values[0]}
    assert sites["w"].shape == (p,)
    with jax.enable_x64():
        spec = ModelSpec(FM(2), prior_w=prior_w, prior_v=prior_v)
        on_device = jax.tree.map(jnp.asarray, sites)
        kernel, centre = gibbs_kernel(spec, design, y)
        state = from_sites({**on_device, "w0": on_device["w0"] - centre}, kernel.spec, kernel.data)
        arrays = DesignArrays.from_design(design, np.float64)
        eta = spec.predictor.eta(arrays, *(on_device[x] for x in ("w0", "w", "v"))) - centre
        _, stats = jax.jit(kernel.report)(state._replace(eta=jnp.pad(eta, (0, len(state.eta) - len(eta)))))
        args = (spec, arrays, jnp.asarray(design.groups), G)
        expected = jax.jit(lambda sites: log_density(numpyro_model, args, {"y": jnp.asarray(y)}, sites)[0])(
            on_device
        )
        np.testing.assert_allclose(stats["lp"], expected, rtol=1e-10)
        back = to_sites(state, kernel.data.layout)
        for site, value in on_device.items():
            np.testing.assert_allclose(back[site] + (centre if site == "w0" else 0), value, rtol=1e-12)


def test_fit_save_and_predict_unseen_levels(tmp_path: Path) -> None:
    """Local scales and a matrix over the factors at once."""
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 6, 60), rng.integers(0, 4, 60)
    design = Design([Block.field("user", user, range(6)), Block.field("item", item, range(4))])
    y = rng.normal(size=60) + user
    spec = ModelSpec(FM(2), prior_w=Horseshoe(), prior_v=NormalWishart())
    new = Design(
        [Block.field("user", [0, 6], range(6), unseen=["new"]), Block.field("item", [1, 1], range(4))]
    )
    options = ChainOptions(num_chains=1, num_warmup=20, num_samples=30, progress=False)
    draws = gibbs(jax.random.key(0), spec, design, y, options=options, streams={"new": new})
    assert draws.info["kernels"] == "xla"
    assert all(np.all(np.isfinite(x)) for x in draws.sites.values())
    tree = to_datatree(draws, spec, design, y)
    assert all("feature" not in x.dims for x in identified(tree).data_vars.values())
    save(tree, tmp_path / "fit.nc")
    model, _ = restore(load(tmp_path / "fit.nc"))
    mean, variance, _ = predictive_moments(model, new)
    assert np.all(np.isfinite(mean))
    assert variance[1] > variance[0]  # nobody knows the new user
    _, in_stream, _ = draws.streams["new"].pooled()
    assert in_stream[1] > in_stream[0]


def test_kernels_that_cannot_be_had_are_refused() -> None:
    design = designs.make("two fields")
    y = np.arange(design.num_rows, dtype=float)
    spec = ModelSpec(FM(2), prior_v=NormalWishart())
    reason = "that of NormalWishart is a matrix" if native.available() else "without a C\\+\\+ compiler"
    with pytest.raises(ValueError, match=reason):
        gibbs_kernel(spec, design, y, kernels="native")


def test_hyper_leaves_out_what_every_feature_has() -> None:
    design = designs.make("two fields")
    spec = ModelSpec(FM(2), prior_w=Horseshoe(), prior_v=MultiplicativeGamma())
    kernel, _ = gibbs_kernel(spec, design, np.arange(design.num_rows, dtype=float), keep="hyper")
    assert kernel.keep == ("w0", "alpha", "global_scale_w", "slab_scale_w", "delta_v", "eta")
