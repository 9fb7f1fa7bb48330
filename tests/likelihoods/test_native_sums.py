"""Sums over the rows with their derivatives: in JAX against automatic derivatives, the kernels against those in JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from bayesfm.likelihoods import BernoulliProbit, Likelihood, NegativeBinomial, OrdinalProbit, StudentT
from bayesfm.likelihoods.base import Observed
from bayesfm.likelihoods.counts import concentration_sums
from bayesfm.likelihoods.newton import RowSums, row_sums
from bayesfm.likelihoods.ordinal import cutpoint_sums
from bayesfm.likelihoods.student_t import scale_sums

pytestmark = pytest.mark.usefixtures(
    "full_optimisation"
)  # the kernels are compared with the programs that users run

on_kernels = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
RNG = np.random.default_rng(0)
N = 9_003  # more than one part


class Case(NamedTuple):
    """Rows, where to take the sums, and by how much rounding of the arguments is magnified."""

    terms: str
    y: np.ndarray
    eta: np.ndarray
    at: list[float]
    magnified: float = 1.0
    weights: tuple[float, ...] = (0.0, 1.0)


def ordinal(at: list[float], spread: float, magnified: float) -> Case:
    return Case("ordinal", RNG.integers(0, len(at) + 1, N), RNG.normal(0, spread, N), at, magnified)


def counts(mean: float, u: float, eta: float) -> Case:
    weights = (0.0, 0.5, 2.0)
    return Case("counts", RNG.poisson(mean, N), RNG.normal(eta, 0.5, N), [u], 1 + abs(u) + eta, weights)


SUMS: dict[str, Callable[..., RowSums]] = {
    "ordinal": cutpoint_sums,
    "student_t": scale_sums,
    "counts": concentration_sums,
}
CASES = {
    "five classes": ordinal([-1.0, -0.3, 0.2, 1.0], 1.0, 10.0),
    "tails": ordinal([-1.0, -0.3, 0.2, 1.0], 8.0, 30.0**2),  # what cancels is the square of the distance
    "a narrow class": ordinal([-1.0, -0.99, 0.2, 0.22], 1.0, 100.0**2),  # one over the width
    "two classes": ordinal([0.3], 4.0, 16.0**2),
    "twenty classes": ordinal(list(np.linspace(-2, 2, 19)), 1.0, 10.0**2),
    "residuals": Case("student_t", RNG.standard_cauchy(N), RNG.normal(size=N), [0.5], 1.0, (0.0, 0.5, 2.0)),
    "small residuals": Case("student_t", RNG.normal(size=N), RNG.normal(size=N), [-9.0]),
    "counts": counts(3.0, 1.5, 1.0),
    "zeros, mostly": counts(0.1, -2.0, -2.0 + 4.0),
    "nearly Poisson": counts(3.0, 5.0, 1.0)._replace(magnified=6 * np.exp(5.0)),  # 3 against (y - 3)^2 / 2r
    "counts on both sides of the table's end": counts(1024.0, 2.0, 6.9),
}


def arrays(case: Case, dtype: Any) -> list[jax.Array]:
    """Rounded to single precision, whatever the type."""
    weight = np.resize(case.weights, len(case.y))
    return [jnp.asarray(np.asarray(x, np.float32), dtype) for x in (case.y, weight, case.eta, case.at)]


def log_likelihood(case: Case, y: jax.Array, weight: jax.Array, eta: jax.Array) -> Callable[..., jax.Array]:
    """As the likelihood itself has it."""
    rows = {"exposure": jnp.ones_like(y)}
    observed = Observed(y, weight, rows)
    if case.terms == "student_t":  # up to what does not depend on the rows: with df = 1
        likelihood: Likelihood = StudentT(df=1.0)
        constant = jnp.log(jnp.pi) * weight.sum()

        def S(x: jax.Array) -> jax.Array:
            value = likelihood.log_likelihood(observed, eta, {"alpha": jnp.exp(x[0])})
            return 0.5 * x[0] * weight.sum() - constant - value

        return S
    if case.terms == "ordinal":
        likelihood = OrdinalProbit(num_classes=len(case.at) + 1)
        return lambda cut: likelihood.log_likelihood(observed, eta, {"cutpoints": cut})
    likelihood = NegativeBinomial()
    return lambda u: likelihood.log_likelihood(observed, eta, {"concentration": jnp.exp(u[0])})


@pytest.mark.parametrize("name", ["tails", "residuals", "counts"])
def test_sums_are_those_of_the_likelihood(name: str) -> None:
    """In float64."""
    case = CASES[name]
    with jax.enable_x64():
        *rows, at = arrays(case, jnp.float64)
        got = jax.jit(SUMS[case.terms])(*rows, at)
        f = log_likelihood(case, *rows)
        quick = {"xla_backend_optimization_level": 1}
        expected = jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.hessian(f)(x)), compiler_options=quick)(at)
        sizes = by_row(name, 0.0)[1]
        for a, b, size in zip((got.terms.sum(), got.gradient, got.hessian), expected, sizes, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * size.max() + 1e-12 * N)


@cache
def by_row(name: str, moved: float) -> tuple[RowSums, list[np.ndarray]]:
    """Float64: sums, and the sums of the sizes of the rows' own terms, gradients and Hessians."""
    case = CASES[name]
    with jax.enable_x64():
        y, weight, eta, at = arrays(case, jnp.float64)
        at = at + moved * jnp.arange(1.0, len(at) + 1)
        one = jax.jit(jax.vmap(lambda y, c, eta: SUMS[case.terms](y[None], c[None], eta[None], at)))
        each = one(y, weight, eta)
        return RowSums(*(np.asarray(x).sum(0) for x in each)), [np.abs(x).sum(0) for x in each]


