"""The front door of the sampler: options, centring, and what is kept."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from bayesfm import native
from bayesfm.design import Block, Design
from bayesfm.inference.gibbs import run as run_module
from bayesfm.inference.gibbs.run import default_factor_block, gibbs, gibbs_kernel
from bayesfm.inference.problem import NUM_PROBES
from bayesfm.model import default_spec, site_dims
from tests.inference.test_chains import KEY, OPTIONS, ratings, run

pytestmark = pytest.mark.usefixtures("full_optimisation")  # the engine as users run it


@pytest.mark.parametrize(
    ("rank", "expected"), [(0, 0), (1, 1), (8, 8), (9, 5), (16, 8), (17, 6), (20, 7), (32, 8), (64, 8)]
)
def test_default_factor_blocks_are_equal_and_at_most_eight(rank: int, expected: int) -> None:
    assert default_factor_block(rank) == expected


@pytest.mark.parametrize("rank", [0, 8, 20])
def test_kernels_draw_all_factors_of_fields_jointly(rank: int) -> None:
    assert default_factor_block(rank, native_fields=True) == rank


@pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
def test_blocks_stay_small_where_a_relation_block_is_drawn() -> None:
    design, y = ratings()
    tables = Design([Block.create("x", np.eye(6)[:, :3] + 1.0, np.arange(60) % 6), design.blocks[1]])
    spec = default_spec(y, 20)
    assert gibbs_kernel(spec, design, y)[0].factor_block == 20
    assert gibbs_kernel(spec, tables, y)[0].factor_block == 7
    assert gibbs_kernel(spec, design, y, kernels="xla")[0].factor_block == 7


@pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
def test_kernels_and_xla_run_the_same_chain() -> None:
    """Of fields, whose normals are the same, for as long as rounding allows."""
    by_kernels, by_xla = (run(kernels=kernels, factor_block=2) for kernels in ("native", "xla"))
    assert (by_kernels.info["kernels"], by_xla.info["kernels"]) == ("native", "xla")
    for name, x in by_xla.sites.items():
        np.testing.assert_allclose(by_kernels.sites[name], x, rtol=1e-2, atol=1e-2, err_msg=name)


def test_kernels_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="kernels must be one of 'auto', 'native', 'xla'"):
        run(kernels="fast")
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(
        ValueError,
        match=r"kernels='native' cannot be had: .* installed without them \(there was no C\+\+ compiler",
    ):
        run(kernels="native")
    assert run().info["kernels"] == "xla"


@pytest.mark.parametrize(("choice", "expected"), [("joint", 5), (1, 1), (3, 3), (9, 5), ("auto", 5)])
def test_factor_block_choices(choice: int | str, expected: int) -> None:
    assert run_module._factor_block(choice, 5) == expected


@pytest.mark.parametrize(
    ("choice", "error"), [(0, ValueError), ("all", ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_silly_factor_blocks(choice: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="factor_block must be"):
        run(factor_block=choice)


def test_keep() -> None:
    everything = run().sites
    spec = default_spec(ratings()[1], 2)
    assert set(everything) == {*site_dims(spec), "eta"}
    hyper = run(keep="hyper")
    assert set(hyper.sites) == set(hyper.dims) == set(everything) - {"w", "v"}
    two = run(keep=["w", "alpha"]).sites
    assert set(two) == {"alpha", "w"}
    for name, x in two.items():
        np.testing.assert_allclose(x, everything[name], rtol=1e-4, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"keep names unknown site\(s\) beta; known: all, hyper, or any of w0"
    ):
        run(keep=["w", "beta"])


def test_a_shift_of_y_moves_w0_and_eta_alone() -> None:
    """Centred in float64, so a response of 1e6 +- 1 loses no digits."""
    design, y = ratings()
    y = np.round(y, 3)
    spec = default_spec(y, 2)
    far = replace(spec, intercept=replace(spec.intercept, mean=spec.intercept.mean + 2.0**20))
    near, shifted = (
        gibbs(KEY, s, design, data, options=OPTIONS) for s, data in ((spec, y), (far, y + 2.0**20))
    )
    for name in near.sites:
        shift = 2.0**20 if name in ("w0", "eta") else 0.0
        np.testing.assert_allclose(shifted.sites[name] - shift, near.sites[name], rtol=1e-3, atol=1e-3)


def test_weights_of_one_are_no_weights() -> None:
    design, y = ratings()
    spec = default_spec(y, 2)
    weighted = gibbs(KEY, spec, design, y, weight=np.ones(60), options=OPTIONS).sites
    for name, x in gibbs(KEY, spec, design, y, options=OPTIONS).sites.items():
        np.testing.assert_array_equal(weighted[name], x)


def test_wrong_shapes() -> None:
    design, y = ratings()
    spec = default_spec(y, 2)
    with pytest.raises(ValueError, match=r"y must have shape \(60,\)"):
        gibbs_kernel(spec, design, y[:-1])
    with pytest.raises(ValueError, match=r"weight must have shape \(60,\), one number per row; got \(3,\)"):
        gibbs_kernel(spec, design, y, weight=np.ones(3))


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_wrong_weights(wrong: float) -> None:
    """Zero for all, or one that no row can have."""
    design, y = ratings()
    weight = np.zeros(60)
    weight[7:] = 0.0 if wrong == 0 else 1.0
    weight[3] = wrong
    with pytest.raises(ValueError, match="weight must hold finite numbers >= 0, and one above zero"):
        gibbs_kernel(default_spec(y, 2), design, y, weight=weight)


def test_probe_rows_are_few_and_eta_is_that_of_the_draws() -> None:
    draws = run()
    design, _ = ratings()
    user, item = (np.asarray(b.index) for b in design.blocks)
    rows = draws.probe_rows
    assert len(rows) == min(NUM_PROBES, 60)
    v, w = draws.sites["v"].astype(float), draws.sites["w"].astype(float)
    at_user, at_item = user[rows], 6 + item[rows]
    pairs = (v[:, :, at_user] * v[:, :, at_item]).sum(-1)
    eta = draws.sites["w0"][..., None] + w[..., at_user] + w[..., at_item] + pairs
    np.testing.assert_allclose(draws.sites["eta"], eta, rtol=0, atol=1e-5)


def test_a_kernel_crosses_jit() -> None:
    """As an argument, it sweeps as it does as a constant."""
    design, y = ratings()
    kernel, _ = gibbs_kernel(default_spec(y, 2), design, y)
    state = kernel.init(jax.random.key(0))
    inside = jax.jit(lambda k, s: k.sweep(jax.random.key(1), s))(kernel, state)
    outside = jax.jit(kernel.sweep)(jax.random.key(1), state)
    np.testing.assert_allclose(inside.w0, outside.w0, rtol=1e-5)
