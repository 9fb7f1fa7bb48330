"""Compiled kernels for the CPU, reached through ``jax.ffi``.

They do what the XLA code of ``inference/gibbs`` does, which stays the reference and the way on other devices. The
library is built with the package where there is a C++ compiler; without it everything runs on XLA.

Every kernel takes leading batch dimensions: under ``jax.vmap`` one call works off the whole batch.

Kernels check shapes, and trust indices: these live on the device, and are looked at once, on the host, by
``design.build_layout``. Pointers, rows, codes and groups that do not come from there can end the process, and so can
counts or classes that no likelihood has validated.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

__all__ = [
    "ISAS",
    "THREEFRY",
    "as_table",
    "available",
    "can_draw",
    "gamma",
    "gamma_sums",
    "group_moments",
    "group_scatter",
    "isa",
    "linear_predictor",
    "move_residual",
    "polya_gamma",
    "random_bits",
    "random_keys",
    "row_information",
    "row_sums",
    "standard_normal",
    "summarize",
    "table_stride",
    "truncated_normal",
    "turn_pairs",
    "update_columns",
    "update_field",
    "update_table",
]

THREEFRY = "bayesfm-threefry"
"""Name of the kind of keys whose numbers come from the kernels; see ``bayesfm/random/keys.py``."""

ISAS = ("baseline", "avx2", "avx512")
_SUFFIXES = (".so", ".dylib", ".dll")
_SUFFIX = {"float32": "f32", "float64": "f64", "uint32": "u32"}
_KEYS = ("bits", "keys")
_DRAWS = ("gamma_sums", "gammas", "normals", "polya_gammas", "truncated_normals")
_SUMS = ("counts", "ordinal", "student_t")
_FUNCTIONS = (
    "columns",
    "field",
    "information",
    "moments",
    "move",
    "rotation",
    "rows",
    "scatter",
    "summaries",
    "table",
)


@cache
def _library() -> ctypes.CDLL | None:
    """The shared library with its functions registered, or None where the package was built without it.

    The environment variable BAYESFM_KERNELS names another library to be loaded instead: see ``make sanitize``.
    """
    named = os.environ.get("BAYESFM_KERNELS")
    beside = (Path(__file__).parent / f"libbayesfm_kernels{suffix}" for suffix in _SUFFIXES)
    found = [Path(named)] if named else [path for path in beside if path.exists()]
    if not found:
        return None
    try:
        library = _loaded(found[0])
    except (OSError, AttributeError) as error:
        raise ImportError(
            f"the compiled kernels in {found[0]} cannot be loaded ({error}): install the package anew"
            + (", or unset BAYESFM_KERNELS" if named else "")
        ) from error
    return library


def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    names = [f"bayesfm_{function}_{suffix}" for function in _FUNCTIONS for suffix in ("f32", "f64")]
    names += [f"bayesfm_{single}_f32" for single in (*_DRAWS, *_SUMS)]
    for name in (*names, *(f"bayesfm_{function}_u32" for function in _KEYS)):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


def available() -> bool:
    """Whether the compiled kernels are there."""
    return _library() is not None


def isa() -> str | None:
    """Instruction set in force, chosen when the library is loaded; None without the library."""
    library = _library()
    return None if library is None else ISAS[library.bayesfm_isa()]


def table_stride(rank: int, dtype: np.dtype | type) -> int:
    """Numbers in a row of a table: 16, 32 or a multiple of 64 bytes, so that rows fill vectors or fit into one."""
    size = np.dtype(dtype).itemsize
    full = 64 // size
    if rank > full:
        return -(-rank // full) * full
    return max(16 // size, 1 << max(0, rank - 1).bit_length())


def as_table(Q: Float[Array, "k m"]) -> Float[Array, "m stride"]:
    """Factors in rows, padded with zeros to :func:`table_stride`: what the kernels gather."""
    k = Q.shape[0]
    return jnp.pad(Q.T, ((0, 0), (0, table_stride(k, Q.dtype) - k)))


def can_draw(key: Key[Array, ""], dtype: Any) -> bool:
    """Whether the kernels draw numbers of this type from this key: float32, and threefry as JAX makes it by default."""
    kind = str(jax.random.key_impl(key))
    ours = kind == THREEFRY or (kind == "threefry2x32" and jax.config.jax_threefry_partitionable)
    return dtype == jnp.float32 and ours


def random_bits(key: UInt32[Array, " 2"], size: int) -> UInt32[Array, " size"]:
    """``jax.random.bits`` of a threefry key, given as its two words."""
    return _call("bits", jnp.uint32, jax.ShapeDtypeStruct((size,), jnp.uint32))(key)


def random_keys(key: UInt32[Array, " 2"], first: UInt32[Array, ""], size: int) -> UInt32[Array, "size 2"]:
    """Keys from number ``first`` on of ``jax.random.split``, two words each; one alone is ``jax.random.fold_in``."""
    return _call("keys", jnp.uint32, jax.ShapeDtypeStruct((size, 2), jnp.uint32))(key, first)


def standard_normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: np.dtype) -> Float[Array, "..."]:
    """``jax.random.normal`` up to rounding: the same random bits, in float32 and for threefry keys by the kernel."""
    if not can_draw(key, dtype):
        return jax.random.normal(key, shape, dtype)
    out = jax.ShapeDtypeStruct((math.prod(shape),), jnp.float32)
    return _call("normals", jnp.float32, out)(jax.random.key_data(key)).reshape(shape)


def truncated_normal(
    key: Key[Array, ""],
    mean: Float[Array, "*shape"],
    lower: Float[Array, "*shape"],
    upper: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """N(mean, 1) in [lower, upper], where :func:`can_draw`; see ``bayesfm.random``, whose bits these are."""
    out = jax.ShapeDtypeStruct((mean.size,), jnp.float32)
    arguments = (x.ravel() for x in (mean, lower, upper))
    return _call("truncated_normals", jnp.float32, out)(jax.random.key_data(key), *arguments).reshape(
        mean.shape
    )


def gamma(key: Key[Array, ""], shape: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gamma(shape, rate 1), where :func:`can_draw`; see ``bayesfm.random``, whose bits these are."""
    out = jax.ShapeDtypeStruct((shape.size,), jnp.float32)
    return _call("gammas", jnp.float32, out)(jax.random.key_data(key), shape.ravel()).reshape(shape.shape)


