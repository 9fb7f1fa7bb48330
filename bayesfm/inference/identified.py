"""Which scalars of a draw have an identity, so that chains can be compared by them: the one place for that law.

The factors are defined only up to sign and permutation (or rotation). What stands for them: w0, the parameters of the
likelihood, the hyperparameters of w, averages over factors of those of v, the log joint density, eta at the probe rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors.base import OTHER_FACTOR

__all__ = ["CENTRED", "NUM_PROBES", "Identified", "Quantity", "quantities"]

NUM_PROBES = 100
"""Rows at which eta is reported, and the most that is looked at of a parameter that every group has."""
CENTRED = ("w0", "eta")
"""Sites that the centre of y was taken off."""


@dataclass(frozen=True)
class Quantity:
    """Scalars that are identified, and the site or statistic they are made of.

    Attributes
    ----------
    name, source : str
        Of the quantity; of the site.
    dims : tuple of str
        Of the site, behind (chain, draw).
    average : {None, "mean", "rms"}
        What is taken over the factors, if anything: the mean, or the root mean square of what changes sign.
    some : bool
        Whether a hundred values stand for all: there may be a parameter for every user.
    """

    name: str
    source: str
    dims: tuple[str, ...]
    average: str | None = None
    some: bool = False

    @property
    def kept_dims(self) -> tuple[str, ...]:
        """Dimensions that are left, behind (chain, draw)."""
        return (
            self.dims
            if self.average is None
            else tuple(d for d in self.dims if d not in ("factor", OTHER_FACTOR))
        )

    def places(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Where to look along dimensions of these sizes, evenly spaced, if not everywhere."""
        many = {d: n for d, n in sizes.items() if self.some and n > NUM_PROBES}
        return {d: np.linspace(0, n - 1, NUM_PROBES).round().astype(int) for d, n in many.items()}

    def values(self, x: Float[np.ndarray, "chain draw *rest"]) -> np.ndarray:
        """Their draws, from those of the site, (chain, draw) leading."""
        for dim, at in self.places(dict(zip(self.dims, x.shape[2:], strict=True))).items():
            x = np.take(x, at, axis=2 + self.dims.index(dim))
        if self.average is None:
            return x
        # Of one layout in memory, so that a sum has one order of its terms, wherever the draws come from.
        x = np.ascontiguousarray(x, np.float64)
        axis = 2 + self.dims.index("factor")
        if OTHER_FACTOR in self.dims:  # the trace of a matrix is what no rotation changes
            x, axis = np.diagonal(x, axis1=axis, axis2=2 + self.dims.index(OTHER_FACTOR)), -1
        return np.sqrt((x**2).mean(axis=axis)) if self.average == "rms" else x.mean(axis=axis)


def quantities(spec: ModelSpec, present: Collection[str]) -> list[Quantity]:
    """What is identified in draws of these sites and statistics.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    present : collection of str
        Names of the sites with values, and of the statistics.

    Returns
    -------
    list of Quantity

    Examples
    --------
    >>> from bayesfm.inference.identified import quantities
    >>> from bayesfm.model import ModelSpec
    >>> [q.name for q in quantities(ModelSpec(), ["w0", "v", "mu_v", "lambda_v", "lp"])]
    ['w0', 'mu_v_rms', 'lambda_v_mean', 'lp']
    """
    out = []
    for name, dims in site_dims(spec).items():
        if name not in present or "feature" in dims:
            continue
        if "factor" in dims:
            average = "rms" if name.startswith("mu_") else "mean"
            out.append(Quantity(f"{name}_{average}", name, dims, average))
        else:
            out.append(Quantity(name, name, dims, some=name in spec.likelihood.dims))
    if "lp" in present:
        out.append(Quantity("lp", "lp", ()))
    if "eta" in present:
        out.append(Quantity("eta", "eta", (*spec.likelihood.output_dims, "probe")))
    return out


@dataclass(frozen=True)
class Identified:
    """The law as a function of arrays, for a run that looks at itself.

    Attributes
    ----------
    spec : ModelSpec
        The model.
    centre : float
        What was taken off y, and comes back into w0 and eta: the run is to judge the very numbers that it hands over.
    """

    spec: ModelSpec
    centre: float = 0.0

    def sources(self, shapes: Mapping[str, Any]) -> tuple[str, ...]:
        """Names among these sites and statistics (each with a ``shape``) that are needed."""
        present = [name for name, x in shapes.items() if 0 not in x.shape]
        return tuple(dict.fromkeys(q.source for q in quantities(self.spec, present)))

    def __call__(self, draws: Mapping[str, np.ndarray]) -> Float[np.ndarray, "chain draw count"]:
        """All scalars side by side, in float64, of draws (chain, draw, ...) of what ``sources`` named."""
        columns = []
        for quantity in quantities(self.spec, draws):
            x = np.asarray(quantity.values(draws[quantity.source]), np.float64)
            columns.append(x.reshape(*x.shape[:2], -1) + (self.centre if quantity.source in CENTRED else 0.0))
        return np.concatenate(columns, axis=2)
