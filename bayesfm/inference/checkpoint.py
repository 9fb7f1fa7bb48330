"""Where draws go while a run is under way: memory, or a folder from which a killed run goes on.

The folder holds ``state.npz`` (replaced atomically after every piece) and ``draws.zarr`` (one array per site, written
in place). The state names the number of sweeps that are done; whatever was written after it is simply written again.
Where every other draw is dropped, the rest is copied into a group of its own, and the first group goes once the state
counts on the second.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bayesfm.inference.course import draws_per_kept
from bayesfm.inference.draw_files import DrawFile, create_draws, read_draws
from bayesfm.inference.draws import StreamedMoments
from bayesfm.inference.room import check_room

if TYPE_CHECKING:
    from bayesfm.inference.options import ChainOptions

__all__ = ["DrawStore", "fingerprint", "open_store"]

TITLES = ("posterior", "sample_stats")


class DrawStore(Protocol):
    """Takes draws piece by piece."""

    streams: dict[str, StreamedMoments]

    def load(self, carry: Any) -> tuple[Any, int]:
        """The saved carry and the number of sweeps done, or the given carry and 0."""
        ...

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        """Write draws ``first``, ``first + 1``, ... of all chains."""
        ...

    def read(self, names: Sequence[str], draws: int) -> dict[str, np.ndarray]:
        """The first ``draws`` draws of sites and statistics."""
        ...

    def halve(self, draws: int) -> None:
        """Drop every other of ``draws`` draws, the first among them. What was saved stays whole until the next save."""
        ...

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        """Make everything up to here survive a crash; ``draws`` are all since the warm-up, kept or dropped."""
        ...

    def finish(self, draws: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All sites and statistics."""
        ...


def open_store(options: ChainOptions, shapes: Any, identity: Callable[[], str]) -> DrawStore:
    """Memory, or the checkpoint folder of the options."""
    if options.checkpoint is None:
        return MemoryStore(options, shapes)
    return FolderStore(options, shapes, identity())


