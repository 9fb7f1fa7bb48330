"""Groupwise heteroscedasticity: normal noise whose precision differs between groups of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import gammaln, ndtr
from jaxtyping import Array, Bool, Float, Int, Key
from numpyro.distributions import Distribution, constraints

from bayesfm._checks import check_count, check_positive
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Observed, Params, RowData
from bayesfm.likelihoods.log_gamma_ratios import log_rising, stirling_remainder
from bayesfm.likelihoods.newton import newton_metropolis
from bayesfm.likelihoods.real import RealResponse
from bayesfm.likelihoods.response import spread
from bayesfm.random import gamma
from bayesfm.random.densities import Gamma
from bayesfm.sums import total, totals_by_group

__all__ = ["GroupNoise", "GroupwiseGaussian", "rise_of_marginal"]

UNSEEN = -1
"""Code of a row whose group training never saw."""


class GroupNoise(Distribution):
    """N(loc, 1/precision) where the row's group is known, Student's t of that location and scale where it is not."""

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real,
        "precision": constraints.positive,
        "df": constraints.positive,
    }
    support = constraints.real
    pytree_data_fields = ("loc", "precision", "df", "known")

    def __init__(
        self,
        loc: Float[Array, "..."],
        precision: Float[Array, "..."],
        df: Float[Array, ""],
        known: Bool[Array, "..."],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.precision, self.df, self.known = loc, precision, df, known
        shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in (loc, precision, df, known)))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """The tau of an unknown group is drawn for every row; NumPyro's handlers give untyped keys."""
        key_tau, key_noise = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        a = jnp.broadcast_to(0.5 * self.df, shape)
        tau = jnp.where(self.known, 1.0, jax.random.gamma(key_tau, a, shape) / a)
        return self.loc + jax.random.normal(key_noise, shape) / jnp.sqrt(self.precision * tau)

    def log_prob(self, value: Array) -> Array:
        """Log density; that of t is right for a large df, too, and only computed where a row asks for it."""
        q = 0.5 * self.precision * (jnp.asarray(value) - self.loc) ** 2

        def with_t(q: Array) -> Array:
            a = jnp.asarray(0.5 * self.df)
            constant = log_rising(jnp.full_like(a, 0.5), a) - 0.5 * jnp.log(a)
            return jnp.where(self.known, -q, constant - (a + 0.5) * jnp.log1p(q / a))

        kernel = lax.cond(jnp.all(self.known), jnp.negative, with_t, q)
        return kernel + 0.5 * jnp.log(self.precision / (2 * jnp.pi))

    def cdf(self, value: Array) -> Array:
        """Distribution function; that of t is only computed where a row asks for it."""
        e = (jnp.asarray(value) - self.loc) * jnp.sqrt(self.precision)

        def with_t(e: Array) -> Array:
            return jnp.where(self.known, ndtr(e), dist.StudentT(self.df).cdf(e))

        return lax.cond(jnp.all(self.known), ndtr, with_t, e)

    @property
    def mean(self) -> Array:
        """The location, also where df <= 1 and there is none."""
        return jnp.broadcast_to(self.loc, self.batch_shape)

    @property
    def variance(self) -> Array:
        """1/precision, times df / (df - 2) for an unknown group; infinite for df <= 2."""
        more = jnp.where(self.df > 2, self.df / jnp.where(self.df > 2, self.df - 2, 1.0), jnp.inf)
        return jnp.broadcast_to(jnp.where(self.known, 1.0, more) / self.precision, self.batch_shape)


