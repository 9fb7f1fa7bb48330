"""Ordered classes: a latent variable around eta falls between cut-points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Key

from bayesfm import native as kernels
from bayesfm._checks import check_count, check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Likelihood, Observed, Params, RowData
from bayesfm.likelihoods.distributions import InducedDirichlet, Ordinal, class_edges
from bayesfm.likelihoods.links import LINKS, normal_interval
from bayesfm.likelihoods.newton import (
    NewtonParts,
    RowSums,
    newton_ascent,
    newton_metropolis,
    row_sums,
    second_order,
)
from bayesfm.likelihoods.response import check_codes, check_zero_one_weight
from bayesfm.random import truncated_normal
from bayesfm.sums import total

__all__ = ["OrdinalLogit", "OrdinalProbit"]


class _Ordinal(Likelihood):
    num_classes: int
    concentration: float
    scale: float
    link: ClassVar[str]
    identifies_intercept: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_count(f"{name}(num_classes=)", self.num_classes, minimum=2)
        for field in ("concentration", "scale"):
            check_positive(f"{name}({field}=)", getattr(self, field))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """``cutpoints``, one less than classes."""
        return {"cutpoints": ("cutpoint",)}

    @property
    def sizes(self) -> dict[str, int]:
        """Number of cut-points."""
        return {"cutpoint": self.num_classes - 1}

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """As many classes as the largest code says."""
        return cls(num_classes=max(2, int(np.max(y)) + 1))  # type: ignore[call-arg]

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Codes 0, ..., num_classes - 1; not every class has to occur."""
        return check_codes(type(self).__name__, self.num_classes, y, "FMOrdinal takes classes of any coding")

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Zero, and the standard deviation of the latent noise."""
        return 0.0, 1.0 if self.link == "probit" else float(np.pi / np.sqrt(3))

    def prior(self) -> dict[str, dist.Distribution]:
        """Dirichlet class probabilities of a typical row."""
        return {"cutpoints": InducedDirichlet(self.num_classes, self.concentration, self.scale, self.link)}

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """Class c with probability F(cut_c - eta) - F(cut_{c-1} - eta)."""
        return Ordinal(eta, params["cutpoints"], self.link)

    def shifted(self, params: Params, delta: Float[Array, ""]) -> Params:
        """Cut-points move with eta."""
        return {"cutpoints": params["cutpoints"] + delta}

    def initial(self, observed: Observed) -> Params:
        """Quantiles of the shares of the classes, each class given one more row."""
        y, weight, _ = observed
        classes = jnp.arange(self.num_classes)
        share = jax.vmap(lambda c: 1.0 + total(weight, y, of=lambda w, y: w * (y == c)))(classes)
        below = jnp.cumsum(share)[:-1] / jnp.sum(share)
        return {"cutpoints": (self.scale * LINKS[self.link].quantile(below)).astype(y.dtype)}


@pytree(static=("num_classes",))
@dataclass(frozen=True)
class OrdinalLogit(_Ordinal):
    """Ordered classes with logistic latent noise (proportional odds). For NUTS; Gibbs has :class:`OrdinalProbit`.

    Parameters
    ----------
    num_classes : int
        C, with codes 0, ..., C - 1.
    concentration : float, default=1.0
        Of the Dirichlet prior of the class probabilities of a typical row.
    scale : float, default=sqrt(2)
        Spread of a typical row's latent variable, in units of the noise.

    References
    ----------
    McCullagh (1980), Regression models for ordinal data, JRSS B 42.

    Examples
    --------
    >>> from bayesfm.likelihoods import OrdinalLogit
    >>> OrdinalLogit(num_classes=5).sizes
    {'cutpoint': 4}
    """

    num_classes: int = 2
    concentration: float = 1.0
    scale: float = 2**0.5

    link: ClassVar[str] = "logit"
    conjugate: ClassVar[bool] = False


@pytree(static=("num_classes",))
@dataclass(frozen=True)
class OrdinalProbit(_Ordinal):
    """Ordered classes with normal latent noise; cut-points are drawn with the latent variables integrated out.

    There is no intercept: it would be a shift of all cut-points.

    Parameters
    ----------
    num_classes : int
        C, with codes 0, ..., C - 1. Classes that do not occur are allowed.
    concentration : float, default=1.0
        Of the Dirichlet prior of the class probabilities of a typical row.
    scale : float, default=sqrt(2)
        Spread of a typical row's latent variable, in units of the noise.

    References
    ----------
    Albert & Chib (1993), Bayesian analysis of binary and polychotomous response data, JASA 88.
    Albert & Chib (2001), Sequential ordinal modeling with applications to survival data, Biometrics 57.

    Examples
    --------
    >>> from bayesfm.likelihoods import OrdinalProbit
    >>> OrdinalProbit(num_classes=5).sizes
    {'cutpoint': 4}
    """

    num_classes: int = 2
    concentration: float = 1.0
    scale: float = 2**0.5

    link: ClassVar[str] = "probit"
    has_bound: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Codes 0, ..., num_classes - 1, with weights of 0 or 1."""
        check_zero_one_weight("OrdinalProbit", weight, "repeat the rows")
        return super().validate(y, weight, rows)

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density, by the kernel of :meth:`update` where it may be used."""
        if not (native and eta.dtype == jnp.float32):
            return super().log_likelihood(observed, eta, params)
        return total(kernels.row_sums("ordinal", *observed[:2], eta, params["cutpoints"])[0])

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """A Metropolis step in the first cut-point and the logs of the gaps, the latent variables integrated out."""
        parts = self._parts(observed, eta, native=native)
        return {"cutpoints": cutpoints_of(newton_metropolis(key, gaps_of(params["cutpoints"]), *parts))}

    def fit(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """A Newton step uphill in the same coordinates; the variance of eta has no say in it."""
        parts = self._parts(observed, mean, native=False)
        return {"cutpoints": cutpoints_of(newton_ascent(gaps_of(params["cutpoints"]), parts))}

    def _parts(self, observed: Observed, eta: Float[Array, " n"], *, native: bool) -> NewtonParts[RowSums]:
        """The log density of the first cut-point and the logs of the gaps."""
        prior = self.prior()["cutpoints"]

        def rest(u: Float[Array, " c"]) -> Float[Array, ""]:
            """Log prior density of u: that of the cut-points, and the Jacobian of the gaps."""
            return prior.log_prob(cutpoints_of(u)) + (jnp.sum(u[1:]) if len(u) > 1 else 0.0)

        def sums(u: Float[Array, " c"]) -> RowSums:
            return row_sums("ordinal", cutpoint_sums, *observed[:2], eta, cutpoints_of(u), native=native)

        def derivatives(u: Float[Array, " c"], S: RowSums) -> tuple[Float[Array, " c"], Float[Array, "c c"]]:
            taylor = second_order(cutpoints_of(u), S.gradient, S.hessian)

            def f(u: Float[Array, " c"]) -> Float[Array, ""]:
                return rest(u) + taylor(cutpoints_of(u))

            return jax.grad(f)(u), jax.hessian(f)(u)

        def log_ratio(u: Float[Array, " c"], S: RowSums, new: Float[Array, " c"], S_new: RowSums) -> Array:
            return rest(new) - rest(u) + S.rise_to(S_new)

        return NewtonParts(sums, derivatives, log_ratio)

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(1, z) with z ~ N(eta, 1) between the cut-points of the class."""
        y, weight, _ = observed
        lower, upper = class_edges(y, params["cutpoints"], jnp.inf)
        return weight, truncated_normal(key, eta, lower, upper, native=native)

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Log probability of the class at the mean, less variance/2: the latent variable has variance one."""
        return self.log_density(observed, mean, params) - 0.5 * observed.weight * variance


def cutpoints_of(u: Float[Array, " c"]) -> Float[Array, " c"]:
    """Cut-points from the first one and the logs of the gaps."""
    if len(u) == 1:  # no array of size zero: beside one, XLA takes calls of kernels for calls of another kind
        return u
    return jnp.cumsum(jnp.concatenate([u[:1], jnp.exp(u[1:])]))


def gaps_of(cutpoints: Float[Array, " c"]) -> Float[Array, " c"]:
    """Inverse of :func:`cutpoints_of`."""
    if len(cutpoints) == 1:
        return cutpoints
    return jnp.concatenate([cutpoints[:1], jnp.log(jnp.diff(cutpoints))])


def cutpoint_sums(
    y: Float[Array, " n"], weight: Float[Array, " n"], eta: Float[Array, " n"], cutpoints: Float[Array, " c"]
) -> RowSums:
    """Log-likelihood of a probit model, with gradient and Hessian by the cut-points.

    With p = Phi(b) - Phi(a), A = phi(a)/p and B = phi(b)/p the derivatives of log p are B by the upper cut-point, -A
    by the lower one, -b B - B^2, a A - A^2 and A B.
    """
    lower, upper = class_edges(y, cutpoints)
    a, b = lower - eta, upper - eta
    # The barrier keeps XLA from computing them once per use.
    log_p, A, B = lax.optimization_barrier(normal_interval(a, b))
    A, B = jnp.where(weight > 0, A, 0.0), jnp.where(weight > 0, B, 0.0)
    terms = weight * jnp.stack([B, -A, -b * B - B * B, a * A - A * A, A * B])
    of_class = (y.astype(jnp.int32)[:, None] == jnp.arange(len(cutpoints) + 1)).astype(terms.dtype)
    up, down, up2, down2, both = jnp.matmul(terms, of_class, precision=lax.Precision.HIGHEST)
    curvature = jnp.diag(up2[:-1] + down2[1:])
    if len(cutpoints) > 1:
        off = jnp.diag(both[1:-1], 1)
        curvature = curvature + off + off.T
    return RowSums(jnp.where(weight > 0, weight * log_p, 0.0), up[:-1] + down[1:], curvature)
