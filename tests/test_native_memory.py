"""Ten thousand sweeps on the compiled kernels keep to the memory of the first two thousand."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from bayesfm import native
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from tests import designs

pytestmark = pytest.mark.usefixtures(
    "full_optimisation"
)  # what memory a run needs is asked of what users run

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")
@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two fields", "everything"])
def test_no_memory_growth_over_ten_thousand_sweeps(kind: str) -> None:
    """Between sweep 2,000 and sweep 10,000 memory grows by less than one small allocation per sweep would.

    The smallest scratch of a kernel is the vectors of a feature's draw, K (K + 1) / 2 + 5 K of 16 bytes at least: 1,680
    bytes at K = 10, or 13 MB if every one of 8,000 sweeps leaves one behind. The bound is a third of that; what the
    allocator keeps in reserve has come by sweep 2,000.
    """
    design = designs.make(kind)
    y = np.random.default_rng(0).normal(size=design.num_rows)
    kernel, _ = gibbs_kernel(ModelSpec(FM(9)), design, y, kernels="native")
    sweep = jax.jit(kernel.sweep)
    key, state = jax.random.key(0), kernel.init(jax.random.key(1))

    def run(start: int, stop: int) -> int:
        nonlocal state
        for i in range(start, stop):
            state = sweep(jax.random.fold_in(key, i), state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state)))
        return resident()

    scratch = 16 * (10 * 11 // 2 + 5 * 10)
    early = run(0, 2_000)
    late = run(2_000, 10_000)
    assert late - early < 8_000 * scratch / 3, f"{(late - early) / 1e6:.1f} MB in 8,000 sweeps"
