"""What users hand to an estimator, checked: X, y, weights, seeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, time, timedelta
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from bayesfm._checks import check_count
from bayesfm.design import Design
from bayesfm.design.encoding import kind_of

__all__ = [
    "Rows",
    "Seed",
    "check_X",
    "check_bool",
    "check_keep",
    "check_row_data_lengths",
    "check_rows",
    "encode_labels",
    "plain_classes",
    "seed_key",
    "seen_rows",
    "split_rows",
    "warn_if_unscaled",
]


class Rows(NamedTuple):
    """Rows as engines take them."""

    design: Design
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"] | None
    row_data: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> Rows:
        """Some of them."""
        weight = None if self.weight is None else self.weight[rows]
        row_data = {name: x[rows] for name, x in self.row_data.items()}
        return Rows(self.design.take(rows), self.y[rows], weight, row_data)


type Seed = int | np.random.RandomState | np.random.Generator | None

MAX_SEED = 2**32 - 1
LARGE, SMALL = 100.0, 1e-3
"""Root mean square of a column's non-zeros above and below which it is pointed out."""


def check_X(estimator: BaseEstimator, X: Any, reset: bool) -> Any:
    """X as a ``DesignEncoder`` takes it; names and number of its columns checked as scikit-learn wants it."""
    _refuse_mask("X", X)
    encodable = _with_string_names(X)
    kind = kind_of(encodable)
    if kind == "matrix":
        return validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype="numeric")
    if kind == "table" or reset:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    return encodable


def _with_string_names(X: Any) -> Any:
    """For scikit-learn the columns of a pandas DataFrame with numbers for names have none; here the numbers do."""
    columns = list(getattr(X, "columns", ()))
    if columns and hasattr(X, "set_axis") and all(isinstance(c, Integral) for c in columns):
        return X.set_axis([str(c) for c in columns], axis=1)
    return X


def check_rows(
    estimator: BaseEstimator, design: Design, y: Any, sample_weight: Any
) -> tuple[Design, Float[np.ndarray, " n"], Float[np.ndarray, " n"] | None]:
    """Response and weights as float64, one per row of the design; rows of weight zero are left out of all three."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    _refuse_mask("y", y)
    y = column_or_1d(y, warn=True)
    _refuse_other_than_numbers("y", y)
    y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=estimator)
    if len(y) != design.num_rows:
        raise ValueError(
            f"y must have one value per row of X: X has {design.num_rows} rows, y {len(y)} values"
        )
    if sample_weight is None:
        return design, y, None
    _refuse_mask("sample_weight", sample_weight)
    _refuse_other_than_numbers("sample_weight", np.asarray(sample_weight))
    weight = _check_sample_weight(sample_weight, y, dtype=np.float64, ensure_non_negative=True)
    rows = np.flatnonzero(weight)
    if not len(rows):
        raise ValueError("sample_weight must have an entry above zero, got zeros only")
    if len(rows) < len(y):
        design, y, weight = design.take(rows), y[rows], weight[rows]
    return design, y, weight


def check_row_data_lengths(row_data: Mapping[str, Any] | None, num_rows: int) -> dict[str, np.ndarray]:
    """Row data as float64, one value per row; what was not given is left out."""
    out = {}
    for name, values in (row_data or {}).items():
        if values is None:
            continue
        _refuse_mask(name, values)
        values = column_or_1d(values)
        _refuse_other_than_numbers(name, values)
        if len(values) != num_rows:
            raise ValueError(
                f"{name} must have one value per row of X: X has {num_rows} rows, {name} {len(values)} values"
            )
        out[name] = np.asarray(values, np.float64)
    return out


def row_labels(X: Any, y: Any, sample_weight: Any) -> np.ndarray:
    """Labels of the rows that :func:`check_rows` keeps: the index of X, or of y, if it is pandas', else numbers."""
    num_rows = X.shape[0] if hasattr(X, "shape") else len(y)
    labels = np.arange(num_rows)
    for given in (y, X):
        index: Any = getattr(given, "index", None)
        if hasattr(index, "to_numpy") and len(index) == num_rows and getattr(index, "nlevels", 1) == 1:
            labels = index.to_numpy()
    return labels if sample_weight is None else labels[np.broadcast_to(sample_weight, (num_rows,)) > 0]


def seen_rows(row_data: dict[str, np.ndarray], sample_weight: Any) -> dict[str, np.ndarray]:
    """Row data of the rows that :func:`check_rows` keeps."""
    if sample_weight is None or not row_data:
        return row_data
    seen = np.broadcast_to(np.asarray(sample_weight, np.float64), next(iter(row_data.values())).shape) != 0
    return {name: x[seen] for name, x in row_data.items()}


def plain_classes(classes: np.ndarray) -> dict[str, Any]:
    """Labels as JSON takes them, with their type."""
    plain = classes.dtype.kind in "biufUO" and all(isinstance(x, str | int | float) for x in classes.tolist())
    if not plain:
        raise TypeError(f"classes of type {classes.dtype} cannot be saved: use numbers, booleans or strings")
    return {"values": classes.tolist(), "dtype": "O" if classes.dtype.kind == "O" else classes.dtype.str}


