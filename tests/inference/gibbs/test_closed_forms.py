"""Models whose posterior or conditionals are known otherwise, and one model in several disguises."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from bayesfm.design import Block, Design
from bayesfm.design import layout as layout_module
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, Layout, RowsUnit, TableUnit
from bayesfm.inference.conjugate.state import ModelData, from_sites
from bayesfm.inference.gibbs import sweep as sweep_module
from bayesfm.likelihoods import Gaussian
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Intercept, NormalGamma
from tests import designs, reference
from tests.design.strategies import naive_rows
from tests.inference.gibbs.chains import data_of, draw_chains
from tests.inference.holding import hold_noise, hold_scales
from tests.statistics import assert_no_alarm, means_test, named, same_means_test

# ------------------------------------------------------------------------------------ Bayesian ridge

STRONG = 1e6
"""Prior degrees of freedom that hold a precision, and a group mean, at its prior value to three digits."""


def test_rank_zero_is_bayesian_ridge() -> None:
    """Posterior mean and covariance of (w0, w), all precisions known."""
    alpha, precision_w, mean_w, intercept = 2.0, 1.5, 0.4, Intercept(mean=1.0, precision=0.5)
    spec = ModelSpec(
        predictor=FM(0),
        likelihood=Gaussian(STRONG, STRONG / alpha),
        prior_w=NormalGamma(STRONG, STRONG / precision_w, beta0=STRONG, mu0=mean_w),
        intercept=intercept,
    )
    design = designs.make("everything")
    y, weight = np.random.default_rng(0).normal(size=designs.N), np.resize([1.0, 2.0, 0.0], designs.N)
    draws = draw_chains(
        jax.random.key(0),
        spec,
        data_of(design, y, weight),
        num_chains=256,
        factor_block=0,
        num_warmup=100,
        num_draws=200,
    )
    X = np.column_stack([np.ones(designs.N), naive_rows(design)])
    prior = np.diag([intercept.precision, *np.full(X.shape[1] - 1, precision_w)])
    P = prior + alpha * X.T @ (weight[:, None] * X)
    mean = np.linalg.solve(
        P, prior @ [intercept.mean, *np.full(X.shape[1] - 1, mean_w)] + alpha * X.T @ (weight * y)
    )
    both = np.concatenate([draws["w0"][..., None], draws["w"]], axis=-1)
    error = both - mean
    i, j = np.tril_indices(len(mean))
    assert_no_alarm(
        named("mean", means_test(both, mean))
        | named("covariance", means_test(error[..., i] * error[..., j], np.linalg.inv(P)[i, j]))
    )


# ------------------------------------------------------------------------ Bayesian matrix factorization


def test_two_fields_are_bayesian_matrix_factorization(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draw of all users given the items, against Salakhutdinov & Mnih's conditional of the rating matrix."""
    rng = np.random.default_rng(0)
    num_users, num_items, k = 4, 5, 3
    seen = (rng.random((num_users, num_items)) < 0.6).astype(int)
    seen[2] = 0  # a user who rated nothing
    R = rng.normal(size=seen.shape)
    user, item = np.nonzero(seen)
    design = Design(
        [Block.field("user", user, range(num_users)), Block.field("item", item, range(num_items))]
    )
    w0, w, v = designs.random_parameters(rng, num_users + num_items, k)
    sites = {"w0": w0, "w": w, "v": v, "alpha": 1.7}
    for x, shape in (("w", (2,)), ("v", (2, k))):
        sites |= {f"lambda_{x}": rng.uniform(0.5, 2, shape), f"mu_{x}": rng.normal(size=shape)}

    with jax.enable_x64():
        centre, *noisy = users_drawn(design, sites, R[user, item], monkeypatch)
        precision, mean = (
            np.concatenate([sites[f"{n}_w"][:1], sites[f"{n}_v"][0]]) for n in ("lambda", "mu")
        )
        root = np.stack([x - centre for x in noisy])
        for i in range(num_users):
            expected_mean, expected_covariance = reference.matrix_factorization_conditional(
                R - w0, seen, 1.7, v[num_users:], w[num_users:], precision, mean, i
            )
            np.testing.assert_allclose(centre[:, i], expected_mean, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(
                root[:, :, i].T @ root[:, :, i], expected_covariance, rtol=1e-9, atol=1e-12
            )


def users_drawn(
    design: Design, sites: dict, ratings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """theta of the users for no noise, and for a unit noise in each of the K coordinates: (1 + K, K, users)."""
    spec = ModelSpec(predictor=FM(sites["v"].shape[1]))
    layout = jax.tree.map(jnp.asarray, build_layout(design, dtype=np.float64))
    y = jnp.pad(jnp.asarray(ratings), (0, layout.num_padded - len(ratings)))
    omega = 1.7 * (jnp.arange(layout.num_padded) < len(ratings))
    state = from_sites({k: jnp.asarray(x) for k, x in sites.items()}, spec, ModelData(layout, y, omega))
    r = y - sweep_module.linear_predictor(spec.predictor, layout, state.w0, state.theta)

    hold_scales(monkeypatch)

    def users(noise: jax.Array) -> jax.Array:
        hold_noise(monkeypatch, lambda like: noise[:, None] + 0 * like)
        swept = sweep_module.sweep_units(
            jax.random.key(0), state, spec, layout, omega, r, spec.predictor.rank
        )
        return jnp.concatenate(swept.theta, axis=1)[:, layout.place][:, : len(layout.units[0].features)]

    K = spec.predictor.width
    return np.asarray(jax.jit(jax.vmap(users))(jnp.concatenate([jnp.zeros((1, K)), jnp.eye(K)])))


# ------------------------------------------------------------------------ one model in three disguises

DISGUISES = {"field": FieldUnit, "table": TableUnit, "rows": RowsUnit}
RATINGS = 24


@lru_cache
def disguised(kind: str) -> tuple[Design, Layout]:
    """Items as a field; users as a field, as a block of one-hot rows, and as one-hot data rows."""
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 5, RATINGS), rng.integers(0, 3, RATINGS)
    eye = sparse.eye_array(5, format="csr")
    blocks = {
        "field": Block.field("user", user, range(5)),
        "table": Block.create("user", eye, user),
        "rows": Block.create("user", eye[user]),
    }
    design = Design([Block.field("item", item, range(3)), blocks[kind]])
    with pytest.MonkeyPatch.context() as patch:
        if kind == "rows":
            patch.setattr(layout_module, "_one_hot_colours", lambda X, features: ([], features))
        layout = build_layout(design, dtype=np.float64)
    assert [type(unit) for unit in layout.units] == [FieldUnit, DISGUISES[kind]]
    return design, layout


@pytest.mark.parametrize("factor_block", [1, 2])
def test_disguises_have_the_same_conditionals(factor_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sweep of the units, of conditional means, in float64."""
    rng = np.random.default_rng(2)
    w0, w, v = designs.random_parameters(rng, 8, 2)
    sites = {"w0": w0, "w": w, "v": v, "alpha": 1.7}
    for x, shape in (("w", (2,)), ("v", (2, 2))):
        sites |= {f"lambda_{x}": rng.uniform(0.5, 2, shape), f"mu_{x}": rng.normal(size=shape)}
    y = rng.normal(size=RATINGS)
    spec = ModelSpec(predictor=FM(2))
    hold_noise(monkeypatch, jnp.zeros_like)  # parameters are eliminated in other orders
    hold_scales(monkeypatch)
    results = {}
    with jax.enable_x64():
        for kind in DISGUISES:
            layout = jax.tree.map(jnp.asarray, disguised(kind)[1])
            z = jnp.pad(jnp.asarray(y), (0, layout.num_padded - len(y)))
            omega = 1.7 * (jnp.arange(layout.num_padded) < len(y))
            state = from_sites(
                {k: jnp.asarray(x) for k, x in sites.items()}, spec, ModelData(layout, z, omega)
            )

            def run(
                r: jax.Array, layout: Layout = layout, state: object = state, omega: jax.Array = omega
            ) -> tuple:
                return sweep_module.sweep_units(
                    jax.random.key(0), state, spec, layout, omega, r, factor_block
                )

            r = z - sweep_module.linear_predictor(spec.predictor, layout, state.w0, state.theta)
            theta, _, r = jax.jit(run)(r)
            results[kind] = np.concatenate(theta, axis=1)[:, layout.place], np.asarray(r)[:RATINGS]
    for kind in ("table", "rows"):
        for ours, theirs in zip(results[kind], results["field"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.slow  # their conditionals, above, are the same to rounding
def test_disguises_have_the_same_posterior() -> None:
    """Means of identified quantities over many chains; every disguise has other keys."""
    spec = ModelSpec(
        predictor=FM(2),
        likelihood=Gaussian(4.0, 4.0),
        prior_w=NormalGamma(4.0, 4.0),
        prior_v=NormalGamma(4.0, 4.0),
    )
    y = np.random.default_rng(3).normal(size=RATINGS)
    draws = {}
    for i, kind in enumerate(DISGUISES):
        design, layout = disguised(kind)
        layout = jax.tree.map(lambda x: np.asarray(x, np.float32) if x.dtype == np.float64 else x, layout)
        out = draw_chains(
            jax.random.key(i),
            spec,
            data_of(design, y, layout=layout),
            num_chains=256,
            factor_block=2,
            num_warmup=100,
            num_draws=100,
        )
        residual = y - np.asarray(out["eta"], np.float64)
        draws[kind] = {
            "eta": np.asarray(out["eta"][..., :6]),
            "eta^2": np.asarray(out["eta"][..., :6]) ** 2,
            "log alpha": np.log(out["alpha"]),
            "sum e^2": (residual**2).sum(axis=-1),
            "w": np.asarray(out["w"]),
            "log lambda_w": np.log(out["lambda_w"]),
        }
    p_values = {}
    for kind in ("table", "rows"):
        for name, x in draws[kind].items():
            p_values |= named(f"{kind}: {name}", same_means_test(x, draws["field"][name]))
    assert_no_alarm(p_values)
