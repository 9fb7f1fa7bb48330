"""Whether the sites of an FM term have the conditionals that a Gibbs sweep draws from: looked at before it starts.

The conditions are about a density that only a program knows. They are looked at where all sites have random values of
moderate size: a density that is not quadratic, or a site that stands where it should not, shows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Bool, Float
from numpyro.infer import init_to_uniform

from bayesfm.design import Design
from bayesfm.inference.gibbs.numpyro_rows import (
    AUGMENTED,
    Given,
    Listener,
    Run,
    location,
    look_up,
    run_with,
    unwrapped,
)
from bayesfm.likelihoods.distributions import Probit
from bayesfm.priors import Hyper, Prior
from bayesfm.priors.shifted import OFFSET, Shifted
from bayesfm.term import TERM, FMTerm

__all__ = ["TermModel", "examine", "term_sites"]

type Model = Callable[..., Any]
type Sites = dict[str, Array]


class Point(NamedTuple):
    """Values of all sites that are not observed, drawn at random, and what the term comes to there."""

    sites: Sites
    e: Float[Array, " n"]


class TermModel(NamedTuple):
    """A model that was found to be what the sweep takes it for.

    Attributes
    ----------
    term
        As it is at one point.
    own
        Names of its sites in the model, by their name without prefix.
    augmented
        Sites that are augmented.
    point
        Where it was looked at.
    """

    term: FMTerm
    own: dict[str, str]
    augmented: tuple[str, ...]
    point: Point

    def check_design(self, design: Design, eta: Callable[[Sites, FMTerm], Array]) -> None:
        """Raise ValueError unless the linear predictor of the sweep is that of the model."""
        e = self.point.e
        if e.shape != (design.num_rows,) or not _close(
            _quickly(lambda z: eta(z, self.term))(self.point.sites), e
        ):
            raise ValueError(
                "design is not the one that the model's fm_term has: give FMBlock the Design of which on_device made it"
            )


def term_sites(trace: Mapping[str, Any], name: str | None) -> dict[str, str]:
    """Names of the sites of a term in a trace, by their name without prefix."""
    found = {}
    for site in trace.values():
        mark = site["infer"].get(TERM) if site["type"] == "sample" else None
        if mark is not None and mark[0] == name:
            found[mark[1]] = site["name"]
    return found


def examine(model: Model, name: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TermModel:
    """Look at the model and its term.

    Raises
    ------
    ValueError
        If the model has no such term, or one of the conditions of ``FMBlock`` does not hold.
    """
    term, names = _structure(model, name, args, kwargs)
    own = set(names.values())

    def look() -> dict[str, Any]:
        here, there = (_point(model, name, seed, args, kwargs)[0] for seed in (0, 1))
        run_here = run_with(model, name, args, dict(kwargs), here.sites)
        mixed = {
            **here.sites,
            **{site: there.sites[site] for site in own},
        }  # others' values are those of `here`
        run_there = run_with(model, name, args, dict(kwargs), mixed)
        before, after, moved = run_here(here.e), run_here(there.e), run_there(there.e)
        rest = [site for site in before.log_probs if site not in own]
        return {
            "here": here,
            "e": there.e,
            "offsets": _offsets(before.term),
            "prior": _prior_is_own(moved, mixed, names),
            "by e alone": {site: _close(after.log_probs[site], moved.log_probs[site]) for site in rest},
            "without e": {site: _close(before.log_probs[site], after.log_probs[site]) for site in rest},
        }

    found = _quickly(look)()
    if not found["prior"]:
        raise ValueError(
            "the prior of the term's sites is not what fm_term made it: nothing may scale, mask or repeat it "
            "(numpyro.handlers.scale, mask, a plate around fm_term)"
        )
    elsewhere = [site for site, alone in found["by e alone"].items() if not alone]
    if elsewhere:
        raise ValueError(
            f"site(s) {', '.join(elsewhere)} depend on the sites of the term otherwise than by what fm_term returns: "
            "draw everything with NUTS"
        )
    here, dependent = found["here"], [site for site, without in found["without e"].items() if not without]
    run = run_with(model, name, args, dict(kwargs), here.sites)
    augmented = _augmented(run, dependent, here.e, found["e"])
    return TermModel(_with_offsets(term, found["offsets"]), names, augmented, here)


def _quickly(f: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for a single run."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def _structure(
    model: Model, name: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[FMTerm, dict[str, str]]:
    """The term, and its sites that are free. No error is raised while JAX traces, which would add to its message."""
    known: dict[str, Any] = {}

    def look() -> None:
        _, known["terms"], known["own"] = _point(model, name, 0, args, kwargs)

    jax.eval_shape(look)
    terms: list[FMTerm] = known["terms"]
    if [term.name for term in terms].count(name) != 1:
        names = ", ".join(repr(term.name) for term in terms) or "none"
        raise ValueError(
            f"the model must have one fm_term of name {name!r}, it has terms of these names: {names}"
        )
    (term,) = (term for term in terms if term.name == name)
    if term.outputs:
        raise ValueError("FMBlock takes terms of one linear predictor, this one has outputs=(L,): use NUTS")
    odd = set(term.roles) ^ set(known["own"])
    if odd:
        raise ValueError(
            "all sites of the term must be free and as fm_term made them, not observed or reparametrized: "
            + ", ".join(sorted(odd))
        )
    return term, known["own"]


def _point(
    model: Model, name: str | None, seed: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Point, list[FMTerm], dict[str, str]]:
    """Random values of all sites; the terms, and the sites of the one of that name."""
    listener = Listener(model, name)
    seeded = numpyro.handlers.seed(listener, jax.random.key(seed))
    start = numpyro.handlers.substitute(seeded, substitute_fn=init_to_uniform(radius=1.0))
    trace = numpyro.handlers.trace(start).get_trace(*args, **kwargs)
    latent = {site: x["value"] for site, x in trace.items() if x["type"] == "sample" and not x["is_observed"]}
    own = {role: site for role, site in term_sites(trace, name).items() if site in latent}
    return Point(latent, listener.heard[0] if listener.heard else jnp.zeros(0)), listener.terms, own


def _prior_is_own(given: Given, sites: Sites, own: Mapping[str, str]) -> Bool[Array, ""]:
    """Scales, masks and plates around the term would change its prior."""
    term = given.term
    expected = jnp.zeros(())
    if term.intercept is not None:
        expected += term.intercept.distribution().log_prob(sites[own["w0"]])
    for x, prior in term.families.items():
        hyper: Hyper = {h: sites[own[f"{h}_{x}"]] for h in prior.hyper_names() if h != OFFSET}
        if isinstance(prior, Shifted):
            hyper[OFFSET] = prior.offset
        own_x = prior.of_features(hyper, term.design.groups, term.sizes(x).columns)
        of_x = prior.distribution(own_x)
        expected += prior.log_hyper(hyper) + jnp.sum(of_x.log_prob(sites[own[x]]))
    return _close(jnp.sum(jnp.stack([jnp.sum(given.log_probs[site]) for site in own.values()])), expected)


def _offsets(term: FMTerm) -> dict[str, Array]:
    return {x: prior.offset for x, prior in term.families.items() if isinstance(prior, Shifted)}


def _with_offsets(term: FMTerm, offsets: Mapping[str, Array]) -> FMTerm:
    """The term with arrays in the place of what stood there when it was traced."""

    def known(prior: Prior, x: str) -> Prior:
        return replace(prior, offset=offsets[x]) if isinstance(prior, Shifted) and x in offsets else prior

    return term._replace(prior_w=known(term.prior_w, "w"), prior_v=known(term.prior_v, "v"))


def _augmented(run: Run, sites: Sequence[str], e: Array, other: Array) -> tuple[str, ...]:
    """Those of the sites that are augmented; raises where one is neither that nor quadratic without cross terms."""
    known: dict[str, Any] = {}

    def look() -> dict[str, Array]:
        at = run(e)
        return {site: _has_update(run, at, site, e, other, known) for site in sites}

    for site, good in _quickly(look)().items():
        if not good:
            kinds = ", ".join(x.kind.__name__ for x in AUGMENTED)
            raise ValueError(
                f"site {site!r} ({known[site][1]}) has no Gibbs update: its log density must be quadratic in what "
                f"fm_term returns, one row at a time, or it must be one of {kinds}, observed, one value per row, its "
                "linear predictor linear in that: draw everything with NUTS"
            )
    return tuple(site for site in sites if known[site][0])


def _has_update(
    run: Run, at: Given, site: str, e: Array, other: Array, known: dict[str, Any]
) -> Bool[Array, ""]:
    augmentation = look_up(at.sites[site])
    known[site] = augmentation is not None, type(unwrapped(at.sites[site]["fn"])[0]).__name__
    if augmentation is None:
        gradient = jax.grad(lambda e: jnp.sum(run(e).log_probs[site]))
        curvature = jax.jvp(gradient, (e,), (jnp.ones_like(e),))[1]
        return _is_linear(gradient, e, other) & jnp.all(curvature <= 0)
    if augmentation.kind is Probit and at.sites[site]["scale"] is not None:
        known[site] = True, "Probit with weights: repeat the rows"
        return jnp.asarray(False)
    if location(at.sites[site]).shape != e.shape:
        return jnp.asarray(False)
    return _is_linear(lambda e: location(run(e).sites[site]), e, other)


def _is_linear(f: Callable[[Array], Array], e: Array, other: Array) -> Bool[Array, ""]:
    """Whether f is affine, every entry in its own e."""
    (value, slope), there = jax.jvp(f, (e,), (jnp.ones_like(e),)), f(other)
    sign = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], e.shape), e.dtype)
    crossed = jax.jvp(f, (e,), (sign,))[1]
    step = slope * (other - e)
    size = jnp.abs(value) + jnp.abs(there) + jnp.abs(step)
    return _small(there - value - step, size) & _small(crossed - slope * sign, jnp.abs(slope).max())


def _close(a: Array, b: Array) -> Bool[Array, ""]:
    return _small(a - b, jnp.max(jnp.abs(a) + jnp.abs(b), initial=0.0))


def _small(x: Array, size: Array) -> Bool[Array, ""]:
    """At most what half of the digits say."""
    return jnp.all(jnp.abs(x) <= jnp.finfo(x.dtype).eps ** 0.5 * size)