@on_kernels
@pytest.mark.parametrize("name", CASES)
def test_kernels_add_up_the_same_on_kernels(name: str, isa: str) -> None:
    """Every row is rounded; the sum is not."""
    case, step = CASES[name], 0.125
    (before, size), (after, more) = by_row(name, 0.0), by_row(name, step)
    *rows, at = arrays(case, jnp.float32)
    ours, theirs = (
        native.row_sums(case.terms, *rows, at + d * jnp.arange(1.0, len(at) + 1)) for d in (0.0, step)
    )
    eps = 16 * np.finfo(np.float32).eps * case.magnified
    for got, expected, sizes in zip(ours[1:], before[1:], size[1:], strict=True):
        assert np.all(np.abs(np.asarray(got, float) - expected) <= eps * sizes.max())
    rise = float(RowSums(*ours).rise_to(RowSums(*theirs)))
    assert abs(rise - (after.terms - before.terms).item()) <= eps * (size[0] + more[0]).item()


@on_kernels
@pytest.mark.parametrize("name", CASES)
def test_log_likelihoods_on_kernels(name: str) -> None:
    """To the rounding of one number."""
    case = CASES[name]
    rows = arrays(case, jnp.float32)
    (value,) = by_row(name, 0.0)[0].terms
    at = jnp.exp(rows[3])
    y, weight, eta = rows[:3]
    observed = Observed(y, weight, {"exposure": jnp.ones(N)})
    models: dict[str, tuple[Likelihood, dict[str, jax.Array]]] = {
        "ordinal": (OrdinalProbit(num_classes=len(case.at) + 1), {"cutpoints": rows[3]}),
        "student_t": (StudentT(df=1.0), {"alpha": at[0]}),
        "counts": (NegativeBinomial(), {"concentration": at[0]}),
    }
    likelihood, params = models[case.terms]
    if case.terms == "student_t":
        value = 0.5 * case.at[0] * float(weight.sum()) - np.log(np.pi) * float(weight.sum()) - value
    got = float(likelihood.log_likelihood(observed, eta, params, native=True))
    sizes = by_row(name, 0.0)[1][0].item() + 10 * float(weight.sum())  # the constant
    assert abs(got - value) <= 16 * np.finfo(np.float32).eps * case.magnified * sizes