@pytree(static=("num_groups",))
@dataclass(frozen=True)
class GroupwiseGaussian(RealResponse):
    """Normal noise with a precision per group of rows, ``y_n ~ N(eta_n, 1/(alpha tau_g))`` for row n of group g.

    Some people's ratings scatter more than others', some instruments measure better. The groups are partially pooled,
    ``tau_g ~ Gamma(df/2, rate df/2)``, of mean one: alpha is the precision of a typical group, and the smaller df, the
    more the groups differ. alpha and df are drawn with tau integrated out. A row of a group that training never saw is
    Student-t with df degrees of freedom. A row of weight c counts as c equal rows.

    The row data ``noise_group`` hold the number of every row's group; -1, in rows to be predicted, is an unseen one.

    Parameters
    ----------
    num_groups : int
        G, with codes 0, ..., G - 1. A group without rows keeps its prior.
    df : float, optional
        Degrees of freedom; learned where it is not given, with prior Gamma(2, rate 0.1).
    a0, b0 : float, default=1.0
        Prior of the precision, ``alpha ~ Gamma(a0/2, rate b0/2)``; b0 has the unit of y squared.

    References
    ----------
    Greene (2012), Econometric Analysis, 7th edition, section 9.8 (groupwise heteroscedasticity).
    Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, sections 14.7 (unequal variances) and 17.2 (t as a scale
    mixture).

    Examples
    --------
    >>> from bayesfm.likelihoods import GroupwiseGaussian
    >>> GroupwiseGaussian(num_groups=3).dims
    {'alpha': (), 'df': (), 'tau': ('noise_group',)}
    """

    has_bound: ClassVar[bool] = True
    num_groups: int
    df: float | None = None
    a0: float = 1.0
    b0: float = 1.0

    def __post_init__(self) -> None:
        check_count("GroupwiseGaussian(num_groups=)", self.num_groups, minimum=1)
        if self.num_groups > 2**24:
            raise ValueError(
                "GroupwiseGaussian(num_groups=) must be at most 2**24, which float32 counts up to; got "
                f"{self.num_groups}"
            )
        for name in ("df", "a0", "b0"):
            if getattr(self, name) is not None:
                check_positive(f"GroupwiseGaussian({name}=)", getattr(self, name))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """``alpha``, the precision of a typical group; ``df`` where it is learned; ``tau``, one per group."""
        learned: dict[str, tuple[str, ...]] = {} if self.df is not None else {"df": ()}
        return {"alpha": (), **learned, "tau": ("noise_group",)}

    @property
    def sizes(self) -> dict[str, int]:
        """Of ``noise_group``."""
        return {"noise_group": self.num_groups}

    @property
    def row_data(self) -> dict[str, float | None]:
        """``noise_group``, the number of the row's group, which has to be said."""
        return {"noise_group": None}

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None, num_groups: int = 1) -> Self:
        """One prior observation of the size of y's standard deviation, df learned."""
        return cls(num_groups, b0=spread(y, weight) ** 2)

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Any finite real response whose square is one, too, in float32; groups -1, 0, ..., G - 1."""
        code = np.asarray((rows or {}).get("noise_group", 0))
        wrong = ~((code >= UNSEEN) & (code < self.num_groups) & (code == np.round(code)))
        if np.any(wrong):
            raise ValueError(
                f"noise_group must hold 0, ..., {self.num_groups - 1}, or {UNSEEN} for a group that training never "
                f"saw; got {code[wrong].flat[0]:g}"
            )
        return super().validate(y, weight, rows)

    def check_training(self, rows: Mapping[str, np.ndarray]) -> None:
        """Every row needs its group."""
        if np.any(rows["noise_group"] < 0):
            n = int(np.flatnonzero(rows["noise_group"] < 0)[0])
            raise ValueError(
                f"noise_group must be known of every row to be learned from; row {n} has {UNSEEN}"
            )

    def prior(self) -> dict[str, Distribution]:
        """Gamma priors of alpha and df; that of tau depends on df."""
        priors = {"alpha": Gamma(0.5 * self.a0, 0.5 * self.b0), "df": Gamma(2.0, 0.1)}
        return {name: priors[name] for name in self.dims if name in priors}

    def sample(self) -> Params:
        """Sample alpha, df and tau from their prior, inside a NumPyro model."""
        params = super().sample()
        return {**params, "tau": numpyro.sample("tau", self._tau(params))}

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """Log p(alpha) + log p(df) + log p(tau | df)."""
        return super().log_prior(params) + self._tau(params).log_prob(params["tau"])

    def _tau(self, params: Params) -> Distribution:
        a = 0.5 * self._df(params)
        return dist.Gamma(a, a).expand((self.num_groups,)).to_event(1)

    def _df(self, params: Params) -> Array:
        return params["df"] if self.df is None else jnp.asarray(self.df, params["alpha"].dtype)

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> Distribution:
        """N(eta, 1/(alpha tau)), or Student's t around eta with scale alpha^(-1/2)."""
        g, known = self._group(rows)
        precision = params["alpha"] * jnp.where(known, params["tau"][g], 1.0)
        return GroupNoise(eta, precision, self._df(params), known)

    def _group(self, rows: RowData) -> tuple[Int[Array, "..."], Bool[Array, "..."]]:
        """Number of every row's group, 0 where it is not known, and whether it is; padding may have any number."""
        code = jnp.asarray(rows["noise_group"]).astype(jnp.int32)
        known = (code >= 0) & (code < self.num_groups)
        return jnp.where(known, code, 0), known

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, " n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density, of groups that are all known."""
        y, weight, rows = observed
        precision = self._precision(params, rows)
        return 0.5 * total(weight, precision, y, eta, of=weighted_log_normal)

    def _sums(self, observed: Observed, eta: Float[Array, " n"]) -> Float[Array, "2 G"]:
        """Weight W_g and weighted sum of squares S_g of every group."""
        y, weight, rows = observed
        g, _ = self._group(rows)
        return totals_by_group(jnp.stack([weight, weight * (y - eta) ** 2], axis=1), g, self.num_groups).T

    def initial(self, observed: Observed) -> Params:
        """The precision of y around its mean; df = 5, all tau one."""
        alpha = self.initial_alpha(observed)
        learned = {} if self.df is not None else {"df": jnp.full_like(alpha, 5.0)}
        return {"alpha": alpha, **learned, "tau": jnp.ones_like(alpha, shape=(self.num_groups,))}

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """Alpha given tau; a Metropolis step in log alpha (and log df), tau integrated out; then tau given them.

        alpha | tau, . ~ Gamma((a0 + sum W_g)/2, rate (b0 + sum tau_g S_g)/2): with tau held this moves a little only,
        but always, where Metropolis steps from afar are refused (the density there is no Gaussian: at the start of a
        chain residuals shrink faster than alpha can follow). tau_g | . ~ Gamma((df + W_g)/2, rate (df + alpha S_g)/2).
        One pass over the rows, for W and S.
        """
        key_alpha, key_step, key_tau = jax.random.split(key, 3)
        names = [name for name in self.dims if name != "tau"]
        W, S = self._sums(observed, eta)
        rate = 0.5 * (self.b0 + total(params["tau"] * S))
        params = {**params, "alpha": gamma(key_alpha, 0.5 * (self.a0 + total(W)), native=native) / rate}

        def own(u: Float[Array, " d"]) -> Params:
            return dict(zip(names, jnp.exp(u), strict=True))

        def log_prior(u: Float[Array, " d"]) -> Float[Array, ""]:
            """Of u, the Jacobian included."""
            return super(GroupwiseGaussian, self).log_prior(own(u)) + jnp.sum(u)

        def terms(u: Float[Array, " d"], new: Float[Array, " d"]) -> Float[Array, " G"]:
            here, there = own(u), own(new)
            return rise_of_marginal(W, S, here["alpha"], self._df(here), there["alpha"], self._df(there))

        def derivatives(u: Float[Array, " d"], _: None) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
            def f(new: Float[Array, " d"]) -> Float[Array, ""]:
                return log_prior(new) + jnp.sum(terms(u, new))

            return jax.grad(f)(u), jax.hessian(f)(u)

        def log_ratio(u: Float[Array, " d"], _: None, new: Float[Array, " d"], __: None) -> Float[Array, ""]:
            return log_prior(new) - log_prior(u) + total(terms(u, new))

        u = jnp.log(jnp.stack([params[name] for name in names]))
        u = newton_metropolis(key_step, u, lambda u: None, derivatives, log_ratio)
        new = own(u)
        a = 0.5 * self._df(new)
        tau = gamma(key_tau, a + 0.5 * W, native=native) / (a + 0.5 * new["alpha"] * S)
        return {**new, "tau": jnp.maximum(tau, jnp.finfo(tau.dtype).tiny)}

    def fit(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Params:
        """Alpha and df with tau integrated out, then the mean of tau given them, (df + W_g)/(df + alpha S_g)."""
        params = super().fit(observed, mean, variance, params)
        W, S = self._expected_sums(observed, mean, variance)
        df = self._df(params)
        return {**params, "tau": (df + W) / (df + params["alpha"] * S)}

    def height(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, ""]:
        """With tau integrated out: its posterior mean enters the rows, its distribution this."""
        W, S = self._expected_sums(observed, mean, variance)
        a, alpha = 0.5 * self._df(params), params["alpha"]
        of_groups = (
            gammaln(a + 0.5 * W) - gammaln(a) + a * jnp.log(a) - (a + 0.5 * W) * jnp.log(a + 0.5 * alpha * S)
        )
        constant = 0.5 * jnp.sum(W) * jnp.log(alpha / (2 * jnp.pi))
        return jnp.sum(of_groups) + constant + self.log_prior_unconstrained(params)

    def _expected_sums(
        self, observed: Observed, mean: Float[Array, " n"], variance: Float[Array, " n"]
    ) -> Float[Array, "2 G"]:
        """W_g, and S_g with the variance of eta."""
        y, weight, rows = observed
        g, _ = self._group(rows)
        square = weight * ((y - mean) ** 2 + variance)
        return totals_by_group(jnp.stack([weight, square], axis=1), g, self.num_groups).T

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(omega, z) = (alpha tau weight, y): tau is a parameter, and drawn by :meth:`update`."""
        return self._precision(params, observed.rows) * observed.weight, observed.y

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Exact, as for a Gaussian."""
        omega = self._precision(params, observed.rows) * observed.weight
        return self.log_density(observed, mean, params) - 0.5 * omega * variance

    def _precision(self, params: Params, rows: RowData) -> Float[Array, " n"]:
        """alpha tau of every row; looked up once, and not for every sum that it enters."""
        g, _ = self._group(rows)
        return lax.optimization_barrier((params["alpha"] * params["tau"])[g])


def weighted_log_normal(weight: Array, precision: Array, y: Array, eta: Array) -> Array:
    """Twice the weighted log density of a normal response."""
    return weight * (jnp.log(precision / (2 * jnp.pi)) - precision * (y - eta) ** 2)


def rise_of_marginal(
    W: Float[Array, " G"],
    S: Float[Array, " G"],
    alpha: Float[Array, ""],
    df: Float[Array, ""],
    new_alpha: Float[Array, ""],
    new_df: Float[Array, ""],
) -> Float[Array, " G"]:
    """Log marginal density of every group's rows, tau integrated out, at new parameters minus at old ones.

    With a = df/2, h = W/2, s = S/2 the marginal (a multivariate t) is, up to what depends on the rows alone,
    Gamma(a + h)/Gamma(a) (alpha/a)^h (1 + alpha s/a)^-(a + h). For a large group or a large df its logarithm is a small
    difference of large numbers. With Stirling's formula, log Gamma(x) = (x - 1/2) log x - x + delta(x) + const, it is

        -a log((a + alpha s)/(a + h)) - h log((a/alpha + s)/(a + h)) - log(1 + h/a)/2 + delta(a + h) - delta(a) + const,

    and of the second term the difference is taken in closed form.
    """
    h, s = 0.5 * W, 0.5 * S
    a, b = 0.5 * df, 0.5 * df / alpha
    new_a, new_b = 0.5 * new_df, 0.5 * new_df / new_alpha

    def rest(a: Array, alpha: Array) -> Array:
        remainder = stirling_remainder(a + h) - stirling_remainder(a)
        return remainder - a * jnp.log1p((alpha * s - h) / (a + h)) - 0.5 * jnp.log1p(h / a)

    ratio = (new_b - b) / (b + s) * ((a + h) / (new_a + h)) - (new_a - a) / (new_a + h)
    return rest(new_a, new_alpha) - rest(a, alpha) - h * jnp.log1p(ratio)
