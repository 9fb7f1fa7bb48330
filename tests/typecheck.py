"""The annotations of arrays (dtype, shape, and one size per dimension name) checked at run time.

``BAYESFM_TYPECHECK=1`` hands :func:`arrays` to jaxtyping's import hook, which applies it to every function of
bayesfm. Three things are left out, each for a reason:

- arguments are judged when the call has returned: a function that refuses them with its own error is right;
- constructors: JAX rebuilds a dataclass with batched leaves and with placeholders;
- annotations without arrays, which are mypy's, and arrays inside lists and mappings, where beartype looks at
  one item only.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray


def arrays[F: Callable[..., Any]](function: F) -> F:
    """Check the annotated arrays of one of the two stand-ins that jaxtyping makes of a function.

    The stand-in that is called first has all parameters and returns ``Any``; the one called afterwards
    returns what the function returned.
    """
    hints = dict(function.__annotations__)
    if function.__name__ == "__init__" or hints.get("return") is Any:
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _names_arrays(hint)}
    return beartype(function)


def _names_arrays(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    if get_origin(hint) in (Union, types.UnionType) or (
        get_origin(hint) is tuple and ... not in get_args(hint)
    ):
        return any(map(_names_arrays, get_args(hint))) and not any(map(_is_container, get_args(hint)))
    return False


def _is_container(hint: object) -> bool:
    return get_origin(hint) not in (None, Union, types.UnionType) and not _names_arrays(hint)
