"""What holds for every family: one density, one Gaussian, an update that is exact and forgets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors import (
    Fixed,
    HalfT,
    Horseshoe,
    MultiplicativeGamma,
    NormalGamma,
    NormalWishart,
    PerGroup,
    Prior,
    Sizes,
)
from bayesfm.priors.draws import generalized_inverse_gaussian, slice_step, truncated_exponential
from tests.priors import families
from tests.priors.updates import GROUP, NUM_GROUPS, invariance, run
from tests.statistics import assert_no_alarm, ks, ks_exact

W: dict[str, Prior] = {
    "normal-gamma": NormalGamma(a0=6.0, b0=4.0, beta0=2.0, mu0=0.5),
    "half-t": HalfT(scale=0.7, df=4.0, beta0=2.0, mu0=0.5),
    "half-Cauchy": HalfT(scale=0.7, df=1.0, beta0=2.0),
    "half-normal": HalfT(scale=0.7, df=math.inf, beta0=2.0, mu0=0.5),
    "fixed": Fixed(mean=0.3, precision=2.0),
    "horseshoe": Horseshoe(global_scale=0.5, slab_scale=1.5, slab_df=6.0),
    "horseshoe, slab fixed": Horseshoe(
        global_scale=0.5, global_df=math.inf, slab_scale=1.5, slab_df=math.inf
    ),
}
NAMES = ("user", "empty", "item")
W["per group"] = PerGroup(NAMES, (W["normal-gamma"], W["fixed"], W["half-t"]))
W["per group, horseshoe"] = PerGroup(NAMES, (W["normal-gamma"], W["half-t"], W["horseshoe"]))
V: dict[str, Prior] = {
    "half-t": W["half-t"],
    "fixed": W["fixed"],
    "horseshoe": W["horseshoe"],
    "multiplicative gamma": MultiplicativeGamma(a1=3.0, a2=4.0, scale=0.8, df=5.0),
    "normal-Wishart": NormalWishart(a0=4.0, b0=3.0, beta0=2.0, mu0=0.4),
    "multiplicative gamma, normal": MultiplicativeGamma(a1=3.0, a2=4.0, df=math.inf),
}
V["per group, local"] = PerGroup(
    NAMES, (V["multiplicative gamma"], W["normal-gamma"], W["horseshoe, slab fixed"])
)
V["per group"] = PerGroup(NAMES, (W["half-normal"], W["normal-gamma"], V["multiplicative gamma, normal"]))
NUM = 5_000
"""Draws in a test of updates."""
SLOW = {
    "per group, local",
    "half-Cauchy",
    "w, normal-gamma",
    "v, half-t",
    "horseshoe, slab fixed",
    "v, horseshoe",
    "v, fixed",
    "multiplicative gamma, normal",
}
"""Variants of what is tested anyway."""
CASES = [
    pytest.param(
        prior, columns, id=f"{x}, {name}", marks=[pytest.mark.slow] if {name, f"{x}, {name}"} & SLOW else []
    )
    for x, columns, families_of_x in (("w", (), W), ("v", (3,), V))
    for name, prior in families_of_x.items()
]
each_family = pytest.mark.parametrize(("prior", "columns"), CASES)


def sizes(columns: tuple[int, ...]) -> Sizes:
    return Sizes(NUM_GROUPS, len(GROUP), columns)


def one_draw(prior: Prior, columns: tuple[int, ...]) -> tuple[dict[str, jax.Array], jax.Array, float]:
    """Hyperparameters, x and their log density in SciPy."""
    hyper, x = families.draw(prior, np.random.default_rng(0), 1, GROUP, NUM_GROUPS, columns)
    lp = families.log_density(prior, hyper, x, GROUP)
    return {name: jnp.asarray(a[0]) for name, a in hyper.items()}, jnp.asarray(x[0]), float(lp[0])


@each_family
def test_density(prior: Prior, columns: tuple[int, ...]) -> None:
    """log_hyper and distribution, and the sites of the NumPyro model, against SciPy."""
    with jax.enable_x64():
        hyper, x, expected = one_draw(prior, columns)
        log_hyper, log_x, sites = jax.jit(partial(densities, prior))(hyper, x)
        np.testing.assert_allclose(log_hyper + log_x, expected, rtol=1e-11)
        np.testing.assert_allclose(sites, log_hyper, rtol=1e-12)


def densities(
    prior: Prior, hyper: dict[str, jax.Array], x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the hyperparameters, of x given them, and of the hyperparameters' sites in the NumPyro model."""
    own = prior.of_features(hyper, jnp.asarray(GROUP), x.shape[1:])
    with (
        numpyro.handlers.substitute(data={f"{name}_w": value for name, value in hyper.items()}),
        numpyro.handlers.trace() as trace,
    ):
        prior.sample_hyper("_w", sizes(x.shape[1:]))
    sites = sum(jnp.sum(site["fn"].log_prob(site["value"])) for site in trace.values())
    return prior.log_hyper(hyper), jnp.sum(prior.distribution(own).log_prob(x)), jnp.asarray(sites)


