"""What a checkpoint folder holds, and what it refuses. That runs go on bit for bit is shown in test_chains.py."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.checkpoint import FolderStore, MemoryStore, fingerprint, open_store

SHAPES = (
    {"w": jax.ShapeDtypeStruct((3,), np.float32), "w0": jax.ShapeDtypeStruct((), np.float32)},
    {"lp": jax.ShapeDtypeStruct((), np.float32)},
)
CARRY = {"a": jnp.arange(3.0), "b": (jnp.asarray(2),)}


def options(folder: Path | None = None, **more: object) -> ChainOptions:
    return ChainOptions(num_samples=4, num_chains=2, checkpoint=folder, **more)  # type: ignore[arg-type]


def piece(first: int, count: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    w = np.arange(2 * count * 3, dtype=np.float32).reshape(2, count, 3) + 100 * first
    return {"w": w, "w0": w[..., 0]}, {"lp": w[..., 1]}


def fill(store: MemoryStore | FolderStore) -> None:
    for first, count in ((0, 1), (1, 2)):
        sites, stats = piece(first, count)
        store.append(sites, stats, first)
        store.save(jax.tree.leaves(CARRY), sweeps=first + count, draws=first + count)


@pytest.mark.parametrize("on_disk", [False, True])
def test_memory_and_folder_return_the_same(tmp_path: Path, on_disk: bool) -> None:
    stores = [
        open_store(options(), SHAPES, lambda: "id"),
        open_store(options(tmp_path / "run", draws_on_disk=on_disk), SHAPES, lambda: "id"),
    ]
    for store in stores:
        fill(store)
    (memory, memory_stats), (folder, folder_stats) = (store.finish(3) for store in stores)
    for name in memory:
        assert memory[name].shape[:2] == (2, 3)
        np.testing.assert_array_equal(np.asarray(folder[name]), memory[name])
    np.testing.assert_array_equal(folder_stats["lp"], memory_stats["lp"])
    np.testing.assert_array_equal(memory["w"][:, 1:], piece(1, 2)[0]["w"])


@pytest.mark.parametrize("folder", [False, True])
def test_every_other_draw_is_dropped(tmp_path: Path, folder: bool) -> None:
    """More draws than fit into a chunk, and an odd number of them; what was saved stays until the next save."""
    many = ChainOptions(
        num_samples="auto", max_draws=400, num_chains=2, checkpoint=tmp_path / "run" if folder else None
    )
    shapes = ({"w": jax.ShapeDtypeStruct((9000,), np.float32)}, {"lp": jax.ShapeDtypeStruct((), np.float32)})
    store = open_store(many, shapes, lambda: "id")
    numbers = np.arange(2 * 301, dtype=np.float32).reshape(2, 301)
    w = np.broadcast_to(numbers[..., None], (2, 301, 9000))
    store.append({"w": w}, {"lp": numbers}, 0)
    store.save(jax.tree.leaves(CARRY), sweeps=301, draws=301)
    store.halve(301)
    groups = {x.name for x in (tmp_path / "run" / "draws.zarr").iterdir() if x.is_dir()} if folder else set()
    assert groups in ({"posterior", "sample_stats", "posterior_every_2", "sample_stats_every_2"}, set())
    read = store.read(("w", "lp"), 150)
    np.testing.assert_array_equal(read["lp"], numbers[:, 1::2])
    np.testing.assert_array_equal(read["w"][..., 77], numbers[:, 1::2])
    store.append({"w": w[:, :1]}, {"lp": numbers[:, :1]}, 150)
    store.save(jax.tree.leaves(CARRY), sweeps=402, draws=402)
    if folder:
        groups = {x.name for x in (tmp_path / "run" / "draws.zarr").iterdir() if x.is_dir()}
        assert groups == {"posterior_every_2", "sample_stats_every_2"}
    np.testing.assert_array_equal(store.finish(151)[1]["lp"][:, -2:], numbers[:, [299, 0]])


def test_a_crash_while_the_chains_begin_anew(tmp_path: Path) -> None:
    """The state says that there are no draws, and the groups are still those of many draws."""
    many = ChainOptions(num_samples="auto", max_draws=400, num_chains=2, checkpoint=tmp_path)
    sites, stats = piece(0, 2)
    store = FolderStore(many, SHAPES, "id")
    store.append(sites, stats, 0)
    store.halve(2)
    store.save(jax.tree.leaves(CARRY), sweeps=500, draws=402)
    store._write_state(jax.tree.leaves(CARRY), 600, 0)
    again = FolderStore(replace(many, resume=True), SHAPES, "id")
    assert again.load(CARRY)[1] == 600
    again.append(sites, stats, 0)
    again.save(jax.tree.leaves(CARRY), sweeps=602, draws=2)
    assert {x.name for x in (tmp_path / "draws.zarr").iterdir() if x.is_dir()} == {
        "posterior",
        "sample_stats",
    }
    np.testing.assert_array_equal(again.finish(2)[0]["w"], sites["w"])


def test_a_resumed_store_has_the_carry_and_the_count(tmp_path: Path) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    carry, sweeps = FolderStore(options(tmp_path, resume=True), SHAPES, "id").load(
        jax.tree.map(jnp.zeros_like, CARRY)
    )
    assert sweeps == 3
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), carry, CARRY))


def test_a_refused_resumption_touches_nothing(tmp_path: Path) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    shorter = replace(options(tmp_path, resume=True), num_samples=2)
    with pytest.raises(ValueError, match="other data, model, options, seed or chain method"):
        FolderStore(shorter, SHAPES, "another")
    with pytest.raises(ValueError, match="already holds a run"):
        FolderStore(replace(options(tmp_path), num_samples=2), SHAPES, "id")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def chunks_of(folder: Path, name: str) -> list[Path]:
    return sorted(x for x in (folder / "draws.zarr" / "posterior" / name / "c").rglob("*") if x.is_file())


@pytest.mark.parametrize("on_disk", [False, True])
def test_missing_draws_are_noticed(tmp_path: Path, on_disk: bool) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    chunks_of(tmp_path, "w")[0].unlink()
    with pytest.raises(ValueError, match="are missing in part"):
        FolderStore(options(tmp_path, resume=True, draws_on_disk=on_disk), SHAPES, "id").finish(3)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    chunk = chunks_of(tmp_path, "w")[0]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"posterior of w in .* are damaged"):
        FolderStore(options(tmp_path, resume=True), SHAPES, "id").finish(3)


@pytest.mark.parametrize("what", ["state.npz", "draws.zarr/zarr.json", "draws.zarr/posterior/w/zarr.json"])
def test_damaged_files_are_named(tmp_path: Path, what: str) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    file = tmp_path / what
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match="is damaged, start again in another folder"):
        FolderStore(options(tmp_path, resume=True), SHAPES, "id")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"checkpoint must name a folder, but .*file is a file"):
        FolderStore(options(tmp_path / "file"), SHAPES, "id")


def test_draws_left_on_disk(tmp_path: Path) -> None:
    store = FolderStore(options(tmp_path / "run", draws_on_disk=True), SHAPES, "id")
    fill(store)
    site = pickle.loads(pickle.dumps(store.finish(3)[0]["w"]))
    assert (site.shape, site.ndim, site.dtype) == ((2, 3, 3), 3, np.float32)
    np.testing.assert_array_equal(site[:, 1:], piece(1, 2)[0]["w"])
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(ValueError, match="the draws of w are no longer in"):
        np.asarray(site)
    fill(FolderStore(options(tmp_path / "run"), SHAPES, "id"))
    with pytest.raises(ValueError, match="were written over since"):
        np.asarray(site)


def test_no_state_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while the state is written leaves the state before it."""
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    store = FolderStore(options(tmp_path, resume=True), SHAPES, "id")

    def crash(file: object, **arrays: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", crash)
        with pytest.raises(OSError, match="disk full"):
            store.save(jax.tree.leaves(CARRY), sweeps=4, draws=4)
    assert FolderStore(options(tmp_path, resume=True), SHAPES, "id").load(CARRY)[1] == 3


def test_state_is_read_without_pickle(tmp_path: Path) -> None:
    fill(FolderStore(options(tmp_path), SHAPES, "id"))
    np.savez(tmp_path / "state.npz", fingerprint=np.array([{"not": "text"}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        FolderStore(options(tmp_path, resume=True), SHAPES, "id")


def test_fingerprint_sees_values_shapes_types_and_options() -> None:
    base = {"x": np.zeros(4, np.float32), "key": jax.random.key(0)}
    others = [
        {**base, "x": np.array([0, 0, 0, 1], np.float32)},
        {**base, "x": np.zeros((2, 2), np.float32)},
        {**base, "x": np.zeros(4, np.int32)},
        {**base, "key": jax.random.key(1)},
        {"z": base["x"], "key": base["key"]},
    ]
    prints = {fingerprint(tree, {"thin": 1}) for tree in (base, *others)} | {fingerprint(base, {"thin": 2})}
    assert len(prints) == 7
    assert fingerprint(dict(base), {"thin": 1}) in prints
