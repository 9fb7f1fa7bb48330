"""What a fitted estimator of any likelihood says about rows, as methods over :mod:`bayesfm.predictive`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.design import Design
from bayesfm.estimators.inputs import Seed, check_row_data_lengths, check_rows, seed_key, seen_rows

if TYPE_CHECKING:
    import xarray as xr
    from arviz_stats.utils import ELPDData

    from bayesfm.predictive import FittedModel, PredictiveMoments

__all__ = ["Predictions"]


RowData = Mapping[str, Any] | None


class Predictions:
    """Methods of a fitted estimator, which sees to ``model_``, ``posterior_`` and ``_encode``."""

    model_: FittedModel
    posterior_: xr.DataTree

    def _encode(self, X: Any) -> Design:
        raise NotImplementedError

    def _as_response(self, y: Any, reset: bool) -> Any:
        raise NotImplementedError

    def _row_data(self, row_data: RowData, design: Design) -> dict[str, np.ndarray]:
        return check_row_data_lengths(row_data, design.num_rows)

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, row_data: RowData
    ) -> tuple[Design, np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
        design = self._encode(X)
        rows = seen_rows(self._row_data(row_data, design), sample_weight)
        return *check_rows(self, design, self._as_response(y, reset=False), sample_weight), rows

    def predict_moments(self, X: Any, row_data: RowData = None) -> PredictiveMoments:
        """Mean of y, and its variance split into what the parameters and what the noise contribute.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        PredictiveMoments
            ``mean``, ``parameter_variance``, ``noise_variance`` and ``sd``, each of shape (n,).
        """
        from bayesfm.predictive import predictive_moments

        design = self._encode(X)
        return predictive_moments(self.model_, design, self._row_data(row_data, design))

    def predict_quantiles(self, X: Any, probs: Any, row_data: RowData = None) -> Float[np.ndarray, "n q"]:
        """Quantiles of the predictive distribution of y, noise included.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        probs : array-like of shape (q,)
            Probabilities in (0, 1), at most 1 - 7.6e-6 in float32 (:func:`bayesfm.quantiles.extreme_probs`).
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        array of shape (n, q)
        """
        from bayesfm.quantiles import predictive_quantiles

        design = self._encode(X)
        return predictive_quantiles(self.model_, design, probs, self._row_data(row_data, design))

    def expected_draws(self, X: Any, row_data: RowData = None) -> Float[np.ndarray, "chain draw n"]:
        """E[y] of every row under every posterior draw: the uncertainty of the parameters, without the noise.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        array of shape (chain, draw, n)
        """
        from bayesfm.predictive import expected_draws

        design = self._encode(X)
        return expected_draws(self.model_, design, self._row_data(row_data, design))

    def sample_predictive(
        self, X: Any, random_state: Seed = 0, row_data: RowData = None
    ) -> Float[np.ndarray, "chain draw n"]:
        """One y per row and posterior draw, noise included.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        random_state : int, RandomState, Generator or None, default=0
            Seed of the noise.
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        array of shape (chain, draw, n)
        """
        from bayesfm.predictive import predictive_draws

        design = self._encode(X)
        return predictive_draws(seed_key(random_state), self.model_, design, self._row_data(row_data, design))

    def log_predictive_density(self, X: Any, y: Any, row_data: RowData = None) -> Float[np.ndarray, " n"]:
        """Log density of y under the predictive distribution of every row: the higher the better.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        y : array-like of shape (n,)
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        array of shape (n,)
        """
        from bayesfm.predictive import log_predictive_density

        design, y, _, rows = self._check_rows(X, y, None, row_data)
        return log_predictive_density(self.model_, design, y, rows)

    def log_likelihood(
        self, X: Any, y: Any, sample_weight: Any = None, row_data: RowData = None
    ) -> Float[np.ndarray, "chain draw n"]:
        """Log density of y for every row and posterior draw, times the weight; rows of weight zero are left out.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.

        Returns
        -------
        array of shape (chain, draw, n)
        """
        from bayesfm.predictive import log_likelihood

        design, y, weight, rows = self._check_rows(X, y, sample_weight, row_data)
        return log_likelihood(self.model_, design, y, weight, rows)

    def loo(
        self, X: Any, y: Any, sample_weight: Any = None, row_data: RowData = None, *, keep: bool = False
    ) -> ELPDData:
        """Leave-one-out cross-validation by Pareto-smoothed importance sampling, without another fit.

        Parameters
        ----------
        X, y, sample_weight
            What the model was fitted to. It keeps no copy of X; up to 100 rows of it are checked where the site eta
            was kept.
        row_data : mapping of str to array-like of shape (n,), optional
            What the likelihood has to know of every row: ``{"exposure": ...}`` of counts.
        keep : bool, default=False
            Put the group ``log_likelihood``, chain x draw x n numbers, into ``posterior_``, as functions of ArviZ want
            it. Without it the memory does not grow with the number of rows.

        Returns
        -------
        arviz_stats.ELPDData
            ``elpd``, its standard error ``se``, and ``elpd_i`` and ``pareto_k`` of every row, under the labels of the
            rows: the index of X or of y where there is one, else 0, 1, 2, ...; those of weight 0 are left out.
            :func:`bayesfm.compare` compares several.

        Raises
        ------
        ValueError
            If X, y or sample_weight are not those of ``fit``, there are fewer than 25 draws, or the fit is a point.

        Warns
        -----
        ApproximationWarning
            Where draws are from an approximation and not from the posterior.
        UserWarning
            Of rows without a reliable estimate: a large Pareto k, or a draw under which they cannot be.

        References
        ----------
        Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation
        and WAIC, Statistics and Computing 27. Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance
        sampling, JMLR 25.
        """
        from bayesfm.comparison import leave_one_out_of_model, loo_results
        from bayesfm.diagnostics import relative_ess
        from bayesfm.estimators.inputs import row_labels
        from bayesfm.estimators.leave_out import check_draws, check_fitted_data
        from bayesfm.posterior import add_log_likelihood
        from bayesfm.predictive import log_likelihood
        from bayesfm.psis import leave_one_out

        design, own_y, weight, rows = self._check_rows(X, y, sample_weight, row_data)
        check_draws(self.posterior_)
        check_fitted_data(self.posterior_, self.model_, design, own_y, weight, rows)
        efficiency = relative_ess(self.posterior_)
        if keep:
            log_lik = log_likelihood(self.model_, design, own_y, weight, rows)
            self.posterior_ = add_log_likelihood(self.posterior_, log_lik)
            found = leave_one_out(log_lik.reshape(-1, log_lik.shape[-1]).T, efficiency)
        else:
            found = leave_one_out_of_model(self.model_, design, own_y, weight, rows, efficiency)
        return loo_results(found, self.model_.num_draws, row_labels(X, y, sample_weight), own_y)
