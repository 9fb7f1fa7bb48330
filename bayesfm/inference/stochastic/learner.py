"""What learns: parameters and optimisers of one model, fed with rows, in epochs over one table or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm import native
from bayesfm._checks import check_choice, check_count, check_weight
from bayesfm.design import Design
from bayesfm.inference.draws import Draws
from bayesfm.inference.problem import kept_sites, prepare
from bayesfm.inference.stochastic.batches import Batcher, Rows, Totals
from bayesfm.inference.stochastic.objective import (
    Dense,
    Model,
    Normals,
    Rule,
)
from bayesfm.inference.stochastic.optimisers import pack, unpack
from bayesfm.inference.stochastic.options import MinibatchOptions
from bayesfm.inference.stochastic.results import draws_of
from bayesfm.inference.stochastic.scales import given_scales, updated_scales
from bayesfm.inference.stochastic.start import prior_normals, start_state, units
from bayesfm.inference.stochastic.steps import advance, score_stack
from bayesfm.likelihoods import Gaussian, GroupwiseGaussian
from bayesfm.likelihoods.base import check_row_data
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper
from bayesfm.random import compiled

__all__ = ["EXPECTATIONS", "Learner", "Score"]

EXPECTATIONS = ("point", "samples", "moments", "auto")
ROWS_PER_STACK = 1 << 17
MOST_BATCHES = 64
SCORE_DRAWS = 8


class Score(NamedTuple):
    """Mean log predictive density of rows, and root mean square error where y has a mean."""

    log_density: float
    rmse: float | None


class Learner:
    """Learns a model from rows, in steps of a batch.

    Parameters
    ----------
    key : typed key
        Everything random follows from it: the start, the order of rows, noise.
    spec : ModelSpec
        The model.
    design, y, weight, row_data
        The first rows, of which nothing is learned yet: they say what features there are, where y is centred and at
        which scale parameters start.
    expectation : {"point", "samples", "moments", "auto"}
        "point" looks for the mode of the joint density at given scales. The others look for the normal approximation
        with independent parameters that has the largest evidence lower bound. Its expected log-likelihood is
        estimated from one draw per step ("samples"), or integrated over a normal eta of the right mean and variance
        ("moments"), which is exact for Gaussian noise, and for any likelihood at rank 0. "auto" takes "moments" where
        that is exact.
    options : MinibatchOptions, optional
        Batch size, optimiser and learning rate; epochs and the rest are for those who call :meth:`run`.
    scales : mapping of str to array, optional
        Hyperparameters by site; by default where the priors would start a chain.
    start : mapping of str to array, optional
        w0, w and v by site: the point, or the means of the approximation, at the start. By default w = 0 and small
        random v. For an approximation also ``w_sd`` and ``v_sd``, its standard deviations: NaN for those of the prior.
    totals : Totals, optional
        Rows, and entries of every feature, of data that are known in full (``Totals.of(design)``). Without them the
        objective is that of all rows seen so far.

    Attributes
    ----------
    state : State
        Parameters and memory of the optimisers, plain arrays: what has to be stored to go on later, together with
        ``hyper_w``, ``hyper_v``, ``totals`` and ``steps``. The next step writes into these arrays.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.stochastic import Learner
    >>> from bayesfm.model import default_spec
    >>> def chunk(users, y):
    ...     return Design([Block.field("user", users, ["ann", "bob", "cid"])]), np.array(y)
    >>> first = chunk([0, 1, 0], [1.0, 4.0, 2.0])
    >>> learner = Learner(jax.random.key(0), default_spec(first[1], rank=1), *first)
    >>> learner = learner.partial_fit(*first).partial_fit(*chunk([2, 1], [3.0, 5.0]))
    >>> learner.features().mean.shape
    (3, 2)
    """

    def __init__(
        self,
        key: Key[Array, ""],
        spec: ModelSpec,
        design: Design,
        y: Float[np.ndarray, " n"],
        *,
        weight: Float[np.ndarray, " n"] | None = None,
        row_data: Mapping[str, Any] | None = None,
        expectation: str = "point",
        options: MinibatchOptions | None = None,
        scales: Mapping[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
        totals: Totals | None = None,
    ) -> None:
        self.options = MinibatchOptions() if options is None else options
        problem = prepare(spec, design, y, weight, row_data)
        self.dtype = jnp.zeros(()).dtype
        self.spec, self.centre, self.schema = problem.spec, problem.centre, design.schema
        self.num_features, self.num_groups = design.num_features, len(design.group_names)
        self.hyper_w, self.hyper_v = given_scales(
            spec, scales, self.num_groups, self.num_features, self.dtype
        )
        self.totals = Totals(self.num_features) if totals is None else totals
        self.rule = Rule(
            _chosen(expectation, spec),
            self.options.transformation,
            spec.predictor.rank,
            self.num_groups,
            spec.likelihood.outputs,
        )
        size = self.options.size_of_batch(self.totals.num_rows if self.totals.known else design.num_rows)
        self.batcher = Batcher(size, int(np.clip(ROWS_PER_STACK // size, 1, MOST_BATCHES)))
        self._groups = jnp.asarray(np.append(design.groups, 0), jnp.int32)
        key_start, self._key_noise, self._key_order, self._key_score = jax.random.split(key, 4)
        if (
            native.available()
            and jax.default_backend() == "cpu"
            and native.can_draw(self._key_noise, self.dtype)
        ):
            self._key_noise = compiled(self._key_noise)
        self._started = frozenset(start or ())
        self.state = start_state(self.rule, problem, design, self._prior()[1], key_start, start)
        self.units = units(self.rule, self.state, problem.spread if self.options.scale_free else 1.0)
        self.steps = 0
        self._last_loss: float | None = None

    @property
    def model(self) -> Model:
        """What steps read and do not change."""
        return Model(self.spec, self._groups, self.hyper_w, self.hyper_v)

    @property
    def scales(self) -> dict[str, Array]:
        """Hyperparameters by site."""
        of_w = {f"{name}_w": x for name, x in self.hyper_w.items()}
        return of_w | {f"{name}_v": x for name, x in self.hyper_v.items()}

    def _prior(self) -> tuple[Array, Array]:
        """Mean and standard deviation of every feature under the prior, (p, *L, K)."""
        return prior_normals(self.rule, self.model)

    # ------------------------------------------------------------------------------------------- rows

    def rows(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"] | None = None,
        row_data: Mapping[str, Any] | None = None,
    ) -> Rows:
        """Rows of the same schema, checked and centred as the first ones."""
        design.check_matches(self.schema)
        y, likelihood = np.asarray(y), self.spec.likelihood
        if y.shape != (design.num_rows,):
            raise ValueError(
                f"y must have shape ({design.num_rows},), one value per row of the design; got {y.shape}"
            )
        weight = check_weight(weight, len(y))
        own = check_row_data(likelihood, row_data, len(y))
        y = likelihood.validate(y, weight, own)
        weight = np.ones(len(y), self.dtype) if weight is None else weight
        return Rows.of(design, y - self.centre, weight, own, self.dtype)

    def partial_fit(
        self,
        design: Design,
        y: Float[np.ndarray, " n"],
        *,
        weight: Float[np.ndarray, " n"] | None = None,
        row_data: Mapping[str, Any] | None = None,
    ) -> Self:
        """One pass over some rows in their order, at a constant learning rate.

        Chunks one after the other are one pass over all of their rows, where chunks end with whole batches.
        """
        source = self.rows(design, y, weight, row_data)
        self.spec.likelihood.check_training(source.rows)
        for _ in self.run(source, np.arange(design.num_rows)):
            pass
        self.check_finite()
        return self

    def order(self, epoch: int, num_rows: int) -> np.ndarray:
        """The rows of an epoch in an order that depends on the key and the number of the epoch alone."""
        seed = np.asarray(jax.random.key_data(self._key_order)).ravel().tolist()
        return np.random.default_rng([*seed, epoch]).permutation(np.arange(num_rows, dtype=np.int32))

    def run(
        self, source: Rows, order: np.ndarray, num_steps: int | None = None
    ) -> Iterator[tuple[int, float]]:
        """Steps over rows in this order; yields rows and objective, stack by stack.

        The host makes a stack while the device works on the one before.

        Raises
        ------
        FloatingPointError
            If the objective is no longer finite.
        """
        B, S = self.batcher.batch_size, self.batcher.stack_size
        waiting: list[tuple[int, Array]] = []
        for first in range(0, len(order), B * S):
            own = order[first : first + B * S]
            batches = [own[i : i + B] for i in range(0, len(own), B)]
            rates = [self.options.rate(self.steps + i, num_steps) for i in range(len(batches))]
            stack, layout = self.batcher.stack(source, batches, self.totals, rates)
            self.state, values = advance(
                self.rule, layout, self.state, self.model, stack, self.units, self._key_noise
            )
            self.steps += len(batches)
            waiting.append((len(own), values))
            if len(waiting) > 1:
                yield self._seen(*waiting.pop(0))
        for own_rows, values in waiting:
            yield self._seen(own_rows, values)

    def _seen(self, num_rows: int, values: Array) -> tuple[int, float]:
        """Rows and objective of a stack, if it is finite."""
        seen = np.asarray(values, np.float64)
        finite = np.isfinite(seen)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise self._diverged(-seen[bad - 1] / self.batcher.batch_size if bad else self._last_loss)
        self._last_loss = -float(seen.sum()) / num_rows
        return num_rows, float(seen.sum())

    def _diverged(self, before: float | None) -> FloatingPointError:
        """What to say of a run whose loss was this when it was last finite."""
        rate = self.options.rate(max(self.steps - 1, 0), None)
        seen = "no finite one was seen" if before is None else f"the last finite one was {before:.4g} per row"
        name = self.options.optimiser if isinstance(self.options.optimiser, str) else "optimiser as given"
        return FloatingPointError(
            f"the loss is no longer finite: {seen}, at a learning rate of {rate:.3g} ({name}). Try a learning_rate of "
            f"{0.1 * rate:.3g}, optimiser='adam', a larger batch_size, or scales with more precision"
        )

    def check_finite(self) -> None:
        """Raise FloatingPointError if parameters are not finite: the last step is not seen in the loss."""
        if not bool(_all_finite((self.state.table, self.state.dense))):
            raise self._diverged(self._last_loss)

    # ----------------------------------------------------------------------------------- what is learned

    def score(self, source: Rows) -> Score:
        """How well rows are predicted by the point, or by draws from the approximation, always the same ones.

        A level without a feature adds nothing to eta.
        """
        weight, log_density, square = self._sums(self.rule, self.state.table, self.state.dense, source)
        rmse = float(np.sqrt(square / weight)) if self.spec.likelihood.has_moments else None
        return Score(float(log_density / weight), rmse)

    def _sums(self, rule: Rule, table: Array, dense: Dense, source: Rows) -> np.ndarray:
        B, S = self.batcher.batch_size, self.batcher.stack_size
        num_draws = 1 if rule.parts == 1 else SCORE_DRAWS
        sums = np.zeros(3)
        nothing = Totals(self.num_features, 1, np.ones(self.num_features))
        for number, first in enumerate(range(0, source.design.num_rows, B * S)):
            own = np.arange(first, min(first + B * S, source.design.num_rows))
            batches = [own[i : i + B] for i in range(0, len(own), B)]
            stack, layout = self.batcher.stack(source, batches, nothing)
            key = jax.random.fold_in(self._key_score, number)
            sums += np.asarray(
                score_stack(rule, layout, num_draws, table, dense, self.model, stack, key), np.float64
            )
        return sums

    def sums_at(self, sites: Mapping[str, Array], source: Rows) -> tuple[float, float, float]:
        """Weight of all rows, log-likelihood and weighted sum of squares at a draw of w0, w and v."""
        rule = replace(self.rule, expectation="point")
        theta = jnp.concatenate([sites["w"][..., None], sites["v"]], axis=-1)
        theta = jnp.moveaxis(theta, -2, 0).reshape(self.num_features, -1)
        dense = {"params": self.state.dense["params"]}
        if "w0" in self.state.dense:
            dense["w0"] = sites["w0"][None]
        x = jnp.pad(theta, ((0, 1), (0, 0)))
        table = pack(x, jax.vmap(rule.optimiser.init)(x))
        weight, log_likelihood, square = self._sums(rule, table, dense, source)
        return float(weight), float(log_likelihood), float(square)

    def features(self) -> Normals:
        """The parameters of all features, (p, *L, K); those without a row as they started, or at their prior."""
        x, _ = unpack(self.state.table[:-1], self.rule.optimiser, self.rule.width)
        x = x.reshape(-1, *self.rule.shape)
        mean, sd = self._prior()
        seen = jnp.asarray(self.totals.entries > 0).reshape(-1, *[1] * (mean.ndim - 1))
        known, known_sd = (seen | (name in self._started) for name in ("w", "w_sd"))
        own_sd = jnp.where(known_sd, jnp.exp(x[:, 1]), sd) if self.rule.parts == 2 else None
        return Normals(jnp.where(known, x[:, 0], mean), own_sd)

    def draws(
        self,
        key: Key[Array, ""],
        design: Design,
        *,
        num_samples: int = 100,
        keep: Sequence[str] | str = "all",
    ) -> Draws:
        """Draws from the approximation as it is now, or the point as the only one.

        Parameters
        ----------
        key : typed key
            Of the draws.
        design : Design
            Rows of which some are the probe rows, at which eta is reported.
        num_samples : int
            Draws; a point has one.
        keep : "all", "hyper" or sequence of str
            Sites to return.
        """
        check_count("num_samples", num_samples, minimum=1)
        design.check_matches(self.schema)
        info = {"num_rows_seen": self.totals.num_rows, "steps": self.steps, "loss": self._last_loss}
        return draws_of(
            key,
            self,
            design,
            num_samples if self.rule.parts == 2 else 1,
            kept_sites(keep, self.spec),
            info,
            None,
        )

    def update_scales(self) -> None:
        """Hyperparameters that fit the approximation best; see ``scales.py``."""
        if self.rule.parts == 1:
            raise ValueError(
                "scales of a point are fixed: the mode of scales and parameters together is no estimate"
            )
        features = self.features()

        def updated(prior: Any, hyper: Hyper, at: Any) -> Hyper:
            def of_output(hyper: Hyper, mean: Array, variance: Array) -> Hyper:
                return updated_scales(prior, hyper, self._groups[:-1], mean, variance, self.num_groups)

            mean, variance = features.mean[..., at], features.variance[..., at]  # type: ignore[index]
            if not self.rule.outputs or not hyper:
                return of_output(hyper, mean, variance)
            return jax.vmap(of_output, in_axes=(0, 1, 1))(hyper, mean, variance)

        self.hyper_w = updated(self.spec.prior_w, self.hyper_w, 0)
        if self.rule.rank:
            self.hyper_v = updated(self.spec.prior_v, self.hyper_v, slice(1, None))


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _chosen(expectation: str, spec: ModelSpec) -> str:
    """With "auto" resolved."""
    check_choice("expectation", expectation, EXPECTATIONS)
    one = not spec.likelihood.outputs
    if expectation == "moments" and not one:
        raise ValueError(
            f"expectation='moments' integrates over one linear predictor, and {type(spec.likelihood).__name__} has "
            "several: take 'samples'"
        )
    if expectation != "auto":
        return expectation
    exact = isinstance(spec.likelihood, Gaussian | GroupwiseGaussian) or (one and spec.predictor.rank == 0)
    return "moments" if exact else "samples"
