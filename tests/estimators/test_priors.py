"""``prior_w`` and ``prior_v``: a prior in place of the default one."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from bayesfm.estimators import FMClassifier, FMCount, FMOrdinal, FMRegressor
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, HalfT, MultiplicativeGamma, NormalWishart
from tests.estimators.data import QUICK, matrix, quick, ratings, sites

pytestmark = pytest.mark.filterwarnings("ignore::bayesfm.diagnostics.ConvergenceWarning")

X, Y = matrix()
W, V = HalfT(scale=0.5, df=math.inf), MultiplicativeGamma(a2=4.0)
FACES: dict[type[Any], np.ndarray] = {
    FMRegressor: Y,
    FMClassifier: np.where(Y > 0, "yes", "no"),
    FMOrdinal: np.arange(len(Y)) % 3,
    FMCount: np.arange(len(Y)) % 4,
}


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("face", FACES)
def test_priors_arrive_and_the_rest_stays(face: type[Any]) -> None:
    default = face(2, **QUICK).fit(X, FACES[face]).spec_
    both = face(2, prior_w=W, prior_v=V, **QUICK).fit(X, FACES[face]).spec_
    assert both == replace(default, prior_w=W, prior_v=V)
    for name, prior in (("prior_w", W), ("prior_v", V)):
        one = face(2, **{name: prior}, **QUICK).fit(X, FACES[face]).spec_
        assert one == replace(default, **{name: prior})


@pytest.mark.usefixtures("no_sampling")
def test_a_prior_can_be_set_and_taken_back() -> None:
    model = quick(prior_v=V)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.fit(X, Y).spec_.prior_v == V
    assert copy.set_params(prior_v=W).fit(X, Y).spec_.prior_v == W
    assert copy.set_params(prior_v=None).fit(X, Y).spec_ == default_spec(Y, 2)


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("face", FACES)
def test_priors_survive_the_file(face: type[Any], tmp_path: Path) -> None:
    model = face(2, prior_w=W, prior_v=V, **QUICK).fit(X, FACES[face])
    model.save(tmp_path / "model.nc")
    again = face.load(tmp_path / "model.nc")
    assert again.get_params() == model.get_params()
    assert (again.prior_w, again.prior_v) == (W, V)
    assert again.spec_ == model.spec_
    assert clone(again).fit(X, FACES[face]).spec_ == model.spec_


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("number", [np.float32(0.1), np.float64(0.1), np.int64(4)])
def test_numbers_of_numpy_survive_the_file(number: Any, tmp_path: Path) -> None:
    """As they come out of a grid."""
    quick(prior_v=Fixed(precision=number)).fit(X, Y).save(tmp_path / "model.nc")
    assert FMRegressor.load(tmp_path / "model.nc").prior_v == Fixed(precision=float(number))


def test_tight_priors_shrink(fitted: FMRegressor) -> None:
    """To precisions of 1e6 and 1e8 the rows add a few units: the posterior sd is that of the prior."""
    rows, y = ratings()
    tight = quick(prior_w=Fixed(precision=1e6), prior_v=Fixed(precision=1e8)).fit(rows, y)
    assert np.ptp(tight.predict(rows)) < 0.01 * np.ptp(fitted.predict(rows))
    for name, sd in (("w", 1e-3), ("v", 1e-4)):
        x = sites(tight)[name]
        error = sd / np.sqrt(2 * x.size)  # Monte Carlo, of draws that are as good as independent
        assert abs(x.std() - sd) < 5 * error
    assert not [name for name in sites(tight) if name.startswith(("mu_", "lambda_"))]


SPEC = ModelSpec(FM(2))
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"prior_w": "half_t"},
        TypeError,
        "prior_w must be a Prior, for instance HalfT(), or None; got 'half_t'",
    ),
    ({"prior_v": 0.1}, TypeError, "prior_v must be a Prior, for instance HalfT(), or None; got 0.1"),
    ({"prior_v": HalfT}, TypeError, "or None; got <class 'bayesfm.priors.half_t.HalfT'>"),
    ({"prior_w": False}, TypeError, "prior_w must be a Prior"),
    (
        {"prior_w": W, "spec": SPEC},
        ValueError,
        "prior_w and spec were both given, and spec has a prior_w: leave",
    ),
    (
        {"prior_v": V, "spec": SPEC},
        ValueError,
        "prior_v and spec were both given, and spec has a prior_v: leave",
    ),
    ({"prior_w": V}, ValueError, "give it as prior_v, not as prior_w"),
    ({"prior_w": NormalWishart()}, ValueError, "give it as prior_v, not as prior_w"),
]


@pytest.mark.parametrize(("options", "error", "message"), ERRORS)
def test_errors_name_the_argument(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        quick(**options).fit(X, Y)


def test_every_face_refuses_what_is_no_prior() -> None:
    for face, y in FACES.items():
        for name in ("prior_w", "prior_v"):
            with pytest.raises(TypeError, match=f"{name} must be a Prior"):
                face(**{name: {"class": "Fixed"}}).fit(X, y)
