"""Group means and scales drawn with all parameters of a field's features integrated out.

Given everything but a field's features, what the data say of a parameter x_j of each, w_j or one factor v_jf, with all
its other parameters integrated out is exp(-c_j x^2/2 + d_j x) (``elimination.py``). With x_j ~ N(mu, sigma^2) the
density of (mu, sigma) is that of a small hierarchical model of two levels, which costs O(p) to evaluate; mu is
integrated out of it as well. The features have to be drawn next: a partially collapsed sweep is right in this order
alone (van Dyk & Park 2008, Partially collapsed Gibbs samplers, JASA 103; docs/math.md, section 34).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bayesfm.design.units import FieldUnit, Layout, Unit
from bayesfm.inference.conjugate.elimination import Corner, Ends, ends, known_of
from bayesfm.inference.conjugate.noise import MaybeKey
from bayesfm.inference.conjugate.prior_terms import precision_and_mean
from bayesfm.inference.conjugate.shrinkage import Shrunk, shrunk
from bayesfm.inference.conjugate.state import Hypers
from bayesfm.model import ModelSpec
from bayesfm.priors import Hyper, LocationScale, Prior
from bayesfm.priors.draws import Look, newton_step

__all__ = ["FieldPrior"]


class FieldPrior(NamedTuple):
    """The prior of a field's features, whose hyperparameters are drawn once its factors have been eliminated."""

    spec: ModelSpec
    layout: Layout
    unit: FieldUnit
    rest: tuple[tuple[Unit, Float[Array, "K _"]], ...]

    @classmethod
    def of(cls, spec: ModelSpec, layout: Layout, theta: Sequence[Float[Array, "K m"]], i: int) -> FieldPrior:
        """For unit i of the layout."""
        unit = layout.units[i]
        assert isinstance(unit, FieldUnit)
        others = enumerate(zip(layout.units, theta, strict=True))
        return cls(spec, layout, unit, () if unit.alone else tuple(own for j, own in others if j != i))

    def last(self, key: MaybeKey, size: int) -> Int[Array, ""]:
        """The factor that is eliminated last: any of a block of that size."""
        if key is None or size < 2:
            return jnp.zeros((), jnp.int32)
        return jax.random.randint(key, (), 0, size, jnp.int32)

    def drawn(self, key: MaybeKey, hyper: Hypers, corner: Corner, f: Int[Array, ""]) -> tuple[Hypers, Ends]:
        """(mu, sigma) of factor f, then of w, without a key as they are; and what w and v_f then are drawn from."""
        rank = self.spec.predictor.rank
        key_f, key_w = (None, None) if key is None else jax.random.split(key)
        if key_f is not None and rank and not self.spec.prior_v.full:
            of_w = self._of(self.spec.prior_w, hyper.w)
            hyper = hyper._replace(v=self._redraw(key_f, hyper.v, known_of(corner, of_w, None), f))
        of_f = self._of_factor(hyper.v, f)
        if key_w is not None:
            hyper = hyper._replace(w=self._redraw(key_w, hyper.w, known_of(corner, None, of_f), None))
        return hyper, ends(corner, self._of(self.spec.prior_w, hyper.w), of_f)

    def _of(self, family: Prior, hyper: Hyper, columns: tuple[int, ...] = ()) -> tuple[Array, Array]:
        return precision_and_mean(family, hyper, self.layout, self.unit, columns)

    def _of_factor(self, hyper: Hyper, f: Int[Array, ""]) -> tuple[Array, Array]:
        """Precision and mean of v_f; where the precision is a matrix, the corner has them already."""
        rank, none = self.spec.predictor.rank, jnp.zeros_like(self.unit.group, self.unit.count.dtype)
        if rank == 0:
            return none + 1, none
        if self.spec.prior_v.full:
            return none, none
        precision, mean = self._of(self.spec.prior_v, hyper, (rank,))
        return precision[:, f], mean[:, f]

    def _redraw(
        self, key: Key[Array, ""], hyper: Hyper, known: tuple[Array, Array], f: Int[Array, ""] | None
    ) -> Hyper:
        """Hyperparameters of w, or of factor f, from what is known of it."""
        family = self.spec.prior_w if f is None else self.spec.prior_v
        scales = family.location_scale(hyper)
        if scales is None:
            return hyper
        column = (lambda x: x) if f is None else (lambda x: x[:, f])
        of_column = scales._replace(mu=column(scales.mu), sigma=column(scales.sigma))
        rest = [(unit, x[0] if f is None else x[1 + f]) for unit, x in self.rest]
        others = elsewhere(rest, self.layout.num_groups, of_column.mu) if rest else None
        mu, sigma = draw_scales(key, family, of_column, self.unit, known, others, native=self.layout.native)
        if f is not None:
            mu, sigma = scales.mu.at[:, f].set(mu), scales.sigma.at[:, f].set(sigma)
        return family.from_location_scale(hyper, mu, sigma)


