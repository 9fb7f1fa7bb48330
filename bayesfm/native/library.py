"""The shared library: found, loaded, its functions handed to JAX, and called."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

__all__ = ["ISAS", "SUMS", "available", "call", "check_pointers", "isa", "load"]

ISAS = ("baseline", "avx2", "avx512")
_SUFFIXES = (".so", ".dylib", ".dll")
_SUFFIX = {"float32": "f32", "float64": "f64", "uint32": "u32"}
_KEYS = ("bits", "keys")
_DRAWS = ("gamma_sums", "gammas", "normals", "polya_gammas", "truncated_normals")
SUMS = ("counts", "ordinal", "student_t")
_FUNCTIONS = (
    "beliefs",
    "columns",
    "eliminate",
    "information",
    "moments",
    "move",
    "rotation",
    "rows",
    "scatter",
    "shrinkage",
    "spreads",
    "substitute",
    "summaries",
    "table",
    "variances",
)


@cache
def load() -> ctypes.CDLL | None:
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
    names += [f"bayesfm_{single}_f32" for single in (*_DRAWS, *SUMS)]
    for name in (*names, *(f"bayesfm_{function}_u32" for function in _KEYS)):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


def available() -> bool:
    """Whether the compiled kernels are there."""
    return load() is not None


def isa() -> str | None:
    """Instruction set in force, chosen when the library is loaded; None without the library."""
    library = load()
    return None if library is None else ISAS[library.bayesfm_isa()]


def check_pointers(ptr: Int[Array, " _"]) -> None:
    """Raise where there is not even an end."""
    if ptr.shape[-1] < 1:
        raise ValueError("ptr must hold where things start and where the last one ends, got an empty array")


def call(function: str, dtype: Any, shapes: Any) -> Callable[..., Any]:
    """The kernel of this name for numbers of this type, with results of these shapes."""
    if not available():
        raise RuntimeError("bayesfm was built without its compiled kernels")
    suffix = _SUFFIX.get(str(np.dtype(dtype)))
    if suffix is None:
        raise TypeError(f"the compiled kernels compute in float32 or float64, got {np.dtype(dtype)}")
    return jax.ffi.ffi_call(f"bayesfm_{function}_{suffix}", shapes, vmap_method="expand_dims")
