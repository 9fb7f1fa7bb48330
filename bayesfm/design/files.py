"""libFM and svmlight text files: one row a line, ``target index:value index:value ...``, indices from 0."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from array import array
from collections.abc import Generator, Iterator
from itertools import islice, starmap
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy import sparse

from bayesfm._checks import check_count
from bayesfm.design.blocks import Design
from bayesfm.design.matrices import design_from_matrix

__all__ = ["numbered_lines", "parse_lines", "read_libfm", "write_libfm"]

type _Path = str | os.PathLike[str]

_LINE = re.compile(rb"\s*[^\s:_]+(?:\s+[0-9]+:[^\s:_]+)*\s*")
_MAX_INDEX = (1 << 27) - 1
"""Beyond it indices are hashes or mistakes, and the names of the features alone would fill the memory."""

_ROWS_PER_WRITE = 65_536


def read_libfm(
    path: _Path, *, meta: _Path | None = None, num_features: int | None = None
) -> tuple[Design, Float64[np.ndarray, " n"]]:
    """Read a libFM or svmlight file.

    Parameters
    ----------
    path : path
        Lines ``target index:value ...``; indices count from 0. What follows a ``#`` is a comment, blank lines
        are skipped, an index that occurs twice in a line is summed. Read through gzip if the name ends with
        ``.gz``.
    meta : path, optional
        Group file: one integer per feature and line, the number of its prior group. It also fixes the number
        of features.
    num_features : int, optional
        Number of features p; by default the largest index plus one.

    Returns
    -------
    design : Design
        One block named "X" with features x0, x1, ...
    y : array of shape (n,)
        Targets.

    Raises
    ------
    ValueError
        A malformed line (named by its number), a number that is not finite, an index beyond ``num_features``,
        no rows.

    Examples
    --------
    >>> import os, tempfile
    >>> from bayesfm.design import read_libfm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "train.libfm")
    ...     with open(path, "w") as file:
    ...         _ = file.write("4.5 0:1 2:0.5  # a comment")
    ...     design, y = read_libfm(path)
    >>> design.to_csr().toarray(), y
    (array([[1. , 0. , 0.5]]), array([4.5]))
    """
    targets, starts, indices, values = parse_lines(path, numbered_lines(path))
    if not len(targets):
        raise ValueError(f"{path} has no rows: empty input")
    groups = None if meta is None else _read_meta(meta)
    least = int(indices.max(initial=-1)) + 1
    p = least if num_features is None else check_count("num_features", num_features, 1)
    if groups is not None:
        if num_features is not None and num_features != len(groups):
            raise ValueError(
                f"num_features is {num_features}, but the group file {meta} has {len(groups)} lines"
            )
        p = len(groups)
    if least > p:
        raise ValueError(f"{path} has feature index {least - 1}, but only {p} features were announced")
    if p == 0:
        raise ValueError(
            f"{path} has no features at all: give num_features if rows without features are meant"
        )
    X = sparse.csr_array((values, indices, starts), shape=(len(targets), p))
    return design_from_matrix(X, groups=groups), targets


def parse_lines(
    path: _Path,
    lines: Iterator[tuple[int, bytes]],
    num_rows: int | None = None,
    num_features: int | None = None,
) -> tuple[
    Float64[np.ndarray, " n"], Int64[np.ndarray, " n+1"], Int64[np.ndarray, " z"], Float64[np.ndarray, " z"]
]:
    """Targets of the next lines, and their entries as the three arrays of a CSR matrix; without end by default."""
    targets, starts, indices, values = array("d"), array("q", [0]), array("q"), array("d")
    numbers = array("q")
    for number, line in islice(lines, num_rows):
        if not _LINE.fullmatch(line):
            raise _malformed(path, number, line)
        target, *entries = line.replace(b":", b" ").split()
        try:
            targets.append(float(target))
            indices.extend(map(int, entries[::2]))
            values.extend(map(float, entries[1::2]))
        except (ValueError, OverflowError) as error:
            raise _malformed(path, number, line) from error
        starts.append(len(values))
        numbers.append(number)
    arrays = (_int64(starts), _int64(indices), np.array(values, dtype=np.float64))
    rows = np.array(targets, dtype=np.float64)
    _check_numbers(path, _int64(numbers), rows, *arrays, num_features)
    return rows, *arrays


def _int64(numbers: array[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)  # "q" alone would become the platform's long long


def numbered_lines(path: _Path) -> Generator[tuple[int, bytes]]:
    """Number and text of every line that is not blank, without comments."""
    number = 0
    with _open(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                text = line.partition(b"#")[0]
                if text.strip():
                    yield number, text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}, line {number + 1}: the compressed file is damaged, or breaks off here ({error})"
            ) from error


def _open(path: _Path, mode: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, mode) if os.fspath(path).endswith(".gz") else open(path, mode))


def _malformed(path: _Path, number: int, line: bytes) -> ValueError:
    text = line.strip().decode("utf-8", "replace")
    text = text if len(text) <= 60 else text[:57] + "..."
    return ValueError(f"{path}, line {number}: expected 'target index:value index:value ...', got {text!r}")


def _check_numbers(
    path: _Path,
    numbers: np.ndarray,
    targets: np.ndarray,
    starts: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    num_features: int | None,
) -> None:
    for what, bad in (
        ("a target that is not finite (NaN or inf)", np.flatnonzero(~np.isfinite(targets))),
        ("a value that is not finite (NaN or inf)", _rows_of(~np.isfinite(values), starts)),
        (
            f"a feature index above {_MAX_INDEX}: renumber the features",
            _rows_of(indices > _MAX_INDEX, starts),
        ),
        (
            f"a feature index above {(num_features or 0) - 1}, the last of num_features={num_features}",
            _rows_of(indices >= (_MAX_INDEX + 1 if num_features is None else num_features), starts),
        ),
    ):
        if bad.size:
            raise ValueError(f"{path}, line {numbers[bad[0]]}: {what}")


def _rows_of(mask: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.searchsorted(starts, np.flatnonzero(mask), side="right") - 1


def _read_meta(path: _Path) -> Int64[np.ndarray, " p"]:
    groups = array("q")
    for number, line in numbered_lines(path):
        text = line.strip().decode("utf-8", "replace")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{path}, line {number}: expected the number of a group, got {text!r}")
        groups.append(int(line))
    if not groups:
        raise ValueError(f"{path} has no groups: expected one integer per feature and line")
    return _int64(groups)


def write_libfm(
    path: _Path, design: Design, y: Float[np.ndarray, " n"], *, meta: _Path | None = None
) -> None:
    """Write a design and its targets as a libFM file; :func:`read_libfm` reads the very same numbers.

    The format has no names and no blocks: blocks are expanded, names are lost, unseen levels become empty.

    Parameters
    ----------
    path : path
        File to write, compressed if the name ends with ``.gz``.
    design : Design
        n rows, p features.
    y : array of shape (n,)
        Targets.
    meta : path, optional
        Where to write the prior group of every feature, one number a line.

    Raises
    ------
    ValueError
        y is not finite or has another length than the design.
    """
    if not isinstance(design, Design):
        raise TypeError(f"design must be a Design, got {type(design).__name__}")
    targets = np.asarray(y, dtype=np.float64)
    if targets.shape != (design.num_rows,):
        raise ValueError(f"y must have shape ({design.num_rows},), one target per row, got {targets.shape}")
    if not np.isfinite(targets).all():
        raise ValueError("y contains NaN or inf, which the format does not know")
    X = design.to_csr()
    with _open(path, "wb") as file:
        for start in range(0, design.num_rows, _ROWS_PER_WRITE):
            stop = start + _ROWS_PER_WRITE
            file.write(_format(targets[start:stop], X[start:stop]).encode("ascii"))
    if meta is not None:
        Path(meta).write_text("".join(f"{g}\n" for g in design.groups.tolist()), encoding="ascii")


def _format(targets: np.ndarray, X: sparse.csr_array) -> str:
    values = map(_shortest, X.data.astype(np.float64).tolist())
    entries = list(starmap("{}:{}".format, zip(X.indices.tolist(), values, strict=True)))
    starts = X.indptr.tolist()
    rows = zip(map(_shortest, targets.tolist()), starts, starts[1:], strict=False)
    return "".join(" ".join([target, *entries[lo:hi]]) + "\n" for target, lo, hi in rows)


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same double."""
    return repr(value).removesuffix(".0")