def encode_labels(
    estimator: Any, y: Any, reset: bool, *, fractions: Callable[[np.ndarray], bool] = lambda y: False
) -> Float[np.ndarray, " n"]:
    """Codes 0, 1, ... of labels of any type; ``reset`` learns ``classes_``, else labels have to be among them.

    ``fractions`` says of floats whether they are labels also where they are not whole.
    """
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    _refuse_mask("y", y)
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f":
        check_array(y, ensure_2d=False, dtype=None, input_name="y", estimator=estimator)
    if reset:
        if not (y.dtype.kind == "f" and fractions(y)):
            check_classification_targets(y)
        estimator.classes_ = np.unique(y)
    codes = np.searchsorted(estimator.classes_, y).clip(0, len(estimator.classes_) - 1)
    wrong = estimator.classes_[codes] != y
    if np.any(wrong):
        label, known = y[wrong].tolist()[0], estimator.classes_.tolist()
        raise ValueError(f"y has the label {label!r}, which fit did not see; known are {known}")
    return codes.astype(np.float64)


def _refuse_mask(argument: str, values: Any) -> None:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{argument} is a masked array, whose mask would be lost: drop the rows with masked entries, or fill them "
            "with values (.filled(...))"
        )


def _refuse_other_than_numbers(argument: str, values: np.ndarray) -> None:
    """Dates, durations and strings, which NumPy would turn into floats without a word."""
    texts, times = (str, bytes), (date, time, timedelta, np.datetime64, np.timedelta64)
    looked_at = values.ravel() if values.dtype.kind == "O" else values.ravel()[:1]
    for x in looked_at:
        if isinstance(x, texts + times):
            fix = "to float, .astype(float)"
            if isinstance(x, times):
                fix = "to a float number of days, for instance, (t - t.min()) / np.timedelta64(1, 'D')"
            raise TypeError(f"{argument} must hold numbers, got {x!r}: convert it {fix}")


def check_bool(name: str, value: object) -> None:
    """True or False, and nothing that merely counts as either."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_keep(keep: Any) -> None:
    """Sites to keep, one of them at least a parameter; the engine knows their names."""
    if not isinstance(keep, str | Sequence | Set | np.ndarray) or not all(isinstance(x, str) for x in keep):
        raise TypeError(f"keep must be 'all', 'hyper' or a sequence of names of sites, got {keep!r}")
    if not set([keep] if isinstance(keep, str) else keep) - {"eta"}:
        raise ValueError(
            f"keep must name at least one site other than 'eta', for instance 'hyper'; got {keep!r}"
        )


def warn_if_unscaled(design: Design) -> None:
    """Point out columns of numbers far from 1.

    With values of a thousand the products of two columns reach a million, and beside their squares in the normal
    equations the prior's precision is below the rounding of float32. With values of a thousandth the weight would have
    to be a thousand times that of other columns, which the prior that they share does not believe.
    """
    large: dict[str, float] = {}
    small: dict[str, float] = {}
    for block in design.blocks:
        if block.X is not None and block.X.nnz:
            columns = block.X.indices
            count = np.bincount(columns, minlength=block.num_features)
            squares = np.bincount(columns, block.X.data.astype(np.float64) ** 2, block.num_features)
            size = np.sqrt(squares / np.maximum(count, 1))
            for found, where in ((large, size > LARGE), (small, (size < SMALL) & (count > 0))):
                found |= {str(block.feature_names[j]): float(size[j]) for j in np.flatnonzero(where)}
    if large:
        worst = max(large, key=large.__getitem__)
        _warn(
            f"{len(large)} column(s) of X hold large numbers, {worst!r} the largest (root mean square "
            f"{large[worst]:.3g}). Chains mix slowly then and float32 loses digits: standardise such columns "
            "(sklearn.preprocessing.StandardScaler), or pass ids as categories."
        )
    if small:
        worst = min(small, key=small.__getitem__)
        _warn(
            f"{len(small)} column(s) of X hold small numbers, {worst!r} the smallest (root mean square "
            f"{small[worst]:.3g}). The prior of the weights shrinks the effect of such columns away: standardise them "
            "(sklearn.preprocessing.StandardScaler)."
        )


def _warn(message: str) -> None:
    """A warning that points at the first line outside this package."""
    warnings.warn(message, UserWarning, skip_file_prefixes=(str(Path(__file__).parents[1]),))


def seed_key(random_state: Seed) -> Key[Array, ""]:
    """A JAX key from what scikit-learn calls a random state; None is NumPy's global generator."""
    if isinstance(random_state, np.random.Generator):
        return jax.random.key(int(random_state.integers(MAX_SEED, endpoint=True)))
    if random_state is None or isinstance(random_state, np.random.RandomState):
        generator = check_random_state(random_state)
        return jax.random.key(int(generator.randint(MAX_SEED, dtype=np.uint32)))
    seed = check_count("random_state", random_state)
    if seed > MAX_SEED:
        raise ValueError(f"random_state must be <= {MAX_SEED}, got {seed}")
    return jax.random.key(seed)


def split_rows(key: Key[Array, ""], share: float, data: Rows) -> tuple[Rows, Rows]:
    """Rows to learn from, and a random share of them held out."""
    n = data.design.num_rows
    count = round(share * n) if 0 < share < 1 else 0
    if not 0 < count < n:
        raise ValueError(
            f"engine_options['validation']={share!r} of {n} rows leaves none to validate or none to learn from: give "
            "a larger share, below one"
        )
    order = np.asarray(jax.random.permutation(key, n))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))
