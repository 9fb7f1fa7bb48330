"""Fitted estimators in files, without pickle: a posterior, and beside it the parameters as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bayesfm.design import DesignEncoder
from bayesfm.estimators.inputs import plain_classes
from bayesfm.likelihoods import Likelihood
from bayesfm.model import ModelSpec, part_from_dict, part_to_dict
from bayesfm.priors import Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Files"]

PARTS = ("likelihood", "prior_w", "prior_v")
"""Parameters that may be parts of a model."""


class Files(BaseEstimator):
    """``save`` and ``load`` of an estimator, which sees to ``_adopt``."""

    posterior_: xr.DataTree
    encoder_: DesignEncoder

    def _adopt(self, tree: xr.DataTree) -> None:
        raise NotImplementedError

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything that predictions need to a file, without pickle.

        Parameters
        ----------
        path : path
            See :func:`bayesfm.save` for the formats.
        """
        from bayesfm.posterior_files import save

        check_is_fitted(self, "posterior_")
        tree = self.posterior_.copy()
        params, named = _plain_params(self.get_params(deep=False)), hasattr(self, "feature_names_in_")
        state = {"class": type(self).__name__, "params": params, "named": named}
        if hasattr(self, "classes_"):
            state["classes"] = plain_classes(self.classes_)
        tree.attrs["estimator"] = json.dumps(state)
        save(tree, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """A fitted estimator from what :meth:`save` wrote: it predicts exactly what the saved one did.

        Parameters that JSON cannot hold (``predict_rows``, ``callback``, random number generators) take their
        defaults.

        Parameters
        ----------
        path : path
            As given to :meth:`save`.

        Returns
        -------
        object
            A fitted estimator of this class.

        Raises
        ------
        ValueError
            If the file holds a posterior, but no estimator of this class.
        """
        from bayesfm.posterior_files import load

        tree = load(path)
        state = json.loads(tree.attrs.pop("estimator", '{"class": "bare posterior"}'))
        if state["class"] != cls.__name__:
            raise ValueError(f"{path} holds a {state['class']}, not a {cls.__name__}")
        params = state["params"]
        if params.get("spec") is not None:
            params["spec"] = ModelSpec.from_dict(params["spec"])
        for name in PARTS:
            if isinstance(params.get(name), dict):
                params[name] = _part(params[name])
        estimator = cls(**params)
        estimator._adopt(tree)
        if "classes" in state:
            estimator.classes_ = np.array(state["classes"]["values"], dtype=state["classes"]["dtype"])
        if state["named"]:
            estimator.feature_names_in_ = estimator.encoder_.feature_names_in_
        return estimator


def _part(state: Mapping[str, Any]) -> Any:
    """A part of a model, or a mapping from group to prior."""
    # A group may have the name "class", but its prior is no string.
    if isinstance(state.get("class"), str):
        return part_from_dict(state)
    return {group: part_from_dict(own) for group, own in state.items()}


def _plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those parameters that JSON can hold."""
    plain = {}
    for name, value in params.items():
        if isinstance(value, ModelSpec):
            value = value.to_dict()
        elif isinstance(value, Likelihood | Prior):
            value = part_to_dict(value)
        elif isinstance(value, Mapping) and any(isinstance(x, Prior) for x in value.values()):
            value = {group: part_to_dict(prior) for group, prior in value.items()}
        elif isinstance(value, PathLike):
            value = fspath(value)
        elif hasattr(value, "tolist"):
            value = value.tolist()
        try:
            json.dumps(value)
        except TypeError:
            continue
        plain[name] = value
    return plain
