"""Counts of successes among a known number of trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key
from scipy.special import logit

from bayesfm._pytree import pytree
from bayesfm.likelihoods.base import Likelihood, Observed, Params, RowData
from bayesfm.likelihoods.bernoulli import polya_gamma_augmentation
from bayesfm.likelihoods.bounds import logistic_bound
from bayesfm.likelihoods.distributions import BinomialLogits
from bayesfm.likelihoods.log_gamma_ratios import log_choose
from bayesfm.likelihoods.response import check_whole_numbers, share_of_ones

__all__ = ["BinomialLogit"]


@pytree()
@dataclass(frozen=True)
class BinomialLogit(Likelihood):
    """y_n successes of trials_n, each with log odds eta_n. The row data ``trials`` must be given.

    References
    ----------
    Polson, Scott & Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables, JASA 108.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.likelihoods import BinomialLogit
    >>> float(BinomialLogit().distribution(jnp.zeros(()), {}, {"trials": jnp.array(7.0)}).mean)
    3.5
    """

    has_bound: ClassVar[bool] = True
    separable = True

    @property
    def row_data(self) -> dict[str, float | None]:
        """``trials``, which must be given."""
        return {"trials": None}

    def validate(
        self, y: np.ndarray, weight: np.ndarray | None = None, rows: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Whole numbers of successes, none above the number of trials."""
        trials = check_whole_numbers("trials", np.asarray((rows or {})["trials"]))
        y = check_whole_numbers("y", y)
        if np.any(y > trials):
            i = int(np.flatnonzero(y > trials)[0])
            raise ValueError(
                f"y must not exceed trials, got {y[i]:g} successes of {trials[i]:g} trials in row {i}"
            )
        return y

    def expected_eta(
        self, y: np.ndarray, weight: np.ndarray | None, rows: Mapping[str, np.ndarray]
    ) -> tuple[float, float]:
        """Log odds of all trials together, and the standard deviation of a logistic variable."""
        return float(logit(share_of_ones(y, weight, rows["trials"]))), float(np.pi / np.sqrt(3))

    def distribution(self, eta: Float[Array, "..."], params: Params, rows: RowData) -> dist.Distribution:
        """Binomial with log odds eta."""
        return BinomialLogits(eta, rows["trials"].astype(jnp.int32))

    def augment(
        self,
        key: Key[Array, ""],
        observed: Observed,
        eta: Float[Array, " n"],
        params: Params,
        *,
        native: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """omega ~ PG(c m, eta), z = c (y - m/2) / omega for m trials."""
        y, weight, rows = observed
        trials = rows["trials"]
        kappa = weight * (y - 0.5 * trials)
        return polya_gamma_augmentation(key, weight * trials, kappa, eta, native=native)

    def expected_log_density(
        self,
        observed: Observed,
        mean: Float[Array, " n"],
        variance: Float[Array, " n"],
        params: Params,
    ) -> Float[Array, " n"]:
        """The bound of the Pólya-Gamma augmentation, for all trials of a row together."""
        y, weight, rows = observed
        trials = rows["trials"]
        return weight * (log_choose(y, trials - y + 1) + logistic_bound(y, trials, mean, variance))
