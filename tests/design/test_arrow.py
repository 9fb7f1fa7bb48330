from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from bayesfm.design import DesignEncoder, iter_dataset
from bayesfm.design.arrow import DatasetChunks


def table(num_rows: int = 25) -> pa.Table:
    films = pa.array([f"film {i % 4}" for i in range(num_rows)]).dictionary_encode()
    columns = {"user": np.arange(num_rows) % 7, "film": films, "age": np.arange(num_rows) / 2}
    return pa.table({**columns, "stars": np.arange(num_rows) % 5 + 1.0})


def folder_of(path: Path, rows: pa.Table, sizes: tuple[int, ...] = (11, 3, 11)) -> Path:
    path.mkdir()
    start = 0
    for i, size in enumerate(sizes):
        pq.write_table(rows.slice(start, size), path / f"part-{i}.parquet", row_group_size=4)
        start += size
    return path


def gathered(chunks: DatasetChunks) -> tuple[pa.Table, np.ndarray]:
    tables, y = zip(*chunks, strict=True)
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks(), np.concatenate(y)


def sources(tmp_path: Path) -> list[Any]:
    rows = table()
    folder = folder_of(tmp_path / "data", rows)
    pq.write_table(rows, tmp_path / "one.parquet", row_group_size=10)
    files = sorted(folder.iterdir())
    return [rows, folder, str(folder), files, tmp_path / "one.parquet", folder.as_uri(), ds.dataset(folder)]


