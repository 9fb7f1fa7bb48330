"""What a model says before it has seen a response: draws of its parameters and of y."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from numpyro.infer import Predictive

from bayesfm._checks import check_count
from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.inference.problem import check_groups
from bayesfm.likelihoods.base import check_row_data
from bayesfm.model import ModelSpec, numpyro_model, site_dims
from bayesfm.posterior import coordinates

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["prior_predictive"]


def prior_predictive(
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    num_draws: int = 1000,
    row_data: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Draw parameters from the prior, and responses at the rows of a design given them.

    A look at these before fitting tells whether the priors make sense on the scale of y: group ``prior_predictive`` is
    what ``arviz_plots.plot_prior_pc`` and like functions read.

    Parameters
    ----------
    key : typed key
        ``jax.random.key(seed)``.
    spec : ModelSpec
        The model.
    design : Design
        n rows, p features.
    num_draws : int, default=1000
        Independent draws; they are labelled as one chain.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood has to know of every row, for instance ``{"exposure": ...}`` of counts.

    Returns
    -------
    xarray.DataTree
        Groups ``prior`` (all sites with their named dimensions, and ``eta`` of every row) and ``prior_predictive``
        (``y`` of every row).

    Examples
    --------
    >>> import jax
    >>> from bayesfm import Block, Design, ModelSpec, FM, HalfT
    >>> from bayesfm.prior_predictive import prior_predictive
    >>> design = Design([Block.field("user", [0, 0, 1], ["ann", "bob"])])
    >>> tree = prior_predictive(jax.random.key(0), ModelSpec(FM(2), prior_w=HalfT()), design, num_draws=50)
    >>> dict(tree["prior_predictive"]["y"].sizes)
    {'chain': 1, 'draw': 50, 'row': 3}
    >>> tree["prior"]["sigma_w"].dims
    ('chain', 'draw', 'group')
    """
    from arviz_base import from_dict

    num_draws = check_count("num_draws", num_draws, minimum=1)
    check_groups(spec, design)
    dtype = jnp.zeros(()).dtype
    arrays = DesignArrays.from_design(design, dtype)
    given = check_row_data(spec.likelihood, row_data, design.num_rows)
    rows = {name: jnp.asarray(x, dtype) for name, x in given.items()}
    sample = Predictive(numpyro_model, num_samples=num_draws)
    drawn = jax.jit(sample, static_argnums=(4,))(
        key, spec, arrays, jnp.asarray(design.groups), len(design.group_names), rows=rows
    )
    values = {name: np.asarray(x)[None] for name, x in drawn.items() if 0 not in x.shape}
    y = values.pop("y")
    dims = {**site_dims(spec), "eta": (*spec.likelihood.output_dims, "row"), "y": ("row",)}
    return from_dict(
        {"prior": values, "prior_predictive": {"y": y}},
        dims={name: list(dims[name]) for name in (*values, "y")},
        coords=coordinates(spec, design),
        check_conventions=False,
    )
