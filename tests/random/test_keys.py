"""Keys whose bits come from the kernels: the numbers of ``jax.random``, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import native
from bayesfm.random import compiled, gamma, is_compiled

pytestmark = pytest.mark.usefixtures(
    "full_optimisation"
)  # the kernels are compared with the programs that users run

needs_kernels = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")

KEYS = [
    jax.random.key(0),
    jax.random.key(20_04),
    jax.random.wrap_key_data(jnp.array([2**32 - 1, 7], jnp.uint32)),
]

DRAWS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "one word": lambda key: jax.random.bits(key),
    "no words": lambda key: jax.random.bits(key, (0, 3)),
    "words": lambda key: jax.random.bits(key, (7, 143)),
    "bytes": lambda key: jax.random.bits(key, (33,), "uint8"),
    "short words": lambda key: jax.random.bits(key, (33,), "uint16"),
    "keys": lambda key: jax.random.key_data(jax.random.split(key, (5, 13))),
    "key 0": lambda key: jax.random.key_data(jax.random.fold_in(key, 0)),
    "the last key": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 1)),
    "many keys": lambda key: jax.random.key_data(
        jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(10) ** 5)
    ),
    "normals": lambda key: jax.random.normal(key, (1_001,)),
    "in a loop": lambda key: jax.lax.scan(
        lambda key, _: (jax.random.split(key)[0], jax.random.uniform(key, (3,))), key, length=5
    )[1],
    "for a batch": lambda key: jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (3, 2))))(
        jax.random.split(key, (4, 2))
    ),
    "shuffled": lambda key: jax.random.permutation(key, 100),
}


@needs_kernels
@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_those_of_jax(name: str, isa: str) -> None:
    for key in KEYS:
        ours, theirs = DRAWS[name](compiled(key)), DRAWS[name](key)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@needs_kernels
def test_double_words(isa: str) -> None:
    with jax.enable_x64(True):
        for key in KEYS:
            np.testing.assert_array_equal(
                jax.random.bits(compiled(key), (51,), "uint64"), jax.random.bits(key, (51,), "uint64")
            )


@needs_kernels
def test_more_numbers_than_one_thread_takes() -> None:
    key = jax.random.key(1)
    np.testing.assert_array_equal(
        jax.random.bits(compiled(key), (300_001,)), jax.random.bits(key, (300_001,))
    )


@needs_kernels
def test_gammas_come_from_the_kernel_without_being_asked_for() -> None:
    key, shape = jax.random.key(2), jnp.linspace(0.1, 9.0, 100)
    np.testing.assert_array_equal(gamma(compiled(key), shape), gamma(key, shape, native=True))


def test_other_keys_stay_what_they_are() -> None:
    assert is_compiled(compiled(KEYS[0]))
    assert is_compiled(compiled(compiled(KEYS[0])))
    assert not is_compiled(KEYS[0])
    assert compiled(jax.random.key(0, impl="rbg")).dtype == jax.random.key(0, impl="rbg").dtype
    jax.config.update("jax_threefry_partitionable", False)
    try:
        assert not is_compiled(compiled(KEYS[0]))
    finally:
        jax.config.update("jax_threefry_partitionable", True)
