from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from bayesfm.design import check_colouring, colour_columns
from bayesfm.design import colouring as module
from tests.design.strategies import coo_arrays


def naive_runs(X: np.ndarray) -> list[int]:
    """Cut neighbouring columns into runs that share no row, one column at a time."""
    colours, taken = [], np.zeros(len(X), bool)
    run = 0
    for j in range(X.shape[1]):
        rows = X[:, j] != 0
        if (rows & taken).any():
            run, taken = run + 1, np.zeros(len(X), bool)
        taken |= rows
        colours.append(run if rows.any() else 0)
    return colours


def naive_greedy(X: np.ndarray) -> list[int]:
    """Largest column first, smallest free colour, by comparing all pairs of columns."""
    p = X.shape[1]
    counts = (X != 0).sum(axis=0)
    colours = [-1] * p
    for j in sorted(range(p), key=lambda j: (-counts[j], j)):
        neighbours = [i for i in range(p) if ((X[:, j] != 0) & (X[:, i] != 0)).any()]
        colours[j] = min(set(range(p)) - {colours[i] for i in neighbours if i != j})
    return colours


def naive(X: np.ndarray) -> list[int]:
    runs = naive_runs(X[:, (X != 0).any(axis=0)])
    if runs and max(runs) + 1 == (X != 0).sum(axis=1).max():
        return naive_runs_with_empty_columns(X, runs)
    return naive_greedy(X)


def naive_runs_with_empty_columns(X: np.ndarray, runs: list[int]) -> list[int]:
    left = iter(runs)
    return [next(left) if column.any() else 0 for column in X.T]


def random_csr(seed: int, n: int, p: int, density: float) -> sparse.csr_array:
    return sparse.random_array((n, p), density=density, format="csr", rng=seed)


@given(coo_arrays())
def test_equals_the_naive_colouring(X: sparse.coo_array) -> None:
    colours = colour_columns(X.tocsr())
    assert colours.dtype == np.int32
    assert colours.tolist() == naive(X.toarray())
    check_colouring(X.tocsr(), colours)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30), st.sampled_from([0.1, 0.3, 0.6]))
def test_equals_the_naive_colouring_of_larger_matrices(seed: int, n: int, p: int, density: float) -> None:
    X = random_csr(seed, n, p, density)
    expected = naive(X.toarray())
    assert colour_columns(X).tolist() == expected
    assert colour_columns(X.tocsc()).tolist() == expected


@pytest.mark.parametrize("words", [1, 2])
def test_more_colours_than_fit_into_one_window(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WORDS", words)
    X = random_csr(5, 20, 400, 0.4)
    colours = colour_columns(X)
    assert colours.max() > 64 * 2
    assert colours.tolist() == naive(X.toarray())


def test_every_bit_of_a_word_is_a_colour() -> None:
    X = np.ones((2, 130))
    X[0, ::7] = 0  # no runs: columns differ in size
    colours = colour_columns(sparse.csr_array(X))
    assert sorted(colours) == list(range(130))


def test_one_colour_per_one_hot_field_side_by_side() -> None:
    rng = np.random.default_rng(0)
    n, sizes = 500, [40, 7, 120]
    fields = [
        sparse.csr_array((np.ones(n), rng.integers(0, m, n), np.arange(n + 1)), shape=(n, m)) for m in sizes
    ]
    X = sparse.csr_array(sparse.hstack(fields, format="csr"))
    used = np.diff(X.tocsc().indptr) > 0
    expected = np.where(used, np.repeat([0, 1, 2], sizes), 0)
    assert naive_greedy(X.toarray()) != expected.tolist()  # greedy alone needs more
    np.testing.assert_array_equal(colour_columns(X), expected)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array])
def test_zeros_and_duplicates_that_are_stored(kind: type) -> None:
    data, inner = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 1, 2, 2])
    starts = np.array([0, 4]) if kind is sparse.csr_array else np.array([0, 1, 2, 4])
    X = kind((data.copy(), inner if kind is sparse.csr_array else np.zeros(4, int), starts), shape=(1, 3))
    assert colour_columns(X).tolist() == [0, 0, 1]
    check_colouring(X, np.array([0, 0, 1]))
    np.testing.assert_array_equal(X.data, data)
    assert X.nnz == 4


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (2, 4)])
def test_matrices_without_entries(shape: tuple[int, int]) -> None:
    assert colour_columns(sparse.csr_array(shape)).tolist() == [0] * shape[1]


def test_one_dense_column_and_one_dense_row() -> None:
    assert colour_columns(sparse.csr_array(np.ones((50, 1)))).tolist() == [0]
    assert sorted(colour_columns(sparse.csr_array(np.ones((1, 50))))) == list(range(50))


def test_deterministic() -> None:
    X = random_csr(1, 60, 80, 0.1)
    np.testing.assert_array_equal(colour_columns(X), colour_columns(X.copy()))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_check_colouring_is_the_naive_check(seed: int, num_colours: int) -> None:
    X = random_csr(seed, 4, 5, 0.3)
    colours = np.random.default_rng(seed).integers(0, num_colours, 5)
    pattern = X.toarray() != 0
    clash = any(
        colours[i] == colours[j] and (pattern[:, i] & pattern[:, j]).any() for i in range(5) for j in range(i)
    )
    if clash:
        with pytest.raises(ValueError, match=r"columns \d and \d both have colour \d and share row \d"):
            check_colouring(X, colours)
    else:
        check_colouring(X, colours)


def test_check_colouring_names_the_clash() -> None:
    X = sparse.csr_array([[1, 0, 0], [0, 1, 1]])
    with pytest.raises(ValueError, match="columns 1 and 2 both have colour 4 and share row 1"):
        check_colouring(X, np.array([4, 4, 4]))
    with pytest.raises(ValueError, match=r"shape \(3,\), one per column, got \(2,\)"):
        check_colouring(X, np.array([0, 1]))
