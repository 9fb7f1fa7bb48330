"""Rows of fields and values as hashed columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from sklearn.utils import Tags

from bayesfm._checks import check_choice
from bayesfm.design.columns import as_frame
from bayesfm.design.tables import as_column_list
from bayesfm.encoders.base import Empty, HashedEncoder, Inclusion
from bayesfm.encoders.hashing import Chunk
from bayesfm.encoders.rows import Roles, read_frame, read_rows

__all__ = ["HashedFields"]


class HashedFields(HashedEncoder):
    """Rows of fields as a sparse matrix of hashed columns that keep their names.

    A row is a dictionary ``{"os": "Linux", "age": 30.5}``, a list of pairs ``[("os", "Linux"), ...]``, a list of
    strings ``["os=Linux", "premium"]``, or a row of a DataFrame of any library. A field need not occur in every row.

    **Integers are ids,** as in all tables here. A string, an integer or a boolean makes the token ``"os=Linux"``, whose
    column gets a 1: an indicator. A float is a number: the column of the token ``"age"`` gets its value. In lists
    of strings every string is a token as it is. Tokens are hashed as by
    :class:`sklearn.feature_extraction.FeatureHasher`, which differs in one point: it takes integers and booleans as
    numbers. ``integers="numbers"`` takes integers so. A field with floats here and integers there, which would be a
    number and an id, is refused until it is named in ``numeric`` or ``categorical``.

    Of the ``n_features`` columns the output has those that occurred in ``fit``, in the order in which they came, and
    an index of tokens and columns is kept, so that columns can be named and looked up. Fields and values are joined
    by ``=``: field ``a=b`` with value ``c`` is the same token as field ``a`` with value ``b=c``.

    Parameters
    ----------
    n_features : int, default=2**20
        Size of the table of columns, at most 2**31 - 1.
    integers : {"ids", "numbers"}, default="ids"
        How to take integers, in fields that are named in neither of the next two.
    numeric : sequence of str, optional
        Fields whose integers and booleans are numbers.
    categorical : sequence of str, optional
        Fields whose floats are levels, as are their integers.
    missing : {"error", "ignore"}, default="error"
        What to do with None and NaN: refuse them, or take the field as not there.
    binary : bool, default=False
        Put out a 1 where several tokens of a row fall on one column, or a token occurs twice, and not their sum.
        Numbers are refused then.
    signed : bool, default=False
        Give half of the tokens the sign -1, so that those that share a column cancel in the mean.
    min_df, max_df : int or float, default=1 and 1.0
        Leave out columns that occur in fewer, or in more rows: a number of rows (int) or a share (float).
    inclusion : PoissonInclusion or BloomInclusion, optional
        Which columns of a stream come in at all. What ``min_df`` and names count is counted from there on.
    compact : bool, default=True
        Put out the columns that occurred. False: all ``n_features``, without need of ``fit``; if there is one, it
        learns the names.
    keep_tokens : bool, default=True
        Keep the index of tokens. It takes about 150 bytes per distinct token.
    empty : {"error", "ignore"}, default="error"
        What to do with a row without fields: refuse it, or make it a row of zeros.
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
    >>> from bayesfm import HashedFields
    >>> encoder = HashedFields()
    >>> X = encoder.fit_transform([{"os": "Linux", "age": 30.5}, {"os": "Plan 9", "user": 17}])
    >>> encoder.get_feature_names_out().tolist()
    ['age', 'os=Linux', 'os=Plan 9', 'user=17']
    >>> X.toarray()
    array([[30.5,  1. ,  0. ,  0. ],
           [ 0. ,  0. ,  1. ,  1. ]])
    >>> encoder.get_fields_out().tolist()
    ['age', 'os', 'os', 'user']
    """

    _TOKENS = "fields"

    def __init__(
        self,
        n_features: int = 1 << 20,
        *,
        integers: Literal["ids", "numbers"] = "ids",
        numeric: Sequence[str] | None = None,
        categorical: Sequence[str] | None = None,
        missing: Literal["error", "ignore"] = "error",
        binary: bool = False,
        signed: bool = False,
        min_df: float = 1,
        max_df: float = 1.0,
        inclusion: Inclusion | None = None,
        compact: bool = True,
        keep_tokens: bool = True,
        empty: Empty = "error",
        dtype: type = np.float64,
    ) -> None:
        self.n_features = n_features
        self.integers = integers
        self.numeric = numeric
        self.categorical = categorical
        self.missing = missing
        self.binary = binary
        self.signed = signed
        self.min_df = min_df
        self.max_df = max_df
        self.inclusion = inclusion
        self.compact = compact
        self.keep_tokens = keep_tokens
        self.empty = empty
        self.dtype = dtype

    def get_fields_out(self) -> Shaped[np.ndarray, " c"]:
        """The field of every column, for prior groups: that of its most frequent token, ``#`` where it has none.

        Returns
        -------
        array of strings
            Of the length of :meth:`get_feature_names_out`; ``groups=`` of the estimators takes it.
        """
        tokens = self._tokens().of_column()
        first = (tokens.get(column, ["#"])[0] for column in self._output_columns().tolist())
        return np.array([token.partition("=")[0] or "=" for token in first], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.dict = True
        return tags

    def _check_options(self) -> None:
        super()._check_options()
        check_choice("integers", self.integers, ("ids", "numbers"))
        check_choice("missing", self.missing, ("error", "ignore"))
        self._roles()

    def _roles(self) -> Roles:
        numeric, categorical = (
            frozenset(as_column_list(getattr(self, x), x)) for x in ("numeric", "categorical")
        )
        if numeric & categorical:
            raise ValueError(
                f"fields cannot be categorical and numeric at once: {sorted(numeric & categorical)}"
            )
        return Roles(
            numeric, categorical, self.integers == "numbers", self.missing == "ignore", not self.binary
        )

    def _check_against_fit(self, chunk: Chunk) -> None:
        """A field that was a number stays one, and one of ids too: 17 and 17.0 would be different columns."""
        met = self.index_.counts
        for field in sorted(chunk.id_fields & met.keys()):
            raise TypeError(
                f"field {field!r} was a number in fit, and now has integers, which are ids: write floats, or name it "
                "in numeric and fit again"
            )
        new = chunk.number_fields - met.keys()
        for field in sorted(new and new & self.index_.integer_fields()):
            raise TypeError(
                f"field {field!r} had integers in fit, which are ids, and now has floats, which are numbers: write "
                "integers, or name it in categorical or numeric and fit again (pandas makes floats of a column of "
                "integers that lacks some)"
            )

    def _read(self, X: Any) -> Chunk:
        if isinstance(X, list | tuple):  # narwhals would look at every row
            return read_rows(X, self._roles())
        frame = as_frame(X)
        return read_rows(X, self._roles()) if frame is None else read_frame(frame, self._roles())
