"""Compiled kernels for the CPU, reached through ``jax.ffi``.

They do what the XLA code of ``inference/gibbs`` does, which stays the reference and the way on other devices. The
library is built with the package where there is a C++ compiler; without it everything runs on XLA.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

__all__ = [
    "ISAS",
    "as_table",
    "available",
    "isa",
    "lanes",
    "linear_predictor",
    "move_residual",
    "row_information",
    "update_field",
]

ISAS = ("baseline", "avx2", "avx512")
_SUFFIX = {"float32": "f32", "float64": "f64"}
_FUNCTIONS = tuple(f"bayesfm_{name}" for name in ("field", "information", "move", "rows", "table"))


@cache
def _library() -> ctypes.CDLL | None:
    """The shared library with its functions registered, or None where the package was built without it."""
    named = os.environ.get("BAYESFM_KERNELS")  # another build: see `make sanitize`
    found = [Path(named)] if named else sorted(Path(__file__).parent.glob("libbayesfm_kernels.*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    for name in (f"{function}_{suffix}" for function in _FUNCTIONS for suffix in _SUFFIX.values()):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


def available() -> bool:
    """Whether the compiled kernels are there."""
    return _library() is not None


def isa() -> str | None:
    """Instruction set in force, chosen when the library is loaded; None without the library."""
    library = _library()
    return None if library is None else ISAS[library.bayesfm_isa()]


def lanes(dtype: np.dtype | type) -> int:
    """Numbers per 64 bytes, the unit in which rows of tables are padded."""
    return 64 // np.dtype(dtype).itemsize


def as_table(s: Float[Array, "D m"]) -> Float[Array, "m stride"]:
    """Rows ``(s[:, j], 0, ...)`` of 64-byte multiples, which the kernels gather."""
    return jnp.pad(s.T, ((0, 0), (0, -s.shape[0] % lanes(s.dtype))))


def update_field(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    precision: Float[Array, "D m"],
    mean: Float[Array, "D m"],
    noise: Float[Array, "D m"],
    theta: Float[Array, "D m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> tuple[Float[Array, "D m"], Float[Array, " n_pad"]]:
    """Draw all features of a one-hot field and move the residual; see ``src/field.cc``.

    Feature j owns the data rows ``row[ptr[j]:ptr[j + 1]]``; ``tables`` and ``codes`` lead from there to the factors of
    the other units (:func:`as_table`), below a first row of ones in the first table, of zeros in the others.
    """
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), jax.ShapeDtypeStruct(r.shape, r.dtype))
    call = _call("bayesfm_field", theta.dtype, shapes, input_output_aliases={7: 0, 3: 1})
    new, moved = call(ptr, row, omega, r, precision, mean, noise, theta, *_alternating(tables, codes))
    return new, moved


def row_information(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    D: int,
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, "m q"]:
    """For every row of a relation block: sum of omega h h' over its data rows (triangle by rows), then of omega r h.

    Arguments as in :func:`update_field`.
    """
    shape = jax.ShapeDtypeStruct((ptr.shape[0] - 1, D * (D + 3) // 2), r.dtype)
    call = _call("bayesfm_information", r.dtype, shape)
    return call(ptr, row, omega, r, *_alternating(tables, codes))


def update_table(
    ptr: Int[Array, " _"],
    row: Int[Array, " z"],
    value: Float[Array, " z"],
    information: Float[Array, "m q"],
    Q: Float[Array, "B m"],
    precision: Float[Array, "D p"],
    mean: Float[Array, "D p"],
    noise: Float[Array, "D p"],
    theta: Float[Array, "D p"],
) -> tuple[Float[Array, "D p"], Float[Array, "D m"]]:
    """Draw the features of a relation block in turn; return them and the movement of the rows' summaries (E, Q).

    Feature j has the entries ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``; ``information`` is that of
    :func:`row_information`, ``Q`` that of the block's own rows. See ``src/table.cc``.
    """
    moved = jax.ShapeDtypeStruct((theta.shape[0], information.shape[0]), theta.dtype)
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), moved)
    call = _call("bayesfm_table", theta.dtype, shapes, input_output_aliases={8: 0})
    new, change = call(ptr, row, value, information, Q, precision, mean, noise, theta)
    return new, change


def move_residual(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    r: Float[Array, " n_pad"],
    moved: Float[Array, "D m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, " n_pad"]:
    """r - <h, moved> for the data rows of every block row. Arguments as in :func:`update_field`."""
    call = _call("bayesfm_move", r.dtype, jax.ShapeDtypeStruct(r.shape, r.dtype), input_output_aliases={2: 0})
    return call(ptr, row, r, moved, *_alternating(tables, codes))


def linear_predictor(
    w0: Float[Array, ""], tables: list[Float[Array, "_ stride"]], codes: list[Int[Array, " n"]]
) -> Float[Array, " n"]:
    """Eta of every row from the summaries (E, Q) of its units; see ``src/rows.cc``.

    ``tables`` hold the summaries (:func:`as_table`), ``codes`` lead there from every data row.
    """
    shape = jax.ShapeDtypeStruct(codes[0].shape, w0.dtype)
    return _call("bayesfm_rows", w0.dtype, shape)(w0, *_alternating(tables, codes))


def _alternating(tables: list[Array], codes: list[Array]) -> list[Array]:
    return [x for pair in zip(tables, codes, strict=True) for x in pair]


def _call(function: str, dtype: np.dtype, shapes: Any, **options: Any) -> Callable[..., Any]:
    if not available():
        raise RuntimeError("bayesfm was built without its compiled kernels")
    return jax.ffi.ffi_call(f"{function}_{_SUFFIX[str(dtype)]}", shapes, vmap_method="sequential", **options)
