"""A labelled posterior to disk and back: one netCDF file, or a Zarr folder of which w and v are read when needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesfm.inference.draw_files import IDENTITY, DrawFile, create_draws
from bayesfm.posterior import check_format, lazy_site

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load", "save"]

CHUNK_VALUES = 1 << 22
"""Values of w or v in one chunk of a saved folder."""
LARGE = ("w", "v")
"""Sites that stay on disk until they are needed."""


def save(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a posterior to a netCDF file or a Zarr folder.

    The new file takes the place of an old one only when it is complete. No pickle is involved.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior.
    path : path
        With suffix ``.nc`` (one file, netCDF-4) or ``.zarr`` (a folder). Draws of w and v that do not fit in
        memory need a folder.

    Raises
    ------
    ValueError
        For another suffix, or if a folder that is no Zarr group is in the way.
    """
    check_format(tree)
    target = Path(path)
    write = _writer(target)
    if target.is_dir() and not _is_posterior(target):
        raise ValueError(f"{target} is a folder, but not a posterior of bayesfm: choose another path")
    if target.suffix == ".zarr" and target.is_file():
        raise ValueError(f"{target} is a file, and a .zarr posterior is a folder: choose another path")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {target.parent}: create it first")
    fresh = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        write(tree, fresh)
        if target.is_dir():
            old = target.with_name(f".{os.getpid()}.old.{target.name}")
            target.replace(old)
            fresh.replace(target)
            shutil.rmtree(old)
        else:
            fresh.replace(target)
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh)
        fresh.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a posterior that :func:`save` wrote.

    Parameters
    ----------
    path : path
        A ``.nc`` file, which is read into memory, or a ``.zarr`` folder, of which w and v are read when
        needed.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    ValueError
        If it is something else.
    """
    import xarray as xr

    source = Path(path)
    _writer(source)
    if not source.exists():
        raise FileNotFoundError(f"there is no file or folder {source}")
    file = source.suffix == ".nc"
    options: dict[str, Any] = {"engine": "h5netcdf"} if file else {"engine": "zarr", "consolidated": False}
    try:
        with xr.open_datatree(source, **options) as opened:
            check_format(opened)
            tree = opened.map_over_datasets(partial(_settle, lazy=() if file else LARGE))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{source} is no posterior of bayesfm, or is damaged: {error}") from error
    if "posterior" not in tree:
        raise ValueError(f"{source} is damaged: it has no group 'posterior'")
    if not file:
        _wait_for_draws(tree, source)
    for name in (str(x) for x in tree["posterior"].data_vars if x not in LARGE):
        if not np.all(np.isfinite(tree["posterior"][name])):
            raise ValueError(f"{source} is damaged: the draws of {name} are not finite")
    return tree


def _wait_for_draws(tree: xr.DataTree, folder: Path) -> None:
    """Large sites are read when they are asked for, and only while the folder still holds them."""
    posterior = tree["posterior"].dataset
    for name in (x for x in LARGE if x in posterior):
        site = lazy_site(DrawFile.of(folder.absolute(), f"posterior/{name}"))
        variable = posterior[name].variable
        attributes = {k: v for k, v in variable.attrs.items() if k != IDENTITY}
        posterior = posterior.assign({name: variable._replace(data=site, attrs=attributes)})
    tree["posterior"].dataset = posterior


def _settle(data: xr.Dataset, lazy: tuple[str, ...]) -> xr.Dataset:
    """Read everything but what may wait; give names and attributes back the types they had."""
    for name, x in data.variables.items():
        if name not in lazy:
            x.load()
    names = {x: data[x].astype(object) for x in ("feature", "group") if x in data.coords}
    if "class" in data.coords and data["class"].dtype.kind in "OTU":
        names["class"] = data["class"].astype(object)
    plain = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in data.attrs.items()}
    return data.assign_coords(names).assign_attrs(plain)


def _writer(path: Path) -> Callable[[xr.DataTree, Path], None]:
    if path.suffix == ".nc":
        return _write_netcdf
    if path.suffix == ".zarr":
        return _write_zarr
    raise ValueError(f"path must end in .nc (netCDF) or .zarr (folder), got {path.name!r}")


def _write_netcdf(tree: xr.DataTree, file: Path) -> None:
    """With a checksum on every chunk of the draws."""
    checked = {str(name): {"fletcher32": True} for name in tree["posterior"].data_vars}
    tree.to_netcdf(file, engine="h5netcdf", encoding={"/posterior": checked})


def _is_posterior(folder: Path) -> bool:
    try:
        attributes = json.loads((folder / "zarr.json").read_text()).get("attributes", {})
    except (OSError, ValueError):
        return False
    return "bayesfm_format" in attributes


def _write_zarr(tree: xr.DataTree, folder: Path) -> None:
    """Everything but w and v at once, these a few draws at a time."""
    import xarray as xr
    import zarr

    parts = tree.to_dict()
    posterior = parts["/posterior"]
    large = [name for name in LARGE if name in posterior]
    parts["/posterior"] = posterior.drop_vars(large)
    xr.DataTree.from_dict(parts).to_zarr(folder, mode="w-", consolidated=False, zarr_format=3)
    group = zarr.open_group(folder, path="posterior", mode="r+")
    for name in large:
        x = posterior[name].variable
        step = int(np.clip(CHUNK_VALUES // max(1, x[0, 0].size), 1, x.shape[1]))
        chunks, dims = (1, step, *x.shape[2:]), [str(d) for d in x.dims]
        array = create_draws(group, name, x.shape, chunks, x.dtype, dims)
        digest = hashlib.sha256()
        for chain in range(x.shape[0]):
            for first in range(0, x.shape[1], step):
                draws = slice(first, first + step)
                values = np.ascontiguousarray(x[chain, draws])
                digest.update(values.data)
                array[chain, draws] = values
        array.attrs[IDENTITY] = digest.hexdigest()  # the same draws saved again are the same
