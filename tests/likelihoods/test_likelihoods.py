"""Every likelihood against the same in NumPy: densities, priors, weights, augmentations, and updates of parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

from bayesfm.likelihoods import (
    BernoulliLogit,
    BernoulliProbit,
    BinomialLogit,
    GroupwiseGaussian,
    Likelihood,
    NegativeBinomial,
    OrdinalLogit,
    OrdinalProbit,
    Poisson,
    StudentT,
)
from bayesfm.likelihoods.base import Observed, check_row_data
from bayesfm.model import ModelSpec, site_dims
from tests.likelihoods.reference import reference
from tests.statistics import assert_no_alarm, ks, z_test

LIKELIHOODS: dict[str, Likelihood] = {
    "student-t": StudentT(a0=3.0, b0=2.0),
    "student-t, df given": StudentT(df=4.0, a0=3.0, b0=2.0),
    "groupwise": GroupwiseGaussian(num_groups=4, a0=3.0, b0=2.0),
    "groupwise, df given": GroupwiseGaussian(num_groups=4, df=4.0, a0=3.0, b0=2.0),
    "probit": BernoulliProbit(),
    "logit": BernoulliLogit(),
    "binomial": BinomialLogit(),
    "ordinal probit": OrdinalProbit(num_classes=4, concentration=2.0, scale=1.3),
    "ordinal probit, two classes": OrdinalProbit(num_classes=2),
    "ordinal logit": OrdinalLogit(num_classes=4, concentration=2.0, scale=1.3),
    "negative binomial": NegativeBinomial(3.0, 0.7),
    "poisson": Poisson(),
}
AUGMENTED = [name for name, likelihood in LIKELIHOODS.items() if likelihood.conjugate]
ZERO_ONE = (BernoulliProbit, OrdinalProbit)
"""Those that take no other weights."""

N = 12


def rows_of(likelihood: Likelihood) -> dict[str, np.ndarray]:
    """Row data of N rows."""
    values = {"trials": np.resize([1.0, 4.0, 2.0, 30.0], N), "exposure": np.resize([1.0, 0.5, 3.0], N)}
    values["noise_group"] = np.resize([0.0, 2.0, 1.0, 0.0, 2.0], N)
    return {name: values[name] for name in likelihood.row_data}


def drawn(likelihood: Likelihood) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters, eta and y, drawn by the reference; one chain."""
    rng, own = np.random.default_rng(3), reference(likelihood)
    params = own.draw_params(rng, 1)
    eta = rng.normal(0.2, 1.0, (1, N))
    y = own.draw(rng, eta, params, rows_of(likelihood))
    return params, eta, y


def on_device(x: Any) -> Any:
    return jax.tree.map(jnp.asarray, x)


