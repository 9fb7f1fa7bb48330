"""The NumPyro adapter drives the same sweep."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.infer import MCMC

from bayesfm.inference.conjugate.state import from_sites, to_sites
from bayesfm.inference.gibbs.numpyro_kernel import FMGibbs
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.model import default_spec
from tests.inference.test_chains import ratings


@pytest.mark.parametrize(("method", "num_chains"), [("sequential", 1), ("sequential", 2), ("vectorized", 2)])
def test_runs_under_numpyro(method: str, num_chains: int) -> None:
    design, y = ratings()
    kernel = FMGibbs(default_spec(y, 2), design, y)
    mcmc = MCMC(
        kernel, num_warmup=3, num_samples=5, num_chains=num_chains, chain_method=method, progress_bar=False
    )
    mcmc.run(jax.random.key(0))
    samples = mcmc.get_samples(group_by_chain=True)
    assert samples["v"].shape == (num_chains, 5, 11, 2)
    assert len(np.unique(samples["alpha"])) == 5 * num_chains


def test_a_transition_is_one_sweep() -> None:
    design, y = ratings()
    y = y + 100.0
    spec = default_spec(y, 2)
    adapter = FMGibbs(spec, design, y)
    state = adapter.init(jax.random.key(0), 0, None, (), {})
    after = jax.jit(lambda state: adapter.sample(state, (), {}))(state)
    key, _ = jax.random.split(state.rng_key)
    kernel, centre = gibbs_kernel(spec, design, y)
    expected = to_sites(jax.jit(kernel.sweep)(key, state.inner), kernel.data.layout)
    np.testing.assert_array_equal(after.z["v"], expected["v"])
    np.testing.assert_array_equal(after.z["w0"], expected["w0"] + centre)


def test_starts_where_it_is_told() -> None:
    design, y = ratings()
    spec = default_spec(y, 2)
    kernel, centre = gibbs_kernel(spec, design, y)
    sites = to_sites(kernel.init(jax.random.key(5)), kernel.data.layout)
    sites["w0"] = sites["w0"] + centre
    state = FMGibbs(spec, design, y).init(jax.random.key(0), 0, sites, (), {})
    for name, value in sites.items():
        np.testing.assert_allclose(state.z[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    back = from_sites(to_sites(state.inner, kernel.data.layout), spec, kernel.data)
    for a, b in zip(back.theta, state.inner.theta, strict=True):
        np.testing.assert_array_equal(a, b)
