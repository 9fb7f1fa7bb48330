from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfm.design import Block, Design, design_from_matrix, read_libfm, write_libfm
from tests.design.strategies import designs

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def text_file(folder: Path, text: str, name: str = "data.libfm") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["a.libfm", "a.libfm.gz"])
@given(designs(), st.data())
def test_round_trip(name: str, design: Design, data: st.DataObject) -> None:
    y = np.array(data.draw(st.lists(FLOATS, min_size=design.num_rows, max_size=design.num_rows)))
    with tempfile.TemporaryDirectory() as folder:
        path, meta = Path(folder) / name, Path(folder) / "groups"
        write_libfm(path, design, y, meta=meta)
        for again, targets in (
            read_libfm(path, meta=meta),
            read_libfm(path, num_features=design.num_features),
        ):
            assert targets.tobytes() == y.tobytes()  # negative zeros and all
            np.testing.assert_array_equal(again.to_csr().toarray(), design.to_csr().toarray())
        again, _ = read_libfm(path, meta=meta)
        assert again.group_names == tuple(f"X:{g}" for g in sorted(set(design.groups.tolist())))
        used = np.unique(design.groups)
        np.testing.assert_array_equal(used[again.groups], design.groups)


@given(st.lists(FLOATS.filter(bool), min_size=1, max_size=5), st.sampled_from([np.float32, np.float64]))
def test_values_come_back_exactly(values: list[float], dtype: type) -> None:
    with np.errstate(over="ignore", under="ignore"):
        x: np.ndarray = np.array([values]).astype(dtype)
    x[~np.isfinite(x)] = 1.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        write_libfm(path, design_from_matrix(x), np.zeros(1))
        again, _ = read_libfm(path, num_features=x.shape[1])
    np.testing.assert_array_equal(again.to_csr().toarray(), x.astype(np.float64))


def test_more_rows_than_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesfm.design.files._ROWS_PER_WRITE", 3)
    X = np.arange(16.0).reshape(8, 2)
    write_libfm(tmp_path / "a", design_from_matrix(X), np.arange(8.0))
    design, y = read_libfm(tmp_path / "a")
    np.testing.assert_array_equal(design.to_csr().toarray(), X)
    np.testing.assert_array_equal(y, np.arange(8.0))


def test_text(tmp_path: Path) -> None:
    design = Design(
        [Block.field("u", [1, 0, 2], ["a", "b"], unseen=["c"]), Block.create("x", [[0.5], [0], [3]])]
    )
    write_libfm(tmp_path / "a", design, np.array([1.0, -1.5, 1e-300]))
    assert (tmp_path / "a").read_text() == "1 1:1 2:0.5\n-1.5 0:1\n1e-300 2:3\n"