def gamma_sums(
    key: Key[Array, ""], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """PG(b, c) for b >= 1, where :func:`can_draw`; see ``bayesfm/random/gamma_sums.py``."""
    out = jax.ShapeDtypeStruct((c.size,), jnp.float32)
    draws = _call("gamma_sums", jnp.float32, out)(jax.random.key_data(key), b.ravel(), c.ravel())
    return draws.reshape(c.shape)


def polya_gamma(key: Key[Array, ""], c: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """PG(1, c), where :func:`can_draw`; see ``bayesfm.random``."""
    out = jax.ShapeDtypeStruct((c.size,), jnp.float32)
    return _call("polya_gammas", jnp.float32, out)(jax.random.key_data(key), c.ravel()).reshape(c.shape)


def row_sums(
    terms: str,
    y: Float[Array, " n"],
    weight: Float[Array, " n"],
    eta: Float[Array, " n"],
    at: Float[Array, " d"],
) -> tuple[Float[Array, " 2"], Float[Array, " d"], Float[Array, "d d"]]:
    """Sum over rows of weight times ``terms`` ("ordinal", "student_t", "counts"), its gradient and Hessian by ``at``.

    In float32, added up in float64: the sum comes as two numbers, the second one what the first has rounded off. Rows
    of weight zero count for nothing. See ``src/row_sums.h``.
    """
    if terms not in _SUMS:
        raise ValueError(f"terms must be one of {', '.join(_SUMS)}, got {terms!r}")
    d = at.shape[0]
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2,), (d,), (d, d)))
    value, gradient, hessian = _call(terms, at.dtype, shapes)(y, weight, eta, at)
    return value, gradient, hessian


