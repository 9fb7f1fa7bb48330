"""Leave-one-out cross-validation of models, row by row with labels, and their comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesfm.design import Design
from bayesfm.mixture import FittedModel
from bayesfm.predictive import log_likelihood
from bayesfm.psis import LeaveOneOut, leave_one_out

if TYPE_CHECKING:
    import pandas as pd
    from arviz_stats.utils import ELPDData

__all__ = ["compare", "leave_one_out_of_model", "loo_results"]

PIECE = 1 << 25
"""Log densities that are in memory at once, about."""

NAMED = 5
"""Rows that a warning names."""


def leave_one_out_of_model(
    model: FittedModel,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None,
    row_data: Mapping[str, np.ndarray],
    relative_ess: float,
) -> LeaveOneOut:
    """PSIS-LOO of every row, a piece of the rows at a time: the log densities of all are never there together.

    Parameters
    ----------
    model : FittedModel
        Draws of a model.
    design, y, weight, row_data
        The training rows.
    relative_ess : float
        Effective draws over draws.
    """
    n = design.num_rows
    rows = max(1, PIECE // model.num_draws)
    parts = []
    for first in range(0, n, rows):
        own = np.arange(first, min(n, first + rows))
        log_lik = log_likelihood(
            model,
            design if len(own) == n else design.take(own),
            y[own],
            None if weight is None else weight[own],
            {name: x[own] for name, x in row_data.items()},
        )
        parts.append(leave_one_out(log_lik.reshape(-1, len(own)).T, relative_ess))
    return LeaveOneOut(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def loo_results(found: LeaveOneOut, num_draws: int, labels: Any, y: Any = None) -> ELPDData:
    """As ``arviz_stats.loo`` returns them, rows under their labels, with the response beside them where it is given.

    Rows without an estimate (a draw under which they cannot be) are left out of the sums, named in a warning, and have
    -inf in ``elpd_i`` and inf in ``pareto_k``.

    Warns
    -----
    UserWarning
        Of such rows; and of those whose Pareto k says that the estimate is not to be relied on.
    """
    import xarray as xr
    from arviz_stats.utils import ELPDDataLOO

    labels = np.asarray(labels)
    fine = np.isfinite(found.elpd)
    good_k = min(1 - 1 / np.log10(num_draws), 0.7)
    high = found.pareto_k > good_k
    if not fine.all():
        _warn(
            f"{_rows(labels, ~fine)}: some draw gives y a density of zero, so that there is no leave-one-out density; "
            "the results are those of the other rows. A likelihood with heavier tails has no such rows."
        )
    if np.any(high & fine):
        _warn(
            f"Pareto k is above {good_k:.2f} in {_rows(labels, high & fine)}: each of them by itself has a large "
            "influence on the posterior, and its leave-one-out density may be far off"
        )
    elpd, p = found.elpd[fine], found.p[fine]

    coords: dict[str, Any] = (
        {"row": labels} if y is None else {"row": labels, "response": ("row", np.asarray(y))}
    )

    def by_row(x: np.ndarray) -> xr.DataArray:
        return xr.DataArray(x, dims="row", coords=coords, name="y")

    return ELPDDataLOO(
        elpd=float(elpd.sum()),
        se=_standard_error(elpd),
        p=float(p.sum()),
        n_samples=num_draws,
        n_data_points=len(elpd),
        scale="log",
        warning=bool(np.any(high)),
        good_k=good_k,
        elpd_i=by_row(found.elpd),
        pareto_k=by_row(found.pareto_k),
    )


def compare(results: Mapping[str, ELPDData], **options: Any) -> pd.DataFrame:
    """Compare models by their leave-one-out densities, row by row.

    ``arviz_stats.compare`` pairs rows by position, whatever their labels say. Here labels have to be the same for all
    models; where they stand in another order, rows are put into that of the first.

    Parameters
    ----------
    results : mapping of str to ELPDData
        By name of the model: what ``loo`` of an estimator returned.
    **options
        Of ``arviz_stats.compare``, for instance ``method="pseudo-BMA"``.

    Returns
    -------
    pandas.DataFrame
        One row per model, the best first: ``elpd``, its difference to the best, the standard error of the difference.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two results, or they are not of the same rows: other labels, or under the same label
        another response, as rows of arrays have that were shuffled.

    Notes
    -----
    Rows that one of the models has no estimate for (``elpd_i`` of -inf) are left out of the comparison of all.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC,
    Statistics and Computing 27.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesfm.comparison import compare, loo_results
    >>> from bayesfm.psis import leave_one_out
    >>> log_lik = 0.1 * np.random.default_rng(0).normal(size=(9, 400))
    >>> near, far = (loo_results(leave_one_out(log_lik - by), 400, range(9)) for by in (0.0, 1.0))
    >>> compare({"far": far, "near": near}).index.tolist()
    ['near', 'far']
    """
    from arviz_stats import compare as arviz_compare

    if len(results) < 2:
        raise ValueError(f"compare needs two models or more, got {len(results)}")
    rows = {name: _labelled(name, found) for name, found in results.items()}
    first, *others = rows
    order = rows[first]
    for name in others:
        if len(rows[name]) != len(order):
            raise ValueError(
                f"compare needs results of the same rows: {first!r} has {len(order)}, {name!r} {len(rows[name])}"
            )
        missing = order.difference(rows[name])
        if len(missing):
            raise ValueError(
                f"compare needs results of the same rows: {name!r} lacks {_list(missing)}, which {first!r} has. Labels "
                "are those of the index of X or y, else 0, 1, 2, ...: rows taken from a table keep theirs"
            )
    aligned = {name: found.elpd_i.isel(row=rows[name].get_indexer(order)) for name, found in results.items()}
    _same_response(aligned)
    fine = np.all([np.isfinite(x.to_numpy()) for x in aligned.values()], axis=0)
    if not fine.all():
        _warn(f"{_rows(order.to_numpy(), ~fine)} left out: some model has no leave-one-out density there")
    return arviz_compare(
        {
            name: _of_rows(found, aligned[name][fine], rows[name], order[fine])
            for name, found in results.items()
        },
        **options,
    )


def _same_response(aligned: Mapping[str, Any]) -> None:
    """Raise unless every row has one response in all results that have any."""
    known = {name: x["response"].to_numpy() for name, x in aligned.items() if "response" in x.coords}
    for name, response in known.items():
        first = next(iter(known))
        other, labels = response != known[first], aligned[name]["row"].to_numpy()
        if np.any(other):
            raise ValueError(
                f"compare needs results of the same rows: {_rows(labels, other)} have another y "
                f"under {name!r} than under {first!r}. Arrays have no labels: give all models the rows in one order"
            )


def _of_rows(found: ELPDData, elpd: Any, labels: pd.Index, chosen: pd.Index) -> ELPDData:
    """The same result for some rows, in another order."""
    from dataclasses import replace

    values = elpd.to_numpy()
    k = found.pareto_k
    return replace(
        found,
        elpd=float(values.sum()),
        se=_standard_error(values),
        n_data_points=len(values),
        elpd_i=elpd,
        pareto_k=None if k is None else k.isel(row=labels.get_indexer(chosen)),
    )


def _standard_error(elpd: np.ndarray) -> float:
    """Of the sum over rows; NaN of a single one."""
    return float(np.sqrt(len(elpd) * np.var(elpd, ddof=1))) if len(elpd) > 1 else float("nan")


def _labelled(name: str, found: ELPDData) -> pd.Index:
    elpd = getattr(found, "elpd_i", None)
    if elpd is None or getattr(elpd, "dims", None) != ("row",):
        raise TypeError(
            f"compare wants what loo of a model returned, with one value per row, for {name!r}; got "
            f"{type(found).__name__}"
        )
    labels = elpd.indexes["row"]
    if labels.has_duplicates:
        raise ValueError(
            f"compare cannot pair rows of {name!r} by their labels, of which {_list(labels[labels.duplicated()])} "
            "occur more than once: give X an index without duplicates"
        )
    return labels


def _rows(labels: np.ndarray, chosen: np.ndarray) -> str:
    number = int(chosen.sum())
    return f"{number} of {len(labels)} rows ({_list(labels[chosen])})"


def _list(labels: Any) -> str:
    more = f", ... {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return ", ".join(map(str, labels[:NAMED])) + more


def _warn(message: str) -> None:
    """A warning that points at the first line outside this package."""
    warnings.warn(message, UserWarning, skip_file_prefixes=(str(Path(__file__).parent),))
