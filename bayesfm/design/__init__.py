"""The sparse seam: tables, matrices and files become designs of named relation blocks."""

from __future__ import annotations

from bayesfm.design.arrow import iter_dataset
from bayesfm.design.blocks import Block, Design
from bayesfm.design.chunks import iter_libfm
from bayesfm.design.colouring import check_colouring, colour_columns
from bayesfm.design.encoding import DesignEncoder, TableEncoder
from bayesfm.design.files import read_libfm, write_libfm
from bayesfm.design.matrices import design_from_matrix
from bayesfm.design.schema import BlockSchema, DesignSchema

__all__ = [
    "Block",
    "BlockSchema",
    "Design",
    "DesignEncoder",
    "DesignSchema",
    "TableEncoder",
    "check_colouring",
    "colour_columns",
    "design_from_matrix",
    "iter_dataset",
    "iter_libfm",
    "read_libfm",
    "write_libfm",
]
