"""Several bugs planted in one program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bayesfm.inference.conjugate.state import ModelState
from bayesfm.inference.gibbs import sweep as sweep_module

type Overrides = dict[str, Any]
"""What ``joint.p_values`` is given in place of the problem's own."""
type Choice = Callable[[Any, Any], Any]
"""The first if the bug is planted, else the second."""


class Together:
    """Bugs that one program has all of: a number that it is given says which is planted, 0 that none is.

    Compiling a sweep takes longer than running it. A bug takes what it changes, this object and a choice.
    While the sweep is traced, ``key`` and ``state`` are what it was called with, and ``first`` is empty at its start.
    """

    def __init__(self, *bugs: Callable[[pytest.MonkeyPatch, Together, Choice], None]) -> None:
        self.bugs = bugs

    def plant(self, patch: pytest.MonkeyPatch, number: int) -> Overrides:
        """Change the code for all of them; one of them counts."""
        for own, bug in enumerate(self.bugs, 1):
            bug(patch, self, partial(self._either, own))
        return {"transition": self.transition, "planted": (number,)}

    def _either(self, own: int, wrong: Any, right: Any) -> Any:
        return jax.tree.map(partial(jnp.where, self.number == own), wrong, right)

    def transition(self, key: jax.Array, state: ModelState, *args: Any) -> ModelState:
        """The sweep."""
        *args, self.number = args
        self.key, self.state, self.first = key, state, {}
        return sweep_module.sweep(key, state, *args)
