"""A family of its own for every prior group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int, Key

from bayesfm._pytree import pytree
from bayesfm.priors.base import Dims, Features, Hyper, Location, LocationScale, Prior, Sizes
from bayesfm.priors.draws import slice_step

__all__ = ["PerGroup", "as_prior", "per_group"]


@pytree(static=("groups",))
@dataclass(frozen=True)
class PerGroup(Prior):
    """Every group has a family of its own, or the same one with other numbers.

    Estimators and :func:`~bayesfm.fm_term` take a mapping from group to family in its place:
    ``FMRegressor(prior_w={"user": HalfT(0.5), "item": NormalGamma()})``. The hyperparameters of a group are sites of
    their own that end in its name: ``sigma_user_w``, ``mu_item_v``.

    Parameters
    ----------
    groups : tuple of str
        Names of the groups, in the order of the design.
    priors : tuple of Prior
        The family of each. One with full precision matrices (``NormalWishart``) has to hold for all groups, outside
        of here.

    Raises
    ------
    TypeError, ValueError
        If there is not one prior for every group, or one that cannot stand beside others.

    Notes
    -----
    All moves are made that both families of a pair, or all of them, allow; the scales of two different families are
    multiplied by slice sampling (:meth:`scale_factor`). Factors are not rotated.

    Hyperparameters of single features (``Horseshoe``, ``MultiplicativeGamma``) are arrays over all features of the
    design. Those of other groups' features touch nothing, and are draws from their prior.

    Examples
    --------
    >>> from bayesfm.priors import Fixed, HalfT, PerGroup
    >>> PerGroup(("user", "item"), (HalfT(0.5), Fixed(precision=4.0))).hyper_dims(("factor",))
    {'mu_user': ('factor',), 'sigma_user': ('factor',)}
    """

    groups: tuple[str, ...]
    priors: tuple[Prior, ...]

    def __post_init__(self) -> None:
        groups, priors = tuple(self.groups), tuple(self.priors)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "priors", priors)
        if not groups or len(groups) != len(priors):
            raise ValueError(
                f"PerGroup needs one prior for each of one group or more, got {len(groups)} groups and "
                f"{len(priors)} priors"
            )
        for group in groups:
            # A slash would be a folder in files of draws.
            if not isinstance(group, str) or not group or "/" in group:
                raise ValueError(f"PerGroup(groups=) must be names without a slash, got {group!r}")
        if len(set(groups)) < len(groups):
            raise ValueError(f"PerGroup(groups=) must be different names, got {', '.join(groups)}")
        for group, prior in zip(groups, priors, strict=True):
            _check_family(group, prior)

    @classmethod
    def of(cls, priors: Mapping[str, Prior]) -> PerGroup:
        """From a mapping of names to families."""
        return cls(tuple(priors), tuple(priors.values()))

    def in_order(self, groups: Sequence[str]) -> PerGroup:
        """The same for groups in this order, which must be all that there are."""
        own = dict(zip(self.groups, self.priors, strict=True))
        if set(own) != set(groups):
            raise ValueError(
                f"a prior per group must name all groups of the features and no others: they are "
                f"{', '.join(map(repr, groups))}; got {', '.join(map(repr, self.groups))}"
            )
        return PerGroup(tuple(groups), tuple(own[group] for group in groups))

    def _each(self) -> Iterator[tuple[int, str, Prior]]:
        return ((i, *own) for i, own in enumerate(zip(self.groups, self.priors, strict=True)))

    def _own(self, hyper: Hyper, i: int, *, axis: bool = False) -> Hyper:
        """Hyperparameters of group i by their names in the family; with ``axis`` they have one for it."""
        group, prior = self.groups[i], self.priors[i]
        names = [name for name in prior.hyper_names() if f"{name}_{group}" in hyper]
        own = {name: hyper[f"{name}_{group}"] for name in names}
        return {name: x[None] if axis and name not in prior.local_names else x for name, x in own.items()}

    def _named(self, own: Hyper, i: int, *, axis: bool = False) -> Hyper:
        """The reverse of :meth:`_own`."""
        local = self.priors[i].local_names
        return {
            f"{name}_{self.groups[i]}": x[0] if axis and name not in local else x for name, x in own.items()
        }

    def hyper_names(self) -> tuple[str, ...]:
        """Those of every family, followed by the name of its group."""
        return tuple(f"{name}_{group}" for _, group, prior in self._each() for name in prior.hyper_names())

    @property
    def local_names(self) -> tuple[str, ...]:
        """Those of every family, followed by the name of its group."""
        return tuple(f"{name}_{group}" for _, group, prior in self._each() for name in prior.local_names)

    def groups_of(self, name: str) -> int:
        """Number of the group that the name ends in."""
        return next(
            i for i, group, prior in self._each() if name in {f"{n}_{group}" for n in prior.hyper_names()}
        )

    def hyper_dims(self, columns: Dims) -> dict[str, Dims]:
        """Those of every family, without the axis of groups."""
        return {
            f"{name}_{group}": tuple(d for d in dims if d != "group")
            for _, group, prior in self._each()
            for name, dims in prior.hyper_dims(columns).items()
        }

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sites of all families."""
        one = sizes._replace(groups=None)
        return self._merged(
            self._named(prior.sample_hyper(f"_{group}{suffix}", one), i) for i, group, prior in self._each()
        )

    @staticmethod
    def _merged(parts: Any) -> Hyper:
        return {name: x for part in parts for name, x in part.items()}

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Sum over the families."""
        return sum(
            (prior.log_hyper(self._own(hyper, i)) for i, _, prior in self._each()), start=jnp.zeros(())
        )

    def of_features(self, hyper: Hyper, group: Int[Array, " p"], columns: tuple[int, ...]) -> Hyper:
        """Precision and mean of every feature, which is all that a feature has to know."""
        out = {name: x[group] for name, x in self._per_group(hyper, columns).items()}
        for i, _, prior in self._each():
            if prior.local_names:
                own = prior.precision_and_mean(self._own(hyper, i), (*group.shape, *columns))
                here = _as_wide(group == i, columns)
                out = {
                    name: jnp.where(here, x, out[name])
                    for name, x in zip(("precision", "mean"), own, strict=True)
                }
        return out

    def of_groups(self, hyper: Hyper, group: Int[Array, "..."], columns: tuple[int, ...]) -> Hyper:
        """Precision and mean of these groups; what families with hyperparameters of features have beside those."""
        own = {name: x[group] for name, x in self._per_group(hyper, columns).items()}
        if not self.local_names:
            return own
        rest = [self._named(self._own(hyper, i), i) for i, _, prior in self._each() if prior.local_names]
        return {
            **own,
            **{n: x for n, x in self._merged(rest).items() if n not in self.local_names},
            "group": group,
        }

    def _per_group(self, hyper: Hyper, columns: tuple[int, ...]) -> Hyper:
        """Precisions and means (G, *columns); one and zero for families that have none without a feature."""
        each = [
            (jnp.ones(columns), jnp.zeros(columns))
            if prior.local_names
            else prior.precision_and_mean(self._own(hyper, i), columns)
            for i, _, prior in self._each()
        ]
        precision, mean = zip(*each, strict=True)
        return {"precision": jnp.stack(precision), "mean": jnp.stack(mean)}

    def distribution(self, own: Hyper) -> dist.Distribution:
        """N(mean, 1/precision), elementwise."""
        return dist.Normal(own["mean"], own["precision"] ** -0.5)

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Those of every family, group by group; or as :meth:`of_features` has them."""
        own = hyper if "precision" in hyper else self._per_group(hyper, shape[1:])
        return own["precision"], own["mean"]

    def sample_new(self, key: Key[Array, ""], own: Hyper, shape: tuple[int, ...]) -> Array:
        """By the precision and the mean of their group, or as the family of the group has it."""
        x = super().sample_new(key, own, shape)
        for i, _, prior in self._each():
            if prior.local_names:
                new = prior.sample_new(jax.random.fold_in(key, i), self._own(own, i), shape)
                group = own["group"]
                x = jnp.where(_as_wide(group == i, shape[group.ndim :]), new, x)
        return x

    def mean_new(self, own: Hyper, shape: tuple[int, ...]) -> Array:
        """The mean."""
        return jnp.broadcast_to(own["mean"], shape)

    def location(self, hyper: Hyper, g: int) -> Location | None:
        """That of the group's family."""
        return self.priors[g].location(self._own(hyper, g, axis=True), 0)

    def moved(self, hyper: Hyper, g: int, delta: Float[Array, "*k"]) -> Hyper:
        """As the group's family."""
        own = self.priors[g].moved(self._own(hyper, g, axis=True), 0, delta)
        return {**hyper, **self._named(own, g, axis=True)}

    def scale_factor(self, key: Key[Array, ""], hyper: Hyper, g: int, h: int) -> Float[Array, " k"] | None:
        """One slice step for x = log c, of density p(log sigma_g + x) p(log sigma_h - x); c = 1 if a mu0 is not 0.

        The normal densities of v and mu cancel against the Jacobian, whatever the two families say of the scales.
        """
        first, second = (self.priors[i].location_scale(self._own(hyper, i)) for i in (g, h))
        if first is None or second is None:
            return None
        log_first, log_second = jnp.log(first.sigma), jnp.log(second.sigma)

        def log_density(x: Float[Array, " k"]) -> Float[Array, " k"]:
            up, down = self.priors[g], self.priors[h]
            return up.log_sigma_density(log_first + x) + down.log_sigma_density(log_second - x)

        x = slice_step(key, log_density, jnp.zeros_like(log_first))
        central = (jnp.asarray(first.mu0) == 0) & (jnp.asarray(second.mu0) == 0)
        return jnp.where(central, jnp.exp(x), 1.0)

    def scaled(self, hyper: Hyper, g: int, c: Float[Array, " k"]) -> Hyper:
        """As the group's family."""
        own = self.priors[g].scaled(self._own(hyper, g, axis=True), 0, c)
        return {**hyper, **self._named(own, g, axis=True)}

    def location_scale(self, hyper: Hyper) -> LocationScale | None:
        """Those of all families, group by group; None if one of them has none."""
        each = []
        for i, _, prior in self._each():
            own = prior.location_scale(self._own(hyper, i))
            if own is None:
                return None
            each.append([jnp.broadcast_to(x, own.mu.shape) for x in own])
        return LocationScale(*(jnp.stack(x) for x in zip(*each, strict=True)))

    def from_location_scale(self, hyper: Hyper, mu: Array, sigma: Array) -> Hyper:
        """As the families have it."""
        return self._merged(
            self._named(prior.from_location_scale(self._own(hyper, i), mu[i], sigma[i]), i)
            for i, _, prior in self._each()
        )

    def log_sigma_density(self, log_sigma: Array, group: Int[Array, ""] | None = None) -> Array:
        """Of every group by its family."""
        if group is None:
            return jnp.stack([prior.log_sigma_density(log_sigma[i]) for i, _, prior in self._each()])
        return jnp.stack([prior.log_sigma_density(log_sigma) for _, _, prior in self._each()])[group]

    def initial(self, sizes: Sizes) -> Hyper:
        """Where the families start."""
        one = sizes._replace(groups=None)
        return self._merged(self._named(prior.initial(one), i) for i, _, prior in self._each())

    def mode(self, features: Features, covariance: Array) -> Hyper | None:
        """Those of all families; None if one of them has no closed form."""
        out: Hyper = {}
        for i, _, prior in self._each():
            if not prior.hyper_names():
                continue
            own = prior.mode(_of_group(features, i), covariance[i : i + 1])
            if own is None:
                return None
            out |= self._named(own, i, axis=True)
        return out

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw the hyperparameters of every group as its family does."""
        keys = jax.random.split(key, len(self.groups))
        return self._merged(self._update_one(keys[i], hyper, features, i) for i in range(len(self.groups)))

    def _update_one(self, key: Key[Array, ""], hyper: Hyper, features: Features, i: int) -> Hyper:
        prior, (key_update, key_local) = self.priors[i], jax.random.split(key)
        drawn = prior.update(key_update, self._own(hyper, i, axis=True), _of_group(features, i))
        here = _as_wide(features.group == i, features.x.shape[1:])
        for name, other in prior.draw_local(key_local, features.x.shape).items():
            drawn[name] = jnp.where(here, drawn[name], other)
        return self._named(drawn, i, axis=True)


def _of_group(features: Features, g: int) -> Features:
    """One group alone: the features of others have a number beyond the last, which sums leave out."""
    own = slice(g, g + 1)
    group = jnp.where(features.group == g, 0, 1)
    return Features(features.x, group, features.number[own], features.mean[own], features.scatter[own])


def _is_prior(given: Any) -> bool:
    # A class has all that the protocol asks for, too.
    return isinstance(given, Prior) and not isinstance(given, type)


def _as_wide(where: Bool[Array, "*s"], columns: tuple[int, ...]) -> Bool[Array, "*s *ones"]:
    """With axes for the columns."""
    return where.reshape(where.shape + (1,) * len(columns))


def _check_family(group: str, prior: Any) -> None:
    if not _is_prior(prior):
        raise TypeError(f"the prior of group {group!r} must be a Prior, for instance HalfT(), got {prior!r}")
    if isinstance(prior, PerGroup):
        raise ValueError(f"the prior of group {group!r} is itself a prior per group: name all groups in one")
    if prior.full:
        raise ValueError(
            f"{type(prior).__name__} has full precision matrices and cannot be the prior of group {group!r} alone: "
            "give it for all groups, or take a family of independent factors there"
        )


def per_group(argument: str, given: Mapping[str, Prior], default: Prior, groups: Sequence[str]) -> PerGroup:
    """The families given, and the default for the groups that are not named.

    Raises
    ------
    ValueError
        If a group is named that is not there, or there is one with a slash in its name.
    """
    as_prior(argument, given)
    unknown = [group for group in given if group not in groups]
    if unknown:
        hint = ". Columns of numbers are one group, 'numeric'" if "numeric" in groups else ""
        raise ValueError(
            f"{argument} must map groups of the features ({', '.join(map(repr, groups))}) to priors, got "
            f"{', '.join(map(repr, unknown))}{hint}"
        )
    slashed = [group for group in groups if "/" in group]
    if slashed:
        raise ValueError(
            f"{argument} cannot be a mapping where a group of X has a slash in its name, got {slashed[0]!r}: the names "
            "of hyperparameters end in it, and a slash is a folder in files of draws. Rename the column or group"
        )
    return PerGroup.of({group: given.get(group, default) for group in groups})


def as_prior(argument: str, given: Any) -> Prior:
    """A prior as it was given, or a mapping from group to prior as a :class:`PerGroup`.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or a mapping that is empty or names groups by something else than strings.
    """
    if isinstance(given, Mapping):
        if not given:
            raise ValueError(
                f"{argument} must name one group or more, got an empty mapping: None is the default"
            )
        for group in given:
            if not isinstance(group, str):
                raise TypeError(
                    f"{argument} must name groups by strings, got {group!r}: names of columns, of blocks, or of "
                    "groups=, those that are integers as 'block:number' ('X:0' for group 0 of a matrix)"
                )
            if "/" in group:
                raise ValueError(
                    f"{argument} must name groups without a slash, got {group!r}: rename the column or group"
                )
        wrong = [group for group, prior in given.items() if not _is_prior(prior)]
        if wrong:
            raise TypeError(
                f"{argument} must be a Prior for every group that it names, got {given[wrong[0]]!r} for {wrong[0]!r}"
            )
        return PerGroup.of(given)
    if not _is_prior(given):
        raise TypeError(
            f"{argument} must be a Prior, for instance HalfT(), or a mapping from group to prior; got {given!r}"
        )
    return given
