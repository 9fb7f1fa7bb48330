"""The Gibbs sweep of an FM term as a block of ``numpyro.infer.Gibbs``, beside NUTS on the rest of a model."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel

from bayesfm._checks import check_choice
from bayesfm.design import Design
from bayesfm.inference.conjugate.linear_predictor import linear_predictor
from bayesfm.inference.conjugate.state import (
    ModelData,
    ModelState,
    from_sites,
    initial_state,
    to_sites,
)
from bayesfm.inference.gibbs.numpyro_check import TermModel, examine, term_sites
from bayesfm.inference.gibbs.numpyro_rows import row_information, run_with
from bayesfm.inference.gibbs.run import plan
from bayesfm.inference.gibbs.sweep import sweep_given
from bayesfm.inference.problem import start_sd
from bayesfm.model import ModelSpec
from bayesfm.priors.shifted import OFFSET, Shifted
from bayesfm.random import compiled
from bayesfm.term import FMTerm

__all__ = ["FMBlock", "FMBlockState"]

type Sites = dict[str, Array]


class FMBlockState(NamedTuple):
    """State for NumPyro: ``z`` the sites of the term, and the key. Nothing is cached."""

    z: Sites
    rng_key: Array


class FMBlock(MCMCKernel):
    """Gibbs sweeps of the sites of one :func:`bayesfm.fm_term`, as a block of ``numpyro.infer.Gibbs``.

    In every step w0 (if the term has an intercept), w, v and their hyperparameters are drawn from their full
    conditionals given all other sites of the model, by the sweep of :func:`bayesfm.gibbs`. Offsets, scales and weights
    of the rows are read off the model itself, by derivatives of its log density.

    It is exact if, given all other sites,

    - the sites of the term are in the log density through their own prior and through the values that ``fm_term``
      returned, and nowhere else;
    - the log density is quadratic in these values, without cross terms between rows (normal noise of any mean that is
      linear in the value, any scale; log-normal); or they are, linearly, the linear predictor of an observed site that
      is ``Bernoulli`` or ``Binomial`` with logits, ``StudentT``, or a probit of this package, one value per row.

    All of this is checked when a run starts, at values chosen at random.

    Parameters
    ----------
    model : callable
        The NumPyro model, with one ``fm_term`` of the name.
    design : Design
        The design of the term, n rows and p features.
    name : str, optional
        Name of the term.
    factor_block : int, "joint" or "auto"
        Factors drawn jointly with w, as in :func:`bayesfm.gibbs`.
    kernels : {"auto", "native", "xla"}
        Compiled kernels or XLA, likewise.
    start : {"own", "given"}
        Where chains start: at weights of zero and small random factors, or at ``init_params``, and where these leave a
        site out at a draw from its prior.

    References
    ----------
    Tierney (1994), Markov chains for exploring posterior distributions, Annals of Statistics 22 (cycles of kernels).

    Examples
    --------
    >>> import bayesfm, jax, numpy as np, numpyro
    >>> import numpyro.distributions as dist
    >>> from numpyro.infer import MCMC, NUTS, Gibbs
    >>> design = bayesfm.Design([bayesfm.Block.field("user", np.arange(30) % 3, range(3))])
    >>> x, y = np.linspace(0, 1, 30), np.linspace(0, 2, 30) + np.arange(30) % 3
    >>> def model(design):
    ...     slope, sigma = numpyro.sample("slope", dist.Normal()), numpyro.sample("sigma", dist.HalfNormal())
    ...     eta = bayesfm.fm_term(design, rank=1) + slope * x
    ...     numpyro.sample("y", dist.Normal(eta, sigma), obs=y)
    >>> block = bayesfm.FMBlock(model, design)
    >>> mcmc = MCMC(Gibbs([(block, block.sites), (NUTS(model), None)]), num_warmup=5, num_samples=5, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), bayesfm.on_device(design))
    >>> mcmc.get_samples()["v"].shape
    (5, 3, 1)
    """

    sample_field = "z"

    def __init__(
        self,
        model: Callable[..., Any],
        design: Design,
        *,
        name: str | None = None,
        factor_block: int | str = "auto",
        kernels: str = "auto",
        start: str = "own",
    ) -> None:
        if not callable(model):
            raise TypeError(f"model must be a NumPyro model, got {model!r}")
        if not isinstance(design, Design):
            raise TypeError(f"design must be a Design, got {type(design).__name__}")
        check_choice("start", start, ("own", "given"))
        check_choice("kernels", kernels, ("auto", "native", "xla"))
        self._model, self._design, self._name = model, design, name
        self._options, self._start = (factor_block, kernels), start
        self._forget()

    def _forget(self) -> None:
        self._seen: list[Any] | None = None
        self._known: TermModel | None = None
        self._data: ModelData | None = None
        self._factor_block = 0

    @property
    def model(self) -> Callable[..., Any]:
        """The NumPyro model."""
        return self._model

    def sites(self, trace: dict[str, Any]) -> tuple[str, ...]:
        """Names of the term's sites in a trace of the model: what ``Gibbs`` wants to know of the block."""
        return tuple(term_sites(trace, self._name).values())

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Sites | None,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any] | None,
    ) -> FMBlockState:
        """Check the conditions, and start."""
        kwargs = {} if model_kwargs is None else dict(model_kwargs)
        self._prepare(model_args, {name: x for name, x in kwargs.items() if name != GIBBS_SITES_KWARG})
        rng_key, key = jax.random.split(rng_key)
        if self._start == "given":
            assert init_params is not None, "Gibbs gives every block its values"
            return FMBlockState(
                {name: jnp.asarray(init_params[name]) for name in self._own.values()}, rng_key
            )
        assert self._known is not None
        spec = _spec_of(self._known.term)  # hyperparameters start alike whatever the means
        start = jax.jit(lambda key: self._named(initial_state(_typed(key), spec, self._gibbs_data)))
        return FMBlockState(start(key), rng_key)

    def _prepare(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> None:
        """Once for the same arguments; outside of whatever is being traced."""
        seen = jax.tree.leaves((model_args, model_kwargs))
        before = self._seen
        if before is not None and len(seen) == len(before) and all(map(operator.is_, seen, before)):
            return
        if any(isinstance(x, jax.core.Tracer) for x in seen):
            raise TypeError(
                "FMBlock checks the model when it starts, and needs its arguments as concrete arrays there"
            )
        with (
            jax.core.eval_context()
        ):  # also where chains are run in parallel, and all of this is being traced
            known = examine(self._model, self._name, model_args, model_kwargs)
            spec = _spec_of(known.term)
            layout, self._factor_block = plan(spec, self._design, *self._options)
            zero = jnp.zeros(layout.num_padded)  # y is in the model
            sd = jnp.asarray(start_sd(self._design, 1.0, spec.predictor.rank), zero.dtype)
            self._data = ModelData(jax.device_put(layout), zero, zero + 1, sd)
            self._known, self._seen = known, seen
            known.check_design(self._design, self._eta)

    @property
    def _own(self) -> dict[str, str]:
        assert self._known is not None, "init comes first"
        return self._known.own

    @property
    def _gibbs_data(self) -> ModelData:
        assert self._data is not None, "init comes first"
        return self._data

    def _eta(self, z: Sites, term: FMTerm) -> Float[Array, " n"]:
        state = self._state(z, term)
        eta = linear_predictor(term.predictor, self._gibbs_data.layout, state.w0, state.theta)
        return eta[: self._design.num_rows]

    def _state(self, z: Sites, term: FMTerm) -> ModelState:
        """The sampler's own state from the sites; where a term has no factors, factors of which there are none."""
        spec, sites = _spec_of(term), {role: z[name] for role, name in self._own.items()}
        sites |= dict.fromkeys(spec.likelihood.dims, jnp.zeros(()))  # which the sweep does not read
        for x, prior in (("w", spec.prior_w), ("v", spec.prior_v)):
            if isinstance(prior, Shifted):
                sites[f"{OFFSET}_{x}"] = prior.offset
            if x not in sites:
                sizes = term.sizes(x)
                sites[x] = jnp.zeros((sizes.features, *sizes.columns))
                sites |= {f"{name}_{x}": own for name, own in prior.initial(sizes).items()}
        return from_sites(sites, spec, self._gibbs_data)

    def _named(self, state: ModelState) -> Sites:
        sites = to_sites(state, self._gibbs_data.layout)
        return {name: sites[role] for role, name in self._own.items()}

    def _term(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any], z: Sites | None) -> FMTerm:
        """The term, its means as they are given the other sites."""
        run = run_with(self._model, self._name, model_args, model_kwargs, z)
        return run(jnp.zeros(self._design.num_rows)).term

    def sample(
        self, state: FMBlockState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> FMBlockState:
        """One sweep, given the other sites in ``model_kwargs``."""
        assert self._known is not None, "init comes first"
        native = self._gibbs_data.layout.native
        rng_key, key = jax.random.split(state.rng_key)
        key_rows, key_sweep = jax.random.split(_own_key(_typed(key), native))
        with jax.default_matmul_precision("highest"):  # as in kernel.py
            run = run_with(self._model, self._name, model_args, dict(model_kwargs or {}), state.z)
            term = self._term(model_args, dict(model_kwargs or {}), state.z)
            inner = self._state(state.z, term)
            eta = linear_predictor(term.predictor, self._gibbs_data.layout, inner.w0, inner.theta)
            n = self._design.num_rows
            own, augmented = tuple(self._own.values()), self._known.augmented
            omega, z = row_information(key_rows, run, eta[:n], own, augmented, native=native)
            room = (0, len(eta) - n)
            inner = sweep_given(
                key_sweep,
                inner._replace(eta=eta),
                _spec_of(term),
                self._gibbs_data,
                jnp.pad(omega, room),
                jnp.pad(z, room),
                self._factor_block,
            )
        return FMBlockState(self._named(inner), rng_key)

    def refresh(self, state: FMBlockState, model_args: Any, model_kwargs: Any) -> FMBlockState:
        """The state as it is: nothing is cached."""
        return state

    def wrap_model(self, wrapper: Callable[..., Any]) -> FMBlock:
        """The block on the wrapped model."""
        block = copy.copy(self)
        block._model = wrapper(self._model)
        block._forget()
        return block

    def get_constrain_fn(self, model_args: Any, model_kwargs: Any) -> Callable[[Sites], Sites]:
        """The identity: values are constrained as they are."""
        return lambda z: z


def _spec_of(term: FMTerm) -> ModelSpec:
    return ModelSpec(
        predictor=term.predictor, prior_w=term.prior_w, prior_v=term.prior_v, intercept=term.intercept
    )


def _typed(key: Array) -> Key[Array, ""]:
    """NumPyro's keys are typed or not, as the user's are."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _own_key(key: Key[Array, ""], native: bool) -> Key[Array, ""]:
    return compiled(key) if native else key