@each_family
def test_sites_have_their_dimensions(prior: Prior, columns: tuple[int, ...]) -> None:
    dims = prior.hyper_dims(("factor",) if columns else ())
    wanted = {name: sizes(columns).shape(own) for name, own in dims.items()}

    def drawn() -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
            hyper = prior.sample_hyper("_w", sizes(columns))
        return hyper, {name.removesuffix("_w"): site["value"] for name, site in trace.items()}

    for values in jax.eval_shape(drawn):
        assert {name: x.shape for name, x in values.items()} == wanted
    assert {name: x.shape for name, x in prior.initial(sizes(columns)).items()} == wanted
    assert set(prior.hyper_names()) == set(wanted)
    assert {name for name, own in dims.items() if "feature" in own} == set(prior.local_names)


@each_family
def test_precision_and_mean_are_those_of_the_distribution(prior: Prior, columns: tuple[int, ...]) -> None:
    with jax.enable_x64():
        hyper, x, _ = one_draw(prior, columns)
        of_x = prior.of_features(hyper, jnp.asarray(GROUP), columns)
        if prior.local_names:
            precision, mean = prior.precision_and_mean(of_x, x.shape)
        else:
            per_group = prior.precision_and_mean(hyper, (NUM_GROUPS, *columns))
            precision, mean = (a[GROUP] for a in per_group)
        assert mean.shape == x.shape
        own = prior.distribution(of_x)
        np.testing.assert_allclose(np.broadcast_to(own.mean, x.shape), mean, rtol=1e-12)
        if prior.full:
            inverse = np.linalg.inv(np.asarray(precision))
            np.testing.assert_allclose(own.covariance_matrix, inverse, rtol=1e-9)
        else:
            np.testing.assert_allclose(np.broadcast_to(own.variance, x.shape), 1 / precision, rtol=1e-12)


@each_family
def test_updates_leave_the_joint_distribution(prior: Prior, columns: tuple[int, ...]) -> None:
    assert_no_alarm(invariance(prior, columns, NUM))


@pytest.mark.slow
@each_family
def test_updates_leave_the_joint_distribution_at_full_size(prior: Prior, columns: tuple[int, ...]) -> None:
    assert_no_alarm(invariance(prior, columns, 100_000, 5, seed=1))


@each_family
def test_every_hyperparameter_moves(prior: Prior, columns: tuple[int, ...]) -> None:
    """One that stays where it is keeps its distribution, too."""
    before, after, _ = run(prior, columns, NUM, 3, 0, prior)
    for name, start in before.items():
        moved = np.abs(after[name] / start - 1) > 1e-3
        assert moved.mean(0).min() > 0.95, name
        ranks = [stats.rankdata(a, axis=0) for a in (start, after[name])]
        for i in np.ndindex(start.shape[1:]):
            at = (slice(None), *i)
            assert np.corrcoef(ranks[0][at], ranks[1][at])[0, 1] < 0.95, name


@each_family
def test_dictionary_and_back(prior: Prior, columns: tuple[int, ...]) -> None:
    spec = replace(ModelSpec(), prior_v=prior) if columns else ModelSpec(prior_w=prior)
    text = json.dumps(spec.to_dict(), allow_nan=False)
    assert ModelSpec.from_dict(json.loads(text)) == spec
    assert isinstance(prior, Prior)
    suffix = "v" if columns else "w"
    assert {f"{name}_{suffix}" for name in prior.hyper_names()} <= set(site_dims(spec))


@each_family
def test_new_features_have_the_marginal_of_old_ones(prior: Prior, columns: tuple[int, ...]) -> None:
    """sample_new against x of a new feature drawn with the others, given the same hyperparameters of groups."""
    num = 10_000
    hyper, x = families.draw(prior, np.random.default_rng(0), num, GROUP, NUM_GROUPS, columns)
    known = {name: jnp.asarray(a) for name, a in hyper.items() if name not in prior.local_names}
    of_group = jax.vmap(lambda own: prior.of_groups(own, jnp.asarray(2), columns), axis_size=num)(known)
    keys = jax.random.split(jax.random.key(0), num)
    new = jax.jit(jax.vmap(lambda key, own: prior.sample_new(key, own, columns)))(keys, of_group)
    ours = families.columns_of("x", np.asarray(new, np.float64))
    theirs = families.columns_of("x", x[:, 1])
    for name, values in hyper.items():
        if name not in prior.local_names and not prior.full:
            at = values if isinstance(prior, PerGroup) else values[:, 2]
            ours |= families.columns_of(f"{name} x^2", at * np.asarray(new, np.float64) ** 2)
            theirs |= families.columns_of(f"{name} x^2", at * x[:, 1] ** 2)
    assert_no_alarm(ks(ours, theirs))


