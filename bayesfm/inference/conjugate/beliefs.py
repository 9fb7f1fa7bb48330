"""Beliefs about w and about v in the order of the design, from those about the units."""

from __future__ import annotations

import jax.numpy as jnp

from bayesfm.design.units import Layout
from bayesfm.inference.conjugate.inverse import Gaussians
from bayesfm.inference.conjugate.scales import Beliefs

__all__ = ["beliefs_of"]


def beliefs_of(layout: Layout, beliefs: tuple[Gaussians, ...]) -> tuple[Beliefs, Beliefs]:
    """Of w and of v; their covariance with each other is left out, since their priors are independent."""
    mean = jnp.concatenate([b.mean for b in beliefs], axis=-1)[..., layout.place]
    cov = jnp.concatenate([b.cov for b in beliefs], axis=-1)[..., layout.place]
    v = jnp.moveaxis(cov[1:, 1:], -1, 0)
    return (
        Beliefs(mean[0], cov[0, 0], layout.group, layout.num_groups),
        Beliefs(mean[1:].T, v, layout.group, layout.num_groups),
    )
