"""Engines put together: what one engine hands to another.

Engines do not import each other. What needs two of them stands here, above all engines and below everything that uses
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm._checks import check_count
from bayesfm.design import Design
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.inference.nuts import run as engine
from bayesfm.model import ModelSpec

__all__ = ["nuts"]


def nuts(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    *,
    weight: Float[np.ndarray, " n"] | None = None,
    row_data: Mapping[str, Any] | None = None,
    options: ChainOptions | None = None,
    start: Mapping[str, Any] | Draws | str = "gibbs",
    warm_sweeps: int = 100,
    **settings: Any,
) -> Draws:
    """Sample the posterior of a model by the No-U-Turn sampler, from where a short Gibbs run ended.

    Parameters
    ----------
    key, spec, design, y, weight, row_data, options
        As for :func:`bayesfm.gibbs`; options of the chain runner (checkpoint, resume, streams, ...) all hold.
    start : "gibbs", "prior", Draws or mapping of str to array
        Where chains start: "gibbs" runs ``warm_sweeps`` Gibbs sweeps per chain, and is "prior" for a
        likelihood without a Gibbs sweep; for the others see
        :func:`bayesfm.inference.nuts.run.nuts`.
    warm_sweeps : int, default=100
        For ``start="gibbs"``.
    **settings
        ``parametrization``, ``target_accept``, ``max_tree_depth``, ``keep`` and ``streams`` of
        :func:`bayesfm.inference.nuts.run.nuts`.

    Returns
    -------
    Draws

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm import Block, ChainOptions, Design, default_spec, nuts
    >>> user, trial = np.divmod(np.arange(60), 3)
    >>> design = Design((Block.field("user", user, np.arange(20)),))
    >>> y = user % 4 + 0.5 * trial
    >>> options = ChainOptions(num_warmup=100, num_samples=20, progress=False)
    >>> draws = nuts(jax.random.key(0), default_spec(y, rank=0), design, y, options=options, target_accept=0.95)
    >>> draws.stats["lp"].shape
    (2, 20)
    """
    options = options or ChainOptions()
    key_start, key_nuts = jax.random.split(key)
    data: dict[str, Any] = {"weight": weight, "row_data": row_data}
    if isinstance(start, str) and start == "gibbs":
        sweeps = check_count("warm_sweeps", warm_sweeps, minimum=1)
        short = ChainOptions(0, 1, sweeps, options.num_chains, options.chain_method, progress=False)
        # A resumed run goes on where it was stopped, wherever it would have started.
        from_prior = options.resume or not spec.likelihood.conjugate
        start = "prior" if from_prior else gibbs(key_start, spec, design, y, options=short, **data)
    return engine.nuts(key_nuts, spec, design, y, options=options, start=start, **data, **settings)
