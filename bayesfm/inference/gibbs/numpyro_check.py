"""Whether the sites of an FM term have the conditionals that a Gibbs sweep draws from: looked at before it starts.

The conditions are about a density that only a program knows. They are looked at where all sites have random values of
moderate size: a density that is not quadratic, or a site that stands where it should not, shows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
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
)
from bayesfm.likelihoods.distributions import Probit
from bayesfm.priors import Hyper, of_features
from bayesfm.priors.shifted import OFFSET, Shifted
from bayesfm.term import TERM, FMTerm

__all__ = ["TermModel", "examine", "term_sites"]

type Model = Callable[..., Any]
type Sites = dict[str, Array]


class Point(NamedTuple):
    """Values of all sites that are not observed, drawn at random; the term, and what it comes to there."""

    term: FMTerm
    own: dict[str, str]
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
        ours = eta(self.point.sites, self.term)
        if ours.shape != self.point.e.shape or not _close(ours, self.point.e):
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
    here, there = (_point(model, name, seed, args, kwargs) for seed in (0, 1))
    for point in (here, there):
        _check_term(point)
    names = set(here.own.values())
    sites = {
        **here.sites,
        **{site: there.sites[site] for site in names},
    }  # the others' values are those of `here`
    run_here = run_with(model, name, args, dict(kwargs), here.sites)
    run_there = run_with(model, name, args, dict(kwargs), sites)
    _check_prior(run_there(here.e), sites, here.own)
    _check_other_uses(run_here(there.e), run_there(there.e), names)
    augmented = [
        site
        for site in _dependent(run_here, here.e, there.e, names)
        if _is_augmented(run_here, site, here.e, there.e)
    ]
    return TermModel(here.term, here.own, tuple(augmented), here)


def _point(
    model: Model, name: str | None, seed: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Point:
    listener = Listener(model, name)
    seeded = numpyro.handlers.seed(listener, jax.random.key(seed))
    start = numpyro.handlers.substitute(seeded, substitute_fn=init_to_uniform(radius=1.0))
    trace = numpyro.handlers.trace(start).get_trace(*args, **kwargs)
    if len(listener.own) != 1:
        names = ", ".join(repr(term.name) for term in listener.terms) or "none"
        raise ValueError(
            f"the model must have one fm_term of name {name!r}, it has terms of these names: {names}"
        )
    latent = {site: x["value"] for site, x in trace.items() if x["type"] == "sample" and not x["is_observed"]}
    own = {role: site for role, site in term_sites(trace, name).items() if site in latent}
    return Point(listener.own[0], own, latent, listener.heard[0])


def _check_term(point: Point) -> None:
    if point.term.outputs:
        raise ValueError("FMBlock takes terms of one linear predictor, this one has outputs=(L,): use NUTS")
    missing, more = set(point.term.roles) - set(point.own), set(point.own) - set(point.term.roles)
    if missing or more:
        raise ValueError(
            f"all sites of the term must be free and as fm_term made them, not observed or reparametrized: "
            f"{', '.join(sorted(missing | more))}"
        )


def _check_prior(given: Given, sites: Sites, own: Mapping[str, str]) -> None:
    """Scales, masks and plates around the term would change its prior."""
    term = given.term
    expected = jnp.zeros(())
    if term.intercept is not None:
        expected += term.intercept.distribution().log_prob(sites[own["w0"]])
    for x, prior in term.families.items():
        hyper: Hyper = {h: sites[own[f"{h}_{x}"]] for h in prior.hyper_names() if h != OFFSET}
        if isinstance(prior, Shifted):
            hyper[OFFSET] = prior.offset
        of_x = prior.distribution(of_features(prior, hyper, term.design.groups))
        expected += prior.log_hyper(hyper) + jnp.sum(of_x.log_prob(sites[own[x]]))
    found = jnp.sum(jnp.stack([jnp.sum(given.log_probs[site]) for site in own.values()]))
    if not _close(found, expected):
        raise ValueError(
            "the prior of the term's sites is not what fm_term made it: nothing may scale, mask or repeat it "
            "(numpyro.handlers.scale, mask, a plate around fm_term)"
        )


def _check_other_uses(here: Given, there: Given, own: set[str]) -> None:
    """Other sites may know the term's by its values alone, which are the same here and there."""
    moved = [site for site in here.log_probs if site not in own and _differ(here, there, site)]
    if moved:
        raise ValueError(
            f"site(s) {', '.join(moved)} depend on the sites of the term otherwise than by what fm_term returns: "
            "draw everything with NUTS"
        )


def _dependent(run: Run, e: Array, other: Array, own: set[str]) -> list[str]:
    """Sites that see what the term comes to."""
    here, there = run(e), run(other)
    return [site for site in here.log_probs if site not in own and _differ(here, there, site)]


def _is_augmented(run: Run, site: str, e: Array, other: Array) -> bool:
    """Whether a site is augmented, or else quadratic without cross terms; raises if it is neither."""

    def log_density(e: Array) -> Array:
        return jnp.sum(run(e).log_probs[site])

    found = run(e).sites[site]
    augmentation = look_up(found)
    if augmentation is not None:
        eta = location(found)
        if eta.shape == e.shape and _is_linear(lambda e: location(run(e).sites[site]), e, other):
            if augmentation.kind is Probit and found["scale"] is not None:
                raise ValueError(f"rows of site {site!r} cannot have weights under a probit: repeat the rows")
            return True
    elif _is_linear(jax.grad(log_density), e, other):
        curvature = jax.jvp(jax.grad(log_density), (e,), (jnp.ones_like(e),))[1]
        if bool(jnp.all(curvature <= 0)):
            return False
    known = ", ".join(x.kind.__name__ for x in AUGMENTED)
    raise ValueError(
        f"site {site!r} ({type(found['fn']).__name__}) has no Gibbs update: its log density must be quadratic in what "
        f"fm_term returns, one row at a time, or it must be one of {known}, observed, one value per row, its linear "
        "predictor linear in that: draw everything with NUTS"
    )


def _is_linear(f: Callable[[Array], Array], e: Array, other: Array) -> bool:
    """Whether f is affine, every entry in its own e."""
    (value, slope), there = jax.jvp(f, (e,), (jnp.ones_like(e),)), f(other)
    sign = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], e.shape), e.dtype)
    crossed = jax.jvp(f, (e,), (sign,))[1]
    step = slope * (other - e)
    size = jnp.abs(value) + jnp.abs(there) + jnp.abs(step)
    return _small(there - value - step, size) and _small(crossed - slope * sign, jnp.abs(slope).max())


def _differ(a: Given, b: Given, site: str) -> bool:
    return not _close(a.log_probs[site], b.log_probs[site])


def _close(a: Array, b: Array) -> bool:
    return _small(a - b, jnp.max(jnp.abs(a) + jnp.abs(b), initial=0.0))


def _small(x: Array, size: Array) -> bool:
    """Beyond half of the digits."""
    return bool(jnp.all(jnp.abs(x) <= jnp.finfo(x.dtype).eps ** 0.5 * size))
