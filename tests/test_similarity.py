"""Nearest features and interactions: against naive loops, in every rotation, and with errors that help."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesfm import interactions, nearest_features
from bayesfm.factors import close_names, field_of
from tests.posteriors import rotated, tree_of, words

NAMES, V, _ = words()
TREE = tree_of(V, NAMES)
DRAWS = V.reshape(-1, *V.shape[2:])


def naive_cosines(j: int) -> np.ndarray:
    """(draw, feature), by loops."""
    out = np.empty((len(DRAWS), len(NAMES)))
    for d, v in enumerate(DRAWS):
        for i in range(len(NAMES)):
            out[d, i] = v[i] @ v[j] / (np.linalg.norm(v[i]) * np.linalg.norm(v[j]))
    return out


def test_nearest_against_loops() -> None:
    n, j = 5, NAMES.index("keyboard")
    table = nearest_features(TREE, "keyboard", n=n, prob=0.8)
    cosines = np.delete(naive_cosines(j), j, axis=1)
    names = np.delete(np.array(NAMES), j)
    best = np.argsort(-cosines.mean(axis=0))[:n]
    assert table.index.tolist() == names[best].tolist()
    assert table.index.name == "feature"
    assert table.attrs["prob"] == 0.8
    rank = np.argsort(np.argsort(-cosines, axis=1), axis=1)
    wanted = {
        "mean": cosines.mean(axis=0),
        "eti80_lb": np.quantile(cosines, 0.1, axis=0),
        "eti80_ub": np.quantile(cosines, 0.9, axis=0),
        "prob_nearest": np.mean(rank == 0, axis=0),
        "prob_top": np.mean(rank < n, axis=0),
    }
    assert table.columns.tolist() == list(wanted)
    for name, x in wanted.items():
        np.testing.assert_allclose(table[name], x[best], rtol=0, atol=1e-12)


def test_nothing_changes_when_draws_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = tree_of(rotated(V), NAMES)
    pd.testing.assert_frame_equal(nearest_features(turned, "gun"), nearest_features(TREE, "gun"))
    pd.testing.assert_frame_equal(interactions(turned), interactions(TREE))
    monkeypatch.setattr("bayesfm.factors.AT_ONCE", 7 * V[0, 0].size)  # other pieces of draws
    pd.testing.assert_frame_equal(nearest_features(turned, "gun"), nearest_features(TREE, "gun"))
    pd.testing.assert_frame_equal(interactions(turned), interactions(TREE))


def test_nearest_among_some_and_of_an_estimator() -> None:
    some = ["vote", "senate", "gun", "tax"]
    table = nearest_features(SimpleNamespace(posterior_=TREE), "gun", n=10, among=some)
    assert sorted(table.index) == ["senate", "tax", "vote"]
    assert np.all(table["prob_top"] == 1.0)
    assert table["prob_nearest"].sum() == pytest.approx(1.0)


def test_ties_and_zeros() -> None:
    rank_one = tree_of(
        np.array([2.0, 1.0, 0.3, -1.0, 0.0])[None, None, :, None] + np.zeros((1, 4, 1, 1)), list("abcde")
    )
    table = nearest_features(rank_one, "a", n=4)
    assert table["mean"].to_dict() == {"b": 1.0, "c": 1.0, "e": 0.0, "d": -1.0}
    assert table["prob_nearest"].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_wide_posteriors_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once is bounded, and the numbers are those of one reading."""
    rng = np.random.default_rng(0)
    tree = tree_of(rng.normal(size=(2, 20, 3000, 3)).astype(np.float32), [f"x{i}" for i in range(3000)])
    whole = nearest_features(tree, "x7", n=3)
    read: list[int] = []
    values = xr.DataArray.to_numpy

    def counted(self: xr.DataArray) -> np.ndarray:
        read.append(self.size)
        return values(self)

    monkeypatch.setattr("bayesfm.factors.AT_ONCE", 4 * 9000)
    monkeypatch.setattr(xr.DataArray, "to_numpy", counted)
    pd.testing.assert_frame_equal(nearest_features(tree, "x7", n=3), whole)
    assert max(read) == 4 * 9000


def test_interactions_against_loops() -> None:
    features, others = ["keyboard", "driver", "vote"], ["vote", "driver", "senate"]
    table = interactions(TREE, features, others, n=100, prob=0.5)
    wanted = {
        (a, b): np.array([v[NAMES.index(a)] @ v[NAMES.index(b)] for v in DRAWS])
        for a, b in [
            *[("keyboard", "vote"), ("keyboard", "driver"), ("keyboard", "senate"), ("driver", "vote")],
            *[("driver", "senate"), ("vote", "senate")],
        ]
    }
    pairs = list(zip(table["first"], table["second"], strict=True))
    assert {frozenset(x) for x in pairs} == {frozenset(x) for x in wanted}
    assert len(pairs) == len(wanted)
    assert np.all(np.diff(table["mean"].abs()) <= 0)
    for (a, b), row in zip(pairs, table.itertuples(), strict=True):
        x = wanted.get((a, b), wanted.get((b, a)))
        assert x is not None
        low, high = np.quantile(x, [0.25, 0.75])
        shown = (row.mean, row.sd, row.eti50_lb, row.eti50_ub, row.prob_positive)
        np.testing.assert_allclose(shown, (x.mean(), x.std(ddof=1), low, high, np.mean(x > 0)), rtol=1e-9)