def update_field(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    group: Int[Array, " m"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    noise: Float[Array, "K m"],
    theta: Float[Array, "K m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"]]:
    """Draw all features of a one-hot field and move the residual; see ``src/field.cc``.

    Feature j owns the data rows ``row[ptr[j]:ptr[j + 1]]`` and has the prior of ``group[j]`` (never decreasing);
    ``tables`` and ``codes`` lead from there to the factors of the other units (:func:`as_table`).
    """
    _check_pointers(ptr)
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), jax.ShapeDtypeStruct(r.shape, r.dtype))
    call = _call("field", theta.dtype, shapes)
    new, moved = call(ptr, row, omega, r, group, precision, mean, noise, theta, *_alternating(tables, codes))
    return new, moved


def row_information(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    K: int,
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, "m q"]:
    """For every row of a relation block: sum of omega h h' over its data rows (triangle by rows), then of omega r h.

    Arguments as in :func:`update_field`; h = (1, q) has K entries.
    """
    _check_pointers(ptr)
    shape = jax.ShapeDtypeStruct((ptr.shape[0] - 1, K * (K + 3) // 2), r.dtype)
    return _call("information", r.dtype, shape)(ptr, row, omega, r, *_alternating(tables, codes))


def update_table(
    ptr: Int[Array, " _"],
    row: Int[Array, " z"],
    value: Float[Array, " z"],
    information: Float[Array, "m q"],
    Q: Float[Array, "B m"],
    group: Int[Array, " p"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    noise: Float[Array, "K p"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, "K p"], Float[Array, "K m"]]:
    """Draw the features of a relation block in turn; return them and the movement of the rows' summaries (E, Q).

    Feature j has the entries ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``; ``information`` is that of
    :func:`row_information`, ``Q`` that of the block's own rows. See ``src/table.cc``.
    """
    _check_pointers(ptr)
    moved = jax.ShapeDtypeStruct((theta.shape[0], information.shape[0]), theta.dtype)
    shapes = (jax.ShapeDtypeStruct(theta.shape, theta.dtype), moved)
    call = _call("table", theta.dtype, shapes)
    new, change = call(ptr, row, value, information, Q, group, precision, mean, noise, theta)
    return new, change


def move_residual(
    ptr: Int[Array, " _"],
    row: Int[Array, " rows"],
    r: Float[Array, " n_pad"],
    moved: Float[Array, "K m"],
    tables: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " rows"]],
) -> Float[Array, " n_pad"]:
    """r - <h, moved> for the data rows of every block row. Arguments as in :func:`update_field`."""
    _check_pointers(ptr)
    call = _call("move", r.dtype, jax.ShapeDtypeStruct(r.shape, r.dtype))
    return call(ptr, row, r, moved, *_alternating(tables, codes))


def update_columns(
    ptr: Int[Array, " _"],
    row: Int[Array, " z"],
    value: Float[Array, " z"],
    ends: Int[Array, " runs"],
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    Q: Float[Array, "n_pad stride"],
    group: Int[Array, " p"],
    precision: Float[Array, "K G"],
    mean: Float[Array, "K G"],
    noise: Float[Array, "K p"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"], Float[Array, "n_pad stride"]]:
    """Draw the columns of a general sparse matrix, run by run, with Q and r brought up to date; see ``src/columns.cc``.

    Column j has the entries ``ptr[j]:ptr[j + 1]`` of ``row`` and ``value``; columns of one run, which ends before
    column ``ends[i]``, share no row. ``Q`` holds the factors of everything in a row.
    """
    _check_pointers(ptr)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (theta, r, Q))
    call = _call("columns", theta.dtype, shapes)
    new, r, Q = call(ptr, row, value, ends, omega, r, Q, group, precision, mean, noise, theta)
    return new, r, Q


def summarize(
    ptr: Int[Array, " _"],
    feature: Int[Array, " z"],
    value: Float[Array, " z"],
    theta: Float[Array, "K p"],
) -> tuple[Float[Array, " m"], Float[Array, "m stride"]]:
    """Summaries (E, Q) of the rows of a sparse matrix, Q as a table; row n has the entries ``ptr[n]:ptr[n + 1]``."""
    _check_pointers(ptr)
    v, m = as_table(theta[1:]), ptr.shape[0] - 1
    shapes = (jax.ShapeDtypeStruct((m,), theta.dtype), jax.ShapeDtypeStruct((m, v.shape[1]), theta.dtype))
    E, Q = _call("summaries", theta.dtype, shapes)(ptr, feature, value, theta[0], v)
    return E, Q


def linear_predictor(
    w0: Float[Array, ""],
    E: list[Float[Array, " _"]],
    Q: list[Float[Array, "_ stride"]],
    codes: list[Int[Array, " n"]],
) -> Float[Array, " n"]:
    """Eta of every row from the summaries (E, Q) of its units, Q as tables; see ``src/rows.cc``.

    ``codes`` lead there from every data row.
    """
    shape = jax.ShapeDtypeStruct(codes[0].shape, w0.dtype)
    units = [x for unit in zip(E, Q, codes, strict=True) for x in unit]
    return _call("rows", w0.dtype, shape)(w0, *units)


def group_moments(
    theta: Float[Array, "K m"], group: Int[Array, " m"], num_groups: int
) -> tuple[Float[Array, "K G"], Float[Array, "K G"]]:
    """Mean of every group (sorted) and sum of squares around it; zeros for a group without features."""
    shape = jax.ShapeDtypeStruct((theta.shape[0], num_groups), theta.dtype)
    mean, scatter = _call("moments", theta.dtype, (shape, shape))(theta, group)
    return mean, scatter


def group_scatter(
    theta: Float[Array, "K m"], group: Int[Array, " m"], centre: Float[Array, "k G"]
) -> Float[Array, "G k k"]:
    """Sum of (v_j - centre)(v_j - centre)' over every group (sorted), v_j the factors in column j of theta."""
    k, num_groups = centre.shape
    return _call("scatter", theta.dtype, jax.ShapeDtypeStruct((num_groups, k, k), theta.dtype))(
        theta, group, centre
    )


def turn_pairs(
    R: Float[Array, "k k"],
    S: Float[Array, "G k k"],
    degrees: Float[Array, " G"],
    rate: Float[Array, ""],
    pairs: Int[Array, "rounds pairs 2"],
    u: Float[Array, "rounds pairs tries"],
) -> Float[Array, "k k"]:
    """R times the turns of all pairs; see ``bayesfm/priors/rotation.py``, whose ``turn_pairs`` it is."""
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (R, S))
    return _call("rotation", R.dtype, shapes)(R, S, degrees, rate, pairs, u)[0]


def _check_pointers(ptr: Int[Array, " _"]) -> None:
    if ptr.shape[-1] < 1:
        raise ValueError("ptr must hold where things start and where the last one ends, got an empty array")


def _alternating(tables: list[Array], codes: list[Array]) -> list[Array]:
    return [x for pair in zip(tables, codes, strict=True) for x in pair]


def _call(function: str, dtype: Any, shapes: Any) -> Callable[..., Any]:
    if not available():
        raise RuntimeError("bayesfm was built without its compiled kernels")
    suffix = _SUFFIX.get(str(np.dtype(dtype)))
    if suffix is None:
        raise TypeError(f"the compiled kernels compute in float32 or float64, got {np.dtype(dtype)}")
    return jax.ffi.ffi_call(f"bayesfm_{function}_{suffix}", shapes, vmap_method="expand_dims")
