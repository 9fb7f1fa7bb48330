"""Labelled posteriors: their schema, and that nothing is lost on the way to disk and back."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import arviz_stats
import jax
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy import stats

from bayesfm import posterior_files
from bayesfm.design import Block, Design, DesignEncoder
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draw_files import DrawFile, create_draws
from bayesfm.inference.draws import Draws, StreamedMoments
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.model import ModelSpec, default_spec, site_dims
from bayesfm.posterior import add_log_likelihood, restore, restore_streams, to_datatree
from bayesfm.posterior_files import load, save
from bayesfm.predictive import expected_draws, log_likelihood, predictive_moments
from bayesfm.quantiles import predictive_quantiles

N = 50
SUFFIXES = (".nc", ".zarr")


def make_data() -> tuple[Design, np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = [
        Block.field("user", rng.integers(0, 4, N), ["ann", "bob", "zoë", "a/b ☃"]),
        Block.create("x", rng.normal(size=(N, 2)), groups=["first", "second"]),
    ]
    return Design(blocks), rng.normal(3.0, 1.0, N)


def make_draws(
    rank: int = 2, num_draws: int = 12, streams: tuple[str, ...] = (), keep: str = "all"
) -> tuple[Draws, ModelSpec]:
    """What an engine would return, at random."""
    rng = np.random.default_rng(1)
    design, y = make_data()
    spec = default_spec(y, rank=rank)
    sizes = {"feature": design.num_features, "factor": rank, "group": len(design.group_names), "probe": 20}
    dims = {**site_dims(spec), "eta": ("probe",)}
    lead = (2, num_draws)
    sites = {
        name: np.exp(0.3 * rng.normal(size=(*lead, *(sizes[d] for d in own)))).astype(np.float32)
        for name, own in dims.items()
        if keep == "all" or name not in ("w", "v")
    }
    sampler = {
        name: rng.normal(size=lead).astype(np.float32) for name in ("lp", "log_likelihood", "train_rmse")
    }
    moments = {name: StreamedMoments(*rng.random((3, 2, 7)), num_draws=num_draws) for name in streams}
    info = {"engine": "random", "seconds": 0.5}
    return Draws(sites, {x: dims[x] for x in sites}, sampler, np.arange(0, 40, 2), moments, info), spec


def make_tree(rank: int = 2, weight: np.ndarray | None = None, **options: Any) -> xr.DataTree:
    design, y = make_data()
    draws, spec = make_draws(rank, **options)
    return to_datatree(draws, spec, design, y, weight=weight, encoder=DesignEncoder().fit(design))


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree(weight=np.linspace(1, 2, N), streams=("test set",))


def test_schema(tree: xr.DataTree) -> None:
    post = tree["posterior"]
    assert set(tree.children) == {
        "posterior",
        "sample_stats",
        "observed_data",
        "constant_data",
        "predictions",
    }
    assert post["v"].dims == ("chain", "draw", "feature", "factor")
    assert post["mu_v"].dims == ("chain", "draw", "group", "factor")
    assert post["eta"].dims == ("chain", "draw", "probe")
    assert dict(post.sizes) == {"chain": 2, "draw": 12, "feature": 6, "factor": 2, "group": 3, "probe": 20}
    assert post["feature"].values.tolist() == ["user=ann", "user=bob", "user=zoë", "user=a/b ☃", "x0", "x1"]
    assert post["group"].values.tolist() == ["user", "first", "second"]
    assert set(tree["sample_stats"].data_vars) == {"lp", "log_likelihood", "train_rmse"}
    assert tree["observed_data"]["y"].dims == tree["constant_data"]["weight"].dims == ("row",)
    assert tree["constant_data"]["feature_group"].values.tolist() == [0, 0, 0, 0, 1, 2]


def test_values_are_those_of_the_draws(tree: xr.DataTree) -> None:
    design, y = make_data()
    draws, spec = make_draws()
    assert set(draws.sites) == {*site_dims(spec), "eta"}
    for name, site in draws.sites.items():
        np.testing.assert_array_equal(tree["posterior"][name], site)
    np.testing.assert_array_equal(tree["posterior"]["probe"], draws.probe_rows)
    np.testing.assert_array_equal(tree["observed_data"]["y"], y)
    bob = tree["posterior"]["w"].sel(feature="user=bob")
    np.testing.assert_array_equal(bob, draws.sites["w"][..., 1])
    assert json.loads(tree.attrs["inference"]) == {"engine": "random", "seconds": 0.5}
    assert json.loads(tree.attrs["design_schema"]) == design.schema.to_dict()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(tree: xr.DataTree, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fit{suffix}"
    save(tree, path)
    loaded = load(path)
    xr.testing.assert_identical(loaded, tree)  # values, names, dtypes of names, attributes
    for name, x in tree["posterior"].data_vars.items():
        assert loaded["posterior"][name].dtype == x.dtype
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_loaded_model_predicts_bit_for_bit(tree: xr.DataTree, tmp_path: Path, suffix: str) -> None:
    design, y = make_data()
    index = np.arange(N) % 6  # two levels that training never saw
    late = Design(
        [
            Block.field("user", index, ["ann", "bob", "zoë", "a/b ☃"], unseen=["new", "newer"]),
            design.blocks[1],
        ]
    )
    save(tree, tmp_path / f"fit{suffix}")
    model, encoder = restore(load(tmp_path / f"fit{suffix}"))
    original, _ = restore(tree)
    assert encoder is not None
    for rows in (encoder.transform(design), late):
        np.testing.assert_array_equal(predictive_moments(model, rows), predictive_moments(original, rows))
        np.testing.assert_array_equal(
            predictive_quantiles(model, rows, [0.1]), predictive_quantiles(original, rows, [0.1])
        )
    np.testing.assert_array_equal(log_likelihood(model, design, y), log_likelihood(original, design, y))
    assert model.spec == original.spec


def test_a_file_is_not_needed_after_loading(tree: xr.DataTree, tmp_path: Path) -> None:
    save(tree, tmp_path / "fit.nc")
    loaded = load(tmp_path / "fit.nc")
    (tmp_path / "fit.nc").unlink()
    xr.testing.assert_identical(loaded, tree)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_again_replaces(tree: xr.DataTree, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fit{suffix}"
    save(make_tree(rank=0), path)
    save(tree, path)
    loaded = load(path)
    save(loaded, path)  # what is read when needed has to be there still
    xr.testing.assert_identical(load(path), tree)
    xr.testing.assert_identical(loaded, tree)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_save_leaves_the_old_one(
    tree: xr.DataTree, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"fit{suffix}"
    save(tree, path)
    broken = tree.copy()
    broken.attrs["notes"] = object()
    with pytest.raises(TypeError):
        save(broken, path)
    xr.testing.assert_identical(load(path), tree)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rank", [0, 1])
def test_smallest_ranks(tmp_path: Path, suffix: str, rank: int) -> None:
    tree = make_tree(rank=rank)
    assert ("v" in tree["posterior"]) == (rank > 0)
    save(tree, tmp_path / f"fit{suffix}")
    model, _ = restore(load(tmp_path / f"fit{suffix}"))
    design, _ = make_data()
    np.testing.assert_array_equal(
        predictive_moments(model, design), predictive_moments(restore(tree)[0], design)
    )


def test_one_row_one_feature_no_encoder() -> None:
    design, y = Design([Block.field("user", [0], ["ann"])]), np.array([2.0])
    sites = {"w0": np.full((1, 1), 2.0), "alpha": np.full((1, 1), 4.0), "w": np.full((1, 1, 1), 0.5)}
    sites["v"] = np.ones((1, 1, 1, 1))
    spec = default_spec(y, rank=1)
    dims = {name: site_dims(spec)[name] for name in sites}
    draws = Draws(sites, dims, {"lp": np.zeros((1, 1))}, np.arange(1))
    model, encoder = restore(to_datatree(draws, spec, design, y))
    assert encoder is None
    assert predictive_moments(model, design) == (2.5, 0.0, 0.25)


def test_gibbs_on_disk_with_streams(tmp_path: Path) -> None:
    """From the sampler to a folder and back: the moments gathered while sampling are those of the draws."""
    design, y = make_data()
    spec = default_spec(y, rank=2)
    options = ChainOptions(
        num_warmup=5, num_samples=9, progress=False, checkpoint=tmp_path / "run", draws_on_disk=True
    )
    draws = gibbs(jax.random.key(0), spec, design, y, options=options, streams={"train": design})
    assert isinstance(draws.sites["v"], DrawFile)
    save(to_datatree(draws, spec, design, y), tmp_path / "fit.zarr")
    tree = load(tmp_path / "fit.zarr")
    model, _ = restore(tree)
    streamed = restore_streams(tree)["train"].pooled()
    np.testing.assert_allclose(predictive_moments(model, design), streamed, rtol=1e-3 * 2**-10)
    eta = expected_draws(model, design)[..., draws.probe_rows]
    np.testing.assert_allclose(eta, tree["posterior"]["eta"], rtol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sites_on_disk_are_read_when_needed(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest piece that is ever read of v is a chunk; without Zarr in between, all is the same."""
    monkeypatch.setattr(posterior_files, "CHUNK_VALUES", 6 * 2 * 5)
    design, y = make_data()
    in_memory, spec = make_draws()
    group = zarr.open_group(tmp_path / "run", mode="w")
    on_disk = {}
    for name, x in in_memory.sites.items():
        create_draws(group, name, x.shape, x.shape, x.dtype)[...] = x
        on_disk[name] = DrawFile.of(tmp_path / "run", name)
    read: list[int] = []
    inner = zarr.Array.get_orthogonal_selection

    def counted(self: zarr.Array, *args: Any, **options: Any) -> Any:
        out = inner(self, *args, **options)
        if self.basename == "v":
            read.append(np.size(out))
        return out

    monkeypatch.setattr(zarr.Array, "get_orthogonal_selection", counted)
    tree = to_datatree(replace(in_memory, sites=on_disk), spec, design, y)
    assert not read
    save(tree, tmp_path / f"fit{suffix}")
    if suffix == ".zarr":
        assert read
        assert max(read) <= 6 * 2 * 5
    monkeypatch.undo()
    whole = to_datatree(in_memory, spec, design, y)
    loaded = load(tmp_path / f"fit{suffix}")
    xr.testing.assert_equal(loaded, whole)
    model, _ = restore(loaded)
    np.testing.assert_array_equal(
        predictive_moments(model, design), predictive_moments(restore(whole)[0], design)
    )


