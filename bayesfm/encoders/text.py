"""Documents as hashed tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils import Tags

from bayesfm._checks import check_choice, check_count
from bayesfm.encoders.base import Empty, HashedEncoder, Inclusion
from bayesfm.encoders.hashing import Chunk, numbering

__all__ = ["HashedText"]


class HashedText(HashedEncoder):
    r"""Documents as a sparse matrix of hashed tokens whose columns keep their names.

    Tokens are found and hashed as by :class:`sklearn.feature_extraction.text.HashingVectorizer`. Of the ``n_features``
    columns the output has those that occurred in ``fit``, in the order in which they came: a million columns cost
    what is used of them. While encoding, an index of tokens and columns is kept, so that columns can be named and
    looked up.

    A document at predict time keeps those tokens that fall on a column of the output. Others are left out, as are
    all tokens below ``min_df`` or above ``max_df``.

    Parameters
    ----------
    n_features : int, default=2**20
        Size of the table of columns, at most 2**31 - 1.
    tokenizer : callable, optional
        From a document to its words, instead of ``token_pattern``.
    token_pattern : str, default=r"(?u)\b\w\w+\b"
        Regular expression of a word: two letters, digits or underscores and more. ``r"\S+"`` splits at blanks.
    min_length : int, default=1
        Leave out shorter words, before n-grams are made.
    lowercase : bool, default=True
    strip_accents : {"ascii", "unicode"}, optional
    stop_words : {"english"} or list of str, optional
        Words to leave out.
    analyzer : {"word", "char", "char_wb"}, default="word"
        n-grams of words, of characters, or of characters within words.
    ngram_range : (int, int), default=(1, 1)
        Shortest and longest n-grams.
    binary : bool, default=True
        Indicators: 1 where a column occurs. Otherwise it counts.
    signed : bool, default=False
        Give half of the tokens the sign -1, so that those that share a column cancel in the mean.
    norm : {"l1", "l2"}, optional
        Scale rows, as they are put out, to norm 1.
    min_df, max_df : int or float, default=1 and 1.0
        Leave out columns that occur in fewer, or in more rows: a number of rows (int) or a share (float). They are
        judged by the columns, that is, tokens that share one are counted together.
    inclusion : PoissonInclusion or BloomInclusion, optional
        Which columns of a stream come in at all. What ``min_df`` and names count is counted from there on.
    compact : bool, default=True
        Put out the columns that occurred. False: all ``n_features``, without need of ``fit``; if there is one, it
        learns the names.
    keep_tokens : bool, default=True
        Keep the index of tokens. It takes about 150 bytes per distinct token.
    empty : {"error", "ignore"}, default="error"
        What to do with a document without tokens: refuse it, or make it a row of zeros.
    dtype : {numpy.float64, numpy.float32}
        Of the output.

    Attributes
    ----------
    columns_ : array of int
        Hashed columns of the output.
    table_ : object
        ``columns``, ``row_counts`` and ``num_rows``: all columns met, before cut-offs.
    index_ : object
        ``counts``: the tokens met, and how often.

    References
    ----------
    Weinberger, Dasgupta, Langford, Smola & Attenberg (2009), Feature hashing for large scale multitask learning. ICML.

    Examples
    --------
    >>> from bayesfm import HashedText
    >>> encoder = HashedText()
    >>> X = encoder.fit_transform(["the cat sat", "the dog barked at the cat"])
    >>> X.shape
    (2, 6)
    >>> X[:, [encoder.column_of("cat"), encoder.column_of("dog")]].toarray()
    array([[1., 0.],
           [1., 1.]])
    >>> known, unseen = encoder.transform_with_unseen(["the cow sat"])
    >>> known.nnz, unseen.nnz
    (2, 1)
    """

    _FLAGS = ("lowercase", *HashedEncoder._FLAGS)

    def __init__(
        self,
        n_features: int = 1 << 20,
        *,
        tokenizer: Callable[[str], Iterable[str]] | None = None,
        token_pattern: str = r"(?u)\b\w\w+\b",
        min_length: int = 1,
        lowercase: bool = True,
        strip_accents: Literal["ascii", "unicode"] | None = None,
        stop_words: Literal["english"] | Sequence[str] | None = None,
        analyzer: Literal["word", "char", "char_wb"] = "word",
        ngram_range: tuple[int, int] = (1, 1),
        binary: bool = True,
        signed: bool = False,
        norm: Literal["l1", "l2"] | None = None,
        min_df: float = 1,
        max_df: float = 1.0,
        inclusion: Inclusion | None = None,
        compact: bool = True,
        keep_tokens: bool = True,
        empty: Empty = "error",
        dtype: type = np.float64,
    ) -> None:
        self.n_features = n_features
        self.tokenizer = tokenizer
        self.token_pattern = token_pattern
        self.min_length = min_length
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.stop_words = stop_words
        self.analyzer = analyzer
        self.ngram_range = ngram_range
        self.binary = binary
        self.signed = signed
        self.norm = norm
        self.min_df = min_df
        self.max_df = max_df
        self.inclusion = inclusion
        self.compact = compact
        self.keep_tokens = keep_tokens
        self.empty = empty
        self.dtype = dtype

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags

    def _check_options(self) -> None:
        super()._check_options()
        check_choice("norm", self.norm, ("l1", "l2", None))
        check_choice("analyzer", self.analyzer, ("word", "char", "char_wb"))
        check_choice("strip_accents", self.strip_accents, ("ascii", "unicode", None))
        if self.tokenizer is not None and not callable(self.tokenizer):
            raise TypeError(f"tokenizer must be a function of a document, or None, got {self.tokenizer!r}")
        if isinstance(self.stop_words, str):
            check_choice("stop_words", self.stop_words, ("english",))
        if not isinstance(self.token_pattern, str):
            raise TypeError(f"token_pattern must be a regular expression, got {self.token_pattern!r}")
        if not isinstance(self.ngram_range, tuple | list) or len(self.ngram_range) != 2:
            raise TypeError(f"ngram_range must be (shortest, longest), got {self.ngram_range!r}")
        low, high = self.ngram_range
        if check_count("ngram_range[0]", low, 1) > check_count("ngram_range[1]", high, 1):
            raise ValueError(f"ngram_range must be (shortest, longest), got {self.ngram_range}")
        words_only = check_count("min_length", self.min_length, 1) > 1 or self.tokenizer is not None
        if self.analyzer != "word" and (words_only or self.stop_words is not None):
            raise ValueError(
                f"min_length, tokenizer and stop_words are for words, but analyzer is {self.analyzer!r}"
            )

    def _analyse(self) -> Callable[[str], Iterable[str]]:
        """From a document to its tokens: scikit-learn's analyzer with these options."""
        words: Callable[[str], Iterable[str]] | None = self.tokenizer
        pattern: str | None = self.token_pattern if words is None else None
        if self.min_length > 1:
            words = words or HashingVectorizer(token_pattern=self.token_pattern).build_tokenizer()
            words = partial(_long, words, self.min_length)
            pattern = None
        stop_words = self.stop_words
        return HashingVectorizer(
            analyzer=self.analyzer,
            tokenizer=words,
            token_pattern=pattern if self.analyzer == "word" else r"(?u)\b\w\w+\b",
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            stop_words=stop_words if stop_words is None or isinstance(stop_words, str) else list(stop_words),
            ngram_range=tuple(self.ngram_range),
        ).build_analyzer()

    def _read(self, X: Any) -> Chunk:
        _check_documents(X)
        analyse = self._analyse()
        number, ids, starts = numbering(), array("i"), array("q", [0])
        for row, document in enumerate(X):
            if not isinstance(document, str):
                raise TypeError(
                    f"documents must be strings, got {document!r} ({type(document).__name__}) in row {row}: drop or "
                    "fill missing ones, decode bytes"
                )
            ids.extend(map(number.__getitem__, analyse(document)))
            starts.append(len(ids))
        chunk = Chunk(np.array(starts, np.int64), np.array(ids, np.int32), None, list(number))
        wrong = next((i for i, token in enumerate(chunk.tokens) if not isinstance(token, str)), None)
        if wrong is not None:
            raise TypeError(
                f"tokenizer must give strings, got {chunk.tokens[wrong]!r} for the document in row "
                f"{chunk.row_of(wrong)}"
            )
        return chunk


def _long(words: Callable[[str], Iterable[str]], length: int, document: str) -> list[str]:
    return [word for word in words(document) if len(word) >= length]


def _check_documents(X: Any) -> None:
    if isinstance(X, str | bytes):
        raise TypeError(f"X must be a sequence of documents, got the string {X[:40]!r}: write [document]")
    if hasattr(X, "columns"):
        raise TypeError(
            f"X must be a sequence of documents, got a table ({type(X).__name__}): pass its column of texts"
        )
    if getattr(X, "ndim", 1) != 1 or not isinstance(X, Iterable):
        raise TypeError(f"X must be a sequence of documents, got {type(X).__name__}")
