"""From named sites to the unconstrained coordinates that NUTS moves in, and back.

The coordinates are those of the model's own NumPyro callable. In the non-centred parametrisation every site of the
prior that has a location-scale distribution, x = loc + scale z, is replaced by its standardised z; which ones these are
is read off the model, so that other priors need no code here.

References
----------
Papaspiliopoulos, Roberts & Skoeld (2007), A general framework for the parametrization of hierarchical models,
Statistical Science 22.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key
from numpyro.distributions import constraints
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

__all__ = ["Coordinates", "loc_scale_sites"]

type Model = Callable[[], None]
"""A NumPyro model whose data are bound."""

type Shapes = tuple[tuple[str, tuple[str, ...]], ...]
"""Sites to be standardised, with the names of the other parameters (degrees of freedom) of their distributions."""


def loc_scale_sites(model: Model, names: tuple[str, ...]) -> Shapes:
    """Those of the named sites whose distribution is loc + scale times a standard one on the real line."""
    found: list[tuple[str, tuple[str, ...]]] = []

    def look() -> None:
        for name, site in _trace(numpyro.handlers.seed(model, jax.random.key(0))).items():
            if name not in names or site["type"] != "sample":
                continue
            base = _base(site["fn"])
            parameters = base.arg_constraints
            if base.support is constraints.real and {"loc", "scale"} <= set(parameters):
                found.append((name, tuple(x for x in parameters if x not in ("loc", "scale"))))

    jax.eval_shape(look)  # only the distributions' classes are asked for
    return tuple(found)


class Coordinates:
    """Unconstrained coordinates ``z``, a dict of arrays, of a NumPyro model.

    Parameters
    ----------
    model : callable
        The model, its data bound.
    standardised : tuple
        Sites to be standardised, from :func:`loc_scale_sites`; empty for the centred parametrisation.
    """

    def __init__(self, model: Model, standardised: Shapes) -> None:
        config = {name: LocScaleReparam(centered=0, shape_params=extra) for name, extra in standardised}
        self._plain, self._names = model, tuple(config)
        self._model = numpyro.handlers.reparam(model, config=config) if config else model

    def potential(self, z: Mapping[str, Array]) -> Float[Array, ""]:
        """Minus the log density of the coordinates, up to a constant."""
        return potential_energy(self._model, (), {}, z)

    def sites(self, z: Mapping[str, Array]) -> dict[str, Array]:
        """The model's sites, ``eta`` among them."""
        return dict(constrain_fn(self._model, (), {}, z, return_deterministic=True))

    def of_sites(self, sites: Mapping[str, Array]) -> dict[str, Array]:
        """Inverse of :meth:`sites`."""
        with numpyro.handlers.substitute(data=dict(sites)):
            trace = _trace(numpyro.handlers.seed(self._plain, jax.random.key(0)))
        latent = {name: site for name, site in trace.items() if _is_latent(site)}
        values = {name: site["value"] for name, site in latent.items() if name not in self._names}
        for name in self._names:
            base, x = _base(latent[name]["fn"]), latent[name]["value"]
            values[f"{name}_decentered"] = (x - base.loc) / base.scale
        return dict(unconstrain_fn(self._model, (), {}, values))

    def from_prior(self, key: Key[Array, ""]) -> dict[str, Array]:
        """Precisions and scales at their prior means, everything else drawn from the prior given these.

        So chains start apart from each other, but not in the tails of a heavy-tailed prior of a scale.
        """
        start = numpyro.handlers.substitute(
            numpyro.handlers.seed(self._plain, key), substitute_fn=_centre_of_constrained
        )
        return self.of_sites(
            {name: site["value"] for name, site in _trace(start).items() if _is_latent(site)}
        )


def _centre_of_constrained(site: Mapping[str, Any]) -> Array | None:
    """The mean of a distribution that is not one on the real line; where it has none, the centre of its coordinates."""
    if not _is_latent(site) or _base(site["fn"]).support is constraints.real:
        return None
    fn = site["fn"]
    shape = jax.eval_shape(dist.biject_to(fn.support).inv, jnp.zeros(fn.shape())).shape
    centre = jnp.broadcast_to(dist.biject_to(fn.support)(jnp.zeros(shape)), fn.shape())
    try:
        return jnp.where(jnp.isfinite(fn.mean), fn.mean, centre)
    except NotImplementedError:
        return centre


def _trace(model: Model) -> dict[str, Any]:
    return dict(numpyro.handlers.trace(model).get_trace())


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _base(fn: dist.Distribution) -> dist.Distribution:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn
