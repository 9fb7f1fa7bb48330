"""From draws to a labelled posterior (an ArviZ ``DataTree``), and back to what prediction needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

import bayesfm
from bayesfm.design import Design, DesignEncoder
from bayesfm.inference.draws import Draws, StreamedMoments
from bayesfm.mixture import FittedModel
from bayesfm.model import ModelSpec, site_dims
from bayesfm.priors.base import OTHER_FACTOR

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "add_log_likelihood",
    "check_format",
    "coordinates",
    "lazy_site",
    "restore",
    "restore_streams",
    "to_datatree",
]

FORMAT = 1
"""Version of the layout of a saved posterior."""
MOMENTS = ("mean", "parameter_variance", "noise_variance")


def to_datatree(
    draws: Draws,
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
    encoder: DesignEncoder | None = None,
    row_data: Mapping[str, np.ndarray] | None = None,
) -> xr.DataTree:
    """Label draws in ArviZ's schema.

    Groups: ``posterior`` (sites, and eta at the probe rows), ``sample_stats``, ``observed_data`` (y),
    ``constant_data`` (prior group of every feature, probe rows, weights), and ``predictions/<stream>`` where
    rows were given in advance. Dimensions: chain, draw, feature, factor, group, probe, row. The attributes of
    the root hold, as JSON, what :func:`restore` needs. Sites without values (v of rank 0) are left out.

    Parameters
    ----------
    draws : Draws
        What an engine returned; sites kept on disk stay there.
    spec : ModelSpec
        The model.
    design : Design
        Training rows.
    y : array of shape (n,)
        Response.
    weight : array of shape (n,), optional
        Row weights.
    encoder : DesignEncoder, optional
        How tables become designs.
    row_data : mapping of str to array of shape (n,), optional
        What the likelihood knows of every row.

    Returns
    -------
    xarray.DataTree

    Examples
    --------
    >>> import jax, numpy as np
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.chains import ChainOptions
    >>> from bayesfm.inference.gibbs.run import gibbs
    >>> from bayesfm.model import default_spec
    >>> from bayesfm.posterior import to_datatree
    >>> design, y = Design([Block.field("user", [0, 0, 1], ["ann", "bob"])]), np.array([1.0, 2.0, 4.0])
    >>> spec = default_spec(y, rank=2)
    >>> options = ChainOptions(num_warmup=10, num_samples=20, progress=False)
    >>> tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    >>> tree["posterior"]["w"].sel(feature="user=bob").dims
    ('chain', 'draw')
    """
    from arviz_base import from_dict

    constant = {"feature_group": design.groups, "probe_rows": draws.probe_rows}
    if weight is not None:
        constant["weight"] = weight
    constant |= row_data or {}
    sites = {name: lazy_site(x) for name, x in draws.sites.items() if 0 not in x.shape}
    dims = {name: list(draws.dims[name]) for name in sites}
    coords = coordinates(spec, design)
    features = coords.pop(
        "feature"
    )  # ArviZ copies all labels for every variable, and of these there may be a million
    tree = from_dict(
        {
            "posterior": sites,
            "sample_stats": draws.stats,
            "observed_data": {"y": np.asarray(y)},
            "constant_data": constant,
        },
        dims={**dims, "y": ["row"], "weight": ["row"], "feature_group": ["feature"], "probe_rows": ["probe"]}
        | {name: ["row"] for name in row_data or {}},
        coords={**coords, "probe": draws.probe_rows},
        attrs={"/": _root_attributes(draws, spec, design, encoder)},
        check_conventions=False,
    )
    for group in ("posterior", "constant_data"):
        if "feature" in tree[group].dims:
            tree[group].dataset = tree[group].to_dataset().assign_coords(feature=features)
    for name, moments in draws.streams.items():
        tree[f"predictions/{name}"] = _stream_tree(name, moments)
    return tree


def coordinates(spec: ModelSpec, design: Design) -> dict[str, Any]:
    """Labels of the dimensions that sites have."""
    coords = {
        "feature": design.feature_names,
        "group": np.array(design.group_names, dtype=object),
        "factor": np.arange(spec.predictor.rank),
        **spec.likelihood.coords,
    }
    if any(OTHER_FACTOR in dims for dims in site_dims(spec).values()):
        coords[OTHER_FACTOR] = np.arange(spec.predictor.rank)
    return coords


def _root_attributes(
    draws: Draws, spec: ModelSpec, design: Design, encoder: DesignEncoder | None
) -> dict[str, Any]:
    parts = {
        "spec": spec.to_dict(),
        "design_schema": design.schema.to_dict(),
        "encoder": None if encoder is None else encoder.to_dict(),
        "inference": draws.info,
    }
    return {
        "bayesfm_format": FORMAT,
        "bayesfm_version": bayesfm.__version__,
        **{name: json.dumps(part) for name, part in parts.items()},
    }


def _stream_tree(name: str, moments: StreamedMoments) -> xr.DataTree:
    import xarray as xr

    if "/" in name:
        raise ValueError(f"names of streams must not contain a slash, got {name!r}")
    variables = {x: (("chain", "row"), getattr(moments, x)) for x in MOMENTS}
    return xr.DataTree(xr.Dataset(variables, attrs={"num_draws": moments.num_draws}))


def lazy_site(site: Any) -> Any:
    """NumPy arrays as they are; anything else so that xarray reads only what is asked for."""
    if isinstance(site, np.ndarray):
        return site
    from xarray.core.indexing import LazilyIndexedArray

    from bayesfm.lazy import Site

    return LazilyIndexedArray(Site(site))


def add_log_likelihood(tree: xr.DataTree, log_lik: Float[np.ndarray, "chain draw n"]) -> xr.DataTree:
    """The posterior with a group ``log_likelihood``, as ``arviz.loo`` and ``arviz.compare`` want it.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    log_lik : array of shape (chain, draw, n)
        Of the training rows; see ``predictive.log_likelihood``.

    Returns
    -------
    xarray.DataTree
        A new tree that shares its arrays with the old one.
    """
    from arviz_base import from_dict

    posterior = tree["posterior"].sizes
    wanted = (posterior["chain"], posterior["draw"], tree["observed_data"].sizes["row"])
    if np.shape(log_lik) != wanted:
        raise ValueError(f"log_lik must have shape (chain, draw, n) = {wanted}, got {np.shape(log_lik)}")
    out = tree.copy()
    group = from_dict({"log_likelihood": {"y": log_lik}}, dims={"y": ["row"]}, check_conventions=False)
    out["log_likelihood"] = group["log_likelihood"]
    return out


def restore(tree: xr.DataTree) -> tuple[FittedModel, DesignEncoder | None]:
    """What prediction needs: the model with its draws, and the encoder if there is one.

    Parameters
    ----------
    tree : xarray.DataTree
        From :func:`to_datatree` or :func:`bayesfm.load`.

    Returns
    -------
    model : FittedModel
    encoder : DesignEncoder or None

    Raises
    ------
    ValueError
        If the tree does not come from bayesfm, or is damaged.
    """
    check_format(tree)
    try:
        spec = ModelSpec.from_dict(json.loads(tree.attrs["spec"]))
        state = json.loads(tree.attrs["encoder"])
        encoder = None if state is None else DesignEncoder.from_dict(state)
        posterior = tree["posterior"].dataset
        groups = np.asarray(tree["constant_data"]["feature_group"])
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"this posterior is damaged: {type(error).__name__}: {error}") from error
    sites = {str(name): x.variable for name, x in posterior.data_vars.items() if name != "eta"}
    point = json.loads(tree.attrs["inference"]).get("point", False)
    return FittedModel(spec, groups, sites, point), encoder


def restore_streams(tree: xr.DataTree) -> dict[str, StreamedMoments]:
    """Predictive moments of the rows that were given before fitting, by name."""
    if "predictions" not in tree.children:
        return {}
    out = {}
    for name, node in tree["predictions"].children.items():
        mean, parameter, noise = (np.asarray(node[x]) for x in MOMENTS)
        out[name] = StreamedMoments(mean, parameter, noise, int(node.attrs["num_draws"]))
    return out


def check_format(tree: xr.DataTree) -> None:
    """Raise ValueError unless this version of the package reads the tree."""
    number = tree.attrs.get("bayesfm_format")
    if number is None:
        raise ValueError("this is no posterior of bayesfm: its root has no attribute 'bayesfm_format'")
    if int(number) != FORMAT:
        raise ValueError(
            f"this posterior has format {number}, but this version of bayesfm reads format {FORMAT}: use "
            f"version {tree.attrs.get('bayesfm_version')} of bayesfm"
        )