def test_names_and_attributes_may_be_long(tmp_path: Path) -> None:
    """An HDF5 attribute beyond 64 kB needs care; so do strings in Zarr."""
    p = 5000
    design = Design([Block.field("user", np.arange(N), [f"user number {j} é" for j in range(p)])])
    draws, y = make_draws(rank=0)[0], np.zeros(N)
    sites = {"w0": draws.sites["w0"], "w": np.zeros((2, 12, p), np.float32)}
    dims = {"w0": (), "w": ("feature",)}
    tree = to_datatree(
        Draws(sites, dims, draws.stats, np.arange(3)),
        default_spec(y, rank=0),
        design,
        y,
        encoder=DesignEncoder().fit(design),
    )
    assert len(tree.attrs["encoder"]) > 1 << 17
    for suffix in SUFFIXES:
        save(tree, tmp_path / f"fit{suffix}")
        xr.testing.assert_identical(load(tmp_path / f"fit{suffix}"), tree)


def test_streams_come_back(tree: xr.DataTree, tmp_path: Path) -> None:
    draws, _ = make_draws(streams=("test set",))
    save(tree, tmp_path / "fit.zarr")
    for source in (tree, load(tmp_path / "fit.zarr")):
        (moments,) = restore_streams(source).values()
        for one, other in zip(moments.pooled(), draws.streams["test set"].pooled(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert moments.num_draws == 12
    assert restore_streams(make_tree()) == {}
    with pytest.raises(ValueError, match="slash"):
        make_tree(streams=("a/b",))


def test_hyper_alone_can_be_kept() -> None:
    model, _ = restore(make_tree(keep="hyper"))
    with pytest.raises(ValueError, match=r"w, v, which were not kept: fit with keep='all'"):
        predictive_moments(model, make_data()[0])


def exact_draws(y: np.ndarray, seed: int) -> tuple[Draws, ModelSpec]:
    """Independent draws of y ~ N(w0, 1/alpha) under p(w0, alpha) proportional to 1/alpha."""
    rng = np.random.default_rng(seed)
    lead, n = (2, 500), len(y)
    alpha = rng.gamma((n - 1) / 2, 1.0, lead) / (0.5 * np.sum((y - y.mean()) ** 2))
    w0 = y.mean() + rng.normal(size=lead) / np.sqrt(n * alpha)
    sites = {"w0": w0, "alpha": alpha, "w": np.zeros((*lead, 6))}
    spec = default_spec(y, rank=0)
    dims = {name: site_dims(spec)[name] for name in sites}
    return Draws(sites, dims, {"lp": np.zeros(lead)}, np.arange(1)), spec


def test_leave_one_out_is_that_of_the_closed_form() -> None:
    """Without row i the predictive distribution is Student-t with n - 2 degrees of freedom (BDA3, 3.2)."""
    design, y = make_data()
    rest = np.array([np.delete(y, i) for i in range(N)])
    scale = rest.std(axis=1, ddof=1) * np.sqrt(1 + 1 / (N - 1))
    exact = stats.t.logpdf(y, N - 2, rest.mean(axis=1), scale).sum()
    got = []
    for seed in range(8):
        draws, spec = exact_draws(y, seed)
        tree = to_datatree(draws, spec, design, y)
        log_lik = log_likelihood(restore(tree)[0], design, y)
        more = add_log_likelihood(tree, log_lik)
        assert "log_likelihood" not in tree.children
        assert more["log_likelihood"]["y"].dims == ("chain", "draw", "row")
        got.append(arviz_stats.loo(more, reff=1.0).elpd)
    assert abs(np.mean(got) - exact) < 5 * np.std(got, ddof=1) / np.sqrt(len(got))
    with pytest.raises(ValueError, match=r"log_lik must have shape \(chain, draw, n\) = \(2, 500, 50\), got"):
        add_log_likelihood(tree, log_lik[:, :5])


# -------------------------------------------------------------------------------------------------- errors


def test_paths_are_checked(tree: xr.DataTree, tmp_path: Path) -> None:
    for name in ("fit", "fit.pkl", "fit.nc4"):
        with pytest.raises(ValueError, match=r"must end in \.nc .* or \.zarr"):
            save(tree, tmp_path / name)
        with pytest.raises(ValueError, match=r"must end in \.nc .* or \.zarr"):
            load(tmp_path / name)
    for suffix in SUFFIXES:
        with pytest.raises(FileNotFoundError, match="no file or folder"):
            load(tmp_path / f"fit{suffix}")
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "one.jpg").touch()
    with pytest.raises(ValueError, match="not a posterior of bayesfm"):
        save(tree, tmp_path / "photos.zarr")
    assert (tmp_path / "photos.zarr" / "one.jpg").exists()


def test_foreign_files_are_refused(tree: xr.DataTree, tmp_path: Path) -> None:
    (tmp_path / "noise.nc").write_bytes(b"not a netCDF file" * 100)
    (tmp_path / "empty.zarr").mkdir()
    xr.Dataset({"x": ("n", np.zeros(3))}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    xr.Dataset({"x": ("n", np.zeros(3))}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    for name in ("noise.nc", "empty.zarr", "other.nc", "other.zarr"):
        with pytest.raises(ValueError, match=r"no posterior of bayesfm"):
            load(tmp_path / name)
    save(tree, tmp_path / "cut.zarr")
    shutil.rmtree(tmp_path / "cut.zarr" / "posterior")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "cut.zarr")


def test_foreign_folders_are_not_replaced(tree: xr.DataTree, tmp_path: Path) -> None:
    other = xr.Dataset({"x": ("n", np.zeros(3))})
    other.to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(ValueError, match="not a posterior of bayesfm: choose another path"):
        save(tree, tmp_path / "other.zarr")
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "other.zarr", consolidated=False).load(), other)
    (tmp_path / "file.zarr").touch()
    with pytest.raises(ValueError, match=r"a \.zarr posterior is a folder"):
        save(tree, tmp_path / "file.zarr")
    with pytest.raises(ValueError, match="there is no folder"):
        save(tree, tmp_path / "nowhere" / "fit.nc")