def test_strongest_by_mean_or_by_certainty() -> None:
    rng = np.random.default_rng(0)
    v = np.zeros((1, 500, 4, 2))
    v[..., 0, 0], v[..., 1, 0] = 3.0, 1.0 + 0.5 * rng.normal(size=(1, 500))  # strong, and not well known
    v[..., 2, 1], v[..., 3, 1] = 1.0, -1.0 + 0.01 * rng.normal(size=(1, 500))
    tree = tree_of(v, list("abcd"))
    assert interactions(tree, n=1)[["first", "second"]].to_numpy().tolist() == [["a", "b"]]
    assert interactions(tree, n=1, by="certainty")[["first", "second"]].to_numpy().tolist() == [["c", "d"]]
    # The three of largest mean square are a, b and d or c.
    assert set(interactions(tree, max_features=2)["first"]) == {"a"}


def test_levels_of_one_column_never_meet() -> None:
    names = ["user=ann", "user=bob", "film=Alien", "age"]
    tree = tree_of(
        V[:, :, :4],
        names,
        encoder={
            "kind": "table",
            "table": {
                "columns": [{"name": c, "levels": x} for c, x in (("user", {}), ("film", {}), ("age", None))]
            },
        },
        design_schema={
            "blocks": [
                {"name": b, "feature_names": x}
                for b, x in (("user", names[:2]), ("film", names[2:3]), ("numeric", names[3:]))
            ]
        },
    )
    assert field_of(tree).tolist() == [0, 0, 1, -1]
    pairs = {frozenset(x) for x in interactions(tree)[["first", "second"]].to_numpy()}
    assert len(pairs) == 5
    assert frozenset(names[:2]) not in pairs
    with pytest.raises(ValueError, match="there is no pair"):
        interactions(tree, names[:2])


def test_one_of_several_machines() -> None:
    posterior = TREE["posterior"].to_dataset()
    several = xr.concat(
        [posterior, -2.0 * posterior.isel(feature=slice(None, None, -1)).assign_coords(feature=NAMES)],
        "class",
    )
    tree = xr.DataTree.from_dict({"/posterior": several.assign_coords({"class": ["b", "c"]})})
    pd.testing.assert_frame_equal(interactions(tree, which={"class": "b"}), interactions(TREE))
    assert not interactions(tree, which={"class": "c"}).equals(interactions(TREE))
    with pytest.raises(ValueError, match=r"one v per class: choose with which=\{'class': 'b'\}"):
        interactions(tree)
    with pytest.raises(ValueError, match=r"which\['class'\] must be one of \['b', 'c'\], got 'd'"):
        interactions(tree, which={"class": "d"})
    with pytest.raises(ValueError, match=r"which names \['klass'\]"):
        interactions(TREE, which={"klass": "d"})


def test_errors_help() -> None:
    with pytest.raises(ValueError, match=r"no feature 'keybord' among 18; did you mean 'keyboard'"):
        nearest_features(TREE, "keybord")
    with pytest.raises(ValueError, match="names look like 'keyboard'"):
        nearest_features(TREE, "zzzzqqq")
    with pytest.raises(TypeError, match="feature must be names of features, a list of str; got 3"):
        nearest_features(TREE, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="features must be names of features, a list of str; got 'gun'"):
        interactions(TREE, "gun")
    with pytest.raises(ValueError, match="features names 'gun' twice"):
        interactions(TREE, ["gun", "tax", "gun"])
    with pytest.raises(TypeError, match="got SimpleNamespace"):
        nearest_features(SimpleNamespace(), "gun")
    with pytest.raises(TypeError, match=r"its last step, pipeline\[-1\]"):
        nearest_features(SimpleNamespace(steps=[]), "gun")
    with pytest.raises(TypeError, match="not been fitted"):
        nearest_features(SimpleNamespace(fit=print), "gun")
    with pytest.raises(ValueError, match="no draws of v"):
        nearest_features(xr.DataTree.from_dict({"/posterior": xr.Dataset()}), "gun")
    with pytest.raises(ValueError, match="by must be one of"):
        interactions(TREE, by="size")
    with pytest.raises(ValueError, match="others without features"):
        interactions(TREE, others=["gun"])
    with pytest.raises(ValueError, match="no feature but the one"):
        nearest_features(TREE, "gun", among=["gun"])
    with pytest.raises(ValueError, match="at most 4,096 features, got 5,000"):
        interactions(tree_of(np.ones((1, 1, 5000, 1)), [f"x{i}" for i in range(5000)]), max_features=5000)
    with pytest.raises(ValueError, match="several features have the name 'a'"):
        nearest_features(tree_of(V[:, :, :3], ["a", "b", "a"]), "a")


def test_close_names_among_many() -> None:
    known = [f"user={i}" for i in range(20_000)] + [
        "text=keyboard",
        "text=keyboards",
        "keyed",
        "word of the description=tax",
    ]
    assert close_names("keyboard", known)[0] == "text=keyboard"
    assert close_names("text=keybord", known)[0] == "text=keyboard"
    assert close_names("user=1999", known, n=3)[0] == "user=1999"
    assert close_names("tax", known)[0] == "word of the description=tax"
    assert close_names("qqqqqqqq", known) == []