def test_gzip(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        file.write(b"1 0:2\n")
    design, y = read_libfm(str(tmp_path / "a.gz"))
    assert (design.to_csr().toarray().tolist(), y.tolist()) == ([[2.0]], [1.0])
    write_libfm(tmp_path / "b.gz", design, y)
    with gzip.open(tmp_path / "b.gz", "rb") as file:
        assert file.read() == b"1 0:2\n"


def test_comments_blank_lines_order_and_duplicates(tmp_path: Path) -> None:
    text = "# head 1:2\n\n  4.5\t2:0.5 0:1  # tail 3:1\r\n\t\n-1e0 1:2 1:3\n+3"
    design, y = read_libfm(text_file(tmp_path, text))
    np.testing.assert_array_equal(design.to_csr().toarray(), [[1, 0, 0.5], [0, 5, 0], [0, 0, 0]])
    assert y.tolist() == [4.5, -1.0, 3.0]
    assert design.feature_names.tolist() == ["x0", "x1", "x2"]
    assert design.blocks[0].name == "X"


def test_number_of_features(tmp_path: Path) -> None:
    path = text_file(tmp_path, "1 1:1\n")
    assert read_libfm(path)[0].num_features == 2
    assert read_libfm(path, num_features=5)[0].num_features == 5
    with pytest.raises(ValueError, match="feature index 1, but only 1 features"):
        read_libfm(path, num_features=1)
    with pytest.raises(TypeError, match="num_features must be an integer"):
        read_libfm(path, num_features=2.0)  # type: ignore[arg-type]


def test_rows_without_features(tmp_path: Path) -> None:
    path = text_file(tmp_path, "1\n2\n")
    with pytest.raises(ValueError, match="no features at all: give num_features"):
        read_libfm(path)
    assert read_libfm(path, num_features=1)[0].to_csr().toarray().tolist() == [[0.0], [0.0]]


def test_group_file(tmp_path: Path) -> None:
    path = text_file(tmp_path, "1 1:1\n")
    meta = text_file(tmp_path, "4\n# comment\n0\n4\n", "meta")
    design, _ = read_libfm(path, meta=meta)
    assert design.group_names == ("X:0", "X:4")
    assert design.groups.tolist() == [1, 0, 1]
    assert read_libfm(path, meta=meta, num_features=3)[0].num_features == 3
    with pytest.raises(ValueError, match=r"num_features is 4, but the group file .* has 3 lines"):
        read_libfm(path, meta=meta, num_features=4)
    with pytest.raises(ValueError, match="feature index 1, but only 1 features"):
        read_libfm(path, meta=text_file(tmp_path, "0\n", "short"))


@pytest.mark.parametrize(
    "text", ["0\nx\n", "0\n-1\n", "0\n1.5\n", "0\n1 2\n", "0\n" + "9" * 30, "0\n\u0663\n"]
)
def test_bad_group_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="line 2: expected the number of a group"):
        read_libfm(text_file(tmp_path, "1 0:1\n"), meta=text_file(tmp_path, text, "meta"))


def test_empty_group_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no groups"):
        read_libfm(text_file(tmp_path, "1 0:1\n"), meta=text_file(tmp_path, "\n", "meta"))


@pytest.mark.parametrize(
    "line",
    [
        "x 0:1",
        "0:1 1:2",
        "1 0",
        "1 0:",
        "1 :2",
        "1 0:1:2",
        "1 0: 2",
        "1 0 :2",
        "1 0:1 2",
        "1 2 3:4 5 6",
        "1 -1:2",
        "1 1.0:2",
        "1 a:2",
        "1 0:b",
        "1 qid:3 0:1",
        "1 0:1_0",
        "1_0 0:1",
        "1 99999999999999999999:1",
        "1,2 0:1",
        "\u0661 0:1 \u00e9",
    ],
)
def test_malformed_lines(tmp_path: Path, line: str) -> None:
    path = text_file(tmp_path, f"# head\n1 0:1\n\n{line}\n2 0:1\n")
    with pytest.raises(ValueError, match=r"data.libfm, line 4: expected 'target index:value"):
        read_libfm(path)


def test_long_malformed_lines_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 'x{57}\.\.\.'"):
        read_libfm(text_file(tmp_path, "x" * 1000))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nan 0:1", "line 3: a target that is not finite"),
        ("-inf", "line 3: a target that is not finite"),
        ("1 0:2 3:NaN", "line 3: a value that is not finite"),
        ("1 0:1e999", "line 3: a value that is not finite"),
        (f"1 {2**27}:1", "line 3: a feature index above .* renumber"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_libfm(text_file(tmp_path, f"1 0:1 1:2\n\n{line}\n1 0:1\n"))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_empty_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="no rows: empty input"):
        read_libfm(text_file(tmp_path, text))


@pytest.mark.parametrize(
    ("design", "y", "error", "message"),
    [
        (np.eye(2), np.zeros(2), TypeError, "design must be a Design, got ndarray"),
        (design_from_matrix(np.eye(2)), np.zeros(3), ValueError, r"y must have shape \(2,\).*got \(3,\)"),
        (design_from_matrix(np.eye(2)), np.zeros((2, 1)), ValueError, r"got \(2, 1\)"),
        (design_from_matrix(np.eye(2)), np.array([0, np.nan]), ValueError, "NaN or inf"),
    ],
)
def test_bad_arguments_of_write(
    tmp_path: Path, design: Any, y: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_libfm(tmp_path / "a", design, y)
    assert not (tmp_path / "a").exists()
