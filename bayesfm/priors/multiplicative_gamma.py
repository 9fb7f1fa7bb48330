"""Multiplicative gamma process: columns of v that are shrunk the more, the later they come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.priors.base import Dims, Features, Hyper, Prior, Sizes
from bayesfm.priors.half_t import check_degrees
from bayesfm.random import gamma
from bayesfm.random.densities import Gamma

__all__ = ["MultiplicativeGamma"]


@pytree(static=("df",))
@dataclass(frozen=True)
class MultiplicativeGamma(Prior):
    """v_jh ~ N(0, scale^2 / (phi_jh tau_gh)), tau_gh = delta_g1 ... delta_gh: a generous rank prunes itself.

    delta_1 ~ Gamma(a1, 1), delta_2, delta_3, ... ~ Gamma(a2, 1), phi_jh ~ Gamma(df/2, df/2). With a2 > 1 the precisions
    tau of the columns grow from one to the next, by a factor of a2 on average, unless the data speak for the column.

    Parameters
    ----------
    a1, a2 : float, default=2.0, 3.0
        Shapes of the first and of the other multipliers. E[1/tau_h] falls with h if a2 > 2.
    scale : float, default=1.0
        Unit of v.
    df : float, default=3.0
        Degrees of freedom of the Student-t that phi makes of every v; ``math.inf`` leaves the normal, and no site.

    References
    ----------
    Bhattacharya & Dunson (2011), Sparse Bayesian infinite factor models, Biometrika 98.
    Durante (2017), A note on the multiplicative gamma process, Statistics & Probability Letters 122 (on a1 and a2).

    Examples
    --------
    >>> from bayesfm.priors import MultiplicativeGamma
    >>> MultiplicativeGamma(a2=4.0).hyper_dims(("factor",))
    {'delta': ('group', 'factor'), 'local_precision': ('feature', 'factor')}
    """

    a1: float = 2.0
    a2: float = 3.0
    scale: float = 1.0
    df: float = 3.0

    def __post_init__(self) -> None:
        for name in ("a1", "a2", "scale"):
            check_positive(f"MultiplicativeGamma({name}=)", getattr(self, name))
        check_degrees("MultiplicativeGamma(df=)", self.df)

    def hyper_names(self) -> tuple[str, ...]:
        """``delta`` and, unless df is infinite, ``local_precision``."""
        return ("delta", *self.local_names)

    @property
    def local_names(self) -> tuple[str, ...]:
        """``local_precision``, unless df is infinite."""
        return () if self.df == math.inf else ("local_precision",)

    def hyper_dims(self, columns: Dims) -> dict[str, Dims]:
        """Refuses w, which has no columns."""
        if not columns:
            raise ValueError(
                "MultiplicativeGamma shrinks the columns of v: give it as prior_v, not as prior_w"
            )
        return super().hyper_dims(columns)

    def _of_delta(self, shape: tuple[int, ...]) -> dist.Distribution:
        a = jnp.where(jnp.arange(shape[-1]) == 0, self.a1, self.a2)
        return Gamma(a, 1.0).expand(shape).to_event(len(shape))

    def _of_local(self, shape: tuple[int, ...]) -> dist.Distribution:
        return Gamma(0.5 * self.df, 0.5 * self.df).expand(shape).to_event(2)

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Independent sites."""
        hyper = {"delta": numpyro.sample(f"delta{suffix}", self._of_delta(sizes.of_hyper))}
        if self.local_names:
            of_local = self._of_local((sizes.features, *sizes.columns))
            hyper["local_precision"] = numpyro.sample(f"local_precision{suffix}", of_local)
        return hyper

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log p(delta) + log p(phi)."""
        lp = self._of_delta(hyper["delta"].shape).log_prob(hyper["delta"])
        if self.local_names:
            lp += self._of_local(hyper["local_precision"].shape).log_prob(hyper["local_precision"])
        return lp

    def _precision(self, own: Hyper) -> Array:
        tau = jnp.exp(jnp.cumsum(jnp.log(own["delta"]), axis=-1))
        return own.get("local_precision", 1.0) * tau / jnp.square(self.scale)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(0, scale^2/(phi tau)), elementwise."""
        return dist.Normal(0.0, self._precision(own) ** -0.5)

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Phi tau / scale^2, and 0."""
        precision = self._precision(hyper)
        return precision, jnp.zeros_like(precision)

    def draw_local(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Hyper:
        """Gamma precisions, unless df is infinite."""
        half = 0.5 * self.df
        return {name: gamma(key, jnp.full(shape, half)) / half for name in self.local_names}

    def sample_new(self, key: Key[Array, ""], own: Hyper, shape: tuple[int, ...]) -> Array:
        """Local precisions of their own for every new feature."""
        key_local, key_x = jax.random.split(key)
        own = {**own, **self.draw_local(key_local, shape)}
        return jax.random.normal(key_x, shape) * self._precision(own) ** -0.5

    def initial(self, sizes: Sizes) -> Hyper:
        """All ones: no column shrunk yet."""
        start = {
            "delta": jnp.ones(sizes.of_hyper),
            "local_precision": jnp.ones((sizes.features, *sizes.columns)),
        }
        return {name: start[name] for name in self.hyper_names()}

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw phi, then delta_1, ..., delta_k in turn, each from its Gamma conditional.

        phi_jh  | . ~ Gamma((df + 1)/2, (df + tau_h v_jh^2/scale^2)/2),
        delta_l | . ~ Gamma(a_l + p_g (k - l + 1)/2, 1 + 1/2 sum_{h >= l} (tau_h/delta_l) S_h),
        S_h = sum_j phi_jh v_jh^2/scale^2.
        """
        key_local, key_delta = jax.random.split(key)
        squares = jnp.square(features.x / self.scale)
        if self.local_names:
            tau = jnp.exp(jnp.cumsum(jnp.log(hyper["delta"]), axis=-1))[features.group]
            shape = jnp.full_like(squares, 0.5 * (self.df + 1))
            local = gamma(key_local, shape) / (0.5 * (self.df + tau * squares))
            hyper, squares = {**hyper, "local_precision": local}, squares * local
        return {
            **hyper,
            "delta": self._draw_delta(key_delta, hyper["delta"], features.number, features.sum(squares)),
        }

    def _draw_delta(
        self,
        key: Key[Array, ""],
        delta: Float[Array, "G k"],
        number: Float[Array, " G"],
        S: Float[Array, "G k"],
    ) -> Float[Array, "G k"]:
        k = delta.shape[1]
        columns = jnp.arange(k)
        shape = jnp.where(columns == 0, self.a1, self.a2) + 0.5 * number[:, None] * (k - columns)
        standard = gamma(key, shape)

        def draw(i: Array, log_delta: Float[Array, "G k"]) -> Float[Array, "G k"]:
            without = jnp.exp(jnp.cumsum(log_delta.at[:, i].set(0.0), axis=1))  # tau_h/delta_l where h >= i
            rate = 1 + 0.5 * jnp.sum(jnp.where(columns >= i, without * S, 0.0), axis=1)
            return log_delta.at[:, i].set(jnp.log(standard[:, i] / rate))

        return jnp.exp(lax.fori_loop(0, k, draw, jnp.log(delta)))