@pytest.mark.parametrize(
    ("family", "arguments", "error", "match"),
    [
        (HalfT, {"scale": 0.0}, ValueError, r"HalfT\(scale=\) must be > 0"),
        (HalfT, {"df": -1.0}, ValueError, r"HalfT\(df=\) must be > 0"),
        (HalfT, {"df": float("nan")}, ValueError, r"HalfT\(df=\) must be finite"),
        (HalfT, {"mu0": math.inf}, ValueError, r"HalfT\(mu0=\) must be finite"),
        (Horseshoe, {"slab_scale": 0.0}, ValueError, r"Horseshoe\(slab_scale=\) must be > 0"),
        (Horseshoe, {"global_df": -math.inf}, ValueError, r"Horseshoe\(global_df=\) must be finite"),
        (NormalWishart, {"a0": 0.0}, ValueError, r"NormalWishart\(a0=\) must be > 0"),
        (MultiplicativeGamma, {"a2": 0.0}, ValueError, r"MultiplicativeGamma\(a2=\) must be > 0"),
        (Fixed, {"precision": 0.0}, ValueError, r"Fixed\(precision=\) must be > 0"),
        (Fixed, {"mean": "x"}, TypeError, r"Fixed\(mean=\) must be a real number"),
    ],
)
def test_bad_numbers_are_refused(
    family: type, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        family(**arguments)


@pytest.mark.parametrize("prior", [MultiplicativeGamma(), NormalWishart()], ids=["columns", "matrix"])
def test_priors_of_columns_are_refused_for_w(prior: Prior) -> None:
    with pytest.raises(ValueError, match="give it as prior_v, not as prior_w"):
        ModelSpec(prior_w=prior)


@pytest.mark.parametrize("order", [-20.0, -0.5, 0.0, 0.5, 3.0])
def test_generalized_inverse_gaussian(order: float) -> None:
    """Against the density, summed up on a fine grid of log x."""
    chi, psi = np.array([1e-4, 0.5, 30.0]), np.array([4.0, 0.2, 4.0])
    draws = generalized_inverse_gaussian(
        jax.random.key(0), jnp.full((10_000, 3), order), jnp.broadcast_to(chi, (10_000, 3)), jnp.asarray(psi)
    )
    p_values = {}
    for i in range(3):
        log_x = np.linspace(-60, 20, 400_001)
        log_density = order * log_x - 0.5 * (chi[i] * np.exp(-log_x) + psi[i] * np.exp(log_x))
        weight = np.cumsum(np.exp(log_density - log_density.max()))
        uniform = np.interp(np.log(np.asarray(draws[:, i], np.float64)), log_x, weight / weight[-1])
        p_values[str(chi[i])] = ks_exact(uniform, stats.uniform)
    assert_no_alarm(p_values)


def test_generalized_inverse_gaussian_without_data_is_gamma() -> None:
    """chi = 0: the half-normal prior itself."""
    zero = jnp.zeros(20_000)
    draws = generalized_inverse_gaussian(jax.random.key(0), zero + 0.5, zero, jnp.asarray(2.0))
    assert_no_alarm({"gamma": ks_exact(np.asarray(draws), stats.gamma(0.5))})


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.3, 50.0])
def test_truncated_exponential(rate: float) -> None:
    ends = jnp.repeat(jnp.asarray([1e-3, 2.0, 1e4]), 10_000)
    draws = np.asarray(truncated_exponential(jax.random.key(0), jnp.full(30_000, rate), ends)).reshape(3, -1)
    p_values = {}
    for end, own in zip((1e-3, 2.0, 1e4), draws, strict=True):
        uniform = own / end if rate * end < 1e-6 else np.expm1(-rate * own) / np.expm1(-rate * end)
        p_values[str(end)] = ks_exact(uniform, stats.uniform)
    assert_no_alarm(p_values)


def test_slice_steps_leave_a_density_with_two_modes() -> None:
    def log_density(x: jax.Array) -> jax.Array:
        return jnp.logaddexp(-0.5 * (x - 3) ** 2, -0.5 * (x + 3) ** 2)

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=20_000) + rng.choice([-3, 3], 20_000))
    step = jax.jit(lambda key, x: slice_step(key, log_density, x, 1.5, 4))
    moved = x
    for key in jax.random.split(jax.random.key(0), 5):
        moved = step(key, moved)
    assert np.mean(np.sign(moved) != np.sign(x)) > 0.01  # four widths do reach over the gap
    uniform = 0.5 * (stats.norm.cdf(moved, 3) + stats.norm.cdf(moved, -3))
    assert_no_alarm({"two modes": ks_exact(uniform, stats.uniform)})
