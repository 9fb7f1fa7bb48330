"""What the chain runner asks of an engine's kernel."""

from __future__ import annotations

from typing import Any, Protocol

from jaxtyping import Array, Key

__all__ = ["Kernel", "State"]

type State = Any
"""A pytree of arrays."""


class Kernel(Protocol):
    """One transition of a Markov chain, as a pytree: its data are leaves, so that nothing is baked into the program."""

    def init(self, key: Key[Array, ""]) -> State:
        """Start of one chain."""
        ...

    def sweep(self, key: Key[Array, ""], state: State) -> State:
        """One transition."""
        ...

    def report(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        """Sites and statistics to be stored for a draw."""
        ...

    def moments(self, key: Key[Array, ""], state: State) -> dict[str, tuple[Array, Array]]:
        """Per stream: E[y | state] and var[y | state] at its rows; the key is for what the state does not hold."""
        ...
