"""What every engine returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["Draws", "StreamedMoments"]


@dataclass(frozen=True)
class StreamedMoments:
    """Predictive moments of rows given in advance, gathered while sampling; chains kept apart.

    Attributes
    ----------
    mean : array of shape (chain, n)
        Mean over draws of E[y | draw].
    parameter_variance : array of shape (chain, n)
        Variance over draws of E[y | draw].
    noise_variance : array of shape (chain, n)
        Mean over draws of var[y | draw].
    num_draws : int
        Draws per chain behind the moments.
    """

    mean: Float[np.ndarray, "chain n"]
    parameter_variance: Float[np.ndarray, "chain n"]
    noise_variance: Float[np.ndarray, "chain n"]
    num_draws: int

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, parameter variance and noise variance over all chains, each of shape (n,)."""
        mean = self.mean.mean(axis=0)
        parameter = self.parameter_variance.mean(axis=0) + self.mean.var(axis=0)
        return mean, parameter, self.noise_variance.mean(axis=0)


@dataclass(frozen=True)
class Draws:
    """Draws of named sites, as plain arrays.

    Attributes
    ----------
    sites : dict
        Name -> array-like of shape (chain, draw, ...); NumPy arrays, or Zarr arrays when they were kept on disk.
    dims : dict
        Name -> named dimensions behind (chain, draw); see ``model.site_dims``.
    stats : dict
        Statistics of the sampler, each (chain, draw).
    probe_rows : array of shape (probe,)
        Training rows at which the site ``eta`` is reported.
    streams : dict
        Name -> :class:`StreamedMoments`.
    info : dict
        Engine, counts, seconds: plain values for the record.
    """

    sites: dict[str, Any]
    dims: dict[str, tuple[str, ...]]
    stats: dict[str, np.ndarray]
    probe_rows: np.ndarray
    streams: dict[str, StreamedMoments] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(next(iter((self.stats or self.sites).values())).shape[0])

    @property
    def num_draws(self) -> int:
        """Draws per chain."""
        return int(next(iter((self.stats or self.sites).values())).shape[1])
