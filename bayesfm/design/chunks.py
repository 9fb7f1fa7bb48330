"""libFM and svmlight files, one chunk of rows after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from bayesfm._checks import check_count
from bayesfm.design.changes import Unchanged, local_stamps
from bayesfm.design.files import numbered_lines, parse_lines
from bayesfm.design.validation import as_canonical_csr

__all__ = ["LibfmChunks", "iter_libfm"]


class LibfmChunks:
    """The rows of a libFM file as chunks ``(X, y)``; see :func:`iter_libfm`, which makes it.

    Every ``iter`` reads the file from its beginning.
    """

    def __init__(self, path: str | os.PathLike[str], rows_per_chunk: int, num_features: int | None) -> None:
        self.path = os.fspath(path)
        self.rows_per_chunk = check_count("rows_per_chunk", rows_per_chunk, 1)
        self._num_features = None if num_features is None else check_count("num_features", num_features, 1)
        self._num_rows: int | None = None
        self._unchanged = Unchanged()
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"there is no file {self.path}")

    @property
    def num_features(self) -> int:
        """Width of every chunk; read off the whole file, once, where it was not given."""
        if self._num_features is None:
            self._count()
        assert self._num_features is not None
        return self._num_features

    @property
    def num_rows(self) -> int:
        """Number of rows; the file is read once where no pass has come to its end yet."""
        if self._num_rows is None:
            self._count()
        assert self._num_rows is not None
        return self._num_rows

    def _count(self) -> None:
        largest = -1
        for _, _, indices, _ in self._pass():
            largest = max(largest, int(indices.max(initial=-1)))
        if self._num_features is None:
            if largest < 0:
                raise ValueError(
                    f"{self.path} has no features at all: give num_features if rows without features are meant"
                )
            self._num_features = largest + 1

    def __iter__(self) -> Iterator[tuple[sparse.csr_array, Float64[np.ndarray, " m"]]]:
        width = self.num_features
        for targets, starts, indices, values in self._pass():
            X = sparse.csr_array((values, indices, starts), shape=(len(targets), width))
            yield as_canonical_csr(X), targets

    def _pass(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Parsed chunks from the beginning; the file is looked at before the first, between them, and at the end."""
        self._check()
        num_rows = 0
        with closing(numbered_lines(self.path)) as lines:
            while True:
                try:
                    chunk = parse_lines(self.path, lines, self.rows_per_chunk, self._num_features)
                except ValueError:
                    self._check()  # a line cut in two may be one that is just being written
                    raise
                self._check()
                if not len(chunk[0]):
                    break
                num_rows += len(chunk[0])
                yield chunk
        if not num_rows:
            raise ValueError(f"{self.path} has no rows: empty input")
        self._num_rows = num_rows

    def _check(self) -> None:
        self._unchanged.check(local_stamps([self.path]))

    def __repr__(self) -> str:
        width = "unknown" if self._num_features is None else self._num_features
        return f"LibfmChunks({self.path!r}, rows_per_chunk={self.rows_per_chunk}, num_features={width})"


def iter_libfm(
    path: str | os.PathLike[str], *, rows_per_chunk: int = 65_536, num_features: int | None = None
) -> LibfmChunks:
    r"""Read a libFM or svmlight file in chunks, as often as is asked for.

    Memory is needed for one chunk. The rows are those of :func:`read_libfm`, and so are the checks.

    Parameters
    ----------
    path : path
        Lines ``target index:value ...``, as for :func:`read_libfm`; through gzip if the name ends with ``.gz``.
    rows_per_chunk : int, default=65536
        Rows of every chunk but the last.
    num_features : int, optional
        Width of all chunks. Without it the file is read once more, beforehand, for its largest index.

    Returns
    -------
    LibfmChunks
        Yields (X, y), a csr_array of shape (m, num_features) and an array of shape (m,), in every ``for`` from the
        beginning; ``num_rows`` and ``num_features`` say how many there are.

    Raises
    ------
    FileNotFoundError
        At once, where there is no such file.
    ValueError
        While it is read: a malformed or truncated line (named by its number), a compressed file that breaks off, a
        number that is not finite, an index beyond ``num_features``, no rows. A last line that is cut off where
        it is still a valid line cannot be recognised.
    RuntimeError
        The file changed since it was first looked at: its size, its time of modification, or its inode.

    Examples
    --------
    >>> import os, tempfile
    >>> from bayesfm.design import iter_libfm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "train.libfm")
    ...     with open(path, "w") as file:
    ...         _ = file.write("1 0:1 2:0.5\n0 1:1\n1 0:1\n")
    ...     chunks = iter_libfm(path, rows_per_chunk=2)
    ...     for X, y in chunks:
    ...         print(X.toarray().tolist(), y)
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]] [1. 0.]
    [[1.0, 0.0, 0.0]] [1.]
    """
    return LibfmChunks(path, rows_per_chunk, num_features)
