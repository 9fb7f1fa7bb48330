"""Where chains start: from what the user gave to sites of all chains side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesfm.inference.draws import Draws
from bayesfm.model import ModelSpec

__all__ = ["point_sites", "start_sites"]


def start_sites(
    start: Mapping[str, Any] | Draws | str,
    shapes: Mapping[str, tuple[int, ...]],
    num_chains: int,
    centre: float,
) -> dict[str, np.ndarray]:
    """Sites of shape (chain, ...), centred as the problem is.

    Parameters
    ----------
    start : Draws or mapping of str to array
        Chain c starts at the last draw of chain c (with fewer chains there, at earlier draws, too), or at the given
        values, each with or without a leading axis of chains.
    shapes : mapping of str to tuple
        Shapes of the sites that are wanted.
    num_chains : int
        Chains.
    centre : float
        What is to be taken off w0.

    Raises
    ------
    ValueError, TypeError
        If a site is missing, or has another shape, or values that are not finite.
    """
    if isinstance(start, Draws):
        given = _last_draws(start, num_chains)
    elif isinstance(start, Mapping):
        given = {name: np.asarray(x) for name, x in start.items()}
    else:
        raise TypeError(f"start must be 'prior', Draws or a mapping of sites, got {start!r}")
    missing = [name for name in shapes if name not in given]
    if missing:
        raise ValueError(f"start lacks the site(s) {', '.join(missing)}: chains start at values of all sites")
    out = {}
    for name, shape in shapes.items():
        x = np.asarray(given[name], np.float64)
        if x.shape == shape:
            x = np.broadcast_to(x, (num_chains, *shape))
        if x.shape != (num_chains, *shape):
            raise ValueError(
                f"start[{name!r}] must have shape {shape}, or ({num_chains}, ...) with a leading axis of chains; "
                f"got {x.shape}"
            )
        if not np.all(np.isfinite(x)):
            raise ValueError(f"start[{name!r}] must be finite")
        out[name] = x - centre if name == "w0" else x
    return out


def point_sites(
    start: Mapping[str, Any], spec: ModelSpec, num_features: int, centre: float
) -> dict[str, np.ndarray]:
    """w0, w and v of a start at one point, centred as the problem is; v of rank 0 has no columns.

    Raises
    ------
    ValueError, TypeError
        As :func:`start_sites`.
    """
    outputs, rank = spec.likelihood.outputs, spec.predictor.rank
    shapes: dict[str, tuple[int, ...]] = {} if spec.intercept is None else {"w0": outputs}
    shapes |= {"w": (*outputs, num_features), "v": (*outputs, num_features, rank)}
    if rank == 0 and isinstance(start, Mapping):
        start = {**start, "v": np.zeros(shapes["v"])}
    return {name: x[0] for name, x in start_sites(start, shapes, 1, centre).items()}


def _last_draws(draws: Draws, num_chains: int) -> dict[str, np.ndarray]:
    """The last draw of every chain, then the one before it, and so on, until there are enough."""
    have = draws.num_chains
    if num_chains > have * draws.num_draws:
        raise ValueError(f"start has {have * draws.num_draws} draws, too few for {num_chains} chains")
    places = [(c % have, draws.num_draws - 1 - c // have) for c in range(num_chains)]
    return {name: np.stack([np.asarray(x[place]) for place in places]) for name, x in draws.sites.items()}
