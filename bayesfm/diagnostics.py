"""Convergence of what is identified: summary tables and warnings.

The factors are defined only up to sign and permutation (or rotation), so R-hat of v itself, and of hyperparameters of a
single factor, says nothing. What stands here instead: w0, the parameters of the likelihood, the hyperparameters of w,
averages over factors of those of v, the log joint density, and eta at the probe rows.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesfm._checks import check_finite
from bayesfm.inference.convergence import MAX_RHAT, MIN_DRAWS, MIN_ESS_PER_CHAIN, judge, wanted_ess
from bayesfm.inference.identified import Quantity, quantities
from bayesfm.model import ModelSpec

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "ApproximationWarning",
    "ConvergenceWarning",
    "check_convergence",
    "has_chains",
    "identified",
    "labelled_draws",
    "pareto_k",
    "relative_ess",
    "summary",
    "warn_if_not_converged",
    "worst_probe",
]

FALSE_ALARMS = 0.01
"""Chance that any R-hat is larger than what is called chance."""
MAX_PARETO_K = 0.7
"""Vehtari et al. (2024), section 3."""
REMEDIES = {
    "max_sweeps": ("raise max_sweeps",) * 2,
    "max_seconds": ("raise max_seconds",) * 2,
    "callback": ("let the callback stop it later",) * 2,
}
"""Of R-hat and of effective sample sizes, after a run that was to find out for itself when it is done."""
MIN_WEIGHTS = 25
"""The generalized Pareto distribution is fitted to a fifth of them, five at least."""


class ConvergenceWarning(UserWarning):
    """The chains have not been run for long enough, or do not agree; or an ascent has not come to its end."""


class ApproximationWarning(UserWarning):
    """An approximation to the posterior is not close to it."""


def identified(tree: xr.DataTree) -> xr.Dataset:
    """Draws of the quantities that R-hat and effective sample size make sense for.

    Hyperparameters of v enter by ``mu_v_rms``, the root mean square over factors (mu_v changes sign with its factor),
    and by the means over factors of the others, for instance ``lambda_v_mean``: none of these changes when factors
    change places or signs.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior; see :func:`bayesfm.posterior.to_datatree`.

    Returns
    -------
    xarray.Dataset
        Variables of dimensions (chain, draw, ...); eta has one value per probe row, and of a parameter that the
        likelihood has for every group there are 100 at most.
    """
    import xarray as xr

    posterior, stats = tree["posterior"].dataset, tree["sample_stats"].dataset
    spec = ModelSpec.from_dict(json.loads(tree.attrs["spec"]))
    found = quantities(spec, [str(name) for name in (*posterior, *stats)])
    return xr.Dataset(
        {q.name: _labelled(q, (stats if q.source == "lp" else posterior)[q.source]) for q in found}
    )


def _labelled(quantity: Quantity, x: xr.DataArray) -> xr.DataArray:
    """Draws of a quantity with the labels of the site."""
    import xarray as xr

    x = x.transpose("chain", "draw", *quantity.dims)
    dims = ("chain", "draw", *quantity.kept_dims)
    labels = x.coords.to_dataset().isel(quantity.places({d: x.sizes[d] for d in quantity.dims}))
    kept = {name: c for name, c in labels.coords.items() if set(c.dims) <= set(dims)}
    return xr.DataArray(quantity.values(np.asarray(x)), dims=dims, coords=kept)


def summary(
    tree: xr.DataTree, var_names: str | Sequence[str] | None = None, *, ci_prob: float = 0.9
) -> pd.DataFrame:
    """Mean, spread and convergence of identified quantities.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    var_names : str or sequence of str, optional
        By default everything that :func:`identified` names, where all probe rows are stood for by ``eta[worst]``, the
        one with the largest R-hat. Sites can be asked for by name, among them ``w`` and ``eta`` (all probe rows).
        Asking for ``v`` or ``mu_v`` draws a warning.
    ci_prob : float, default=0.9
        Probability of the equal-tailed interval.

    Returns
    -------
    pandas.DataFrame
        One row per quantity: mean, sd, interval, bulk and tail effective sample size, R-hat (rank-normalized, split),
        Monte Carlo standard errors. Numbers are shown rounded; they are kept as they are. Of an engine without chains
        mean, sd and interval alone, and :func:`pareto_k` in ``attrs["pareto_k"]``.

    Raises
    ------
    ValueError
        If a name is unknown.

    Warns
    -----
    ApproximationWarning
        If Pareto k is above 0.7.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Rank-normalization, folding, and localization: an improved
    R-hat, Bayesian Analysis 16.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import ChainOptions, default_spec, design_from_matrix, gibbs, summary
    >>> from bayesfm.posterior import to_datatree
    >>> X, y = np.eye(4), np.array([1.0, 2.0, 4.0, 3.0])
    >>> design, spec = design_from_matrix(X), default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> summary(tree).index.tolist()  # doctest: +NORMALIZE_WHITESPACE
    ['w0', 'alpha', 'mu_w[X]', 'lambda_w[X]', 'mu_v_rms[X]', 'lambda_v_mean[X]', 'lp', 'eta[worst]']
    """
    from arviz_stats import summary as arviz_summary

    if not 0 < check_finite("ci_prob", ci_prob) < 1:
        raise ValueError(f"ci_prob must be between 0 and 1, got {ci_prob!r}")
    data, chains = identified(tree), has_chains(tree)
    if var_names is not None:
        data = _chosen(tree, data, [var_names] if isinstance(var_names, str) else list(var_names))
    elif "eta" in data and chains:
        data = data.drop_dims("probe").assign(eta=worst_probe(data["eta"]))
    elif "eta" in data:
        data = data.drop_dims("probe").assign(eta=data["eta"].isel(probe=[0]))
    if chains:
        return arviz_summary(halved(data), ci_prob=ci_prob, ci_kind="eti")
    table = arviz_summary(data, kind="stats", ci_prob=ci_prob, ci_kind="eti")
    k = pareto_k(tree)
    if k is not None:
        table.attrs["pareto_k"] = k
        if not k <= MAX_PARETO_K:
            _warn(
                f"Pareto k of the approximation is {k:.2f}, above {MAX_PARETO_K}: as a whole it is not close to the "
                "posterior, and intervals may be off, most of all those of hyperparameters. Predictions may still do: "
                "check their coverage on held-out rows, or use inference='gibbs'.",
                ApproximationWarning,
            )
    return table


def has_chains(tree: xr.DataTree) -> bool:
    """Whether the draws come from a Markov chain: R-hat and effective sample sizes mean nothing for the others."""
    return json.loads(tree.attrs["inference"]).get("engine") not in (
        "map",
        "laplace",
        "cavi",
        "stochastic_map",
        "svi",
    )


def relative_ess(tree: xr.DataTree) -> float:
    """Effective draws over draws, on average over the identified quantities; 1 without chains that can be compared.

    What importance sampling wants to know of the chains. ``arviz_stats`` averages over every entry of every variable of
    the posterior instead, the factors among them.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    """
    from arviz_stats import ess

    data = identified(tree)
    if not has_chains(tree) or data.sizes["chain"] < 2 or data.sizes["draw"] < MIN_DRAWS:
        return 1.0
    values = np.concatenate([np.ravel(x) for x in ess(data, method="mean").data_vars.values()])
    share = float(np.mean(values[np.isfinite(values)])) / (data.sizes["chain"] * data.sizes["draw"])
    return min(max(share, 0.02), 1.0)


def pareto_k(tree: xr.DataTree) -> float | None:
    """Shape of the tail of the importance weights from an approximation to the posterior, given its scales.

    Above 0.7 the weights have no reliable mean: the approximation lacks parts of the posterior. Of many parameters that
    depend on each other, as those of a factorization machine, approximations in blocks are rarely below.

    Parameters
    ----------
    tree : xarray.DataTree
        Of an engine that draws from an approximation.

    Returns
    -------
    float or None
        None where there are no weights: chains, a point, or fewer than 25 draws.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), Yes, but did it work? Evaluating variational inference, ICML. Vehtari,
    Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25.
    """
    from arviz_stats.base import array_stats

    stats = tree["sample_stats"].dataset
    if "log_weight" not in stats or stats["log_weight"].size < MIN_WEIGHTS:
        return None
    weights = np.asarray(stats["log_weight"], np.float64).ravel()
    if np.ptp(weights) < 1e-6 * len(weights):
        return -np.inf  # equal weights: the approximation is the posterior
    return float(array_stats.psislw(-weights, axis=-1)[1])  # it asks for a log-likelihood to be divided by


def halved(data: xr.Dataset) -> xr.Dataset:
    """One chain as two: R-hat then compares its parts."""
    import xarray as xr

    half = data.sizes["draw"] // 2
    if data.sizes["chain"] > 1 or half == 0:
        return data
    parts = [data.isel(draw=slice(-2 * half, -half)), data.isel(draw=slice(-half, None))]
    return xr.concat([p.assign_coords(chain=[c], draw=np.arange(half)) for c, p in enumerate(parts)], "chain")


def worst_probe(eta: xr.DataArray) -> xr.DataArray:
    """The probe row with the largest R-hat, labelled "worst"; over all classes, where each has an eta."""
    from arviz_stats import rhat

    values = rhat(halved(eta.to_dataset(name="eta")))["eta"]
    values = values.max([d for d in values.dims if d != "probe"])
    worst = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
    return eta.isel(probe=[worst]).assign_coords(probe=["worst"])


def _chosen(tree: xr.DataTree, data: xr.Dataset, names: list[str]) -> xr.Dataset:
    import xarray as xr

    posterior = tree["posterior"].dataset
    known = list(dict.fromkeys([*data.data_vars, *posterior.data_vars]))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"var_names names unknown quantities {unknown}; known are {', '.join(map(str, known))}"
        )
    for name in names:
        if name not in data and "factor" in posterior[name].dims:
            _warn(
                f"{name} is defined only up to a rotation of the factors: its R-hat and effective sample size over "
                "chains, and its mean, tell nothing about convergence; bayesfm.align turns draws to one orientation",
                UserWarning,
            )
    return xr.Dataset({name: data[name] if name in data else posterior[name] for name in names})


def check_convergence(tree: xr.DataTree) -> list[str]:
    """What speaks against taking the draws as draws from the posterior; an empty list if nothing does.

    Every identified quantity is judged, each probe row by itself, by R-hat and by bulk and tail effective sample
    size: R-hat up to 1.01 and 100 effective draws per chain are asked for, or ``target_ess`` of the run if that is
    more. The largest R-hat of a hundred is above 1.01 by chance in a third of all runs of 400 independent draws in 2
    chains; where that explains it, the sentence says so.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.

    Returns
    -------
    list of str
        One sentence per finding, with the worst quantity and what to do.
    """
    info = json.loads(tree.attrs["inference"])
    data = identified(tree)
    draws = data.sizes["draw"]
    if draws < MIN_DRAWS:
        return [f"{draws} draws per chain are too few to judge convergence: raise num_samples."]
    fixed = ("raise num_samples or num_warmup", "raise num_samples or thin")
    longer, denser = REMEDIES.get(info.get("stopped_by"), fixed)
    names, values = labelled_draws(data)
    judged = judge(values)
    wanted = wanted_ess(data.sizes["chain"], info.get("target_ess", 0))
    found = []
    finite, moving = judged.finite, judged.moving
    if not np.all(finite):
        found.append(f"{_list(names, ~finite)} has draws that are not finite.")
    if np.any(finite & ~moving):
        found.append(f"{_list(names, finite & ~moving)} never moved.")
    use = np.flatnonzero(finite & moving)
    if not len(use):
        return found
    names, r, size = (
        [names[i] for i in use],
        judged.rhat[use],
        {"bulk": judged.bulk[use], "tail": judged.tail[use]},
    )
    found += _finding(names, r, r > MAX_RHAT, f"R-hat above {MAX_RHAT}", np.argmax, ".3f", longer)
    # Chains that disagree have a small effective sample size for that reason: it must not excuse them.
    expected = _chance_rhat(size["bulk"], judged.num_chains, len(names))
    chance = np.where(size["bulk"] < wanted, MAX_RHAT, expected)
    if np.any(r > MAX_RHAT) and np.all(r <= np.maximum(chance, MAX_RHAT)):
        found[-1] += " Chains of this effective sample size that agree reach that R-hat by chance."
    each = "as target_ess" if wanted > wanted_ess(data.sizes["chain"]) else f"{MIN_ESS_PER_CHAIN} per chain"
    for kind, x in size.items():
        what = f"{kind} effective sample size below {wanted:g} ({each})"
        found += _finding(names, x, x < wanted, what, np.argmin, ".0f", denser)
    return found


def _chance_rhat(ess: np.ndarray, chains: int, count: int) -> np.ndarray:
    """What R-hat of any of ``count`` quantities exceeds in one of a hundred runs whose chains agree.

    Each quantity has two, of location and of spread (folded). The mean square between m half-chains of S effective
    draws, over that within, is chi2(m - 1) / (m - 1) in units of 1/S, and R-hat^2 = 1 + (that - 1) / S.
    """
    from scipy.stats import chi2

    halves = 2 * chains
    ratio = chi2.isf(FALSE_ALARMS / (2 * count), halves - 1) / (halves - 1)
    return np.sqrt(1.0 + (ratio - 1.0) / (ess / halves))


def _finding(
    names: list[str], values: np.ndarray, bad: np.ndarray, what: str, worst: Any, digits: str, remedy: str
) -> list[str]:
    if not np.any(bad):
        return []
    i = int(worst(values))
    return [
        f"{np.sum(bad)} of {len(names)} identified quantities have {what}, worst {names[i]} with {values[i]:{digits}}: "
        f"{remedy}."
    ]


def _list(names: list[str], chosen: np.ndarray, most: int = 3) -> str:
    picked = [names[i] for i in np.flatnonzero(chosen)]
    more = f" and {len(picked) - most} more" if len(picked) > most else ""
    return ", ".join(picked[:most]) + more


def labelled_draws(data: xr.Dataset) -> tuple[list[str], np.ndarray]:
    """All scalars side by side, (chain, draw, count), with their names."""
    names, columns = [], []
    for name, x in data.data_vars.items():
        x = x.transpose("chain", "draw", ...)
        inner = x.dims[2:]
        labels = [", ".join(map(str, key)) for key in product(*(x[d].values for d in inner))]
        names += [f"{name}[{label}]" if inner else str(name) for label in labels]
        columns.append(np.asarray(x, np.float64).reshape(*x.shape[:2], -1))
    return names, np.concatenate(columns, axis=2)


def warn_if_not_converged(tree: xr.DataTree) -> None:
    """Issue a :class:`ConvergenceWarning` with everything that :func:`check_convergence` finds.

    Of an engine without chains, if its ascent was stopped while it was rising.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    """
    if has_chains(tree):
        found = check_convergence(tree)
        if found:
            _warn("\n".join(["the chains have not converged:", *found]), ConvergenceWarning)
        return
    info = json.loads(tree.attrs["inference"])
    if not info.get("converged", True):  # a number of epochs says nothing of the kind
        _warn(
            f"the ascent was still rising after {info['iterations']} iterations: raise max_iterations, or tolerance if "
            "the rise is small enough for you",
            ConvergenceWarning,
        )


def _warn(message: str, category: type[Warning]) -> None:
    """A warning that points at the first line outside this package."""
    warnings.warn(message, category, skip_file_prefixes=(str(Path(__file__).parent),))