@on_kernels
def test_probit_is_two_classes_on_kernels() -> None:
    rng = np.random.default_rng(0)
    y, eta = jnp.asarray(rng.integers(0, 2, N), jnp.float32), jnp.asarray(rng.normal(0, 2, N), jnp.float32)
    observed = Observed(y, jnp.resize(jnp.asarray([0.0, 1.0, 1.0]), N), {})
    ours, theirs = (
        BernoulliProbit().log_likelihood(observed, eta, {}, native=native) for native in (True, False)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@on_kernels
def test_the_value_is_two_numbers_on_kernels() -> None:
    """Their difference is right to more digits than one float32 number has."""
    case = CASES["five classes"]._replace(weights=(1.0,))
    step = 2.0**-18
    values = [
        native.row_sums("ordinal", *arrays(case._replace(at=[x + d for x in case.at]), jnp.float32))
        for d in (0.0, step)
    ]
    value, gradient, _ = values[0]
    spacing = float(np.spacing(np.abs(np.asarray(value[0]))))
    assert np.abs(value[1]) <= spacing / 2
    rise = float(RowSums(*values[0]).rise_to(RowSums(*values[1])))
    assert abs(step * float(gradient.sum())) > 0  # what is to be seen
    # Roundings of N rows are independent of each other, of a size of eps times what the row has.
    assert abs(rise - step * float(gradient.sum())) < 8 * np.finfo(np.float32).eps * np.sqrt(N) * 2


@on_kernels
@pytest.mark.parametrize("terms", SUMS)
def test_what_has_no_weight_is_not_read_on_kernels(terms: str, isa: str) -> None:
    """Rows of weight zero hold NaN; the number of rows is no multiple of a vector; parts are added up."""
    name, case = next((name, c) for name, c in CASES.items() if c.terms == terms)
    y, weight, eta, at = arrays(case, jnp.float32)
    seen = np.asarray(weight) > 0
    in_a_lane = 64 * np.finfo(np.float32).eps * case.magnified
    for num in (1, 7, 8_193, N):
        own = seen[:num]
        with_nan = jnp.where(seen, y, jnp.nan)[:num], weight[:num], jnp.where(seen, eta, jnp.nan)[:num]
        without = (x[:num][own] for x in (y, weight, eta))
        ours, theirs = (native.row_sums(terms, *rows, at) for rows in (with_nan, without))
        for a, b, size in zip(ours, theirs, by_row(name, 0.0)[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=in_a_lane * size.max())  # added up in another order


@on_kernels
@pytest.mark.parametrize("terms", SUMS)
def test_vmap_is_a_loop_on_kernels(terms: str) -> None:
    """Over eta and the parameters; response and weights are the same for all."""
    case = next(c for c in CASES.values() if c.terms == terms)
    y, weight, eta, at = arrays(case, jnp.float32)
    etas, ats = jnp.stack([eta, eta + 0.5, -eta]), jnp.stack([at, at + 0.25, at - 0.5])
    together = jax.vmap(lambda eta, at: native.row_sums(terms, y, weight, eta, at))(etas, ats)
    for i in range(3):
        for a, b in zip(together, native.row_sums(terms, y, weight, etas[i], ats[i]), strict=True):
            np.testing.assert_array_equal(a[i], b)


@on_kernels
def test_wrong_shapes_are_refused_on_kernels() -> None:
    y, weight, eta, at = arrays(CASES["five classes"], jnp.float32)
    unchecked = native.library.call("ordinal", jnp.float32, jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="weight has the wrong shape"):
        jax.block_until_ready(unchecked(y, weight[1:], eta, at))
    with pytest.raises(jax.errors.JaxRuntimeError, match="the gradient is missing"):
        jax.block_until_ready(unchecked(y, weight, eta, at))


@on_kernels
@pytest.mark.parametrize(("terms", "num"), [("counts", 0), ("counts", 2), ("student_t", 2), ("ordinal", 0)])
def test_other_numbers_of_parameters_are_refused_on_kernels(terms: str, num: int) -> None:
    y = jnp.ones(4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="parameter"):
        jax.block_until_ready(native.row_sums(terms, y, y, y, jnp.ones(num)))


def test_double_precision_takes_the_usual_way() -> None:
    case = CASES["five classes"]
    with jax.enable_x64():
        rows = arrays(case, jnp.float64)
        ours = row_sums("ordinal", cutpoint_sums, *rows, native=True)
        for a, b in zip(ours, cutpoint_sums(*rows), strict=True):
            np.testing.assert_array_equal(a, b)
