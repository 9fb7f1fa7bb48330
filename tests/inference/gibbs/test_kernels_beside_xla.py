"""Draws of theta by the compiled kernels and by XLA: one order, the same noise, and so the same numbers.

Beside the loops of ``test_units.py``, which hold each of the two against float64, one with other orders than the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayesfm import native
from bayesfm.design import Design
from bayesfm.design import layout as layout_module
from bayesfm.design.layout import build_layout
from bayesfm.design.units import FieldUnit, Layout
from tests import designs
from tests.design import strategies
from tests.inference.gibbs.test_units import Case, case_of, order_of, swept
from tests.inference.holding import hold_noise, hold_scales

pytestmark = pytest.mark.skipif(not native.available(), reason="built without a C++ compiler")

MAX_FIELDS = 4
"""So that there are fields among the plain rows, too; that of ``case_of``."""

FLOAT32 = 1e3 * np.finfo(np.float32).eps
"""Of the largest number: rounding times the condition of P, which the priors keep below 1e3."""


def noise_of(theta: jax.Array) -> jax.Array:
    """Noise that a feature's old values decide: every feature has its own, whoever draws it and when."""
    return 1.5 * jnp.sin(5 * theta)


@pytest.fixture(scope="module", autouse=True)
def the_same_noise() -> Iterator[None]:
    """In the place where every update has its normals."""
    with pytest.MonkeyPatch.context() as patch:
        hold_noise(patch, noise_of)
        hold_scales(patch, last=1)
        yield


def runs_of(layout: Layout) -> dict[int, int]:
    """For every feature that the kernels draw column by column: number of its run."""
    runs = {}
    for unit in layout.units:
        if not isinstance(unit, FieldUnit):
            assert unit.entries is not None
            run = np.searchsorted(unit.entries.ends, np.arange(len(unit.features)), side="right")
            runs |= dict(zip(unit.features.tolist(), run.tolist(), strict=True))
    return runs


def in_the_order_of(kernels: Layout, design: Design) -> Layout:
    """XLA's layout with the kernels' runs as its colours."""
    runs, colours = runs_of(kernels), []

    def steps(X: object, num_rows: int, room: int) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout_module, "colour_columns", lambda _: colours.pop(0))
            return plain_steps(X, num_rows, room)

    plain_steps = layout_module._steps
    for unit in build_layout(design, max_fields=MAX_FIELDS, dtype=np.float64).units:
        if not isinstance(unit, FieldUnit):
            colours.append(np.array([runs[j] for j in unit.features.tolist()], np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_steps", steps)
        layout = build_layout(design, max_fields=MAX_FIELDS, dtype=np.float64)
    for unit in layout.units:
        if not isinstance(unit, FieldUnit):
            assert np.all(np.diff([runs[j] for j in order_of(unit)]) >= 0)
    return layout


def check(design: Design, rank: int, factor_block: int) -> None:
    """Theta and the residual that a pass over all units leaves, in double precision and in single."""
    by_kernels = case_of(design, rank, native=True)
    by_xla = by_kernels._replace(layout=in_the_order_of(by_kernels.layout, design))
    expected = swept(by_xla, factor_block)
    for got, reference in zip(swept(by_kernels, factor_block), expected, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-10, atol=1e-10)
    for got, reference in zip(swept(in_float32(by_kernels), factor_block), expected, strict=True):
        assert got.dtype == np.float32
        scale = np.abs(reference).max(initial=1.0)
        np.testing.assert_allclose(got, reference, rtol=0, atol=FLOAT32 * scale)


def in_float32(case: Case) -> Case:
    layout = build_layout(case.design, max_fields=MAX_FIELDS, dtype=np.float32, native=True)
    sites = {name: np.float32(x) for name, x in case.sites.items()}
    return case._replace(layout=layout, sites=sites, z=np.float32(case.z), omega=np.float32(case.omega))


@pytest.mark.parametrize("kind", designs.DESIGNS)
def test_every_kind_of_design(kind: str) -> None:
    check(designs.make(kind, seed=1), 3, 2)


@pytest.mark.parametrize(
    ("rank", "factor_block"),
    [(0, 1), *(pytest.param(*k, marks=pytest.mark.slow) for k in ((1, 1), (8, 8), (17, 17), (20, 6)))],
)
def test_every_way_through_the_kernels(rank: int, factor_block: int) -> None:
    """Registers and memory, one block of factors and several, none at all."""
    check(designs.make("everything", seed=2), rank, factor_block)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(design=strategies.designs(), rank=st.integers(0, 4))
def test_random_designs(design: Design, rank: int) -> None:
    """Empty rows, columns of zeros, entries stored twice, levels without rows, one row, one feature."""
    check(design, rank, max(1, rank))