class Elsewhere(NamedTuple):
    """What is known of one parameter of the features that each group has in other units, which stay as they are.

    Their number; sum and sum of squares around mu.
    """

    number: Float[Array, " G"]
    first: Float[Array, " G"]
    second: Float[Array, " G"]


def elsewhere(
    rest: Sequence[tuple[Unit, Float[Array, " _"]]], num_groups: int, mu: Float[Array, " G"]
) -> Elsewhere:
    """Of the units' features, one parameter of each."""
    away = [(unit, x - mu[unit.group]) for unit, x in rest]

    def by_group(power: int) -> Float[Array, " G"]:
        parts = [jax.ops.segment_sum(x**power, unit.group, num_groups, True) for unit, x in away]
        return sum(parts[1:], start=parts[0])

    number = sum((unit.count for unit, _ in rest[1:]), start=rest[0][0].count)
    return Elsewhere(number, by_group(1), by_group(2))


class _Target(NamedTuple):
    """log p(log sigma_g | data) with mu and the unit's features integrated out, for all groups at once."""

    scales: LocationScale
    unit: FieldUnit
    c: Float[Array, " m"]
    d: Float[Array, " m"]
    others: Elsewhere | None
    prior: Prior
    native: bool

    def look(self, before: Float[Array, " G"], u: Float[Array, " G"]) -> Look:
        """The log density of log sigma at u, sums over features as their rise from ``before``."""
        sums = self._sums(before, u)
        one = jnp.ones_like(u)

        def along(x: Float[Array, " G"]) -> Float[Array, " G"]:
            return sums.F.along(-2 * x) + self._rest(sums, u, x)

        def slope(x: Float[Array, " G"]) -> Float[Array, " G"]:
            return jax.jvp(along, (x,), (one,))[1]

        gradient, curvature = jax.jvp(slope, (jnp.zeros_like(u),), (one,))
        return Look(sums.F.value, self._rest(sums, u, jnp.zeros_like(u)), gradient, curvature)

    def mu(self, u: Float[Array, " G"]) -> tuple[Float[Array, " G"], Float[Array, " G"]]:
        """Precision and mean of mu given sigma, the mean from where mu is."""
        A, B = self._of_mu(self._sums(u, u), jnp.zeros_like(u))
        return A * jnp.exp(-2 * u), B / A

    def _sums(self, before: Float[Array, " G"], u: Float[Array, " G"]) -> Shrunk:
        return shrunk(self.unit, self.c, self.d, jnp.exp(-2 * before), jnp.exp(-2 * u), native=self.native)

    def _of_mu(self, sums: Shrunk, x: Array) -> tuple[Float[Array, " G"], Float[Array, " G"]]:
        """A and B of all that is known of mu, in units of lambda, log sigma being x from where the sums are."""
        scales = self.scales
        A = scales.beta0 + sums.A.along(-2 * x)
        B = scales.beta0 * (scales.mu0 - scales.mu) + sums.B.along(-2 * x)
        if self.others is not None:
            A, B = A + self.others.number, B + self.others.first
        return A, B

    def _rest(self, sums: Shrunk, u: Float[Array, " G"], x: Array) -> Float[Array, " G"]:
        """What is not a sum over the unit's features: mu integrated out, features elsewhere, priors."""
        scales = self.scales
        A, B = self._of_mu(sums, x)
        square = B * B / A - scales.beta0 * (scales.mu0 - scales.mu) ** 2
        log = -0.5 * jnp.log(A)
        if self.others is not None:
            square -= self.others.second
            log -= self.others.number * (u + x)
        return log + 0.5 * jnp.exp(-2 * (u + x)) * square + self.prior.log_sigma_density(u + x)


def draw_scales(
    key: Key[Array, ""],
    prior: Prior,
    scales: LocationScale,
    unit: FieldUnit,
    known: tuple[Float[Array, " m"], Float[Array, " m"]],
    others: Elsewhere | None,
    *,
    native: bool = False,
) -> tuple[Float[Array, " G"], Float[Array, " G"]]:
    """Draw (mu, sigma) of one parameter for the groups of a field, with the features integrated out.

    log sigma by a Metropolis step whose proposal is the normal approximation, then mu from its conditional.
    """
    c, d = known
    key_sigma, key_mu = jax.random.split(key)
    # Around mu as it is: what is left is of the size of sigma.
    target = _Target(scales, unit, c, d - c * scales.mu[unit.group], others, prior, native)
    u = newton_step(key_sigma, target.look, jnp.log(scales.sigma))
    precision, mean = target.mu(u)
    mu = scales.mu + mean + jax.random.normal(key_mu, mean.shape, mean.dtype) / jnp.sqrt(precision)
    own = unit.count > 0
    return jnp.where(own, mu, scales.mu), jnp.where(own, jnp.exp(u), scales.sigma)
