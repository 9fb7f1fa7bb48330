"""The run-time check of array annotations sees what it should and keeps out of the way elsewhere."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped

from tests.typecheck import arrays

checked = jaxtyped(typechecker=arrays)


def test_wrong_result_is_found():
    @checked
    def row_sums(X: Float[Array, "n p"]) -> Float[Array, " n"]:
        return X.sum(axis=0)

    assert row_sums(jnp.ones((2, 2))).shape == (2,)
    with pytest.raises(TypeCheckError, match="row_sums"):
        row_sums(jnp.ones((2, 3)))


@pytest.mark.parametrize("index", [jnp.ones(2), jnp.ones((2, 1), int), 1])
def test_wrong_argument_that_is_accepted_is_found(index):
    @checked
    def ignore(index: Int[Array, " n"] | None) -> None: ...

    ignore(None)
    ignore(jnp.ones(2, int))
    with pytest.raises(TypeCheckError, match="ignore"):
        ignore(index)


def test_an_argument_that_the_function_refuses_is_its_own_affair():
    @checked
    def refuse(w: Float[Array, " p"]) -> Float[Array, " p"]:
        if w.ndim != 1:
            raise ValueError(f"w must have one dimension, got {w.ndim}")
        return w

    with pytest.raises(ValueError, match="one dimension, got 2"):
        refuse(jnp.ones((2, 2)))


def test_transformations_of_functions_and_dataclasses():
    @checked
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class State:
        w: Float[Array, " p"]

    @checked
    def shift(state: State, by: Float[Array, ""]) -> tuple[State, Float[Array, " p"]]:
        w = state.w + by
        return State(w), w

    states, w = jax.jit(jax.vmap(shift, in_axes=(None, 0)))(State(jnp.zeros(3)), jnp.arange(4.0))
    assert states.w.shape == w.shape == (4, 3)
