"""What every likelihood offers: a NumPyro distribution, its parameters' prior, and its Gibbs conditionals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key
from numpyro.distributions import Distribution, biject_to

from bayesfm.likelihoods.newton import by_differences, newton_ascent
from bayesfm.sums import total

__all__ = ["Likelihood", "Observed", "Params", "RowData", "check_row_data"]

Params = dict[str, Array]
"""Named parameters of a likelihood, for instance ``{"alpha": ...}``."""

RowData = dict[str, Array]
"""What a likelihood has to know of every row besides y and its weight, for instance ``{"exposure": ...}``."""


class Observed(NamedTuple):
    """Response, weights and further data of all rows; a row of weight c counts as c equal rows."""

    y: Float[Array, " n"]
    weight: Float[Array, " n"]
    rows: RowData


class Likelihood(ABC):
    """p(y | eta, params).

    Gibbs meets a likelihood only through :meth:`augment`, a weight omega_n and a working response z_n with
    ``z_n ~ N(eta_n, 1/omega_n)`` given the augmentation, and through :meth:`update`, which draws ``params``. A
    likelihood without an augmentation is for other engines only, and says so by ``conjugate = False``.
    """

    conjugate: ClassVar[bool] = True
    """Whether there is an augmentation that makes the conditionals of the weights and factors Gaussian."""

    identifies_intercept: ClassVar[bool] = True
    """False where a shift of eta is a shift of the parameters: the model has no w0 then."""

    separable: ClassVar[bool] = False
    """Whether data can leave the likelihood without a maximum at finite eta, as separated classes do: then the scale of
    eta is what mixes slowest, and gets a move of its own."""

    light_scales: ClassVar[bool] = False
    """Whether default priors of the scales of w and v have light tails (``model.default_spec``)."""

    output_dims: ClassVar[tuple[str, ...]] = ()
    """Named dimension of several linear predictors, each with parameters of its own; none where there is one."""

    has_bound: ClassVar[bool] = False
    """Whether there is an :meth:`expected_log_density`."""

    has_moments: ClassVar[bool] = True
    """False where y is no number, so that it has neither mean nor variance."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """How many linear predictors: () or (L,), the leading axis of eta, w0, w, v and their hyperparameters."""
        return tuple(self.sizes[name] for name in self.output_dims)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Named dimensions of each parameter, the scalars ``()``."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension that the likelihood brings along."""
        return {}

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Labels along each of these dimensions."""
        return {name: np.arange(size) for name, size in self.sizes.items()}

    @property
    def row_data(self) -> dict[str, float | None]:
        """Names of what must be known of every row, with the value where nothing is said; None: it must be said."""
        return {}

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """The likelihood with weakly informative constants for a response."""
        return cls()

    @abstractmethod
    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Check response, weights and row data on the host; return the response as floats, or raise."""

    def check_training(self, rows: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError for row data that will do for a prediction, but not for a fit."""
        return

    @abstractmethod
    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Where eta is to be expected, and how far from there: what default priors are made of."""

    def centre(self, y: np.ndarray, weight: np.ndarray | None) -> float:
        """What may be taken off y and off w0 alike without changing the model; 0 where there is no such thing."""
        return 0.0

    def prior(self) -> dict[str, Distribution]:
        """Independent priors of the parameters."""
        return {}

    def sample(self) -> Params:
        """Sample the parameters from their prior, inside a NumPyro model."""
        return {name: numpyro.sample(name, prior) for name, prior in self.prior().items()}

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """Log prior density of the parameters."""
        terms = [prior.log_prob(params[name]) for name, prior in self.prior().items()]
        return sum((jnp.sum(t) for t in terms), start=jnp.zeros(()))

    def shifted(self, params: Params, delta: Float[Array, ""]) -> Params:
        """Parameters under which eta + delta means what eta does under these; asked for where there is no intercept."""
        raise NotImplementedError(f"a shift of eta is no shift of the parameters of {type(self).__name__}")

    @abstractmethod
    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> Distribution:
        """Distribution of y given the linear predictor, or given several along the first axis of eta."""

    def log_likelihood(
        self, observed: Observed, eta: Float[Array, "*L n"], params: Params, *, native: bool = False
    ) -> Float[Array, ""]:
        """Sum over rows of weight times log density of y; rows of weight zero count for nothing, whatever their y.

        ``native`` says that compiled kernels may be used.
        """
        return total(self.log_density(observed, eta, params))

    def log_density(
        self, observed: Observed, eta: Float[Array, "*L n"], params: Params
    ) -> Float[Array, " n"]:
        """Weight times log density of y, row by row; 0 where the weight is."""
        log_density = self.distribution(eta, params, observed.rows).log_prob(observed.y)
        return jnp.where(observed.weight > 0, observed.weight * log_density, 0.0)

    def initial(self, observed: Observed) -> Params:
        """Where a chain starts."""
        return {}

    def update(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, "*L n"],
        params: Params,
        *,
        native: bool = False,
    ) -> Params:
        """Draw the parameters given eta and y, the augmentation integrated out.

        ``native`` says that compiled kernels may be used.
        """
        return params

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Draw the augmentation; return (omega, z). Rows of weight zero have omega zero and any finite z.

        ``native`` says that compiled kernels may be used.
        """
        raise NotImplementedError(f"{type(self).__name__} has no augmentation")

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Weight times a lower bound of E[log p(y | eta)], eta ~ N(mean, variance): that of the augmentation.

        It is exact for variance 0. Its derivatives are all that coordinate ascent sees of a likelihood: that by the
        variance is -omega/2, that by the mean omega (z - mean). See docs/math.md, section 29.
        """
        raise NotImplementedError(f"{type(self).__name__} has no bound that is quadratic in eta")

    def fit(
        self,
        observed: Observed,
        mean: Float[Array, "*L n"],
        variance: Float[Array, "*L n"],
        params: Params,
    ) -> Params:
        """Parameters under which :meth:`height` is larger: a Newton step uphill on unconstrained scales."""
        bijections = {name: biject_to(prior.support) for name, prior in self.prior().items()}
        if not bijections:
            return params
        free, of_vector = ravel_pytree({name: b.inv(params[name]) for name, b in bijections.items()})

        def constrained(u: Float[Array, " d"]) -> Params:
            return {**params, **{name: bijections[name](x) for name, x in of_vector(u).items()}}

        def height(u: Float[Array, " d"]) -> Float[Array, ""]:
            return self.height(observed, mean, variance, constrained(u))

        return constrained(newton_ascent(free, by_differences(height)))

    def height(
        self,
        observed: Observed,
        mean: Float[Array, "*L n"],
        variance: Float[Array, "*L n"],
        params: Params,
    ) -> Float[Array, ""]:
        """What coordinate ascent raises: the expected log likelihood, and the log prior on unconstrained scales.

        Likelihoods without a bound take eta for its mean.
        """
        if self.has_bound:
            of_rows = self.expected_log_density(observed, mean, variance, params)
        else:
            of_rows = self.log_density(observed, mean, params)
        return total(of_rows) + self.log_prior_unconstrained(params)

    def log_prior_unconstrained(self, params: Params) -> Float[Array, ""]:
        """Log prior density of the parameters' unconstrained coordinates."""
        out = jnp.zeros(())
        for name, prior in self.prior().items():
            bijection = biject_to(prior.support)
            free = bijection.inv(params[name])
            jacobian = jnp.sum(bijection.log_abs_det_jacobian(free, params[name]))
            out += jnp.sum(prior.log_prob(params[name])) + jacobian
        return out

    def others_after(self, eta: Float[Array, "L n"]) -> Float[Array, "L n"]:
        """Of every linear predictor: what those after it come to, as :meth:`pooled` puts it."""
        raise NotImplementedError(f"{type(self).__name__} has one linear predictor")

    def pooled(self, a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
        """What two linear predictors, or two sets of them, come to for a third."""
        raise NotImplementedError(f"{type(self).__name__} has one linear predictor")

    def augment_output(
        self,
        key: Key[Array, ""],
        observed: Observed,
        output: Int[Array, ""],
        eta: Float[Array, " n"],
        others: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """As :meth:`augment`, for one of several linear predictors; ``others`` is what all others come to."""
        raise NotImplementedError(f"{type(self).__name__} has one linear predictor")

    def log_density_of_output(
        self,
        observed: Observed,
        output: Int[Array, ""],
        eta: Float[Array, " n"],
        others: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """As :meth:`log_density`, of one of several linear predictors up to what does not depend on it."""
        raise NotImplementedError(f"{type(self).__name__} has one linear predictor")


def check_row_data(
    likelihood: Likelihood, given: Mapping[str, Any] | None, num_rows: int
) -> dict[str, np.ndarray]:
    """Row data of a likelihood, complete and of the right shape.

    Raises
    ------
    ValueError
        For a name that the likelihood does not know, one that is missing, another shape, or values that are not finite.
    """
    given, known = dict(given or {}), likelihood.row_data
    unknown = sorted(set(given) - set(known))
    if unknown:
        takes = ", ".join(known) or "none"
        raise ValueError(f"{type(likelihood).__name__} takes no row data {unknown[0]!r}; it takes: {takes}")
    out = {}
    for name, default in known.items():
        if name not in given or given[name] is None:
            if default is None:
                raise ValueError(
                    f"{type(likelihood).__name__} needs {name!r} for every row: give row_data={{{name!r}: ...}}"
                )
            out[name] = np.full(num_rows, default)
            continue
        values = np.asarray(given[name], np.float64)
        if values.shape not in ((), (num_rows,)):
            raise ValueError(f"{name} must have shape ({num_rows},), one value per row; got {values.shape}")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)].flat[0]!r}")
        out[name] = np.broadcast_to(values, (num_rows,))
    return out