@pytest.mark.parametrize("batch_rows", [1, 4, 10, 25, 1000])
def test_chunks_are_the_rows_of_the_dataset(tmp_path: Path, batch_rows: int) -> None:
    rows = table()
    for source in sources(tmp_path):
        chunks = iter_dataset(source, target="stars", batch_rows=batch_rows)
        for _ in range(2):
            X, y = gathered(chunks)
            assert X.to_pylist() == rows.drop_columns("stars").to_pylist()
            np.testing.assert_array_equal(y, rows.column("stars").to_numpy())
        sizes = [x.num_rows for x, _ in chunks]
        assert sizes[:-1] == [batch_rows] * (24 // batch_rows)
        assert chunks.num_rows == sum(sizes) == 25


def test_a_slow_learner_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Of 100 MB, in files and in one file, no more than a tenth is in memory while the first chunk is learned from."""
    rows = pa.table({f"x{j}": np.random.default_rng(j).normal(size=1_000_000) for j in range(12)})
    pq.write_table(rows, tmp_path / "one.parquet", row_group_size=10_000)
    (tmp_path / "many").mkdir()
    for i in range(100):
        pq.write_table(rows.slice(10_000 * i, 10_000), tmp_path / "many" / f"part-{i:02d}.parquet")
    size = rows.nbytes
    del rows
    before = pa.total_allocated_bytes()
    for name in ("one.parquet", "many"):
        chunks = iter(iter_dataset(tmp_path / name, batch_rows=10_000))
        first = next(chunks)
        time.sleep(1.0)  # threads would read the rest meanwhile
        assert pa.total_allocated_bytes() - before < size / 10
        del first, chunks


def test_formats_and_columns(tmp_path: Path) -> None:
    ds.write_dataset(table(), tmp_path / "arrow", format="ipc")
    chunks = iter_dataset(tmp_path / "arrow", target="stars", columns=["age", "user"], format="ipc")
    [(X, y)] = chunks
    assert X.column_names == ["age", "user"]
    assert y.tolist() == table().column("stars").to_pylist()
    [(X, y)] = iter_dataset(table())
    assert y is None
    assert X.column_names == ["user", "film", "age", "stars"]
    assert repr(chunks) == "DatasetChunks(2 columns, target='stars', batch_rows=65536)"


def test_encoders_take_the_chunks(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", table())
    encoder = DesignEncoder().fit(table().drop_columns("stars"))
    whole = encoder.transform(table().drop_columns("stars")).to_csr().toarray()
    parts = [
        encoder.transform(X).to_csr().toarray() for X, _ in iter_dataset(folder, target="stars", batch_rows=7)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_labels_may_be_strings() -> None:
    [(_, y)] = iter_dataset(pa.table({"a": [1, 2], "y": ["ham", "spam"]}), target="y")
    assert y.tolist() == ["ham", "spam"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "rating"}, ValueError, r"no column 'rating'; it has \['user', 'film', 'age', 'stars'\]"),
        ({"columns": ["user", "genre"]}, ValueError, "no column 'genre'"),
        ({"target": "user", "columns": ["user"]}, ValueError, "target 'user' is among the columns"),
        ({"columns": []}, ValueError, "no column but the target"),
        ({"columns": "user"}, TypeError, r"write \['user'\]"),
        ({"target": 3}, TypeError, "target must be the name of a column or None, got 3"),
        ({"batch_rows": 0}, ValueError, "batch_rows must be >= 1"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        iter_dataset(table(), **options)


def test_other_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"dataset must be a path, .* got int"):
        iter_dataset(3)
    with pytest.raises(FileNotFoundError):
        iter_dataset(tmp_path / "none.parquet")


def test_missing_targets() -> None:
    with pytest.raises(ValueError, match="target 'y' has 1 missing values"):
        list(iter_dataset(pa.table({"a": [1, 2], "y": [0.5, None]}), target="y"))


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pyarrow is needed .* pip install "bayesfm-jax\[arrow\]"'):
        iter_dataset("data.parquet")


def append(file: Path) -> None:
    pq.write_table(table(40), file)


def damage(file: Path) -> None:
    file.write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append, r"part-2\.parquet changed while it was read"),
        (damage, r"part-2\.parquet changed while it was read \(\d+ bytes at first, 4 now\)"),
        (Path.unlink, r"part-2\.parquet was removed while it was read"),
    ],
)
def test_files_that_change_under_the_reader(tmp_path: Path, change: Any, message: str) -> None:
    for after in (1, 3):  # between chunks, and after the last
        folder = folder_of(tmp_path / f"data{after}", table())
        stream = iter(iter_dataset(folder, target="stars", batch_rows=9))
        for _ in range(after):
            next(stream)
        change(folder / "part-2.parquet")
        with pytest.raises(RuntimeError, match=message):
            list(stream)
    folder = folder_of(tmp_path / "data", table())
    chunks = iter_dataset(folder, target="stars")
    assert len(list(chunks)) == 1
    change(folder / "part-2.parquet")
    with pytest.raises(RuntimeError, match=message):
        list(chunks)


def test_errors_of_pyarrow_about_files_that_changed(tmp_path: Path) -> None:
    """Not that a file is no Parquet file, but that it was one."""
    folder = folder_of(tmp_path / "data", table(400), sizes=(10,) * 40)
    stream = iter(iter_dataset(folder, target="stars", batch_rows=400))
    chunks = iter_dataset(folder, target="stars", batch_rows=400)
    assert chunks.num_rows == 400
    chunks._unchanged.check = first_is_as_before(chunks._unchanged.check)  # type: ignore[method-assign]
    damage(folder / "part-7.parquet")
    with pytest.raises(RuntimeError, match=r"part-7\.parquet changed while it was read"):
        list(chunks)
    with pytest.raises(pa.ArrowInvalid):  # without an earlier look there is nothing to compare with
        list(stream)


def first_is_as_before(check: Any) -> Any:
    """The file changes between the look at it and the reading."""
    calls = iter([lambda stamps: None])
    return lambda stamps: next(calls, check)(stamps)


def test_other_file_systems_are_watched_too(tmp_path: Path) -> None:
    folder_of(tmp_path / "data", table())
    filesystem = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    chunks = iter_dataset("data", target="stars", filesystem=filesystem)
    assert len(list(chunks)) == 1
    append(tmp_path / "data" / "part-0.parquet")
    with pytest.raises(RuntimeError, match=r"part-0\.parquet changed while it was read"):
        list(chunks)
    (tmp_path / "data" / "part-0.parquet").unlink()
    with pytest.raises(RuntimeError, match=r"part-0\.parquet was removed"):
        list(chunks)