def fingerprint(tree: Any, options: dict[str, Any]) -> str:
    """Hash of everything a chain depends on: model, data, key and counts."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class MemoryStore:
    """Draws in memory; nothing survives."""

    def __init__(self, options: ChainOptions, shapes: Any) -> None:
        lead = (options.num_chains, options.capacity)
        check_room(lead, {name: (s.shape, np.dtype(s.dtype)) for part in shapes for name, s in part.items()})
        self.streams: dict[str, StreamedMoments] = {}
        self._sites, self._stats = (
            {name: np.empty(lead + s.shape, s.dtype) for name, s in part.items()} for part in shapes
        )

    def load(self, carry: Any) -> tuple[Any, int]:
        return carry, 0

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        _write(self._sites, sites, first)
        _write(self._stats, stats, first)

    def read(self, names: Sequence[str], draws: int) -> dict[str, np.ndarray]:
        return {name: x[:, :draws] for name, x in {**self._sites, **self._stats}.items() if name in names}

    def halve(self, draws: int) -> None:
        for x in (*self._sites.values(), *self._stats.values()):
            for i in range(draws // 2):  # one after the other, in place: there is no room for a copy
                x[:, i] = x[:, 2 * i + 1]

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        """Nothing to save."""

    def finish(self, draws: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        sites = {name: x[:, :draws] for name, x in self._sites.items()}
        return sites, {name: x[:, :draws] for name, x in self._stats.items()}


class FolderStore:
    """Draws in a Zarr group, state beside it. Nothing in the folder is touched before it is known to be this run's."""

    def __init__(self, options: ChainOptions, shapes: Any, identity: str) -> None:
        self.folder = Path(options.checkpoint)  # type: ignore[arg-type]
        self.state_file = self.folder / "state.npz"
        self.streams: dict[str, StreamedMoments] = {}
        self._identity = identity
        self._on_disk = options.draws_on_disk
        self._leaves: list[np.ndarray] = []
        self._sweeps = self._draws = 0
        self._options, self._shapes = options, shapes
        self._prepare_folder()
        if options.resume:
            self._read_state()
        elif self.state_file.exists():
            raise ValueError(
                f"checkpoint folder {self.folder} already holds a run: pass resume=True to go on with it, "
                "or name another folder"
            )
        self._per_kept = draws_per_kept(self._draws, options.capacity)
        self._sites, self._stats = self._open("w" if not options.resume else "r+" if self._draws else "a")

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"checkpoint must name a folder, but {error.filename} is a file") from error

    def _read_state(self) -> None:
        if not self.state_file.exists():
            raise ValueError(f"resume=True, but {self.folder} holds no run (no state.npz)")
        try:
            with open(self.state_file, "rb") as file, np.load(file, allow_pickle=False) as saved:
                made_by = str(saved["fingerprint"])
                self._sweeps = int(saved["sweeps"])
                self._draws = int(saved["draws"])
                self._leaves = [saved[f"leaf{i}"] for i in range(len(saved.files) - 3)]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{self.state_file} is damaged, start again in another folder: {error}"
            ) from error
        if made_by != self._identity:
            raise ValueError(
                f"the run in {self.folder} was made with other data, model, options, seed or chain method; "
                "resume with the same ones, or start in another folder"
            )

    def _open(self, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays for the draws that are kept at present; "a" makes them anew in a folder that is there."""
        import zarr  # a heavy import that only runs with a checkpoint need

        place, old = self.folder / "draws.zarr", mode == "r+"
        lead = (self._options.num_chains, self._options.capacity)
        out = []
        try:
            root = zarr.open_group(place, mode=mode)  # type: ignore[arg-type]
            for title, part in zip(TITLES, self._shapes, strict=True):
                held = self._group(title)
                group = root.require_group(held) if old else root.create_group(held, overwrite=True)
                out.append({name: _array(group, name, lead, s, old) for name, s in part.items()})
        except (OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{place} is damaged, start again in another folder: {error}") from error
        return out[0], out[1]

    def _group(self, title: str) -> str:
        """Name of a group, one for every step of thinning: a crash between two of them leaves the first whole."""
        return title if self._per_kept == 1 else f"{title}_every_{self._per_kept}"

    def load(self, carry: Any) -> tuple[Any, int]:
        if not self._leaves:
            return carry, 0
        structure = jax.tree.structure(carry)
        # A copy of JAX's own: the first piece of the run gives this memory away.
        return jax.tree.unflatten(structure, [jnp.array(x, copy=True) for x in self._leaves]), self._sweeps

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        _write(self._sites, sites, first)
        _write(self._stats, stats, first)

    def read(self, names: Sequence[str], draws: int) -> dict[str, np.ndarray]:
        upto, out = (slice(None), slice(0, draws)), dict[str, np.ndarray]()
        for title, part in zip(TITLES, (self._sites, self._stats), strict=True):
            out |= {name: self._read(title, name, x, upto) for name, x in part.items() if name in names}
        return out

    def halve(self, draws: int) -> None:
        before = (self._sites, self._stats)
        self._per_kept *= 2
        self._sites, self._stats = self._open("a")
        for title, old, new in zip(TITLES, before, (self._sites, self._stats), strict=True):
            for name, array in old.items():
                step = 2 * array.chunks[1]  # a chunk at a time, of draws that may not fit into memory
                for first in range(0, draws, step):
                    some = (slice(None), slice(first, min(first + step, draws)))
                    kept = self._read(title, name, array, some)[:, 1::2]
                    new[name][:, first // 2 : first // 2 + kept.shape[1]] = kept

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        self._write_state(leaves, sweeps, draws)
        self._tidy(draws)

    def _tidy(self, draws: int) -> None:
        """Remove what was kept before every other draw was dropped, now that no saved state asks for it."""
        per_kept = draws_per_kept(draws, self._options.capacity)
        if per_kept < self._per_kept:  # the chains begin anew
            self._per_kept = per_kept
            self._sites, self._stats = self._open("a")
        keep = {self._group(title) for title in TITLES}
        for place in (self.folder / "draws.zarr").iterdir():
            if place.is_dir() and place.name not in keep:
                shutil.rmtree(place)

    def _write_state(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        fresh = self.state_file.with_suffix(".tmp.npz")
        with open(fresh, "wb") as file:
            np.savez(file, sweeps=sweeps, draws=draws, fingerprint=self._identity, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.state_file)

    def finish(self, draws: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        stats = self.read(tuple(self._stats), draws)
        if not self._on_disk:
            return self.read(tuple(self._sites), draws), stats
        files = {}
        for name, array in self._sites.items():
            array.resize((array.shape[0], draws, *array.shape[2:]))
            if array.nchunks_initialized < array.nchunks:
                raise ValueError(f"the draws of {name} in {self.folder} are missing in part")
            files[name] = DrawFile.of(self.folder / "draws.zarr", f"{self._group('posterior')}/{name}")
        return files, stats

    def _read(self, group: str, name: str, array: Any, key: Any) -> np.ndarray:
        return read_draws(array, key, f"the {group} of {name} in {self.folder}")


def _array(group: Any, name: str, lead: tuple[int, int], s: Any, resume: bool) -> Any:
    if resume:
        array = group[name]
        if array.shape[1] != lead[1]:  # a run that was stopped early
            array.resize((*lead, *s.shape))
        return array
    per_chunk = max(1, (1 << 22) // max(1, int(np.prod(s.shape)) * s.dtype.itemsize))
    chunks = (1, min(per_chunk, lead[1]), *(max(1, d) for d in s.shape))
    return create_draws(group, name, lead + s.shape, chunks, s.dtype)


def _write(target: dict[str, Any], new: dict[str, np.ndarray], first: int) -> None:
    for name, x in new.items():
        target[name][:, first : first + x.shape[1]] = x
