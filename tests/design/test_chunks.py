from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design import iter_libfm, read_libfm, write_libfm
from bayesfm.design.blocks import Design
from bayesfm.design.chunks import LibfmChunks
from tests.design.strategies import designs

LINES = "1 0:1\n# comment\n2 1:2 3:0.5\n\n3 2:1\n4 0:1\n"


def text_file(folder: Path, text: str, name: str = "data.libfm") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def gathered(chunks: LibfmChunks) -> tuple[np.ndarray, np.ndarray]:
    X, y = zip(*chunks, strict=True)
    return np.concatenate([x.toarray() for x in X]), np.concatenate(y)


@pytest.mark.parametrize("name", ["a.libfm", "a.libfm.gz"])
@given(designs(), st.integers(1, 7), st.data())
def test_chunks_are_the_rows_of_the_file(name: str, design: Design, size: int, data: st.DataObject) -> None:
    y = np.arange(design.num_rows, dtype=float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_libfm(path, design, y)
        chunks = iter_libfm(path, rows_per_chunk=size, num_features=design.num_features)
        whole, _ = read_libfm(path, num_features=design.num_features)
        for _ in range(2):
            X, targets = gathered(chunks)
            np.testing.assert_array_equal(X, whole.to_csr().toarray())
            np.testing.assert_array_equal(targets, y)
        assert [len(y) for _, y in chunks][:-1] == [size] * ((design.num_rows - 1) // size)
        assert chunks.num_rows == design.num_rows


def test_width_is_that_of_the_whole_file(tmp_path: Path) -> None:
    chunks = iter_libfm(text_file(tmp_path, LINES), rows_per_chunk=1)
    assert "num_features=unknown" in repr(chunks)
    assert [X.shape for X, _ in chunks] == [(1, 4)] * 4
    assert chunks.num_features == 4
    assert "num_features=4" in repr(chunks)
    assert iter_libfm(tmp_path / "data.libfm").num_rows == 4
    assert [X.shape for X, _ in iter_libfm(tmp_path / "data.libfm", num_features=9)] == [(4, 9)]


def test_entries_twice_are_summed_and_zeros_left_out(tmp_path: Path) -> None:
    [(X, _)] = iter_libfm(text_file(tmp_path, "1 2:1 0:0 2:2\n"))
    assert X.nnz == 1
    assert X.toarray().tolist() == [[0, 0, 3]]


@pytest.mark.parametrize(
    "line", ["1 0:", "1 0", "1 0:1 3", "x 0:1", "1 0:1:2", "1 a:1", "1 99999999999999999999:1"]
)
def test_malformed_and_truncated_lines(tmp_path: Path, line: str) -> None:
    """The last line of a file that breaks off, too."""
    for end in ("", "\n2 0:1\n"):
        path = text_file(tmp_path, f"{LINES}{line}{end}")
        seen: list[float] = []
        with pytest.raises(ValueError, match=r"data.libfm, line 7: expected 'target index:value"):
            seen.extend(t for _, y in iter_libfm(path, rows_per_chunk=2, num_features=4) for t in y)
        assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nan 0:1", "line 7: a target that is not finite"),
        ("1 0:inf", "line 7: a value that is not finite"),
        ("1 0:1 4:1", "line 7: a feature index above 3, the last of num_features=4"),
        (f"1 {2**27}:1", "line 7: a feature index above"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, line: str, message: str) -> None:
    path = text_file(tmp_path, f"{LINES}{line}\n")
    for size in (1, 3, 100):
        with pytest.raises(ValueError, match=message):
            list(iter_libfm(path, rows_per_chunk=size, num_features=4))


def test_compressed_file_that_breaks_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "".join(f"{i} {j}:1\n" for i, j in enumerate(rng.integers(1000, size=20_000)))
    whole = gzip.compress(text.encode())
    path = tmp_path / "a.gz"
    path.write_bytes(whole[: len(whole) // 2])
    seen: list[float] = []
    with pytest.raises(
        ValueError, match=r"a\.gz, line \d+: the compressed file is damaged, or breaks off"
    ) as caught:
        seen.extend(t for _, y in iter_libfm(path, rows_per_chunk=100, num_features=1000) for t in y)
    line = int(str(caught.value).partition("line ")[2].partition(":")[0])
    assert len(seen) <= line - 1 < len(seen) + 100
    with pytest.raises(ValueError, match=r"a\.gz, line \d+: the compressed file"):
        read_libfm(path)
    path.write_bytes(whole[:-8] + bytes(8))  # another checksum
    with pytest.raises(ValueError, match=r"a\.gz, line 20001: the compressed file is damaged"):
        read_libfm(path)


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_empty_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="has no rows: empty input"):
        list(iter_libfm(text_file(tmp_path, text), num_features=3))
    with pytest.raises(ValueError, match="has no features at all"):
        list(iter_libfm(text_file(tmp_path, "1\n2\n")))


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        iter_libfm(tmp_path / "none")
    path = text_file(tmp_path, LINES)
    with pytest.raises(ValueError, match="rows_per_chunk must be >= 1"):
        iter_libfm(path, rows_per_chunk=0)
    with pytest.raises(TypeError, match="num_features must be an integer"):
        iter_libfm(path, num_features=2.5)  # type: ignore[arg-type]


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("5 0:1\n")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


def shorten(path: Path) -> None:
    path.write_text(LINES[:-7] + "4 0\n")


CHANGES = [
    (append, "41 bytes at first, 47 now"),
    (replace, "another file has taken its place"),
    (touch, "it was written to, its size being the same"),
    (shorten, "bytes at first"),
    (Path.unlink, "was removed while it was read"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_file_that_changes_under_the_reader(tmp_path: Path, change, message: str) -> None:
    for after in (1, 2, 4):  # the last: after the last chunk
        path = text_file(tmp_path, LINES)
        chunks = iter(iter_libfm(path, rows_per_chunk=1, num_features=4))
        for _ in range(after):
            next(chunks)
        change(path)
        with pytest.raises(RuntimeError, match=message):
            list(chunks)


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_file_that_changes_between_passes(tmp_path: Path, change, message: str) -> None:
    path = text_file(tmp_path, LINES)
    chunks = iter_libfm(path)
    assert len(list(chunks)) == 1
    change(path)
    with pytest.raises(RuntimeError, match=message):
        list(chunks)


def test_a_line_that_is_being_written_is_a_file_that_changes(tmp_path: Path) -> None:
    path = text_file(tmp_path, "1 0:1\n" * 100_000)  # more than is read in advance
    chunks = iter(iter_libfm(path, rows_per_chunk=50_000, num_features=4))
    next(chunks)
    path.write_text("1 0:\n" * 100_000)
    with pytest.raises(RuntimeError, match="changed while it was read"):
        list(chunks)
