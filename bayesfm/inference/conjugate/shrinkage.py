"""What features say of the precision of their group once they have been integrated out: sums over the features.

What the data say of a parameter x_j is exp(-c_j x^2/2 + d_j x), its prior N(0, 1/lambda). Its part of
log p(data | lambda) is log(s)/2 + d^2 q/2 with q = 1/(lambda + c), s = lambda q: how far x is shrunk. With
t = c q = 1 - s and e = d q, its mean, all derivatives by log lambda are sums of products of s, t and e (docs/math.md,
section 34).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm import native as kernels
from bayesfm.design.units import FieldUnit

__all__ = ["Jet", "Shrunk", "shrunk"]


class Jet(NamedTuple):
    """A function of log lambda at a point: its value and first two derivatives."""

    value: Array
    first: Array
    second: Array

    def along(self, x: Array) -> Array:
        """The parabola, x away from the point."""
        return self.value + x * self.first + 0.5 * x * x * self.second


class Shrunk(NamedTuple):
    """Sums per group, at one lambda.

    ``A`` and ``B``: precision and linear term of a common mean of all x, in units of lambda. ``F``: the log density at
    a mean of zero, as its rise from another lambda.
    """

    A: Jet
    B: Jet
    F: Jet


def shrunk(
    unit: FieldUnit,
    c: Float[Array, " m"],
    d: Float[Array, " m"],
    before: Float[Array, " G"],
    at: Float[Array, " G"],
    *,
    native: bool,
) -> Shrunk:
    """The sums at the precision ``at`` of every group, F as the rise from ``before``.

    Of A/lambda = sum t the derivatives are -sum t s and sum t s (s - t); of B/lambda = sum e they are -sum e s and
    sum e s (s - t).
    """
    if native:
        t, t2, t2s, e, te, tes, e2, e2s, rise = kernels.scale_sums(c, d, unit.group, before, at)
    else:
        t, t2, t2s, e, te, tes, e2, e2s, rise = _sums(unit, c, d, before, at)
    ts, es = t - t2, e - te
    return Shrunk(
        Jet(t, -ts, ts - 2 * t2s),
        Jet(e, -es, es - 2 * tes),
        Jet(rise, 0.5 * (t - at * e2), at * (e2s - 0.5 * e2) - 0.5 * ts),
    )


def _sums(unit: FieldUnit, c: Array, d: Array, before: Array, at: Array) -> Float[Array, "sums G"]:
    """As the kernel ``src/moments.cc`` has them, in the same order."""
    num_groups = unit.count.shape[0]
    old, new = before[unit.group], at[unit.group]
    q, q_old = 1 / (new + c), 1 / (old + c)
    t, s, e = c * q, new * q, d * q
    rise = 0.5 * (d * q_old * e * (old - new) - jnp.log1p(c * q_old * ((old - new) / new)))
    terms = jnp.stack([t, t * t, t * t * s, e, t * e, t * e * s, e * e, e * e * s, rise])
    if unit.one_group is not None:
        return jnp.zeros((9, num_groups), c.dtype).at[:, unit.one_group].set(jnp.sum(terms, axis=1))
    return jax.ops.segment_sum(terms.T, unit.group, num_groups, indices_are_sorted=True).T
