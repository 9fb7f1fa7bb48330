"""Names for the columns of a matrix, after the fit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bayesfm.design import DesignEncoder
from bayesfm.design.schema import DesignSchema
from bayesfm.design.validation import as_feature_names

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FeatureNames"]


class FeatureNames(BaseEstimator):
    """``name_features`` of an estimator, which sees to ``_adopt``."""

    posterior_: xr.DataTree
    encoder_: DesignEncoder

    def _adopt(self, tree: xr.DataTree) -> None:
        raise NotImplementedError

    def name_features(self, names: Iterable[str]) -> Self:
        """Name the columns of the matrix that ``fit`` has seen, in all that is read off the posterior.

        A matrix has no names, and so its features are called x0, x1, ... In a pipeline the names are those that come
        out of the steps before: ``pipeline[-1].name_features(pipeline[:-1].get_feature_names_out())``. Predictions do
        not change, and what is saved has the names.

        Parameters
        ----------
        names : p strings
            Unique.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        TypeError
            If ``fit`` has seen a DataFrame or blocks, which have names of their own.
        ValueError
            If they are not p, or not unique.
        """
        check_is_fitted(self, "posterior_")
        encoder = self.encoder_.to_dict()
        if encoder["kind"] != "matrix":
            raise TypeError(
                f"{type(self).__name__} was fitted to a {encoder['kind']}, whose features have names of their own"
            )
        (block,) = encoder["schema"]["blocks"]
        features = as_feature_names(names, len(block["feature_names"]), "names")
        block["feature_names"] = features.tolist()
        tree = self.posterior_.copy()
        for node in tree.subtree:
            if "feature" in node.coords:
                node.dataset = node.to_dataset(inherit=False).assign_coords(feature=features)
        state: dict[str, Any] = {"encoder": encoder, "design_schema": encoder["schema"]}
        tree.attrs |= {name: json.dumps(part) for name, part in state.items()}
        self._adopt(tree)
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.encoder, stream.learner.schema = self.encoder_, DesignSchema.from_dict(encoder["schema"])
        return self
