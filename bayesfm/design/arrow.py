"""Arrow and Parquet datasets, one table of rows after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from bayesfm._checks import check_count
from bayesfm.design.changes import Stamp, Unchanged, local_stamps
from bayesfm.design.tables import as_column_list

__all__ = ["DatasetChunks", "iter_dataset"]


class DatasetChunks:
    """The rows of a dataset as chunks ``(table, y)``; see :func:`iter_dataset`, which makes it.

    Every ``iter`` reads the dataset from its beginning.
    """

    def __init__(
        self, dataset: Any, target: str | None, columns: Sequence[str] | None, batch_rows: int
    ) -> None:
        names = dataset.schema.names
        for column in [*([] if target is None else [target]), *(columns or [])]:
            if column not in names:
                raise ValueError(f"the dataset has no column {column!r}; it has {names}")
        if columns is not None and target in columns:
            raise ValueError(f"the target {target!r} is among the columns: it would be explained by itself")
        self.dataset, self.target = dataset, target
        self.columns = tuple(x for x in names if x != target) if columns is None else tuple(columns)
        if not self.columns:
            raise ValueError("the dataset has no column but the target: there is nothing to explain it by")
        self.batch_rows = check_count("batch_rows", batch_rows, 1)
        self._num_rows: int | None = None
        self._unchanged = Unchanged()

    @property
    def num_rows(self) -> int:
        """Number of rows, as the files say."""
        if self._num_rows is None:
            self._check()
            self._num_rows = int(self.dataset.count_rows())
        return self._num_rows

    def __iter__(self) -> Iterator[tuple[Any, Shaped[np.ndarray, " m"] | None]]:
        self._check()
        tables = self._tables()
        while True:
            try:
                table = next(tables, None)
            except (OSError, ValueError):  # of pyarrow, about files that are not what they were
                self._check()
                raise
            self._check()
            if table is None:
                break
            yield table.select(self.columns), self._response(table)

    def _tables(self) -> Iterator[Any]:
        """Tables of ``batch_rows`` rows, whatever the batches of the files are."""
        pyarrow = _pyarrow()
        names = [*self.columns, *([] if self.target is None else [self.target])]
        options = {"batch_size": self.batch_rows, **_reading(self.dataset)}
        waiting: list[Any] = []
        num_waiting = 0
        for batch in self.dataset.to_batches(columns=names, **options):
            waiting.append(batch)
            num_waiting += batch.num_rows
            while num_waiting >= self.batch_rows:
                table = pyarrow.Table.from_batches(waiting)
                yield table.slice(0, self.batch_rows).combine_chunks()
                rest = table.slice(self.batch_rows)
                waiting, num_waiting = rest.to_batches(), rest.num_rows
        if num_waiting:
            yield pyarrow.Table.from_batches(waiting).combine_chunks()

    def _response(self, table: Any) -> np.ndarray | None:
        if self.target is None:
            return None
        column = table.column(self.target)
        if column.null_count:
            raise ValueError(
                f"the target {self.target!r} has {column.null_count} missing values in one chunk: drop these rows"
            )
        return np.asarray(column.to_numpy())

    def _check(self) -> None:
        self._unchanged.check(_stamps(self.dataset))

    def __repr__(self) -> str:
        return f"DatasetChunks({len(self.columns)} columns, target={self.target!r}, batch_rows={self.batch_rows})"


def iter_dataset(
    dataset: Any,
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    batch_rows: int = 65_536,
    format: str = "parquet",
    filesystem: Any = None,
) -> DatasetChunks:
    """Read an Arrow or Parquet dataset in chunks, as often as is asked for.

    Parameters
    ----------
    dataset : path, list of paths, pyarrow.dataset.Dataset, or pyarrow.Table
        A file, a folder of files, or a URI such as ``s3://bucket/folder``. A folder is listed once: files that come
        later are not read. Rows are read as they are asked for. Of a Parquet file on an object store pyarrow keeps what
        it has read of that file: many files of some hundred megabytes are better there than a few large ones.
    target : str, optional
        Column of the response.
    columns : sequence of str, optional
        Columns of the tables, in this order; by default all but the target.
    batch_rows : int, default=65536
        Rows of every chunk but the last, whatever the row groups of the files are.
    format : str, default="parquet"
        Of files, as ``pyarrow.dataset.dataset`` calls it: "parquet", "ipc" ("feather", "arrow"), "csv", "orc".
    filesystem : pyarrow.fs.FileSystem, optional
        Of paths; by default read off a URI, or the local one.

    Returns
    -------
    DatasetChunks
        Yields (table, y), a pyarrow.Table and an array of its length (None without target), in every ``for`` from the
        beginning; ``num_rows`` says how many rows there are. Encoders and designs take the tables as they are.

    Raises
    ------
    ImportError
        Without pyarrow: ``pip install "bayesfm-jax[arrow]"``.
    ValueError
        Columns that do not exist; missing values of the target, while it is read.
    RuntimeError
        A file changed since it was first looked at: its size, its time of modification, or (local files) its
        inode.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from bayesfm.design import iter_dataset
    >>> table = pa.table({"user": [1, 2, 1], "film": ["Alien", "Brazil", "Brazil"], "stars": [4.0, 5.0, 3.0]})
    >>> for X, y in iter_dataset(table, target="stars", batch_rows=2):
    ...     print(X.num_rows, X.column_names, y)
    2 ['user', 'film'] [4. 5.]
    1 ['user', 'film'] [3.]
    """
    source = _pyarrow_dataset(dataset, format, filesystem)
    if target is not None and not isinstance(target, str):
        raise TypeError(f"target must be the name of a column or None, got {target!r}")
    chosen = None if columns is None else as_column_list(columns, "columns")
    return DatasetChunks(source, target, chosen, batch_rows)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            'the package pyarrow is needed for Arrow and Parquet datasets: pip install "bayesfm-jax[arrow]"',
            name="pyarrow",
        ) from error
    return pyarrow


def _pyarrow_dataset(source: Any, format: str, filesystem: Any) -> Any:
    pyarrow = _pyarrow()
    import pyarrow.dataset as datasets

    if isinstance(source, datasets.Dataset):
        return source
    if isinstance(source, pyarrow.Table | pyarrow.RecordBatch):
        return datasets.InMemoryDataset(source)
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if isinstance(source, list | tuple):
        source = [os.fspath(x) for x in source]
    elif not isinstance(source, str):
        raise TypeError(
            "dataset must be a path, a list of paths, a pyarrow.dataset.Dataset or a pyarrow.Table, got "
            f"{type(source).__name__}"
        )
    return datasets.dataset(source, format=format, filesystem=filesystem)


def _reading(dataset: Any) -> dict[str, Any]:
    """Options by which pyarrow holds little more in memory than the batch that it has been asked for.

    Its threads would read on while rows are learned from, up to a gigabyte whatever the readahead says; and of a
    Parquet file it keeps the bytes of all row groups read so far, which saves round trips to object stores alone.
    """
    import pyarrow.dataset as datasets

    options: dict[str, Any] = {"use_threads": False, "batch_readahead": 2, "fragment_readahead": 1}
    if isinstance(getattr(dataset, "format", None), datasets.ParquetFileFormat) and _is_local(dataset):
        options["fragment_scan_options"] = datasets.ParquetFragmentScanOptions(pre_buffer=False)
    return options


def _is_local(dataset: Any) -> bool:
    """Whether the files of a dataset are on a local file system."""
    import pyarrow.fs as filesystems

    return isinstance(dataset.filesystem, filesystems.LocalFileSystem)


def _stamps(dataset: Any) -> dict[str, Stamp | None]:
    """Stamps of all files of a dataset; none where it is in memory."""
    files = list(getattr(dataset, "files", []))
    if not files:
        return {}
    import pyarrow.fs as filesystems

    if _is_local(dataset):
        return local_stamps(files)
    stamps: dict[str, Stamp | None] = {}
    for info in dataset.filesystem.get_file_info(files):
        gone = info.type == filesystems.FileType.NotFound
        stamps[info.path] = None if gone else Stamp(info.size, info.mtime_ns, None)
    return stamps
