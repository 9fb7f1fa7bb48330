"""What every prior family offers: NumPyro sites, the Gaussian prior of x given them, and their Gibbs update."""

from __future__ import annotations

from collections.abc import Mapping
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
    "LocationScale",
    "Prior",
    "Sizes",
    "of_features",
    "of_groups",
]

Hyper = dict[str, Array]
"""Hyperparameters of one prior by name; see :meth:`Prior.hyper_dims` for their shapes."""

Dims = tuple[str, ...]
"""Names of dimensions, sample dimensions left out."""

OTHER_FACTOR = "factor_other"
"""Second dimension of a matrix over factors."""


class Sizes(NamedTuple):
    """Numbers of groups, of features, and of columns of x: none for w, one for v."""

    groups: int
    features: int
    columns: tuple[int, ...] = ()

    def shape(self, dims: Dims) -> tuple[int, ...]:
        """Shape of an array with these dimensions."""
        sizes = {"group": self.groups, "feature": self.features}
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


class LocationScale(NamedTuple):
    """x_j = mu_g + sigma_g e_j with standard normal e_j and mu_g | sigma_g ~ N(mu0, sigma_g^2/beta0)."""

    mu: Float[Array, "G *d"]
    sigma: Float[Array, "G *d"]
    beta0: Float[Array, ""] | float
    mu0: Float[Array, ""] | float


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

    def distribution(self, own: Hyper) -> dist.Distribution:
        """Prior of x given hyperparameters that have been gathered to features (:func:`of_features`)."""
        ...

    def precision_and_mean(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Gaussian precision and mean of x given its hyperparameters, for the Gibbs draw of x.

        Per group, from the hyperparameters as they are: ``shape`` (G, *columns). With ``local_names`` per feature, from
        those of :func:`of_features`: ``shape`` (p, *columns). The precision has one more axis if ``full``.
        """
        ...

    def sample_new(self, key: Key[Array, ""], own: Hyper, shape: tuple[int, ...]) -> Array:
        """X of features that are new in their groups; ``own`` has the hyperparameters of these groups alone."""
        prior = self.distribution(own)
        return prior.expand(shape[: len(shape) - prior.event_dim]).sample(key)

    def mean_new(self, own: Hyper, shape: tuple[int, ...]) -> Array:
        """Mean of what :meth:`sample_new` draws."""
        return jnp.broadcast_to(own.get("mu", jnp.zeros(())), shape)

    def location(self, hyper: Hyper) -> tuple[Array, Array] | None:
        """Gaussian precision and mean of ``mu`` given the other hyperparameters; None if the family has no mu.

        It promises that x - mu depends on mu through nothing but x: shifting both leaves p(x | hyper) as it is.
        """
        return None

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

    def log_sigma_density(self, log_sigma: Array) -> Array:
        """Log prior density of log sigma, elementwise, up to a constant."""
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


def of_groups(prior: Prior, hyper: Mapping[str, Array], group: Int[Array, "..."]) -> Hyper:
    """The hyperparameters of these groups; those of features are left out."""
    return {name: x[group] for name, x in hyper.items() if name not in prior.local_names}


def of_features(prior: Prior, hyper: Mapping[str, Array], group: Int[Array, " p"]) -> Hyper:
    """The hyperparameters of every feature, given its group."""
    return {name: x if name in prior.local_names else x[group] for name, x in hyper.items()}
