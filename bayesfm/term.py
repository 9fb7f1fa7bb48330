"""The factorization machine as a term of any NumPyro model: its sites, and what it adds to the linear predictor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.primitives import Messenger, apply_stack

from bayesfm.design.on_device import OnDevice
from bayesfm.predictors import FM
from bayesfm.priors import Hyper, Intercept, NormalGamma, PerGroup, Prior, Sizes, as_prior, per_group
from bayesfm.priors.shifted import Shifted

__all__ = ["TERM", "FMTerm", "fm_dims", "fm_term"]

TERM = "fm_term"
"""Type of the message that a term sends to NumPyro's handlers, and key of its mark in ``infer`` of its sites."""


class FMTerm(NamedTuple):
    """What a term is made of, as handlers of NumPyro's stack see it (messages of type :data:`TERM`)."""

    name: str | None
    design: OnDevice
    predictor: FM
    prior_w: Prior
    prior_v: Prior
    intercept: Intercept | None
    outputs: tuple[int, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of its sites without prefix."""
        names = [] if self.intercept is None else ["w0"]
        for x, prior in self.families.items():
            base = prior.base if isinstance(prior, Shifted) else prior
            names += [*(f"{hyper}_{x}" for hyper in base.hyper_names()), x]
        return tuple(names)

    @property
    def families(self) -> dict[str, Prior]:
        """Prior of w, and of v where there are factors."""
        return {"w": self.prior_w, **({"v": self.prior_v} if self.predictor.rank else {})}

    def sizes(self, x: str) -> Sizes:
        """Of w or of v."""
        columns = (self.predictor.rank,) if x == "v" else ()
        return Sizes(self.design.num_groups, self.design.num_features, columns)


def fm_term(
    design: OnDevice,
    rank: int = 8,
    prior_w: Prior | Mapping[str, Prior] | None = None,
    prior_v: Prior | Mapping[str, Prior] | None = None,
    *,
    intercept: Intercept | None = None,
    mean_w: ArrayLike | None = None,
    mean_v: ArrayLike | None = None,
    outputs: tuple[int, ...] = (),
    name: str | None = None,
) -> Float[Array, "*L n"]:
    """A factorization machine inside a NumPyro model: samples its parameters, returns what it adds to every row.

    sum_j w_j x_j + 1/2 sum_f [(sum_j v_jf x_j)^2 - sum_j v_jf^2 x_j^2], without an intercept unless it is asked for.
    Sites are ``w``, ``v`` and the hyperparameters of their priors (``mu_w``, ``lambda_w``, ``mu_v``, ``lambda_v`` of
    the default prior), one set per prior group of the design; ``bayesfm.fm_dims`` has their dimensions.

    Parameters
    ----------
    design : OnDevice
        What ``bayesfm.on_device`` makes of a design: n rows, p features.
    rank : int, default=8
        Number k of factors; 0 leaves v out.
    prior_w, prior_v : Prior or mapping of str to Prior, optional
        Priors of weights and factors; ``NormalGamma()`` where nothing is said. A mapping has one for every group of
        the design that it names, in any order (:class:`~bayesfm.priors.PerGroup`).
    intercept : Intercept, optional
        Prior of a site ``w0`` that is added to every row.
    mean_w : array of shape (p,), optional
        Added to the prior mean of every w, for instance a regression on what is known of items: w_j = mean_w_j + e_j
        with e_j from ``prior_w``. May depend on other sites of the model. See :meth:`OnDevice.per_feature`.
    mean_v : array of shape (p, k), optional
        The same for v.
    outputs : tuple of int, default=()
        ``(L,)`` for L linear predictors with parameters of their own, the leading axis of all sites and means.
    name : str, optional
        Prefix of the sites (``name.w``), for models with several terms.

    Returns
    -------
    array of shape (n,), or (L, n)

    Raises
    ------
    TypeError, ValueError
        For a design that is not on the device, something that is no prior, a mean of the wrong shape, a prior that w
        or v cannot have.

    Examples
    --------
    >>> import bayesfm, jax, numpyro
    >>> import numpyro.distributions as dist
    >>> from numpyro.infer import Predictive
    >>> fields = [bayesfm.Block.field(name, [0, 1, 1], range(2)) for name in ("user", "item")]
    >>> def model(design, y=None):
    ...     trend = numpyro.sample("trend", dist.Normal())
    ...     eta = bayesfm.fm_term(design, rank=2) + trend * jax.numpy.arange(3.0)
    ...     numpyro.sample("y", dist.Normal(eta, 0.5), obs=y)
    >>> prior = Predictive(model, num_samples=5)
    >>> prior(jax.random.key(0), bayesfm.on_device(bayesfm.Design(fields)))["v"].shape
    (5, 4, 2)
    """
    _check(design, intercept, name)
    prior_w, prior_v = _prior_for("prior_w", prior_w, design), _prior_for("prior_v", prior_v, design)
    predictor = FM(rank)
    p = design.num_features
    prior_w = _with_mean(prior_w, "mean_w", mean_w, (*outputs, p))
    prior_v = _with_mean(prior_v, "mean_v", mean_v, (*outputs, p, predictor.rank))
    term = FMTerm(name, design, predictor, prior_w, prior_v, intercept, outputs)
    fm_dims(prior_w, prior_v)  # a family may not be meant for w, or not for v
    with _prefix(name), _Marked(name):
        parameters = _sample_parameters(term)
    # The message has no name, so that traces leave it out; an engine may look at it, or say what the term comes to.
    message = {
        "type": TERM,
        "term": term,
        "fn": _eta,
        "args": (term, *parameters),
        "kwargs": {},
        "value": None,
    }
    return apply_stack(message)["value"]


def fm_dims(
    prior_w: Prior | Mapping[str, Prior] | None = None,
    prior_v: Prior | Mapping[str, Prior] | None = None,
    *,
    output_dims: tuple[str, ...] = (),
    name: str | None = None,
) -> dict[str, tuple[str, ...]]:
    """Named dimensions of the sites of a term, sample dimensions left out; ``w0`` has the ``output_dims``.

    Parameters
    ----------
    prior_w, prior_v : Prior or mapping of str to Prior, optional
        As for :func:`fm_term`; a mapping has to name all groups here.
    output_dims : tuple of str, default=()
        Name of the dimension of several linear predictors.
    name : str, optional
        Prefix of the sites.

    Returns
    -------
    dict
        For instance the ``dims`` of ``arviz_base.from_numpyro``.

    Examples
    --------
    >>> from bayesfm import fm_dims
    >>> fm_dims(name="film")["film.mu_v"]
    ('group', 'factor')
    """
    given = {"w": prior_w, "v": prior_v}
    priors = {x: NormalGamma() if own is None else as_prior(f"prior_{x}", own) for x, own in given.items()}
    columns = {"w": (), "v": ("factor",)}
    dims = {
        f"{hyper}_{x}": (*output_dims, *own)
        for x, prior in priors.items()
        for hyper, own in prior.hyper_dims(columns[x]).items()
    }
    dims |= {x: (*output_dims, "feature", *columns[x]) for x in priors}
    return {f"{name}.{site}" if name else site: own for site, own in dims.items()}


def _prior_for(argument: str, given: Prior | Mapping[str, Prior] | None, design: OnDevice) -> Prior:
    """The prior for the groups of a design, by their names."""
    if given is None:
        return NormalGamma()
    prior = as_prior(argument, given)
    # Without names a design was made inside of the package, where the model has been held against it.
    if not isinstance(prior, PerGroup) or not design.group_names:
        return prior
    if isinstance(given, Mapping):
        return per_group(argument, given, NormalGamma(), design.group_names)
    return prior.in_order(design.group_names)


def _check(design: OnDevice, intercept: Intercept | None, name: str | None) -> None:
    if not isinstance(design, OnDevice):
        raise TypeError(
            f"design must be what bayesfm.on_device makes of a Design, got {type(design).__name__}: write design = "
            "bayesfm.on_device(design) once, outside of the model"
        )
    if not isinstance(intercept, Intercept | None):
        raise TypeError(f"intercept must be an Intercept or None, got {intercept!r}")
    if not isinstance(name, str | None) or name == "":
        raise TypeError(f"name must be a string of at least one character or None, got {name!r}")


def _with_mean(prior: Prior, argument: str, mean: ArrayLike | None, shape: tuple[int, ...]) -> Prior:
    if mean is None:
        return prior
    mean = jnp.asarray(mean, jnp.zeros(()).dtype)
    if mean.shape != shape:
        raise ValueError(
            f"{argument} must have shape {shape}, one entry per feature of the design; got {mean.shape}: "
            "design.per_feature({block: values}) fills the other blocks with zeros"
        )
    return Shifted(prior, mean)  # type: ignore[abstract]  # what raises in Prior may be inherited


def _prefix(name: str | None) -> AbstractContextManager[Any]:
    return nullcontext() if name is None else numpyro.handlers.scope(prefix=name, divider=".")


def _sample_parameters(term: FMTerm) -> tuple[Array, Array, Array]:
    """w0, w, v; zeros where there is no intercept, nothing where there are no factors."""
    outputs = term.outputs
    w0 = jnp.zeros(outputs)
    if term.intercept is not None:
        w0 = numpyro.sample("w0", term.intercept.distribution().expand(outputs).to_event(len(outputs)))
    x = {name: _sample(term, name) for name in term.families}
    return w0, x["w"], x.get("v", jnp.zeros((*outputs, term.design.num_features, 0)))


def _sample(term: FMTerm, name: str) -> Float[Array, "*L p *d"]:
    """Sites of the hyperparameters and of x."""
    prior, sizes, outputs = term.families[name], term.sizes(name), term.outputs

    def distribution(hyper: Hyper) -> Distribution:
        return prior.distribution(prior.of_features(hyper, term.design.groups, sizes.columns))

    if outputs:
        shapes = {f"{h}_{name}": sizes.shape(dims) for h, dims in prior.hyper_dims(sizes.column_dims).items()}
        with OneEach(shapes, outputs):
            hyper = prior.sample_hyper(f"_{name}", sizes)
        of_x = promote_batch_shape(jax.vmap(distribution)(hyper)) if hyper else distribution(hyper)
    else:
        hyper = prior.sample_hyper(f"_{name}", sizes)
        of_x = distribution(hyper)
    batch = (*outputs, sizes.features, *sizes.columns)
    batch = batch[: len(batch) - of_x.event_dim]
    return numpyro.sample(name, of_x.expand(batch).to_event(len(batch)))


def _eta(term: FMTerm, w0: Array, w: Array, v: Array) -> Float[Array, "*L n"]:
    of_output = partial(term.predictor.eta, term.design.arrays)
    return lax.map(lambda own: of_output(*own), (w0, w, v)) if term.outputs else of_output(w0, w, v)


class _Marked(Messenger):
    """Marks the sites of a term in their ``infer``: its name, and the name of the site without prefix."""

    def __init__(self, name: str | None) -> None:
        super().__init__()
        self._term = name

    def process_message(self, msg: dict[str, Any]) -> None:
        """Before a site is sampled."""
        if msg["type"] == "sample":
            msg["infer"] = {**msg["infer"], TERM: (self._term, msg["name"])}


class OneEach(Messenger):
    """Gives every linear predictor hyperparameters of its own, in a leading axis.

    Sites are repeated unless they have that axis already, from a site that they depend on.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self._shapes, self._outputs = shapes, outputs

    def process_message(self, msg: dict[str, Any]) -> None:
        """Before a site is sampled."""
        if msg["type"] != "sample" or msg["name"] not in self._shapes:
            return
        of_site, shape = msg["fn"], self._shapes[msg["name"]]
        if of_site.shape() == shape:
            msg["fn"] = of_site.expand((*self._outputs, *of_site.batch_shape)).to_event(len(self._outputs))
        elif of_site.shape() == (*self._outputs, *shape):
            msg["fn"] = of_site.to_event(len(of_site.batch_shape))
        else:
            raise ValueError(f"site {msg['name']!r} has shape {of_site.shape()}, expected {shape}")
