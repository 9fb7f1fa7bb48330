"""Files that must not change while they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Stamp", "Unchanged", "local_stamps"]


class Stamp(NamedTuple):
    """What tells one state of a file from another; None where the file system does not say."""

    size: int | None
    mtime_ns: int | None
    inode: int | None


class Unchanged:
    """Compares files with what they were when they were looked at first.

    A file that is written over within the resolution of the clock of its file system, to the same length, goes
    unnoticed.
    """

    def __init__(self) -> None:
        self._first: dict[str, Stamp] | None = None

    def check(self, stamps: dict[str, Stamp | None]) -> None:
        """Raise if a file has changed since the first call, or has gone (None)."""
        if self._first is None:
            self._first = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        for path, now in stamps.items():
            first = self._first.get(path)
            if now is None:
                raise RuntimeError(f"{path} was removed while it was read: chunks of it are missing")
            if first is not None and now != first:
                raise RuntimeError(
                    f"{path} changed while it was read ({_difference(first, now)}): chunks of two versions would be "
                    "mixed. Let it be written to its end, then begin anew with a new reader"
                )


def _difference(first: Stamp, now: Stamp) -> str:
    if first.size != now.size:
        return f"{first.size} bytes at first, {now.size} now"
    if first.inode != now.inode:
        return "another file has taken its place"
    return "it was written to, its size being the same"


def local_stamps(paths: Sequence[str]) -> dict[str, Stamp | None]:
    """Stamps of local files, None where there is no file any more."""
    stamps: dict[str, Stamp | None] = {}
    for path in paths:
        try:
            status = os.stat(path)
            stamps[path] = Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            stamps[path] = None
    return stamps