def test_a_loaded_model_does_not_turn_into_another(tree: xr.DataTree, tmp_path: Path) -> None:
    """w and v wait on disk: once another model is saved there, they are refused and not mixed with what was read."""
    save(tree, tmp_path / "fit.zarr")
    loaded, other = load(tmp_path / "fit.zarr"), tree.copy()
    other["posterior"] = tree["posterior"].dataset.assign(w=tree["posterior"]["w"] + 1)
    save(other, tmp_path / "fit.zarr")
    with pytest.raises(ValueError, match="were written over since: load the posterior again"):
        loaded["posterior"]["w"].load()
    shutil.rmtree(tmp_path / "fit.zarr")
    with pytest.raises(ValueError, match="are no longer in"):
        loaded["posterior"]["v"].load()


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_damaged_chunks_are_noticed(tree: xr.DataTree, tmp_path: Path, damage: str) -> None:
    save(tree, tmp_path / "fit.zarr")
    chunk = next(x for x in sorted((tmp_path / "fit.zarr/posterior/v/c").rglob("*")) if x.is_file())
    if damage == "missing":
        chunk.unlink()
    else:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"draws of v in .* (missing in part|are damaged)"):
        load(tmp_path / "fit.zarr")["posterior"]["v"].load()


def test_every_flipped_bit_of_the_draws_in_a_file_is_noticed(tree: xr.DataTree, tmp_path: Path) -> None:
    save(tree, tmp_path / "fit.nc")
    content = (tmp_path / "fit.nc").read_bytes()
    where = content.find(np.asarray(tree["posterior"]["v"]).tobytes()[:64])
    assert where > 0
    (tmp_path / "fit.nc").write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / "fit.nc")


