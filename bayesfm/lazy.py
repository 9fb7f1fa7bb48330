"""Draws on disk as xarray sees them: read when they are asked for. A module of its own, so that they can be pickled."""

from __future__ import annotations

from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from bayesfm.inference.draw_files import DrawFile

__all__ = ["Site"]


class Site(BackendArray):
    """A :class:`DrawFile` behind xarray's lazy indexing."""

    def __init__(self, file: DrawFile) -> None:
        self.file = file
        self.shape, self.dtype = file.shape, file.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self.file.read)