def quickly(f: Callable) -> Callable:
    """Compiled without much ado, for what runs once."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def first(tree: Any) -> Any:
    """The only chain."""
    return jax.tree.map(lambda x: x[0], tree)


@pytest.fixture(params=LIKELIHOODS, name="likelihood")
def fixture_likelihood(request: pytest.FixtureRequest) -> Likelihood:
    """All of them."""
    return LIKELIHOODS[request.param]


# -------------------------------------------------------------------------------- densities and priors


def test_density_and_mean(likelihood: Likelihood) -> None:
    params, eta, y = drawn(likelihood)
    own, rows = reference(likelihood), rows_of(likelihood)
    with jax.enable_x64():
        log_prob, mean = quickly(lambda own: (own.log_prob(y[0]), own.mean))(
            likelihood.distribution(*on_device((eta[0], first(params), rows)))
        )
        np.testing.assert_allclose(log_prob, own.log_density(y, eta, params, rows)[0], rtol=1e-9)
        np.testing.assert_allclose(mean, own.mean(eta, params, rows)[0], rtol=1e-9)


def test_log_likelihood_is_the_weighted_sum(likelihood: Likelihood) -> None:
    """And rows of weight zero count for nothing, whatever their y."""
    params, eta, y = drawn(likelihood)
    rows, weight = rows_of(likelihood), np.resize([1.0, 0.0, 2.5, 0.3], N)
    density = reference(likelihood).log_density(y, eta, params, rows)[0]
    outside = np.where(weight > 0, y[0], np.resize([-7.0, 1e9, 0.5], N))
    with jax.enable_x64():
        log_likelihood = jax.jit(likelihood.log_likelihood)
        got = [log_likelihood(Observed(own, weight, rows), eta[0], first(params)) for own in (y[0], outside)]
    np.testing.assert_allclose(got[0], (weight * density).sum(), rtol=1e-9)
    assert got[0] == got[1]


def test_log_prior(likelihood: Likelihood) -> None:
    params = reference(likelihood).draw_params(np.random.default_rng(4), 3)
    with jax.enable_x64():
        got = [likelihood.log_prior({k: jnp.asarray(x[i]) for k, x in params.items()}) for i in range(3)]
    np.testing.assert_allclose(got, reference(likelihood).log_prior(params) * np.ones(3), rtol=1e-9)


def test_sample(likelihood: Likelihood) -> None:
    """Draws from the prior inside a NumPyro model, named as ``dims`` says."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        with numpyro.handlers.seed(rng_seed=key):
            return likelihood.sample()

    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        params = likelihood.sample()
    assert list(trace) == list(params) == list(likelihood.dims)
    if not params:
        return
    got = quickly(jax.vmap(draw))(jax.random.split(jax.random.key(0), 10_000))
    expected = reference(likelihood).draw_params(np.random.default_rng(5), 10_000)
    assert_no_alarm(ks(columns(got), columns(expected)))


def columns(params: Any) -> dict[str, np.ndarray]:
    """Parameters by component."""
    out = {}
    for name, x in params.items():
        x = np.asarray(x, float).reshape(len(x), -1)
        out |= {f"{name} [{i}]": x[:, i] for i in range(x.shape[1])}
    return out


def test_dims_and_sizes(likelihood: Likelihood) -> None:
    params, _, y = drawn(likelihood)
    observed = Observed(*on_device((y[0], np.ones(N), rows_of(likelihood))))
    initial = likelihood.initial(observed)
    assert list(initial) in (list(params), [])
    for name, x in initial.items():
        assert x.shape == tuple(likelihood.sizes[dim] for dim in likelihood.dims[name])
        assert x.dtype == jnp.float32
    prior, height = quickly(
        lambda params: (
            likelihood.log_prior(params),
            likelihood.log_likelihood(observed, jnp.zeros(N), params),
        )
    )(initial)
    assert np.isfinite(prior)
    assert np.isfinite(height)


def test_json_round_trip(likelihood: Likelihood) -> None:
    spec = ModelSpec(
        likelihood=likelihood, **({} if likelihood.identifies_intercept else {"intercept": None})
    )
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert set(likelihood.dims) <= set(site_dims(spec))
    leaves, structure = jax.tree.flatten(likelihood)
    assert jax.tree.unflatten(structure, leaves) == likelihood


def test_initial_is_finite_for_any_response(likelihood: Likelihood) -> None:
    """One class only, no event at all, one row."""
    rows = rows_of(likelihood)
    for y in (np.zeros(N), np.ones(N)):
        for num in (1, N):
            seen = {name: x[:num] for name, x in rows.items()}
            y_seen, weight = likelihood.validate(y[:num], None, seen), np.ones(num)
            initial = likelihood.initial(Observed(*on_device((y_seen.astype(np.float32), weight, seen))))
            assert np.isfinite(likelihood.log_prior(initial))
            mean, s = likelihood.expected_eta(y_seen, None, seen)
            assert np.isfinite(mean)
            assert 0 < s < np.inf


