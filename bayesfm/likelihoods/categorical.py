"""Unordered classes: one linear predictor per class but the first, which is what the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key
from numpyro.distributions import Distribution, constraints

from bayesfm._checks import check_count
from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Likelihood, Observed, Params, RowData
from bayesfm.likelihoods.bernoulli import BernoulliLogit
from bayesfm.likelihoods.response import check_codes

__all__ = ["Categorical", "Softmax"]


class Softmax(Distribution):
    """y = c with probability exp(eta_c) / sum exp(eta), where eta_0 = 0; eta_1, eta_2, ... lie along the first axis."""

    arg_constraints = {"eta": constraints.real}  # noqa: RUF012
    pytree_data_fields = ("eta", "log_norm")

    def __init__(self, eta: Float[Array, "L ..."], *, validate_args: bool | None = None) -> None:
        self.eta = eta
        self.log_norm = jnp.logaddexp(0.0, logsumexp(eta, axis=0))
        super().__init__(batch_shape=jnp.shape(eta)[1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """0, ..., C - 1."""
        return constraints.integer_interval(0, self.eta.shape[0])

    def log_prob(self, value: Array) -> Array:
        """Log probability of class ``value``."""
        classes = jnp.arange(1, self.eta.shape[0] + 1).reshape(-1, *[1] * len(self.batch_shape))
        return jnp.sum(jnp.where(jnp.asarray(value) == classes, self.eta, 0.0), axis=0) - self.log_norm

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """A class."""
        logits = jnp.concatenate([jnp.zeros_like(self.eta[:1]), self.eta])
        return jax.random.categorical(key, logits, axis=0, shape=sample_shape + self.batch_shape)


@pytree(static=("num_classes",))
@dataclass(frozen=True)
class Categorical(Likelihood):
    """Classes without order: ``p(y_n = c) = exp(eta_nc) / sum_b exp(eta_nb)``, with ``eta_n0 = 0``.

    Class 0 is what the others are compared with. Every other class has an FM of its own: intercept, weights, factors,
    and their hyperparameters. A row of weight c
    counts as c equal rows, for any c >= 0.

    The priors are those of log odds against class 0, so that the prior of the probabilities depends on which class that
    is: it is symmetric in the others only. With data for all classes the posterior hardly depends on it.

    Parameters
    ----------
    num_classes : int
        C, with codes 0, ..., C - 1. Classes that do not occur are allowed.

    References
    ----------
    Holmes & Held (2006), Bayesian auxiliary variable models for binary and multinomial regression, Bayesian Analysis 1.
    Polson, Scott & Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables, JASA 108.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.likelihoods import Categorical
    >>> y = Categorical(num_classes=3).distribution(jnp.log(jnp.array([2.0, 5.0])), {}, {})
    >>> [round(float(jnp.exp(y.log_prob(c))), 3) for c in range(3)]
    [0.125, 0.25, 0.625]
    """

    num_classes: int = 3

    output_dims: ClassVar[tuple[str, ...]] = ("class",)
    has_moments: ClassVar[bool] = False
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("Categorical(num_classes=)", self.num_classes, minimum=2)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of classes but the reference."""
        return {"class": self.num_classes - 1}

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Codes of these classes."""
        return {"class": np.arange(1, self.num_classes)}

    @classmethod
    def for_response(cls, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """As many classes as the largest code says."""
        return cls(num_classes=max(2, int(np.max(y)) + 1))

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Codes 0, ..., num_classes - 1; not every class has to occur."""
        return check_codes("Categorical", self.num_classes, y, "FMClassifier takes labels of any coding")

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Mean log odds against class 0, each class given half a row more, and the sd of a logistic variable."""
        share = np.bincount(np.asarray(y, np.int64), weight, self.num_classes) + 0.5
        return float(np.mean(np.log(share[1:] / share[0]))), float(np.pi / np.sqrt(3))

    def distribution(self, eta: Float[Array, "L ..."], params: Params, rows: RowData) -> Distribution:
        """Class c with log odds eta_c against class 0."""
        return Softmax(eta)

    def others_after(self, eta: Float[Array, "L n"]) -> Float[Array, "L n"]:
        """Log of the sum of exp(eta) over the classes after each: minus infinity for the last."""
        sums = lax.cumlogsumexp(eta, axis=0, reverse=True)
        return jnp.concatenate([sums[1:], jnp.full_like(eta[:1], -jnp.inf)])

    def pooled(self, a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
        """log(exp(a) + exp(b))."""
        return jnp.logaddexp(a, b)

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
        """That of "this class or another", of log odds psi = eta - others: (PG(c, psi), kappa / omega + others)."""
        binary = _this_or_another(observed, output)
        omega, z = BernoulliLogit().augment(key, binary, eta - others, {}, native=native)
        return omega, z + others

    def log_density_of_output(
        self,
        observed: Observed,
        output: Int[Array, ""],
        eta: Float[Array, " n"],
        others: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """Weight times log probability of "this class or another": what the density of y says of this eta."""
        return BernoulliLogit().log_density(_this_or_another(observed, output), eta - others, {})


def _this_or_another(observed: Observed, output: Int[Array, ""]) -> Observed:
    own = (observed.y == output + 1).astype(observed.weight.dtype)
    return Observed(own, observed.weight, {})
