"""Where draws go while a run is under way: memory, or a folder from which a killed run goes on.

The folder holds ``state.npz`` (replaced atomically after every piece) and ``draws.zarr`` (one array per site, written
in place). The state names the number of sweeps that are done; whatever was written after it is simply written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from bayesfm.inference.draws import StreamedMoments

if TYPE_CHECKING:
    from bayesfm.inference.chains import ChainOptions

__all__ = ["DrawStore", "fingerprint", "open_store"]


class DrawStore(Protocol):
    """Takes draws piece by piece."""

    streams: dict[str, StreamedMoments]

    def load(self, carry: Any) -> tuple[Any, int]:
        """The saved carry and the number of sweeps done, or the given carry and 0."""
        ...

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        """Write draws ``first``, ``first + 1``, ... of all chains."""
        ...

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        """Make everything up to here survive a crash."""
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
        lead = (options.num_chains, options.num_samples)
        self.streams: dict[str, StreamedMoments] = {}
        self._sites, self._stats = (
            {name: np.empty(lead + s.shape, s.dtype) for name, s in part.items()} for part in shapes
        )

    def load(self, carry: Any) -> tuple[Any, int]:
        return carry, 0

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        _write(self._sites, sites, first)
        _write(self._stats, stats, first)

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        """Nothing to save."""

    def finish(self, draws: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        sites = {name: x[:, :draws] for name, x in self._sites.items()}
        return sites, {name: x[:, :draws] for name, x in self._stats.items()}


class FolderStore:
    """Draws in a Zarr group, state beside it."""

    def __init__(self, options: ChainOptions, shapes: Any, identity: str) -> None:
        self.folder = Path(options.checkpoint)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_file = self.folder / "state.npz"
        self.streams: dict[str, StreamedMoments] = {}
        self._identity = identity
        self._on_disk = options.draws_on_disk
        self._resume = options.resume
        if not options.resume and self.state_file.exists():
            raise ValueError(
                f"checkpoint folder {self.folder} already holds a run: pass resume=True to go on with it, "
                "or name another folder"
            )
        if options.resume and not self.state_file.exists():
            raise ValueError(f"resume=True, but {self.folder} holds no run (no state.npz)")
        self._sites, self._stats = self._open(options, shapes)

    def _open(self, options: ChainOptions, shapes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        import zarr  # a heavy import that only runs with a checkpoint need

        root = zarr.open_group(self.folder / "draws.zarr", mode="r+" if self._resume else "w")
        lead = (options.num_chains, options.num_samples)
        out = []
        for title, part in zip(("posterior", "sample_stats"), shapes, strict=True):
            group = root.require_group(title)
            arrays: dict[str, Any] = {}
            for name, s in part.items():
                per_chunk = max(1, (1 << 22) // max(1, int(np.prod(s.shape)) * s.dtype.itemsize))
                chunks = (1, min(per_chunk, options.num_samples), *(max(1, d) for d in s.shape))
                arrays[name] = (
                    group[name]
                    if self._resume
                    else group.create_array(name, shape=lead + s.shape, chunks=chunks, dtype=s.dtype)
                )
                if (
                    self._resume and arrays[name].shape[1] != options.num_samples
                ):  # a run that was stopped early
                    arrays[name].resize((options.num_chains, options.num_samples, *s.shape))
            out.append(arrays)
        return out[0], out[1]

    def load(self, carry: Any) -> tuple[Any, int]:
        if not self._resume:
            return carry, 0
        with np.load(self.state_file, allow_pickle=False) as saved:
            if str(saved["fingerprint"]) != self._identity:
                raise ValueError(
                    f"the run in {self.folder} was made with other data, model, options, seed or chain method; "
                    "resume with the same ones, or start in another folder"
                )
            leaves, structure = jax.tree.flatten(carry)
            loaded = [saved[f"leaf{i}"] for i in range(len(leaves))]
            return jax.tree.unflatten(structure, jax.device_put(loaded)), int(saved["sweeps"])

    def append(self, sites: dict[str, np.ndarray], stats: dict[str, np.ndarray], first: int) -> None:
        _write(self._sites, sites, first)
        _write(self._stats, stats, first)

    def save(self, leaves: list[Any], sweeps: int, draws: int) -> None:
        arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        fresh = self.state_file.with_suffix(".tmp.npz")
        with open(fresh, "wb") as file:
            np.savez(file, sweeps=sweeps, draws=draws, fingerprint=self._identity, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.state_file)

    def finish(self, draws: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        stats = {name: np.asarray(x[:, :draws]) for name, x in self._stats.items()}
        if not self._on_disk:
            return {name: np.asarray(x[:, :draws]) for name, x in self._sites.items()}, stats
        for array in self._sites.values():
            array.resize((array.shape[0], draws, *array.shape[2:]))
        return dict(self._sites), stats


def _write(target: dict[str, Any], new: dict[str, np.ndarray], first: int) -> None:
    for name, x in new.items():
        target[name][:, first : first + x.shape[1]] = x