def test_a_shift_of_cutpoints_is_a_shift_of_eta() -> None:
    likelihood = LIKELIHOODS["ordinal probit"]
    params, eta, y = drawn(likelihood)
    with jax.enable_x64():
        shifted = likelihood.shifted(on_device(first(params)), jnp.asarray(0.7))
        one = likelihood.distribution(jnp.asarray(eta[0] + 0.7), shifted, {}).log_prob(y[0])
        two = likelihood.distribution(jnp.asarray(eta[0]), on_device(first(params)), {}).log_prob(y[0])
    np.testing.assert_allclose(one, two, rtol=1e-9)
    with pytest.raises(NotImplementedError, match="no shift of the parameters of Poisson"):
        Poisson().shifted({}, jnp.asarray(0.7))


# ------------------------------------------------------------------------------------------- validation

HALF = np.array([0.5, 1.0])
BAD_RESPONSES: dict[str, tuple[Likelihood, list[float], np.ndarray | None, dict[str, list[float]], str]] = {
    "probit: labels": (BernoulliProbit(), [1, 2], None, {}, "BernoulliProbit needs y of 0 and 1, got 2"),
    "logit: labels": (BernoulliLogit(), [-1, 1], None, {}, "BernoulliLogit needs y of 0 and 1, got -1"),
    "logit: NaN": (BernoulliLogit(), [0, np.nan], None, {}, "needs y of 0 and 1, got nan"),
    "probit: weight": (BernoulliProbit(), [0, 1], HALF, {}, "row weights other than 0 and 1, got 0.5"),
    "ordinal: weight": (
        OrdinalProbit(2),
        [0, 1],
        HALF,
        {},
        "OrdinalProbit has no Gibbs sweep for row weights",
    ),
    "ordinal: code": (OrdinalProbit(3), [0, 3], None, {}, "needs y of 0, ..., 2, got 3"),
    "ordinal: fraction": (OrdinalLogit(3), [0, 0.5], None, {}, "needs y of 0, ..., 2, got 0.5"),
    "ordinal: NaN": (OrdinalLogit(3), [0, np.nan], None, {}, "needs y of 0, ..., 2, got nan"),
    "counts: negative": (
        Poisson(),
        [0, -1],
        None,
        {},
        "y must hold whole numbers from 0 to 16777216, got -1",
    ),
    "counts: fraction": (NegativeBinomial(), [0, 0.5], None, {}, "y must hold whole numbers"),
    "counts: NaN": (NegativeBinomial(), [0, np.nan], None, {}, "whole numbers from 0 to 16777216, got nan"),
    "counts: too large": (Poisson(), [0, 2.0**25], None, {}, "got 3.35544e"),
    "counts: exposure": (Poisson(), [0, 1], None, {"exposure": [1, 0]}, "exposure must be > 0, got 0"),
    "binomial: more than trials": (
        *(BinomialLogit(), [0, 3], None),
        *({"trials": [1, 2]}, "y must not exceed trials, got 3 successes of 2 trials in row 1"),
    ),
    "binomial: trials": (
        BinomialLogit(),
        [0, 1],
        None,
        {"trials": [1, 1.5]},
        "trials must hold whole numbers",
    ),
    "student-t: large": (StudentT(), [0, 1e300], None, {}, "y must lie within"),
    "groupwise: too many groups": (
        *(GroupwiseGaussian(2), [0.5, 1], None, {"noise_group": [0, 2]}),
        "noise_group must hold 0, ..., 1, or -1 for a group that training never saw; got 2",
    ),
    "groupwise: no group": (GroupwiseGaussian(2), [0, 1], None, {"noise_group": [-2, 0]}, "got -2"),
    "groupwise: fraction": (GroupwiseGaussian(2), [0, 1], None, {"noise_group": [0, 0.5]}, "got 0.5"),
    "groupwise: NaN": (GroupwiseGaussian(2), [0, np.nan], None, {}, "y must lie within"),
    "student-t: NaN": (StudentT(), [0, np.nan], None, {}, "y must lie within"),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_responses_are_refused(name: str) -> None:
    likelihood, y, weight, rows, message = BAD_RESPONSES[name]
    rows = {key: np.array(x, float) for key, x in rows.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        likelihood.validate(np.array(y, float), weight, rows)


def test_good_responses_are_taken(likelihood: Likelihood) -> None:
    _, _, y = drawn(likelihood)
    rows = rows_of(likelihood)
    weight = np.resize([1.0, 0.0] if isinstance(likelihood, ZERO_ONE) else [0.5, 0.0], N)
    np.testing.assert_array_equal(likelihood.validate(y[0], weight, rows), y[0])


BAD_ROWS: dict[str, tuple[Likelihood, dict[str, Any], str]] = {
    "unknown": (Poisson(), {"trials": 1.0}, "Poisson takes no row data 'trials'; it takes: exposure"),
    "none taken": (StudentT(), {"trials": 1.0}, "StudentT takes no row data 'trials'; it takes: none"),
    "missing": (
        BinomialLogit(),
        {},
        "BinomialLogit needs 'trials' for every row: give row_data={'trials': ...}",
    ),
    "shape": (
        Poisson(),
        {"exposure": [1.0, 2.0]},
        "exposure must have shape (3,), one value per row; got (2,)",
    ),
    "NaN": (Poisson(), {"exposure": [1.0, np.nan, 2.0]}, "exposure must be finite, got"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_data_is_refused(name: str) -> None:
    likelihood, given, message = BAD_ROWS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        check_row_data(likelihood, given, 3)


def test_row_data_is_completed() -> None:
    np.testing.assert_array_equal(check_row_data(Poisson(), None, 3)["exposure"], np.ones(3))
    np.testing.assert_array_equal(check_row_data(BinomialLogit(), {"trials": 4}, 2)["trials"], [4.0, 4.0])
    assert check_row_data(StudentT(), None, 3) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudentT(df=0.0), "StudentT(df=) must be > 0"),
        (lambda: StudentT(a0=-1.0), "StudentT(a0=) must be > 0"),
        (lambda: GroupwiseGaussian(num_groups=0), "GroupwiseGaussian(num_groups=)"),
        (lambda: GroupwiseGaussian(num_groups=2**24 + 1), "must be at most 2**24"),
        (lambda: GroupwiseGaussian(2, df=0.0), "GroupwiseGaussian(df=) must be > 0"),
        (lambda: NegativeBinomial(rate=0.0), "NegativeBinomial(rate=) must be > 0"),
        (lambda: OrdinalProbit(num_classes=1), "OrdinalProbit(num_classes=)"),
        (lambda: OrdinalLogit(concentration=0.0), "OrdinalLogit(concentration=) must be > 0"),
    ],
)
def test_bad_constants_are_refused(make: Callable[[], Likelihood], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_engines_without_augmentation_say_so() -> None:
    for likelihood in (Poisson(), OrdinalLogit()):
        assert not likelihood.conjugate
        observed = Observed(jnp.zeros(2), jnp.ones(2), {})
        with pytest.raises(NotImplementedError, match=f"{type(likelihood).__name__} has no augmentation"):
            likelihood.augment(jax.random.key(0), observed, jnp.zeros(2), {})


# ----------------------------------------------------------------------------------------- augmentation

NUM_DRAWS = 20_000


@pytest.mark.parametrize("name", AUGMENTED)
def test_augmentation_has_the_score_and_curvature_of_the_likelihood(name: str) -> None:
    """With the score s = omega (z - eta) of the augmented Gaussian, E s = d log p and Var s - E omega = d2 log p.

    Louis (1982), Finding the observed information matrix when using the EM algorithm, JRSS B 44.
    """
    likelihood = LIKELIHOODS[name]
    params, eta, y = first(drawn(likelihood))
    rows = rows_of(likelihood)
    weight = np.resize([1.0, 0.0, 1.0] if isinstance(likelihood, ZERO_ONE) else [1.0, 0.0, 2.0, 0.4], N)
    first_order, second_order = derivatives_of_rows(likelihood, y, weight, rows, eta, params)
    observed = Observed(*on_device((y.astype(np.float32), weight.astype(np.float32), rows)))
    arguments = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (observed, eta, params))

    @quickly
    def draw(keys: jax.Array, observed: Observed, eta: jax.Array, params: Any) -> Any:
        return jax.vmap(lambda key: likelihood.augment(key, observed, eta, params))(keys)

    drawn_pairs = draw(jax.random.split(jax.random.key(0), NUM_DRAWS), *arguments)
    omega, z = (np.broadcast_to(np.asarray(x, float), (NUM_DRAWS, N)) for x in drawn_pairs)
    unseen = weight == 0
    assert not omega[:, unseen].any()
    assert np.isfinite(z).all()
    assert np.all(omega >= 0)
    score = (omega * (z - eta))[:, ~unseen]
    spread = (score - score.mean(0)) ** 2 - omega[:, ~unseen]
    p = {
        f"{moment} of row {n}": float(z_test(x[:, i].mean() - expected[n], x[:, i].std() / NUM_DRAWS**0.5))
        if x[:, i].std() > 1e-6 * (1 + abs(expected[n]))
        else float(abs(x[:, i].mean() - expected[n]) < 1e-4 * (1 + abs(expected[n])))
        for moment, x, expected in (("score", score, first_order), ("curvature", spread, second_order))
        for i, n in enumerate(np.flatnonzero(~unseen))
    }
    assert_no_alarm(p)


def derivatives_of_rows(
    likelihood: Likelihood,
    y: np.ndarray,
    weight: np.ndarray,
    rows: dict[str, np.ndarray],
    eta: np.ndarray,
    params: Any,
) -> list[np.ndarray]:
    """First and second differences of the reference's weighted log density by eta, of fourth order."""
    h = 1e-3
    steps = h * np.arange(-2, 3)
    many = {k: np.broadcast_to(x, (5, *np.shape(x))) for k, x in params.items()}
    values = reference(likelihood).log_density(np.broadcast_to(y, (5, N)), eta + steps[:, None], many, rows)
    one = np.array([1, -8, 0, 8, -1]) / (12 * h)
    two = np.array([-1, 16, -30, 16, -1]) / (12 * h * h)
    return [weight * (stencil @ values) for stencil in (one, two)]


# ----------------------------------------------------------------------------------- updates of parameters

CHAINS, STEPS = 400, 60


def data_for_updates(name: str) -> tuple[Likelihood, np.ndarray, np.ndarray]:
    """Likelihood, y, eta: 30 rows, eta being what it is."""
    rng = np.random.default_rng(8)
    eta = rng.normal(0.0, 0.7, 30)
    match name:
        case "student-t":
            return StudentT(df=4.0, a0=3.0, b0=2.0), eta + rng.standard_t(4, 30), eta
        case "negative binomial":
            return NegativeBinomial(3.0, 0.7), rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, 30)) * 1.0, eta
        case "ordinal, two classes":
            return OrdinalProbit(2, 1.5), (eta + rng.normal(size=30) > 0.4) * 1.0, eta
        case "ordinal, three classes":
            y = np.digitize(eta + rng.normal(size=30), [-0.4, 0.8]) * 1.0
            return OrdinalProbit(3, 1.5), y, eta
        case _:  # the middle class never occurs
            return OrdinalProbit(3, 1.5), 2.0 * (eta + rng.normal(size=30) > 0.0), eta


