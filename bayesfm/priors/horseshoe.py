"""The regularised horseshoe: most effects near zero, a few as large as the slab allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import Features, Hyper, Prior, Sizes
from bayesfm.priors.draws import slice_step, truncated_exponential
from bayesfm.priors.half_t import check_degrees, half_t
from bayesfm.random.densities import Gamma

__all__ = ["Horseshoe"]

TINY = 1e-30
"""Bounds 1/lambda^2, which would leave float32 with probability 1e-15 otherwise."""


@pytree(static=("global_df", "slab_df"))
@dataclass(frozen=True)
class Horseshoe(Prior):
    """x_j ~ N(0, s_j^2) with 1/s_j^2 = 1/(tau_g lambda_j)^2 + 1/c_g^2: for many features of which few matter.

    lambda_j ~ half-Cauchy(1) is the local scale of a feature, tau_g ~ half-t(global_df, global_scale) the global scale
    of its group, and the slab c_g with c_g^2 ~ InvGamma(slab_df/2, slab_df slab_scale^2/2) bounds the largest effects:
    those are shrunk like draws from a Student-t of slab_df degrees of freedom and scale slab_scale.

    Parameters
    ----------
    global_scale : float, default=1.0
        Scale of tau, in units of x. With m of p effects thought to differ from zero, m/(p - m) sd(y)/sqrt(n) is a
        good guess for standardised features.
    global_df : float, default=1.0
        Degrees of freedom of tau; ``math.inf`` for a half-normal.
    slab_scale : float, default=1.0
        Size of large effects, in units of x.
    slab_df : float, default=4.0
        Degrees of freedom of the slab; ``math.inf`` fixes c at slab_scale, and there is no site for it.

    References
    ----------
    Piironen & Vehtari (2017), Sparsity information and regularization in the horseshoe and other shrinkage priors,
    Electronic Journal of Statistics 11, section 2.3.

    Examples
    --------
    >>> from bayesfm.priors import Horseshoe
    >>> Horseshoe(global_scale=0.01).hyper_dims(())
    {'local_scale': ('feature',), 'global_scale': ('group',), 'slab_scale': ('group',)}
    """

    global_scale: float = 1.0
    global_df: float = 1.0
    slab_scale: float = 1.0
    slab_df: float = 4.0

    def __post_init__(self) -> None:
        for name in ("global_scale", "slab_scale"):
            check_positive(f"Horseshoe({name}=)", getattr(self, name))
        for name in ("global_df", "slab_df"):
            check_degrees(f"Horseshoe({name}=)", getattr(self, name))

    def hyper_names(self) -> tuple[str, ...]:
        """``local_scale``, ``global_scale`` and, unless it is fixed, ``slab_scale``."""
        names = ("local_scale", "global_scale", "slab_scale")
        return names[:2] if self.slab_df == math.inf else names

    @property
    def local_names(self) -> tuple[str, ...]:
        """``local_scale``."""
        return ("local_scale",)

    def _slab(self, hyper: Hyper) -> Array:
        """C, of the shape of the global scale."""
        return hyper.get("slab_scale", jnp.full_like(hyper["global_scale"], self.slab_scale))

    def _of_slab(self, shape: tuple[int, ...]) -> dist.Distribution:
        precision = Gamma(0.5 * self.slab_df, jnp.full(shape, 0.5 * self.slab_df * self.slab_scale**2))
        root = dist.transforms.PowerTransform(-0.5)
        return dist.TransformedDistribution(precision, root).to_event(len(shape))

    def _of_scales(self, shape: tuple[int, ...], of_local: tuple[int, ...]) -> dict[str, dist.Distribution]:
        of_hyper = {
            "local_scale": dist.HalfCauchy(jnp.ones(of_local)).to_event(len(of_local)),
            "global_scale": half_t(self.global_df, jnp.full(shape, self.global_scale)).to_event(len(shape)),
        }
        return of_hyper if self.slab_df == math.inf else {**of_hyper, "slab_scale": self._of_slab(shape)}

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Independent sites."""
        of_scales = self._of_scales(sizes.of_hyper, (sizes.features, *sizes.columns))
        return {name: numpyro.sample(f"{name}{suffix}", d) for name, d in of_scales.items()}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Sum of the log densities of all scales."""
        of_scales = self._of_scales(hyper["global_scale"].shape, hyper["local_scale"].shape)
        return sum((d.log_prob(hyper[name]) for name, d in of_scales.items()), start=jnp.zeros(()))

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(0, s^2), elementwise."""
        return dist.Normal(0.0, self._precision(own) ** -0.5)

    def _precision(self, own: Hyper) -> Array:
        return (own["global_scale"] * own["local_scale"]) ** -2 + self._slab(own) ** -2

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """1/(tau lambda)^2 + 1/c^2 of every feature, and 0."""
        precision = self._precision(hyper)
        return precision, jnp.zeros_like(precision)

    def draw_local(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Hyper:
        """Half-Cauchy scales."""
        return {"local_scale": jnp.abs(jax.random.cauchy(key, shape))}

    def sample_new(self, key: Key[Array, ""], own: Hyper, shape: tuple[int, ...]) -> Array:
        """A local scale of its own for every new feature."""
        key_local, key_x = jax.random.split(key)
        own = {**own, **self.draw_local(key_local, shape)}
        return jax.random.normal(key_x, shape) * self._precision(own) ** -0.5

    def initial(self, sizes: Sizes) -> Hyper:
        """One, and the scales given."""
        of_group = sizes.of_hyper
        start = {
            "local_scale": jnp.ones((sizes.features, *sizes.columns)),
            "global_scale": jnp.full(of_group, self.global_scale),
            "slab_scale": jnp.full(of_group, self.slab_scale),
        }
        return {name: start[name] for name in self.hyper_names()}

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw local scales, global scales and slabs in turn, each given the others and x.

        With u = 1/lambda^2, b = x^2/(2 tau^2) and r = tau^2/c^2 the density of u is proportional to
        exp(-b u) sqrt(1 + r/u) / (1 + u). Both factors behind the exponential decrease in u: slicing them with a
        uniform number each leaves an exponential variable cut off at the lesser of two bounds, and no step is refused.
        log tau and log c have no conjugate form, the slab being part of every feature's precision: slice steps.
        """
        key_local, key_global, key_slab = jax.random.split(key, 3)
        hyper = {**hyper, "local_scale": self._draw_local(key_local, hyper, features)}
        hyper = {**hyper, "global_scale": self._draw_global(key_global, hyper, features)}
        if self.slab_df == math.inf:
            return hyper
        return {**hyper, "slab_scale": self._draw_slab(key_slab, hyper, features)}

    def _draw_local(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Float[Array, "p *d"]:
        key_slab, key_cauchy, key_u = jax.random.split(key, 3)
        tau, c = hyper["global_scale"][features.group], self._slab(hyper)[features.group]
        u, r = hyper["local_scale"] ** -2, (tau / c) ** 2
        heights = (jax.random.uniform(k, u.shape, u.dtype, TINY) for k in (key_slab, key_cauchy))
        slab_height, cauchy_height = heights
        above = slab_height**2 * (1 + r / u) - 1  # square of the height under sqrt(1 + r/u), less one
        end = jnp.minimum(jnp.where(above > 0, r / above, jnp.inf), (1 + u) / cauchy_height - 1)
        u = truncated_exponential(key_u, 0.5 * (features.x / tau) ** 2, jnp.minimum(end, 1 / TINY))
        return jnp.clip(u, TINY, 1 / TINY) ** -0.5

    def _draw_global(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Float[Array, "G *d"]:
        prior = half_t(self.global_df, jnp.full_like(hyper["global_scale"], self.global_scale))
        now, per_slab = jnp.log(hyper["global_scale"]), self._slab(hyper)[features.group] ** -2
        u, squares = hyper["local_scale"] ** -2, 0.5 * features.x**2

        def log_density(log_tau: Float[Array, "G *d"]) -> Float[Array, "G *d"]:
            old, new = (u * jnp.exp(-2 * t)[features.group] for t in (now, log_tau))
            terms = 0.5 * jnp.log((new + per_slab) / (old + per_slab)) - squares * (new - old)
            return prior.log_prob(jnp.exp(log_tau)) + log_tau + features.sum(terms)

        return jnp.exp(slice_step(key, log_density, now))

    def _draw_slab(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Float[Array, "G *d"]:
        now, squares = jnp.log(hyper["slab_scale"]), 0.5 * features.x**2
        free = (hyper["local_scale"] * hyper["global_scale"][features.group]) ** -2

        def log_density(log_c: Float[Array, "G *d"]) -> Float[Array, "G *d"]:
            old, new = (jnp.exp(-2 * t)[features.group] for t in (now, log_c))
            terms = 0.5 * jnp.log((free + new) / (free + old)) - squares * (new - old)
            prior = -self.slab_df * (log_c + 0.5 * self.slab_scale**2 * jnp.exp(-2 * log_c))
            return prior + features.sum(terms)

        return jnp.exp(slice_step(key, log_density, now))
