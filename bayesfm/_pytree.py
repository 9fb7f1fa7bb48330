"""Frozen dataclasses that are also JAX pytrees, so that their numbers can change without recompiling."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

__all__ = ["pytree"]


def pytree[T: type](*, static: tuple[str, ...] = ()) -> Any:
    """Register a dataclass as a pytree; fields named in ``static`` are part of its structure.

    Unlike ``jax.tree_util.register_dataclass`` the class is rebuilt without running ``__post_init__``: numbers are
    checked once, when the user gives them, and may be tracers later.
    """

    def register(cls: T) -> T:
        names = [f.name for f in dataclasses.fields(cls) if f.name not in static]

        def flatten_with_keys(obj: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
            children = [(jax.tree_util.GetAttrKey(n), getattr(obj, n)) for n in names]
            return children, tuple(getattr(obj, n) for n in static)

        def unflatten(aux: tuple[Any, ...], children: Any) -> Any:
            obj: Any = object.__new__(cls)
            for name, value in (*zip(static, aux, strict=True), *zip(names, children, strict=True)):
                object.__setattr__(obj, name, value)
            return obj

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
        return cls

    return register
