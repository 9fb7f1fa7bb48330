"""Draws in Zarr arrays that tell when they are not what was written.

Every chunk carries a checksum, a chunk that is not there reads as NaN and is refused, and an array has an identity, so
that a handle does not go on with another run's draws once its folder was written over.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

__all__ = ["DrawFile", "create_draws", "read_draws"]

IDENTITY = "bayesfm_draws"


def create_draws(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype,
    dims: Sequence[str] | None = None,
) -> zarr.Array:
    """A new array in a group, all of it missing (NaN, where the numbers are floats)."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    array = group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        dimension_names=dims,
        compressors=[ZstdCodec(), Crc32cCodec()],
        fill_value=np.nan if np.issubdtype(dtype, np.floating) else 0,
    )
    array.attrs[IDENTITY] = uuid.uuid4().hex
    return array


def read_draws(array: zarr.Array, key: Any, what: str) -> np.ndarray:
    """Entries of an array by orthogonal indexing.

    Raises
    ------
    ValueError
        If a chunk is missing or damaged.
    """
    try:
        values = np.asarray(array.oindex[key])
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{what} are damaged: {error}") from error
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{what} are missing in part, or damaged")
    return values


@dataclass(frozen=True)
class DrawFile:
    """Draws of one site on disk, read when they are asked for. Can be pickled; the file stays where it is.

    Attributes
    ----------
    folder : Path
        Folder of the Zarr group.
    name : str
        Path of the array in the group.
    identity : str
        Which draws these are.
    shape, dtype
        Of the array.
    """

    folder: Path
    name: str
    identity: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, folder: Path, name: str) -> DrawFile:
        """Handle of an array made by :func:`create_draws`."""
        array = _open(folder, name)
        return cls(folder, name, str(array.attrs.get(IDENTITY)), tuple(array.shape), np.dtype(array.dtype))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def read(self, key: Any) -> np.ndarray:
        """Entries by orthogonal indexing.

        Raises
        ------
        ValueError
            If the file is gone, damaged, or holds other draws by now.
        """
        array = _open(self.folder, self.name)
        if array.attrs.get(IDENTITY) != self.identity:
            raise ValueError(f"{self._what} were written over since: load the posterior again")
        return read_draws(array, key, self._what)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.read(key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(...), dtype)

    @property
    def _what(self) -> str:
        return f"the draws of {self.name.rpartition('/')[2]} in {self.folder}"


def _open(folder: Path, name: str) -> zarr.Array:
    import zarr

    try:
        return zarr.open_array(folder, path=name, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the draws of {name.rpartition('/')[2]} are no longer in {folder}: they were left on disk, so the "
            "folder has to stay where it is"
        ) from error
