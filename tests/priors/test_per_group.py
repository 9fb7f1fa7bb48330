"""A family per group: what it refuses, and that it is the families it consists of."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import Block, ChainOptions, Design, gibbs
from bayesfm.model import ModelSpec, log_joint
from bayesfm.predictors import FM
from bayesfm.prior_predictive import prior_predictive
from bayesfm.priors import Fixed, HalfT, NormalGamma, NormalWishart, PerGroup, Prior
from bayesfm.priors.base import Sizes
from bayesfm.priors.per_group import as_prior, per_group
from tests.priors.updates import GROUP, NUM_GROUPS, features_of

NAMES = ("user", "empty", "item")
DESIGN = Design([Block.field(name, [0, 1, 1, 2], range(3)) for name in ("user", "item")])
Y = np.array([1.0, 2.0, 3.0, 5.0])


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("family", [NormalGamma(2.0, 3.0, 0.5, 0.2), HalfT(0.7, 4.0, 2.0)])
def test_of_equal_families_it_is_that_family(family: Prior, columns: tuple[int, ...]) -> None:
    """Density, precisions, moves and modes, from hyperparameters that are stacked for the family."""
    same, rng = PerGroup(NAMES, (family,) * 3), np.random.default_rng(0)
    with jax.enable_x64():
        x = jnp.asarray(rng.normal(size=(len(GROUP), *columns)))
        stacked = {
            name: jnp.asarray(rng.gamma(2.0, 1.0, (NUM_GROUPS, *columns))) for name in family.hyper_names()
        }
        each = {f"{name}_{g}": a[i] for name, a in stacked.items() for i, g in enumerate(NAMES)}
        assert_equal(same.log_hyper(each), family.log_hyper(stacked))
        shape = (NUM_GROUPS, *columns)
        for ours, theirs in zip(
            same.precision_and_mean(each, shape), family.precision_and_mean(stacked, shape), strict=True
        ):
            assert_equal(ours, theirs)
        for g in range(NUM_GROUPS):
            assert_equal(same.location(each, g), family.location(stacked, g))
            delta = jnp.full(columns, 0.3)
            assert_stacked(same.moved(each, g, delta), family.moved(stacked, g, delta))
            if columns:
                assert_stacked(same.scaled(each, g, delta), family.scaled(stacked, g, delta))
        ours, theirs = same.location_scale(each), family.location_scale(stacked)
        assert ours is not None
        assert theirs is not None
        assert_equal(ours.of_group(jnp.asarray(2)), theirs.of_group(jnp.asarray(2)))
        assert_stacked(
            same.from_location_scale(each, 2 * ours.mu, 3 * ours.sigma),
            family.from_location_scale(stacked, 2 * theirs.mu, 3 * theirs.sigma),
        )
        log_sigma = jnp.log(ours.sigma)
        assert_equal(same.log_sigma_density(log_sigma), family.log_sigma_density(log_sigma))
        at = log_sigma[1]
        assert_equal(same.log_sigma_density(at, jnp.asarray(2)), family.log_sigma_density(at))
        features, covariance = features_of(x), jnp.asarray(rng.gamma(1.0, 1.0, shape))
        assert_stacked(same.mode(features, covariance), family.mode(features, covariance))
        sizes = Sizes(NUM_GROUPS, len(GROUP), columns)
        assert_stacked(same.initial(sizes), family.initial(sizes))


def assert_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def assert_stacked(ours: Any, theirs: Any) -> None:
    """One array per group, and one of all of them."""
    assert set(ours) == {f"{name}_{g}" for name in theirs for g in NAMES}
    for name, x in theirs.items():
        assert_equal(jnp.stack([ours[f"{name}_{g}"] for g in NAMES]), x)


@pytest.mark.parametrize(
    ("groups", "priors", "error", "message"),
    [
        ((), (), ValueError, "PerGroup needs one prior for each of one group or more, got 0 groups"),
        (("a", "b"), (HalfT(),), ValueError, "got 2 groups and 1 priors"),
        (("a", "a"), (HalfT(), HalfT()), ValueError, "must be different names, got a, a"),
        (("a/b",), (HalfT(),), ValueError, "must be names without a slash, got 'a/b'"),
        ((3,), (HalfT(),), ValueError, "must be names without a slash, got 3"),
        (("a",), (HalfT,), TypeError, "the prior of group 'a' must be a Prior, for instance HalfT()"),
        (("a",), (NormalWishart(),), ValueError, "NormalWishart has full precision matrices"),
        (("a",), (PerGroup(("b",), (HalfT(),)),), ValueError, "is itself a prior per group"),
    ],
)
def test_what_cannot_be_is_refused(groups: Any, priors: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        PerGroup(groups, priors)


def test_a_mapping_is_one() -> None:
    mapping = {"a": HalfT(), "b": Fixed()}
    assert as_prior("prior_w", mapping) == PerGroup(("a", "b"), (HalfT(), Fixed()))
    assert as_prior("prior_w", HalfT()) == HalfT()
    assert per_group("prior_w", {"b": Fixed()}, HalfT(), ("a", "b")) == as_prior("prior_w", mapping)
    with pytest.raises(
        TypeError, match="prior_w must be a Prior for every group that it names, got 3 for 'b'"
    ):
        as_prior("prior_w", {"a": HalfT(), "b": 3})
    with pytest.raises(
        ValueError, match=r"prior_v must map groups of the features \('a', 'b'\) to priors, got 'c'"
    ):
        per_group("prior_v", {"c": HalfT()}, HalfT(), ("a", "b"))
    with pytest.raises(ValueError, match="got an empty mapping"):
        per_group("prior_v", {}, HalfT(), ("a", "b"))


def test_order_is_that_of_the_design() -> None:
    spec = ModelSpec(FM(2), prior_w=PerGroup.of({"item": HalfT(), "user": Fixed()}))
    options = ChainOptions(num_warmup=1, num_samples=1, num_chains=1, progress=False)
    for run in (
        lambda spec: gibbs(jax.random.key(0), spec, DESIGN, Y, options=options).sites,
        lambda spec: prior_predictive(jax.random.key(0), spec, DESIGN, num_draws=2)["prior"],
    ):
        with pytest.raises(
            ValueError, match=r"in the order of the design's groups, user, item: spec.for_groups"
        ):
            run(spec)
        assert "sigma_item_w" in run(spec.for_groups(DESIGN.group_names))
    with pytest.raises(
        ValueError, match=r"must name all groups of the features.*'user', 'item'; got 'user', 'film'"
    ):
        ModelSpec(prior_v=PerGroup.of({"user": HalfT(), "film": HalfT()})).for_groups(DESIGN.group_names)
    assert ModelSpec().for_groups(DESIGN.group_names) == ModelSpec()


def test_families_only_meant_for_v_are_refused_for_w() -> None:
    from bayesfm.priors import MultiplicativeGamma

    columns = PerGroup.of({"user": MultiplicativeGamma(df=np.inf)})
    with pytest.raises(ValueError, match="give it as prior_v, not as prior_w"):
        ModelSpec(prior_w=columns)
    assert ModelSpec(prior_v=columns).prior_v == columns


def test_no_recompilation_for_other_numbers() -> None:
    """Numbers are leaves, also those inside."""
    log_hyper = jax.jit(lambda prior, hyper: prior.log_hyper(hyper))
    hyper = {"mu_a": jnp.zeros(()), "sigma_a": jnp.ones(())}
    values = [float(log_hyper(PerGroup(("a",), (HalfT(scale),)), hyper)) for scale in (0.5, 2.0)]
    assert values[0] != values[1]
    assert log_hyper._cache_size() == 1


def test_log_joint_counts_every_group_once() -> None:
    mixed = PerGroup.of({"user": HalfT(0.5), "item": Fixed(precision=4.0)})
    spec = ModelSpec(FM(0), prior_w=mixed, intercept=None)
    w = jnp.asarray([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])
    sites = {"mu_user_w": jnp.asarray(0.1), "sigma_user_w": jnp.asarray(0.4), "w": w, "v": jnp.zeros((6, 0))}
    sites |= {"alpha": jnp.ones(())} | {f"{n}_v": jnp.ones((2, 0)) for n in ("mu", "lambda")}
    got = jax.jit(lambda sites: log_joint(spec, jnp.asarray(DESIGN.groups), sites, jnp.zeros(())))(sites)
    own = {"mu": jnp.asarray([0.1]), "sigma": jnp.asarray([0.4])}
    expected = HalfT(0.5).log_hyper(own) + jnp.sum(HalfT(0.5).distribution(own).log_prob(w[:3]))
    expected += jnp.sum(Fixed(precision=4.0).distribution({}).log_prob(w[3:]))
    np.testing.assert_allclose(got, expected + spec.likelihood.log_prior({"alpha": jnp.ones(())}), rtol=1e-6)
