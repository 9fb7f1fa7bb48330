"""Student-t likelihood for responses with outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Key

from bayesfm import native as kernels
from bayesfm._checks import check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Observed, Params, RowData
from bayesfm.likelihoods.newton import (
    NewtonParts,
    RowSums,
    newton_ascent,
    newton_metropolis,
    row_sums,
    second_order,
)
from bayesfm.likelihoods.real import RealResponse
from bayesfm.likelihoods.response import spread
from bayesfm.random import gamma
from bayesfm.random.densities import Gamma
from bayesfm.sums import total

__all__ = ["StudentT"]


@pytree()
@dataclass(frozen=True)
class StudentT(RealResponse):
    """Heavy-tailed noise, ``y_n ~ t_df(eta_n, 1/alpha)``: outliers pull less.

    As a scale mixture ``y_n ~ N(eta_n, 1/(alpha tau_n))`` with ``tau_n ~ Gamma(df/2, rate df/2)``; alpha and df are
    drawn with tau integrated out. A row of weight c has its density raised to the power c.

    Parameters
    ----------
    df : float, optional
        Degrees of freedom; learned where it is not given, with prior Gamma(2, rate 0.1).
    a0, b0 : float, default=1.0
        Prior of the precision, ``alpha ~ Gamma(a0/2, rate b0/2)``; b0 has the unit of y squared.

    References
    ----------
    Geweke (1993), Bayesian treatment of the independent Student-t linear model, J. Applied Econometrics 8.
    Juárez & Steel (2010), Model-based clustering of non-Gaussian panel data, JBES 28 (the prior of df).

    Examples
    --------
    >>> from bayesfm.likelihoods import StudentT
    >>> StudentT(df=4.0).dims
    {'alpha': ()}
    """

    has_bound: ClassVar[bool] = True
    df: float | None = None
    a0: float = 1.0
    b0: float = 1.0

    def __post_init__(self) -> None:
        for name in ("df", "a0", "b0"):
            if getattr(self, name) is not None:
                check_positive(f"StudentT({name}=)", getattr(self, name))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """``alpha``, the precision, and ``df`` where it is learned."""
        return {"alpha": ()} if self.df is not None else {"alpha": (), "df": ()}

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """One prior observation of the size of y's standard deviation, df learned."""
        return cls(b0=spread(y, weight) ** 2)

    def prior(self) -> dict[str, dist.Distribution]:
        """Gamma priors of alpha and df."""
        priors = {"alpha": Gamma(0.5 * self.a0, 0.5 * self.b0), "df": Gamma(2.0, 0.1)}
        return {name: priors[name] for name in self.dims}

    def _df(self, params: Params) -> Array:
        return params["df"] if self.df is None else jnp.asarray(self.df)

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """Student's t around eta with scale alpha^(-1/2)."""
        return dist.StudentT(self._df(params), eta, 1.0 / jnp.sqrt(params["alpha"]))

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density, by the kernel of :meth:`update` where it may be used."""
        if not (native and eta.dtype == jnp.float32):
            return super().log_likelihood(observed, eta, params)
        df, alpha = self._df(params), params["alpha"]
        S = total(kernels.row_sums("student_t", *observed[:2], eta, jnp.log(alpha / df)[None])[0])
        constant = log_constant(df) + 0.5 * jnp.log(alpha / (jnp.pi * df))
        return total(observed.weight) * constant - 0.5 * (df + 1) * S

    def initial(self, observed: Observed) -> Params:
        """The precision of y around its mean; df = 5."""
        alpha = self.initial_alpha(observed)
        return {"alpha": alpha} if self.df is not None else {"alpha": alpha, "df": jnp.full_like(alpha, 5.0)}

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """A Metropolis step in log alpha (and log df), tau integrated out."""
        parts = self._parts(observed, eta, native=native)
        return self._params_of(newton_metropolis(key, self._logs(params), *parts))

    def fit(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """A Newton step uphill in log alpha (and log df), each squared residual with the variance of eta."""
        root = jnp.sqrt((observed.y - mean) ** 2 + variance)
        parts = self._parts(observed, observed.y - root, native=False)
        return self._params_of(newton_ascent(self._logs(params), parts))

    def _logs(self, params: Params) -> Float[Array, " d"]:
        return jnp.log(jnp.stack([params[name] for name in self.dims]))

    def _params_of(self, u: Float[Array, " d"]) -> Params:
        return dict(zip(self.dims, jnp.exp(u), strict=True))

    def _parts(self, observed: Observed, eta: Float[Array, " n"], *, native: bool) -> NewtonParts[RowSums]:
        """The log density of log alpha (and log df).

        All rows enter through S = sum c log(1 + alpha r^2 / df) and its derivatives by log alpha - log df.
        """
        y, weight, _ = observed
        W = total(weight)

        def rest(u: Float[Array, " d"]) -> Float[Array, ""]:
            """What does not depend on the rows, the Jacobian included."""
            own = self._params_of(u)
            df = self._df(own)
            constant = log_constant(df) + 0.5 * jnp.log(own["alpha"] / df)
            return self.log_prior(own) + jnp.sum(u) + W * constant

        def log_scale(u: Float[Array, " d"]) -> Float[Array, ""]:
            own = self._params_of(u)
            return jnp.log(own["alpha"]) - jnp.log(self._df(own))

        def sums(u: Float[Array, " d"]) -> RowSums:
            return row_sums("student_t", scale_sums, y, weight, eta, log_scale(u)[None], native=native)

        def derivatives(u: Float[Array, " d"], S: RowSums) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
            value, taylor = total(S.terms), second_order(log_scale(u)[None], S.gradient, S.hessian)

            def f(u: Float[Array, " d"]) -> Float[Array, ""]:
                scale = log_scale(u)[None]
                return rest(u) - 0.5 * (self._df(self._params_of(u)) + 1) * (value + taylor(scale))

            return jax.grad(f)(u), jax.hessian(f)(u)

        def log_ratio(u: Float[Array, " d"], S: RowSums, new: Float[Array, " d"], S_new: RowSums) -> Array:
            df, new_df = self._df(self._params_of(u)), self._df(self._params_of(new))
            rows = (df + 1) * S.rise_to(S_new) + (new_df - df) * total(S_new.terms)
            return rest(new) - rest(u) - 0.5 * rows

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
        """(alpha T, y), T ~ Gamma(c (df + 1)/2, rate (df + alpha r^2)/2): the sum of the tau of c equal rows."""
        y, weight, _ = observed
        df, alpha = self._df(params), params["alpha"]
        shape = 0.5 * weight * (df + 1)
        T = gamma(key, jnp.where(weight > 0, shape, 1.0), native=native) / (
            0.5 * (df + alpha * (y - eta) ** 2)
        )
        return jnp.where(weight > 0, alpha * T, 0.0), y

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Log density at a squared residual of (y - mean)^2 + variance: Jensen, -log1p being convex."""
        y, weight, _ = observed
        df, alpha = self._df(params), params["alpha"]
        square = (y - mean) ** 2 + variance
        kernel = 0.5 * (df + 1) * jnp.log1p(alpha * square / df)
        return weight * (log_constant(df) + 0.5 * jnp.log(alpha / (jnp.pi * df)) - kernel)


def log_constant(df: Float[Array, ""]) -> Float[Array, ""]:
    """log Gamma((df + 1) / 2) - log Gamma(df / 2)."""
    return gammaln(0.5 * (df + 1)) - gammaln(0.5 * df)


def scale_sums(
    y: Float[Array, " n"], weight: Float[Array, " n"], eta: Float[Array, " n"], x: Float[Array, " 1"]
) -> RowSums:
    """S(x) = sum c log(1 + e^x r^2) with its derivatives."""
    q = jnp.exp(x[0]) * (y - eta) ** 2
    S1 = total(weight, q, of=lambda c, q: c * (q / (1 + q)))
    S2 = total(weight, q, of=lambda c, q: c * (q / (1 + q)) / (1 + q))
    return RowSums(weight * jnp.log1p(q), S1[None], S2[None, None])
