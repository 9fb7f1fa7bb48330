"""Beliefs about w and about v in the order of the design, from those about the units."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfm.design.units import Layout
from bayesfm.inference.conjugate.inverse import Gaussians
from bayesfm.inference.conjugate.normal import diagonal
from bayesfm.inference.conjugate.scales import Beliefs

__all__ = ["beliefs_of"]


def beliefs_of(layout: Layout, beliefs: tuple[Gaussians, ...], *, full: bool) -> tuple[Beliefs, Beliefs]:
    """Of w and of v; their covariance with each other is left out, since their priors are independent.

    Without ``full``, for priors with a diagonal precision, variances alone: a K-th of the numbers.
    """

    def in_order(parts: list[Float[Array, "*K m"]]) -> Float[Array, "*K p"]:
        return jnp.concatenate(parts, axis=-1)[..., layout.place]

    mean = in_order([b.mean for b in beliefs])
    if full:
        cov = in_order([b.cov for b in beliefs])
        of_w, of_v = cov[0, 0], jnp.moveaxis(cov[1:, 1:], -1, 0)
    else:
        variance = in_order([diagonal(b.cov) for b in beliefs])
        of_w, of_v = variance[0], variance[1:].T
    return (
        Beliefs(mean[0], of_w, layout.group, layout.num_groups),
        Beliefs(mean[1:].T, of_v, layout.group, layout.num_groups),
    )