def test_a_model_on_disk_can_be_pickled(tmp_path: Path) -> None:
    design, y = make_data()
    spec = default_spec(y, 1)
    options = ChainOptions(
        num_warmup=2, num_samples=4, progress=False, checkpoint=tmp_path / "run", draws_on_disk=True
    )
    tree = to_datatree(gibbs(jax.random.key(0), spec, design, y, options=options), spec, design, y)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(tree)), tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": "{"}, "damaged"),
        ({"spec": "[]"}, "damaged"),
        ({"spec": '{"predictor": {"class": "FM", "rang": 2}}'}, "damaged"),
        ({"spec": '{"predictor": {"class": "os.system"}}'}, "unknown model part 'os.system'"),
        ({"spec": json.dumps(ModelSpec().to_dict())}, r"must have shape \(group, factor=8\)"),
        ({"encoder": '{"kind": "magic"}'}, "kind must be one of"),
        ({"encoder": "{}"}, "damaged"),
        ({"bayesfm_format": 2}, "has format 2, but this version of bayesfm reads format 1"),
    ],
)
def test_tampered_attributes_are_refused(tree: xr.DataTree, change: dict[str, Any], message: str) -> None:
    tampered = tree.copy()
    tampered.attrs.update(change)
    with pytest.raises(ValueError, match=message):
        restore(tampered)


def test_other_trees_are_refused(tmp_path: Path) -> None:
    for function in (restore, lambda tree: save(tree, tmp_path / "x.nc")):
        with pytest.raises(ValueError, match="no posterior of bayesfm"):
            function(xr.DataTree())
