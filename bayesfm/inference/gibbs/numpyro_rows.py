"""What the rest of a NumPyro model says of the values of an FM term: a normal working response for every row.

Given all other sites, a model may have the term's values e_n in several of its sites. Those whose log density is
quadratic in e, without cross terms between rows, are put together by two derivatives: omega = -l'' and omega (z - e) =
l'. So a mean with whatever offset, a scale per row, weights and masks are all taken care of. Those of other known
distributions are augmented as the likelihoods of this package are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Key
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import Messenger

from bayesfm.likelihoods import BernoulliLogit, BernoulliProbit, BinomialLogit, Likelihood, StudentT
from bayesfm.likelihoods.base import Observed, Params, RowData
from bayesfm.likelihoods.distributions import Probit
from bayesfm.term import TERM, FMTerm

__all__ = [
    "AUGMENTED",
    "Given",
    "Listener",
    "Run",
    "location",
    "look_up",
    "row_information",
    "run_with",
    "unwrapped",
]


class Listener(Messenger):
    """Hears which FM terms a model has; says what the one of that name comes to, if ``value`` is given."""

    def __init__(self, fn: Callable[..., Any], name: str | None, value: Array | None = None) -> None:
        super().__init__(fn)
        self._name, self._value = name, value
        self.terms: list[FMTerm] = []
        self.heard: list[Array] = []

    def process_message(self, msg: dict[str, Any]) -> None:
        """Before a term is evaluated."""
        if msg["type"] != TERM:
            return
        self.terms.append(msg["term"])
        if msg["term"].name == self._name and self._value is not None:
            msg["value"] = self._value

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Afterwards."""
        if msg["type"] == TERM and msg["term"].name == self._name:
            self.heard.append(msg["value"])

    @property
    def own(self) -> list[FMTerm]:
        """The terms of that name."""
        return [term for term in self.terms if term.name == self._name]


class Given(NamedTuple):
    """A model at given values of all sites, and of the term."""

    term: FMTerm
    log_probs: dict[str, Array]
    sites: dict[str, dict[str, Any]]


type Run = Callable[[Array], Given]
"""Values of the term -> the model there."""


def run_with(
    model: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], sites: Any
) -> Run:
    """The model with sites given, as a function of what the term comes to."""

    def run(e: Float[Array, " n"]) -> Given:
        listener = Listener(model, name, e)
        log_probs, trace = compute_log_probs(listener, args, kwargs, sites, sum_log_prob=False)
        return Given(listener.own[0], log_probs, dict(trace))

    return run


class Augmentation(NamedTuple):
    """How sites with a distribution are augmented: where the linear predictor is, and the likelihood's arguments."""

    kind: type
    predictor: Callable[[Any], Array]
    likelihood: Callable[[Any], tuple[Likelihood, Params, RowData]]


AUGMENTED = (
    Augmentation(dist.BernoulliLogits, lambda fn: fn.logits, lambda fn: (BernoulliLogit(), {}, {})),
    Augmentation(
        dist.BinomialLogits,
        lambda fn: fn.logits,
        lambda fn: (BinomialLogit(), {}, {"trials": fn.total_count * jnp.ones_like(fn.logits)}),
    ),
    Augmentation(Probit, lambda fn: fn.eta, lambda fn: (BernoulliProbit(), {}, {})),
    Augmentation(
        dist.StudentT, lambda fn: fn.loc, lambda fn: (StudentT(), {"alpha": fn.scale**-2, "df": fn.df}, {})
    ),
)
"""Distributions of observed sites, one value per row, that have an augmentation."""


def look_up(site: dict[str, Any]) -> Augmentation | None:
    """The augmentation of a site; None if it is not observed, or there is none."""
    fn, _ = unwrapped(site["fn"])
    kinds = [x for x in AUGMENTED if isinstance(fn, x.kind)]
    return kinds[0] if kinds and site["is_observed"] else None


def location(site: dict[str, Any]) -> Float[Array, " n"]:
    """Linear predictor of a site that has an augmentation."""
    augmentation = look_up(site)
    assert augmentation is not None
    return augmentation.predictor(unwrapped(site["fn"])[0])


def unwrapped(fn: dist.Distribution) -> tuple[dist.Distribution, Bool[Array, "..."] | bool]:
    """The distribution without its wrappers, and the mask."""
    mask: Any = True
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        if isinstance(fn, dist.MaskedDistribution):
            mask = mask & jnp.asarray(fn._mask)
        fn = fn.base_dist
    return fn, mask


def row_information(
    key: Key[Array, ""],
    run: Run,
    e: Float[Array, " n"],
    own: Sequence[str],
    augmented: Sequence[str],
    *,
    native: bool,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Draw the augmentations given e; return (omega, z), so that what is known of e is z ~ N(e, 1/omega).

    ``own`` are the sites of the term, ``augmented`` those that are augmented; all others are quadratic in e. Rows of
    which nothing is known have omega zero and any z.
    """

    def quadratic(e: Float[Array, " n"]) -> Float[Array, ""]:
        left_out = {*own, *augmented}
        terms = [jnp.sum(lp) for name, lp in run(e).log_probs.items() if name not in left_out]
        return sum(terms, start=jnp.zeros((), e.dtype))

    one = jnp.ones_like(e)
    score, curvature = jax.jvp(jax.grad(quadratic), (e,), (one,))
    omega = -curvature
    for sub, name in zip(jax.random.split(key, len(augmented)), augmented, strict=True):

        def predictor(e: Float[Array, " n"], name: str = name) -> Float[Array, " n"]:
            return location(run(e).sites[name])

        eta, slope = jax.jvp(predictor, (e,), (one,))
        precision, z = _augment(sub, run(e).sites[name], eta, native)
        omega += precision * slope**2
        score += precision * slope * (z - eta)
    known = omega > 0
    return jnp.where(known, omega, 0.0), jnp.where(known, e + score / jnp.where(known, omega, 1.0), e)


def _augment(
    key: Key[Array, ""], site: dict[str, Any], eta: Float[Array, " n"], native: bool
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    fn, mask = unwrapped(site["fn"])
    augmentation = look_up(site)
    assert augmentation is not None
    likelihood, params, rows = augmentation.likelihood(fn)
    scale = 1.0 if site["scale"] is None else site["scale"]
    weight = jnp.broadcast_to(jnp.where(mask, scale, 0.0), eta.shape).astype(eta.dtype)
    y = jnp.broadcast_to(site["value"], eta.shape).astype(eta.dtype)
    return likelihood.augment(key, Observed(y, weight, rows), eta, params, native=native)
