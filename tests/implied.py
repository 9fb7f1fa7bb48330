"""What a random draw implies, read off by replacing the random numbers: shapes, rates, means, standard deviations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm import random

type Draw = Callable[[], Any]


@contextmanager
def random_numbers(gamma: Callable[[jax.Array], jax.Array], normal: float) -> Iterator[None]:
    """Inside, a standard gamma of shape a is ``gamma(a)`` and a standard normal is ``normal``."""
    with pytest.MonkeyPatch.context() as patch:
        real = random.gamma
        for name, module in list(sys.modules.items()):
            if name.startswith("bayesfm.") and getattr(module, "gamma", None) is real:
                patch.setattr(module, "gamma", lambda key, shape, **_: gamma(shape))
        patch.setattr(jax.random, "normal", lambda key, shape=(), dtype=float: jnp.full(shape, normal, dtype))
        yield


def gamma_shape_and_rate(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Shape and rate of the gamma variable that ``draw()`` returns as (standard gamma)/rate."""
    with random_numbers(lambda a: a, 0.0):
        mean = np.asarray(draw())
    with random_numbers(jnp.ones_like, 0.0):
        rate = 1 / np.asarray(draw())
    return mean * rate, rate


def normal_mean_and_sd(draw: Draw, gamma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the normal variable that ``draw()`` returns, gammas being held at a constant."""
    values = []
    for normal in (0.0, 1.0, -1.0):
        with random_numbers(lambda a: jnp.full_like(a, gamma), normal):
            values.append(np.asarray(draw()))
    mean, up, down = values
    np.testing.assert_allclose(up - mean, mean - down, rtol=1e-6)  # affine in the noise
    return mean, up - mean
