"""The factorization machine for a real response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.base import RegressorMixin

from bayesfm._checks import check_probability
from bayesfm.design import Block, Design
from bayesfm.estimators.base import FactorizationMachine
from bayesfm.estimators.inputs import Seed, check_bool
from bayesfm.inference.chains import ChainOptions, Progress
from bayesfm.inference.draws import Draws
from bayesfm.likelihoods import Gaussian, GroupwiseGaussian, Likelihood, StudentT
from bayesfm.model import ModelSpec
from bayesfm.priors import Prior

__all__ = ["FMRegressor"]


class FMRegressor(RegressorMixin, FactorizationMachine):
    """Bayesian factorization machine for a real response, with predictive distributions.

    ``y = w0 + sum_j w_j x_j + sum_{i<j} <v_i, v_j> x_i x_j + noise``, with all parameters and hyperparameters
    sampled from the posterior; R-hat and effective sample size are checked in every fit.

    Parameters
    ----------
    rank : int, optional
        Number of factors of the pairwise interactions; 0 leaves a linear model. By default 8, or the rank of
        ``spec``; one that contradicts ``spec`` is refused.
    likelihood : {"gaussian", "student_t"} or Likelihood, optional
        Noise: normal (the default), or heavy-tailed for responses with outliers.
    noise_group : str, optional
        A categorical column of X: normal noise with a precision per level of it, say per user, partially pooled
        (:class:`~bayesfm.likelihoods.GroupwiseGaussian`). Rows of a level that ``fit`` never saw are predicted by
        averaging over what the precision of a new level may be. Where X is a design, the name of a one-hot block.
    prior_w, prior_v : Prior or mapping of str to Prior, optional
        Priors of the linear weights and of the factors (:mod:`bayesfm.priors`) in place of the default ones. Their
        scales are in units of w and v, and are taken as they stand: only the defaults follow the scale of y. A mapping
        gives groups (columns of a DataFrame) a family of their own, ``{"user": HalfT(0.5)}``; groups that it does not
        name keep the default.
    inference : {"gibbs", "nuts", "map", "laplace", "cavi", "stochastic_map", "svi"}, default="gibbs"
        Gibbs sweeps, the No-U-Turn sampler, the posterior mode given scales, normals around it, mean-field variational
        inference, or a mode or independent normals by minibatches, which also learn in chunks (``partial_fit``); see
        docs/engines.md for which is good at what.
    engine_options : mapping, optional
        For "nuts": ``start``, ``warm_sweeps``, ``parametrization``, ``target_accept``, ``max_tree_depth`` of
        :func:`bayesfm.nuts`. For "map", "laplace" and "cavi": ``max_iterations``, ``tolerance``, ``patience`` of
        :class:`bayesfm.AscentOptions`; for the last two the fields of :class:`bayesfm.MinibatchOptions`. For all five
        ``validation``, a share of the rows or (X, y) to stop by, and what :func:`bayesfm.find_map`,
        :func:`bayesfm.laplace`, :func:`bayesfm.cavi`, :func:`bayesfm.stochastic_map` or :func:`bayesfm.svi` take.
    spec : ModelSpec, optional
        Likelihood and priors, and the rank with them. By default weakly informative ones on the scale of y
        (:func:`bayesfm.default_spec`). It leaves nothing to ``likelihood``, ``prior_w`` and ``prior_v``.
    groups : p ints or p strings, optional
        For a matrix X: prior group of every column. The columns of a DataFrame have a group each.
    categorical, numeric : sequence of str, optional
        For a DataFrame X: columns to take as categories (floats, dates), or as numbers (integers, booleans). By
        default floats are numbers; strings, categories, booleans and **integers too** are categories.
    num_warmup : int, default=200
        Sweeps per chain that are thrown away; the least, where ``num_samples`` is "auto" (all of them for "nuts").
    num_samples : int or "auto", default=500
        Draws kept per chain. "auto" samples until every identified quantity has R-hat up to 1.01 and ``target_ess``
        effective draws, or until ``max_sweeps`` or ``max_seconds``; the warm-up is as long as it has to be (see
        :class:`bayesfm.ChainOptions`). ``fit_info_`` says what came of it. Engines without chains draw 500.
    num_chains : int, default=2
        Independent chains.
    thin : int, default=1
        Sweeps per draw.
    target_ess : float, default=400
        With ``num_samples="auto"``: effective draws over all chains that are asked for, at least 100 per chain.
    max_sweeps : int, default=20000
        With ``num_samples="auto"``: sweeps per chain after which the run ends even so, with a warning.
    max_seconds : float, optional
        With ``num_samples="auto"``: time after which it does.
    max_draws : int, optional
        With ``num_samples="auto"``: draws kept per chain, at most; of a longer run every second, fourth, ... is kept.
        By default 1000, or four for every effective draw asked for.
    factor_block : int, "joint" or "auto", default="auto"
        Factors drawn jointly with the weights, at most all: a matter of speed and mixing, not of the model. Of Gibbs
        alone, as ``kernels``.
    kernels : {"auto", "native", "xla"}, default="auto"
        Sweep by compiled kernels or by XLA; "auto" takes the kernels on a CPU where they were built.
    chain_method : {"auto", "sequential", "vectorized", "parallel"}, default="auto"
        One chain after the other, side by side, or one per device.
    keep : "all", "hyper" or sequence of str, default="all"
        Sites to store. "hyper" leaves out the parameters of the features, chains x draws x p x (rank + 1)
        numbers, and with them ``predict``: give ``predict_rows``.
    predict_rows : mapping of str to X, optional
        Rows whose predictive moments are gathered while sampling, into ``streams_``.
    progress : bool, default=False
        Show a progress bar.
    callback : callable, optional
        Called about once a second with a :class:`~bayesfm.inference.chains.Progress`; a true answer stops the
        run, which keeps its draws so far. Before the end of the warm-up (``progress.warming_up``) there are none,
        and ``fit`` raises RuntimeError.
    checkpoint : path, optional
        Folder from which a killed run can go on. It holds one run: clones of the estimator, as in cross-validation
        and searches, would share it, so leave it out there.
    resume : bool, default=False
        Go on from ``checkpoint``, bit for bit, with the same data and options.
    draws_on_disk : bool, default=False
        Leave the draws in the folder ``checkpoint``.
    warm_start : bool, default=False
        ``fit`` of a fitted estimator goes on from its posterior, whichever engine it is from: chains at its last
        draws, ascents and minibatches at its last draw, or the means of an approximation. Features are matched by
        their names; new ones start at the mean of their group. A start in ``engine_options`` comes first.
    random_state : int, RandomState, Generator or None, default=None
        Seed. Two fits with the same integer agree bit for bit on the same device and versions.

    Attributes
    ----------
    posterior_ : xarray.DataTree
        Labelled draws, statistics of the sampler, response and metadata: everything ArviZ takes.
    model_ : FittedModel
        The draws as the functions of :mod:`bayesfm.predictive` take them.
    spec_ : ModelSpec
        The model that was fitted.
    encoder_ : DesignEncoder
        Turns X into a design.
    streams_ : dict of str to PredictiveMoments
        One per entry of ``predict_rows``.
    fit_info_ : dict
        Engine, chain method, seconds; with ``num_samples="auto"`` also num_warmup, num_samples, thin, num_sweeps and
        stopped_by, "target" where the run is done.
    loss_history_ : array
        Of "map", "laplace", "cavi" and the engines of minibatches: minus the log posterior or the evidence lower bound,
        iteration by iteration or epoch by epoch.
    n_features_in_ : int
        Columns of X; features, where X is a design.
    feature_names_in_ : array of str
        Columns of X, where it is a DataFrame.

    References
    ----------
    Rendle, S. (2010). Factorization machines. ICDM.
    Freudenthaler, C., Schmidt-Thieme, L. & Rendle, S. (2011). Bayesian factorization machines. NIPS workshop on
    sparse representation and low-rank approximation.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bayesfm import FMRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"user": rng.integers(0, 8, 200), "item": rng.integers(0, 6, 200)})
    >>> y = 3.0 + rng.normal(size=8)[X["user"]] + rng.normal(size=6)[X["item"]]
    >>> model = FMRegressor(rank=2, num_samples=2000, random_state=0).fit(X, y)
    >>> mean, sd = model.predict(pd.DataFrame({"user": [3, 99], "item": [1, 1]}), return_std=True)
    >>> bool(sd[1] > sd[0])  # nobody has met user 99
    True
    """

    LIKELIHOODS: ClassVar[dict[str, type[Likelihood]]] = {"gaussian": Gaussian, "student_t": StudentT}
    MORE_LIKELIHOODS: ClassVar[tuple[type[Likelihood], ...]] = (GroupwiseGaussian,)

    def __init__(
        self,
        rank: int | None = None,
        *,
        likelihood: str | Likelihood | None = None,
        noise_group: str | None = None,
        prior_w: Prior | Mapping[str, Prior] | None = None,
        prior_v: Prior | Mapping[str, Prior] | None = None,
        inference: str = "gibbs",
        engine_options: Mapping[str, Any] | None = None,
        spec: ModelSpec | None = None,
        groups: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        categorical: Sequence[str] | None = None,
        numeric: Sequence[str] | None = None,
        num_warmup: int = 200,
        num_samples: int | str = 500,
        num_chains: int = 2,
        thin: int = 1,
        target_ess: float = 400,
        max_sweeps: int = 20_000,
        max_seconds: float | None = None,
        max_draws: int | None = None,
        factor_block: int | str = "auto",
        kernels: str = "auto",
        chain_method: str = "auto",
        keep: str | Sequence[str] = "all",
        predict_rows: Mapping[str, Any] | None = None,
        progress: bool = False,
        callback: Callable[[Progress], Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        draws_on_disk: bool = False,
        warm_start: bool = False,
        random_state: Seed = None,
    ) -> None:
        super().__init__(
            rank,
            likelihood=likelihood,
            prior_w=prior_w,
            prior_v=prior_v,
            inference=inference,
            engine_options=engine_options,
            spec=spec,
            groups=groups,
            categorical=categorical,
            numeric=numeric,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thin=thin,
            target_ess=target_ess,
            max_sweeps=max_sweeps,
            max_seconds=max_seconds,
            max_draws=max_draws,
            factor_block=factor_block,
            kernels=kernels,
            chain_method=chain_method,
            keep=keep,
            predict_rows=predict_rows,
            progress=progress,
            callback=callback,
            checkpoint=checkpoint,
            resume=resume,
            draws_on_disk=draws_on_disk,
            warm_start=warm_start,
            random_state=random_state,
        )
        self.noise_group = noise_group

    def _check_options(self) -> ChainOptions:
        options = super()._check_options()
        likelihood = self.likelihood if self.spec is None else self.spec.likelihood
        by_group = isinstance(likelihood, GroupwiseGaussian)
        if self.noise_group is None:
            if by_group:
                raise ValueError(
                    "GroupwiseGaussian needs the group of every row: name a categorical column of X in noise_group"
                )
        elif not isinstance(self.noise_group, str):
            raise TypeError(f"noise_group must be the name of a column or None, got {self.noise_group!r}")
        elif not by_group and likelihood not in (None, "gaussian"):
            raise ValueError(
                f"noise_group={self.noise_group!r} is for normal noise, got the likelihood {likelihood!r}: leave it "
                "out, or give GroupwiseGaussian"
            )
        return options

    def _row_data(self, row_data: Mapping[str, Any] | None, design: Design) -> dict[str, np.ndarray]:
        rows = super()._row_data(row_data, design)
        if self.noise_group is None:
            return rows
        field = _field(design, self.noise_group)
        level = np.arange(design.num_rows) if field.index is None else field.index
        return {**rows, "noise_group": np.where(level < field.num_features, level, -1.0)}

    def _make_spec(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
        row_data: dict[str, np.ndarray],
    ) -> ModelSpec:
        likelihood = self.likelihood if self.spec is None else self.spec.likelihood
        if isinstance(likelihood, GroupwiseGaussian) and self.noise_group is not None:
            levels = _field(design, self.noise_group).num_features
            if likelihood.num_groups != levels:
                raise ValueError(
                    f"the likelihood has num_groups={likelihood.num_groups}, column {self.noise_group!r} has {levels} "
                    "levels"
                )
        return super()._make_spec(design, y, weight, row_data)

    def _make_likelihood(
        self,
        kind: type[Likelihood],
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None,
    ) -> Likelihood:
        if self.noise_group is None:
            return kind.for_response(y, weight)
        return GroupwiseGaussian.for_response(y, weight, _field(design, self.noise_group).num_features)

    def _remember(self, draws: Draws, spec: ModelSpec, design: Design, *data: Any) -> None:
        super()._remember(draws, spec, design, *data)
        posterior = self.posterior_["posterior"].dataset
        if self.noise_group is not None and "noise_group" in posterior.dims:
            names = _field(design, self.noise_group).feature_names
            levels = [name.removeprefix(f"{self.noise_group}=") for name in names]
            labels = np.array(levels, dtype=object)
            self.posterior_["posterior"].dataset = posterior.assign_coords({"noise_group": labels})

    def predict(
        self, X: Any, return_std: bool = False
    ) -> Float[np.ndarray, " n"] | tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean of the predictive distribution of y, and its standard deviation.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
            Levels that ``fit`` never saw are drawn from the prior of their group.
        return_std : bool, default=False
            Also return the standard deviation of y, noise included; True or False, nothing else.

        Returns
        -------
        mean : array of shape (n,)
        sd : array of shape (n,)
            If ``return_std``.
        """
        check_bool("return_std", return_std)
        moments = self.predict_moments(X)
        return (moments.mean, moments.sd) if return_std else moments.mean

    def predict_interval(self, X: Any, prob: float = 0.9) -> Float[np.ndarray, "n 2"]:
        """Equal-tailed interval that y falls into with the given probability, noise included.

        Parameters
        ----------
        X : of the kind seen in ``fit``; n rows
        prob : float, default=0.9
            Probability in (0, 1), at most 1 - 1.5e-5 in float32.

        Returns
        -------
        array of shape (n, 2)
            Lower and upper end.
        """
        from bayesfm.quantiles import extreme_probs

        prob = check_probability("prob", prob)
        most = 2 * extreme_probs()[1] - 1
        if prob > most:
            raise ValueError(
                f"prob must be at most 1 - {1 - most:.2g}: closer to 1 the distribution function is lost in rounding; "
                f"got {prob!r}"
            )
        return self.predict_quantiles(X, [0.5 * (1 - prob), 0.5 * (1 + prob)])


def _field(design: Design, name: str) -> Block:
    """The one-hot block of that name."""
    fields = {block.name: block for block in design.blocks if block.is_field}
    if name in fields:
        return fields[name]
    known = f"these are {', '.join(map(repr, fields))}" if fields else "there is none"
    raise ValueError(f"noise_group={name!r} must name a categorical column of X (one level per row); {known}")
