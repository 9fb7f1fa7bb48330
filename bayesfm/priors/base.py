"""What every prior family offers: NumPyro sites, the Gaussian prior of x given them, and their Gibbs update."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Key

from bayesfm.priors.rotation import SquareSums

__all__ = [
    "OTHER_FACTOR",
    "Dims",
    "Features",
    "Hyper",
    "Location",
    "LocationScale",
    "Prior",
    "Sizes",
]

Hyper = dict[str, Array]
"""Hyperparameters of one prior by name; see :meth:`Prior.hyper_dims` for their shapes."""

Dims = tuple[str, ...]
"""Names of dimensions, sample dimensions left out."""

OTHER_FACTOR = "factor_other"
"""Second dimension of a matrix over factors."""


class Sizes(NamedTuple):
    """Numbers of groups, of features, and of columns of x: none for w, one for v.

    None in the place of groups: there is one, and hyperparameters have no axis for it.
    """

    groups: int | None
    features: int
    columns: tuple[int, ...] = ()

    @property
    def of_hyper(self) -> tuple[int, ...]:
        """Shape of a hyperparameter per group and column."""
        return self.columns if self.groups is None else (self.groups, *self.columns)

    def shape(self, dims: Dims) -> tuple[int, ...]:
        """Shape of an array with these dimensions."""
        sizes = {"group": self.groups or 1, "feature": self.features}
        if self.columns:
            sizes |= dict.fromkeys(("factor", OTHER_FACTOR), self.columns[0])
        return tuple(sizes[name] for name in dims)

    @property
    def column_dims(self) -> Dims:
        """``("factor",)`` for v, ``()`` for w."""
        return ("factor",) if self.columns else ()


class Features(NamedTuple):
    """The parameters x of all features, and what they come to per group.

    ``number``, ``mean`` and ``scatter`` (sum of squares around the mean) are those of each group, 0 for an empty one.
    """

    x: Float[Array, "p *d"]
    group: Int[Array, " p"]
    number: Float[Array, " G"]
    mean: Float[Array, "G *d"]
    scatter: Float[Array, "G *d"]

    @property
    def number_per_column(self) -> Float[Array, "G *d"]:
        """``number``, with as many axes as the mean has."""
        return self.number.reshape(self.number.shape + (1,) * (self.mean.ndim - 1))

    def sum(self, values: Float[Array, "p *e"]) -> Float[Array, "G *e"]:
        """Sum over the features of each group."""
        return jax.ops.segment_sum(values, self.group, self.number.shape[0])


class Location(NamedTuple):
    """``mu`` of one group, which is N(mean, 1/precision) given the other hyperparameters."""

    precision: Float[Array, "*kk"]
    mean: Float[Array, "*k"]
    mu: Float[Array, "*k"]


class LocationScale(NamedTuple):
    """x_j = mu_g + sigma_g e_j with standard normal e_j and mu_g | sigma_g ~ N(mu0, sigma_g^2/beta0)."""

    mu: Float[Array, "*G *d"]
    sigma: Float[Array, "*G *d"]
    beta0: Float[Array, "..."] | float
    mu0: Float[Array, "..."] | float

    def of_group(self, g: Int[Array, ""]) -> LocationScale:
        """Those of one group alone."""
        return LocationScale(*(jnp.broadcast_to(x, self.mu.shape)[g] for x in self))


@runtime_checkable
class Prior(Protocol):
    """A family of priors on feature parameters x, of shape (p,) for w and (p, k) for v, in G groups.

    Given its hyperparameters a family is Gaussian, independently over features: that is what the Gibbs draw of x
    asks for. Hyperparameters belong to groups, or to features (``local_names``). Names are without suffix here
    (``mu``, ``lambda``); the model appends ``_w`` or ``_v``. A family is a frozen dataclass that inherits from this
    class; what is implemented here holds for hyperparameters per group and column and a diagonal precision.
    """

    def hyper_names(self) -> tuple[str, ...]:
        """Names of the hyperparameters."""
        ...

    @property
    def local_names(self) -> tuple[str, ...]:
        """Those of which every feature has its own; then ``precision_and_mean`` is per feature, too."""
        return ()

    @property
    def full(self) -> bool:
        """Whether the precision is a matrix over the factors."""
        return False

    def hyper_dims(self, columns: Dims) -> dict[str, Dims]:
        """Dimensions of every hyperparameter, if x has those columns; raise ValueError if x cannot have them."""
        own = self.local_names
        return {name: ("feature" if name in own else "group", *columns) for name in self.hyper_names()}

    def sample_hyper(self, suffix: str, sizes: Sizes) -> Hyper:
        """Sample the hyperparameters inside a NumPyro model, as sites named with the suffix."""
        ...

    def log_hyper(self, hyper: Hyper) -> Float[Array, ""]:
        """Log density of the hyperparameters."""
        ...

    def of_features(self, hyper: Hyper, group: Int[Array, " p"], columns: tuple[int, ...]) -> Hyper:
        """The hyperparameters of every feature, given its group; x has these columns, () for w and (k,) for v."""
        return {name: x if name in self.local_names else x[group] for name, x in hyper.items()}

    def of_groups(self, hyper: Hyper, group: Int[Array, "..."], columns: tuple[int, ...]) -> Hyper:
        """The hyperparameters of these groups; those of features are left out."""
        return {name: x[group] for name, x in hyper.items() if name not in self.local_names}

    def groups_of(self, name: str) -> slice | int:
        """The groups that the hyperparameter of that name is of: all of them, in its first axis, or a single one."""
        return slice(None)

    def distribution(self, own: Hyper) -> dist.Distribution:
        """Prior of x given hyperparameters that have been gathered to features (:meth:`of_features`)."""
        ...

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Gaussian precision and mean of x given its hyperparameters, for the Gibbs draw of x.

        Per group, from the hyperparameters as they are: ``shape`` (G, *columns). Per feature, from those of
        :meth:`of_features`: ``shape`` (p, *columns); with ``local_names`` there is no other way. The precision has one
        more axis if ``full``.
        """
        ...

    def draw_local(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Hyper:
        """Hyperparameters of single features from their prior, of the shape of x."""
        return {}

    def sample_new(self, key: Key[Array, ""], own: Hyper, shape: tuple[int, ...]) -> Array:
        """X of features that are new in their groups; ``own`` has the hyperparameters of these groups alone."""
        prior = self.distribution(own)
        return prior.expand(shape[: len(shape) - prior.event_dim]).sample(key)

    def mean_new(self, own: Hyper, shape: tuple[int, ...]) -> Array:
        """Mean of what :meth:`sample_new` draws."""
        return jnp.broadcast_to(own.get("mu", jnp.zeros(())), shape)

    def location(self, hyper: Hyper, g: int) -> Location | None:
        """The mean of group g and its prior given the other hyperparameters; None if the family has no mean.

        It promises that x - mu depends on mu through nothing but x: shifting both leaves p(x | hyper) as it is.
        """
        return None

    def moved(self, hyper: Hyper, g: int, delta: Float[Array, "*k"]) -> Hyper:
        """Hyperparameters for group g after its x and its mean have been shifted by delta."""
        return {**hyper, "mu": hyper["mu"].at[g].add(delta)}

    def scale_factor(self, key: Key[Array, ""], hyper: Hyper, g: int, h: int) -> Float[Array, " k"] | None:
        """Draw the c of the move that multiplies group g by c and divides group h by it (``moves.rescale``).

        None if the family allows no such move.
        """
        return None

    def scaled(self, hyper: Hyper, g: int, c: Float[Array, " k"]) -> Hyper:
        """Hyperparameters for group g after its x has been multiplied by c, per column."""
        raise NotImplementedError(f"{type(self).__name__} allows no rescaling")

    def location_scale(self, hyper: Hyper) -> LocationScale | None:
        """The hyperparameters as means and standard deviations; None if the family is no such mixture of normals."""
        return None

    def from_location_scale(self, hyper: Hyper, mu: Array, sigma: Array) -> Hyper:
        """Hyperparameters with these means and standard deviations."""
        raise NotImplementedError(f"{type(self).__name__} is no family of locations and scales")

    def log_sigma_density(self, log_sigma: Array, group: Int[Array, ""] | None = None) -> Array:
        """Log prior density of log sigma, elementwise, up to a constant: of all groups, or of one."""
        raise NotImplementedError(f"{type(self).__name__} is no family of locations and scales")

    def rotation(self, key: Key[Array, ""], sums: SquareSums) -> Float[Array, "k k"] | None:
        """Draw the rotation of the factors, v <- v R, with the hyperparameters integrated out (``gibbs.rotation``).

        ``update`` follows, and must then draw them given v without a look at what they were. None if the family allows
        no such move.
        """
        return None

    def initial(self, sizes: Sizes) -> Hyper:
        """Where a chain starts."""
        ...

    def mode(self, features: Features, covariance: Array) -> Hyper | None:
        """Hyperparameters of largest log p(x | hyper) + log p(hyper), precisions and scales being on the log scale.

        Of beliefs about x: ``scatter`` is the expected one, and ``covariance`` (G, *d) or (G, k, k) the sum over the
        features of each group. None where there is no closed form.
        """
        return None

    def update(self, key: Key[Array, ""], hyper: Hyper, features: Features) -> Hyper:
        """Draw the hyperparameters given x, by a transition that leaves their conditional as it is."""
        ...
