"""Bad inputs and options raise, each naming what is wrong; odd but valid ones give the right answer."""

from __future__ import annotations

import re
import warnings
from typing import Any

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import DataConversionWarning, NotFittedError

from bayesfm.design import Block, Design
from bayesfm.diagnostics import ConvergenceWarning
from bayesfm.estimators import FMRegressor, base
from bayesfm.estimators.inputs import MAX_SEED, seed_key
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from tests.estimators.data import (
    QUICK,
    assert_same_draws,
    matrix,
    quick,
    random_engine,
    ratings,
    sites,
)

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")


def with_value(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x.flat[4] = value
    return x


X, Y = matrix()
FRAME, STARS = ratings()
N = len(Y)

BAD_X = {
    "NaN": (with_value(X, np.nan), ValueError, "X contains NaN"),
    "infinity": (with_value(X, np.inf), ValueError, "X contains infinity"),
    "NaN, sparse": (sparse.csr_array(with_value(X, np.nan)), ValueError, "X contains NaN"),
    "infinity, sparse": (sparse.coo_array(with_value(X, -np.inf)), ValueError, "X contains infinity"),
    "NaN, frame": (pd.DataFrame(with_value(X, np.nan), columns=list("abc")), ValueError, "column 'b'"),
    "missing level": (pl.DataFrame({"user": [None, *["ann"] * (N - 1)]}), ValueError, "column 'user'"),
    "one-dimensional": (X[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "three-dimensional": (X[None], ValueError, "dim 3|3D array"),
    "no rows": (X[:0], ValueError, "0 sample"),
    "no columns": (X[:, :0], ValueError, "0 feature"),
    "no rows, frame": (FRAME.iloc[:0], ValueError, "0 sample"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "strings": (X.astype(str).astype(object) + "?", ValueError, "could not convert string"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "inhomogeneous"),
    "dates": (pd.DataFrame({"day": pd.date_range("2024-01-01", periods=N)}), TypeError, "column 'day'"),
    "one block": (Block.create("x", X), TypeError, r"\[block\]"),
    "names of two kinds": (pd.DataFrame(X, columns=["a", 1, "c"]), TypeError, "names"),
}


@pytest.mark.parametrize("name", BAD_X)
def test_bad_X(name: str) -> None:
    bad, error, message = BAD_X[name]
    with pytest.raises(error, match=message):
        quick().fit(bad, Y)


BAD_Y = {
    "NaN": (with_value(Y, np.nan), "y contains NaN"),
    "infinity": (with_value(Y, np.inf), "y contains infinity"),
    "too short": (Y[:-1], f"y must have one value per row of X: X has {N} rows, y {N - 1} values"),
    "two columns": (np.column_stack([Y, Y]), "y should be a 1d array"),
    "complex": (Y + 1j, "Complex data not supported"),
    "missing": (None, "requires y"),
    "a number": (3.0, "y should be a 1d array"),
}


@pytest.mark.parametrize("name", BAD_Y)
def test_bad_y(name: str) -> None:
    bad, message = BAD_Y[name]
    with pytest.raises(ValueError, match=message):
        quick().fit(X, bad)


BAD_WEIGHTS = {
    "negative": (-np.ones(N), "sample_weight"),
    "NaN": (np.full(N, np.nan), "sample_weight contains NaN"),
    "infinite": (np.full(N, np.inf), "sample_weight contains infinity"),
    "zero": (np.zeros(N), "[Ss]ample.weight.* must .*zero"),
    "short": (np.ones(N - 1), "sample_weight.shape"),
    "two-dimensional": (np.ones((N, 1)), "Sample weights must be 1D"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights(name: str) -> None:
    bad, message = BAD_WEIGHTS[name]
    with pytest.raises(ValueError, match=message):
        quick().fit(X, Y, sample_weight=bad)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rank": -1}, ValueError, "rank must be >= 0, got -1"),
    ({"rank": 2.5}, TypeError, "rank must be an integer"),
    ({"rank": True}, TypeError, "rank must be an integer"),
    ({"rank": "8"}, TypeError, "rank must be an integer"),
    ({"inference": "hmc"}, ValueError, "inference must be one of .*'gibbs'.*got 'hmc'"),
    ({"inference": None}, ValueError, "inference must be one of"),
    (
        {"engine_options": {"target_accept": 0.9}},
        ValueError,
        "unknown option.* target_accept .*'gibbs'; known: none",
    ),
    (
        {"inference": "nuts", "engine_options": {"steps": 9}},
        ValueError,
        "unknown option.* steps .*; known: start",
    ),
    ({"inference": "nuts", "engine_options": "fast"}, TypeError, "engine_options must map names to values"),
    ({"inference": "nuts", "factor_block": 2}, ValueError, "factor_block=2 is an option of Gibbs sweeps"),
    ({"inference": "nuts", "kernels": "xla"}, ValueError, "kernels='xla' is an option of Gibbs sweeps"),
    ({"spec": "gaussian"}, TypeError, "spec must be a ModelSpec"),
    ({"spec": ModelSpec(FM(3)), "rank": 2}, ValueError, "rank=2 contradicts spec, whose rank is 3"),
    ({"spec": ModelSpec(FM(3)), "rank": 8}, ValueError, "rank=8 contradicts spec, whose rank is 3"),
    ({"spec": ModelSpec(FM(3)), "rank": "3"}, TypeError, "rank must be an integer"),
    ({"groups": [0, 1]}, ValueError, "groups must have one entry per feature"),
    ({"categorical": ["user"]}, ValueError, "categorical name"),
    ({"numeric": "age"}, TypeError, r"numeric must be a list.*\['age'\]"),
    ({"num_warmup": -1}, ValueError, "num_warmup must be >= 0"),
    ({"num_warmup": 1.0}, TypeError, "num_warmup must be an integer"),
    ({"num_samples": 0}, ValueError, "num_samples must be >= 1"),
    ({"num_chains": 0}, ValueError, "num_chains must be >= 1"),
    ({"thin": 0}, ValueError, "thin must be >= 1"),
    ({"factor_block": 0}, ValueError, "factor_block must be >= 1"),
    ({"factor_block": "all"}, ValueError, "factor_block must be an integer >= 1, 'joint' or 'auto'"),
    ({"chain_method": "threads"}, ValueError, "chain_method must be one of"),
    ({"keep": "everything"}, ValueError, "keep names unknown site"),
    ({"keep": ["w", "u"]}, ValueError, "keep names unknown site.* u;"),
    ({"keep": []}, ValueError, r"keep must name at least one site.*got \[\]"),
    ({"keep": ["eta"]}, ValueError, "keep must name at least one site other than 'eta'"),
    ({"keep": "eta"}, ValueError, "keep must name at least one site other than 'eta'"),
    ({"keep": None}, TypeError, "keep must be 'all', 'hyper' or a sequence of names.*got None"),
    ({"keep": [1]}, TypeError, "keep must be 'all', 'hyper' or a sequence of names"),
    ({"predict_rows": X}, TypeError, "predict_rows must map names to X"),
    ({"predict_rows": {"a/b": X}}, ValueError, "predict_rows must be strings without a slash"),
    ({"predict_rows": {1: X}}, ValueError, "predict_rows must be strings"),
    ({"predict_rows": {"test": X[:, :2]}}, ValueError, "2 features"),
    ({"progress": "yes"}, TypeError, "progress must be True or False"),
    ({"callback": 3}, TypeError, "callback must be callable"),
    ({"checkpoint": 5}, TypeError, "checkpoint must be the path"),
    ({"resume": True}, ValueError, "resume=True needs checkpoint="),
    (
        {"resume": True, "checkpoint": "x", "random_state": None},
        ValueError,
        "resume=True needs the random_state",
    ),
    ({"draws_on_disk": True}, ValueError, "draws_on_disk=True needs checkpoint="),
    ({"random_state": -1}, ValueError, "random_state must be >= 0"),
    ({"random_state": 2**32}, ValueError, "random_state must be <= 4294967295"),
    ({"random_state": 0.5}, TypeError, "random_state must be an integer"),
    ({"random_state": "seed"}, TypeError, "random_state must be an integer"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS, ids=lambda x: str(x)[:40])
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quick(**options).fit(X, Y)


def test_unknown_parameters() -> None:
    with pytest.raises(TypeError, match="num_factors"):
        FMRegressor(num_factors=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        FMRegressor(8, "gibbs")  # type: ignore[misc]


def test_options_that_belong_to_the_other_kind_of_X() -> None:
    with pytest.raises(ValueError, match="categorical names columns that X does not have"):
        quick(categorical=["film"]).fit(FRAME, STARS)
    with pytest.raises(ValueError, match="groups are for the columns of a matrix"):
        quick(groups=[0, 1]).fit(FRAME, STARS)


BAD_ROWS = {
    "more columns": (FRAME.assign(film=1), ValueError, "unseen at fit time:\n- film"),
    "fewer columns": (FRAME[["user"]], ValueError, "yet now missing:\n- item"),
    "other order": (FRAME[["item", "user"]], ValueError, "same order"),
    "other type": (FRAME.assign(item="Alien"), TypeError, "column 'item'"),
    "a matrix": (X[:, :2], TypeError, "was a DataFrame when fitted"),
    "missing": (FRAME.assign(user=None), ValueError, "column 'user'"),
    "no rows": (FRAME.iloc[:0], ValueError, "0 sample"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_to_predict(fitted: FMRegressor, name: str) -> None:
    bad, error, message = BAD_ROWS[name]
    with pytest.raises(error, match=message):
        fitted.predict(bad)


METHODS: dict[str, tuple[Any, ...]] = {
    **{
        name: ()
        for name in ("predict", "predict_moments", "predict_interval", "expected_draws", "sample_predictive")
    },
    "predict_quantiles": ([0.5],),
    **{name: (STARS,) for name in ("log_predictive_density", "log_likelihood", "loo", "score")},
}


@pytest.mark.parametrize("method", METHODS)
def test_not_fitted(method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(quick(), method)(FRAME, *METHODS[method])


def test_summary_and_save_need_a_fit(tmp_path: Any) -> None:
    for call in (quick().summary, lambda: quick().save(tmp_path / "x.nc")):
        with pytest.raises(NotFittedError):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prob", "error"),
    [
        *((prob, ValueError) for prob in (0.0, 1.0, 90, np.nan, 1 - 1e-12, 1 - 1e-5)),
        ("0.9", TypeError),
    ],
)
def test_bad_probability(fitted: FMRegressor, prob: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="prob must"):
        fitted.predict_interval(FRAME, prob)


# ------------------------------------------------------------------------------------ odd, but right


@pytest.fixture(scope="module")
def reference() -> FMRegressor:
    return quick().fit(X, Y)


def unsorted_with_duplicates() -> sparse.csr_array:
    """Every row backwards, every entry in two halves."""
    csr = sparse.csr_array(X)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(csr.indptr, csr.indptr[1:], strict=False)])
    indices, data = np.repeat(csr.indices[order], 2), np.repeat(csr.data[order] / 2, 2)
    return sparse.csr_array((indices * 0 + data, indices, 2 * csr.indptr), shape=X.shape)


def long_indices() -> sparse.csr_matrix:
    csr = sparse.csr_matrix(X)
    csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    return csr


SAME_X = {
    "lists": X.tolist(),
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "int8": X.astype(np.int8),
    "uint64": X.astype(np.uint64),
    "object": X.astype(object),
    "Fortran order": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=0)[::2],
    "csr": sparse.csr_array(X),
    "csc": sparse.csc_matrix(X),
    "coo": sparse.coo_array(X),
    "lil": sparse.lil_array(X),
    "int64 indices": long_indices(),
    "unsorted, duplicates": unsorted_with_duplicates(),
    "blocks": [Block.create("X", X)],
    "design": Design([Block.create("X", sparse.csr_array(X))]),
}


@pytest.mark.parametrize("name", SAME_X)
def test_form_of_X_does_not_matter(name: str, reference: FMRegressor) -> None:
    model = quick().fit(SAME_X[name], Y)
    assert model.n_features_in_ == X.shape[1]
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(sites(model)["w"], sites(reference)["w"])
    np.testing.assert_array_equal(model.predict(SAME_X[name]), reference.predict(X))


def test_booleans_are_zeros_and_ones() -> None:
    assert_same_draws(quick().fit(X > 0, Y), quick().fit((X > 0).astype(float), Y))


SAME_Y = {
    "list": lambda y: y.tolist(),
    "integers": lambda y: y.astype(int),
    "float32": lambda y: y.astype(np.float32),
    "objects": lambda y: y.astype(object),
    "pandas": lambda y: pd.Series(y, index=np.arange(N)[::-1]),
    "polars": lambda y: pl.Series("y", y),
}


@pytest.mark.parametrize("name", SAME_Y)
def test_form_of_y_does_not_matter(name: str) -> None:
    whole = np.round(Y)
    assert_same_draws(quick().fit(X, SAME_Y[name](whole)), quick().fit(X, whole))


def test_column_vector_y_warns(reference: FMRegressor) -> None:
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        model = quick().fit(X, Y[:, None])
    assert_same_draws(model, reference)


def test_X_and_y_are_left_alone() -> None:
    csr, y = unsorted_with_duplicates(), Y.copy()
    before = csr.copy()
    for array in (csr.data, csr.indices, csr.indptr, y):
        array.flags.writeable = False
    quick().fit(csr, y, sample_weight=np.ones(N))
    np.testing.assert_array_equal(csr.indices, before.indices)


CORNERS = {
    "one row": (2, X[:1], Y[:1]),
    "one row, one feature": (2, X[:1, :1], Y[:1]),
    "column of zeros": (2, X * [1.0, 0.0, 1.0], Y),
    "nothing but zeros": (2, np.zeros_like(X), Y),
    "rank 0": (0, X, Y),
    "rank 0, one feature": (0, X[:, :1], Y),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.endswith("one feature")) for name in CORNERS]
)
def test_corners(name: str) -> None:
    rank, own_X, own_y = CORNERS[name]
    mean, sd = quick(rank=rank).fit(own_X, own_y).predict(own_X, return_std=True)
    assert np.all(np.isfinite(mean))
    assert np.all(sd > 0)
    spread = max(np.std(own_y), 1.0)
    assert np.all(np.abs(mean - np.mean(own_y)) < 10 * spread)


def test_columns_far_from_one_are_pointed_out_and_still_fitted() -> None:
    """In the ten thousands the factors of two columns cannot be told apart in float32."""
    big = 1e4 * (1.0 + 0.01 * np.random.default_rng(0).normal(size=(N, 2)))
    with pytest.warns(UserWarning, match=r"2 column\(s\) of X hold large numbers, 'x\d' the largest"):
        mean = quick().fit(big, Y).predict(big)
    assert np.all(np.abs(mean - Y.mean()) < 10 * np.std(Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        quick().fit(X, Y)


@pytest.mark.parametrize("constant", [0.0, -3.0, 1e6, 1e-30])
def test_constant_y(constant: float) -> None:
    mean, sd = quick().fit(X, np.full(N, constant)).predict(X, return_std=True)
    assert np.all(np.abs(mean - constant) < sd)
    assert np.all(sd < 1.0)


def test_large_offset_of_y_keeps_its_digits(reference: FMRegressor) -> None:
    """Exact powers of two: the centred response is the same, and so is the chain."""
    offset = 2.0**22
    y = np.round(Y * 16) / 16
    near, far = (quick().fit(X, y + c).predict(X) - c for c in (0.0, offset))
    np.testing.assert_allclose(far, near, rtol=0, atol=64 * np.finfo(np.float32).eps * np.abs(y).max())


@pytest.mark.usefixtures("no_sampling")
def test_integer_columns_of_a_frame_are_ids() -> None:
    users, items = FRAME["user"].nunique(), FRAME["item"].nunique()
    assert len(quick().fit(FRAME, STARS).model_.groups) == users + items
    assert len(quick(numeric=["item"]).fit(FRAME, STARS).model_.groups) == users + 1


def test_numbered_columns_count_as_unnamed() -> None:
    frame = FRAME.set_axis([0, 1], axis=1)
    model = quick().fit(frame, STARS)
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(model.predict(frame), quick().fit(FRAME, STARS).predict(FRAME))


def test_names_are_forgotten_at_the_next_fit() -> None:
    model = quick().fit(FRAME, STARS)
    assert model.feature_names_in_.tolist() == ["user", "item"]
    assert model.n_features_in_ == 2
    model.fit(X, Y)
    assert not hasattr(model, "feature_names_in_")
    model.fit(FRAME, STARS).fit([Block.create("X", X)], Y)
    assert not hasattr(model, "feature_names_in_")


# ---------------------------------------------------------------------------------------- properties

DTYPES = [np.float64, np.float32, np.int64, np.int8, np.uint16, np.bool_]
FORMATS = [np.asarray, sparse.csr_array, sparse.csc_array, sparse.coo_matrix]


@given(
    n=st.integers(1, 70),
    p=st.sampled_from([1, 4]),
    rank=st.sampled_from([0, 3]),
    dtype=st.sampled_from(DTYPES),
    make=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30)
def test_any_shape_and_type_is_taken(n: int, p: int, rank: int, dtype: type, make: Any, seed: int) -> None:
    """Everything around the engine, with an engine that compiles nothing; predictions by the plain formula."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, 3, (n, p)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.ENGINES, "gibbs", random_engine)
        model = FMRegressor(rank=rank, num_samples=8).fit(make(own), rng.normal(size=n))
    eta, size = naive_eta(sites(model), own.astype(float))
    tolerance = (p + rank + 4) * np.finfo(np.float32).eps * size
    np.testing.assert_allclose(model.expected_draws(make(own)), eta, rtol=0, atol=tolerance)
    np.testing.assert_allclose(model.predict(make(own)), eta.mean((0, 1)), rtol=0, atol=tolerance)


def naive_eta(draws: dict[str, np.ndarray], X: np.ndarray) -> tuple[np.ndarray, float]:
    """eta by Rendle's equation 1, pair by pair; and the size of what a fast sum adds up, for its rounding errors."""
    w0, w = draws["w0"], draws["w"]
    v = draws.get("v", np.zeros((*w.shape, 0)))
    eta = np.empty((*w0.shape, len(X)))
    size = 0.0
    for c, d, n in np.ndindex(eta.shape):
        x, xv = X[n], X[n][:, None] * v[c, d]
        pairs = sum(xv[i] @ xv[j] for i in range(len(x)) for j in range(i))
        eta[c, d, n] = w0[c, d] + w[c, d] @ x + pairs
        size = max(size, abs(w0[c, d]) + np.abs(w[c, d]) @ x + float(np.sum(np.abs(xv).sum(axis=0) ** 2)))
    return eta, size


@given(st.integers(0, MAX_SEED))
def test_every_integer_is_a_seed_of_its_own(seed: int) -> None:
    key = jax.random.key_data(seed_key(seed))
    assert np.array_equal(key, jax.random.key_data(jax.random.key(seed)))
    assert np.array_equal(key, jax.random.key_data(seed_key(np.uint64(seed))))
    assert not np.array_equal(key, jax.random.key_data(seed_key((seed + 1) % (MAX_SEED + 1))))


def test_generators_move_on() -> None:
    for make in (np.random.RandomState, np.random.default_rng):
        one, two = make(3), make(3)
        first, second = (jax.random.key_data(seed_key(one)) for _ in range(2))
        assert np.array_equal(first, jax.random.key_data(seed_key(two)))
        assert not np.array_equal(first, second)


def test_messages_name_the_engines() -> None:
    with pytest.raises(ValueError, match=re.escape("'gibbs'")):
        FMRegressor(**{**QUICK, "inference": "magic"}).fit(X, Y)
