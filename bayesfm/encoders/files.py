"""Fitted encoders in files, without pickle: NumPy's ``.npz``, with the parameters as JSON inside."""

from __future__ import annotations

import json
from dataclasses import asdict
from os import PathLike
from typing import Any, Self

import numpy as np

from bayesfm.encoders.inclusion import Admission, BloomInclusion, PoissonInclusion
from bayesfm.encoders.table import ColumnTable, TokenIndex

__all__ = ["Files"]

_FORMAT = 1
_INCLUSIONS = {kind.__name__: kind for kind in (PoissonInclusion, BloomInclusion)}
_DTYPES = {"float32": np.float32, "float64": np.float64}


class Files:
    """``save`` and ``load`` of an encoder."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write the encoder, options and all that it has met, to one file, without pickle.

        Parameters
        ----------
        path : path
            Written as it is; ``.npz`` is the usual ending.

        Raises
        ------
        TypeError
            For options that are functions (``tokenizer``): they would have to be pickled.
        """
        state: dict[str, Any] = {"format": _FORMAT, "class": type(self).__name__}
        state["params"] = {name: _plain(name, x) for name, x in self.get_params(deep=False).items()}  # type: ignore[attr-defined]
        arrays: dict[str, np.ndarray] = {}
        if hasattr(self, "table_"):
            table, index, admission = self.table_, self.index_, self.admission_  # type: ignore[attr-defined]
            state["num_rows"] = table.num_rows
            arrays = {"columns": table.columns, "row_counts": table.row_counts}
            arrays["tokens"] = _as_bytes(list(index.counts))
            arrays["counts"] = np.fromiter(index.counts.values(), np.int64, len(index.counts))
            for name, x in ({} if admission is None else admission.state()).items():
                if isinstance(x, np.ndarray):
                    arrays[f"admission_{name}"] = x
                else:
                    state[f"admission_{name}"] = x
        with open(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, state=_as_bytes(state), **arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """An encoder from what :meth:`save` wrote; it goes on where the saved one stood.

        Parameters
        ----------
        path : path
            As given to :meth:`save`.

        Returns
        -------
        object
            An encoder of this class.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file) if hasattr(file, "files") else {}
        if "state" not in arrays:
            raise ValueError(f"{path} holds no encoder: expected what {cls.__name__}.save wrote")
        state = _from_bytes(arrays.pop("state"))
        if (state["class"], state["format"]) != (cls.__name__, _FORMAT):
            raise ValueError(
                f"{path} holds a {state['class']} (format {state['format']}), not a {cls.__name__} (format {_FORMAT})"
            )
        encoder = cls(**{name: _restored(name, x) for name, x in state["params"].items()})
        if "num_rows" in state:
            _adopt(encoder, state, arrays)
        return encoder


def _adopt(encoder: Any, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """What the encoder had met."""
    table, index = ColumnTable(encoder.n_features), TokenIndex(encoder.n_features)
    table.num_rows, table.columns, table.row_counts = (
        state["num_rows"],
        arrays["columns"],
        arrays["row_counts"],
    )
    index.update(_from_bytes(arrays["tokens"]), arrays["counts"])
    admission: Admission | None = None
    if encoder.inclusion is not None:
        prefix = "admission_"
        remembered = {x.removeprefix(prefix): y for x, y in (state | arrays).items() if x.startswith(prefix)}
        admission = encoder.inclusion.start(remembered)
    encoder.table_, encoder.index_, encoder.admission_ = table, index, admission
    encoder.columns_ = table.columns[table.within(*encoder._cut_offs())]


def _as_bytes(state: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(state).encode("ascii"), np.uint8)


def _from_bytes(array: np.ndarray) -> Any:
    return json.loads(array.tobytes())


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, PoissonInclusion | BloomInclusion):
        return {"class": type(value).__name__, **asdict(value)}
    if name == "dtype":
        return np.dtype(value).name
    if callable(value):
        raise TypeError(f"{name} is a function, which cannot be saved without pickle: got {value!r}")
    if isinstance(value, np.generic):
        return value.item()
    return sorted(value) if isinstance(value, set | frozenset) else value


def _restored(name: str, value: Any) -> Any:
    if name == "inclusion" and value is not None:
        return _INCLUSIONS[value.pop("class")](**value)
    if name == "dtype":
        return _DTYPES[value]
    return tuple(value) if name == "ngram_range" else value
