from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesfm.random import gamma
from tests.statistics import assert_no_alarm, ks_exact

SHAPES = np.array([0.1, 0.3, 0.7, 0.99, 1.0, 1.5, 3.0, 30.0, 1000.0, 1e4], np.float32)
NUM = 20_000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gamma(dtype: str) -> None:
    """All shapes side by side, each against its distribution."""
    with jax.enable_x64(dtype == "float64"):
        x = jax.jit(gamma)(jax.random.key(0), jnp.asarray(np.tile(SHAPES, (NUM, 1)), dtype))
        assert x.dtype == dtype
        x = np.asarray(x, np.float64)
    assert np.all(x >= 0)  # a shape of 0.1 reaches below what float32 holds
    assert_no_alarm({f"shape {s}": ks_exact(x[:, i], stats.gamma(float(s))) for i, s in enumerate(SHAPES)})


def test_neighbours_are_independent() -> None:
    """Products of neighbouring uniforms, and of the draws of one place in two calls."""
    one, two = (
        stats.gamma(2.5).cdf(np.asarray(gamma(jax.random.key(k), jnp.full(NUM, 2.5)))) - 0.5 for k in (1, 2)
    )
    products = {"neighbours": one[::2] * one[1::2], "keys": one * two}
    assert_no_alarm({name: float(stats.ttest_1samp(x, 0.0).pvalue) for name, x in products.items()})