def grids(likelihood: Likelihood) -> tuple[np.ndarray, ...]:
    """Unconstrained coordinates: log of a positive parameter; the first cut-point and logs of gaps."""
    if not isinstance(likelihood, OrdinalProbit):
        return (np.linspace(-6.0, 6.0, 2001),)
    gap = np.linspace(-12.0, 3.0, 301)
    return (np.linspace(-5.0, 5.0, 801),) if likelihood.num_classes == 2 else (np.linspace(-5, 5, 201), gap)


def params_of(likelihood: Likelihood, u: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters, and the log Jacobian, from coordinates (point, d)."""
    if isinstance(likelihood, OrdinalProbit):
        return {"cutpoints": np.cumsum(np.column_stack([u[:, :1], np.exp(u[:, 1:])]), 1)}, u[:, 1:].sum(1)
    return {next(iter(likelihood.dims)): np.exp(u[:, 0])}, u[:, 0]


def coordinates(params: dict[str, np.ndarray]) -> np.ndarray:
    """The inverse of :func:`params_of`, (point, d)."""
    ((name, x),) = params.items()
    x = np.asarray(x, float)
    return np.column_stack([x[:, :1], np.log(np.diff(x))]) if name == "cutpoints" else np.log(x)[:, None]


def marginals(
    likelihood: Likelihood, y: np.ndarray, weight: np.ndarray, eta: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(grid, cdf) of every coordinate given y and eta, by the trapezoidal rule on the reference density."""
    axes, own = grids(likelihood), reference(likelihood)
    u = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    params, jacobian = params_of(likelihood, u)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = {"exposure": np.ones(len(y))}
        lp = own.log_prior(params) + jacobian
        lp = lp + own.log_density(y, np.broadcast_to(eta, (len(u), len(eta))), params, rows) @ weight
    density = np.where(np.isfinite(lp), np.exp(lp - np.nanmax(lp)), 0.0).reshape([len(a) for a in axes])
    out = []
    for i, axis in enumerate(axes):
        one = density.sum(tuple(j for j in range(len(axes)) if j != i))
        assert max(one[0], one[-1]) < 1e-4 * one.max()  # the grid holds all of it
        cdf = np.concatenate([[0.0], np.cumsum((one[1:] + one[:-1]) / 2)])
        out.append((axis, cdf / cdf[-1]))
    return out


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
def updated(keys: jax.Array, likelihood: Likelihood, params: Any, observed: Observed, eta: jax.Array) -> Any:
    """Parameters after some steps, chain by chain."""

    def chain(key: jax.Array, params: Any) -> Any:
        def step(t: jax.Array, params: Any) -> Any:
            return likelihood.update(jax.random.fold_in(key, t), observed, eta, params)

        return jax.lax.fori_loop(0, STEPS, step, params)

    return jax.vmap(chain)(keys, params)


UPDATED = [
    "student-t",
    "negative binomial",
    "ordinal, two classes",
    "ordinal, three classes",
    "an empty class",
]


@pytest.mark.parametrize("name", UPDATED)
def test_updates_arrive_at_the_conditional(name: str) -> None:
    """Draws of many chains after some steps, half of the chains from afar, against the conditional on a grid."""
    likelihood, y, eta = data_for_updates(name)
    weight = np.resize([1.0, 0.0, 1.0] if isinstance(likelihood, ZERO_ONE) else [1.0, 0.0, 2.0, 0.5], 30)
    reached = marginals(likelihood, y, weight, eta)
    centre = np.array([np.interp(0.5, cdf, axis) for axis, cdf in reached])
    start = centre + np.where(np.arange(2 * CHAINS) < CHAINS, 0.0, 2.0)[:, None]
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params_of(likelihood, start)[0])
    observed = Observed(*on_device((y.astype(np.float32), weight.astype(np.float32), {})))
    observed = observed._replace(rows={name: jnp.ones(len(y)) for name in likelihood.row_data})

    keys = jax.random.split(jax.random.key(1), 2 * CHAINS)
    u = coordinates(updated(keys, likelihood, params, observed, jnp.asarray(eta, jnp.float32)))
    p = {}
    for where, own in (("near", u[:CHAINS]), ("far", u[CHAINS:])):
        for i, (axis, cdf) in enumerate(reached):
            p[f"{where} [{i}]"] = float(
                stats.kstest(own[:, i], lambda x, a=axis, c=cdf: np.interp(x, a, c)).pvalue
            )
    assert_no_alarm(p)
