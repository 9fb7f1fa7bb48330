"""``prior_w`` and ``prior_v``: a prior in place of the default one."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from bayesfm.estimators import FMClassifier, FMCount, FMOrdinal, FMRegressor
from bayesfm.model import ModelSpec, default_spec
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, HalfT, Horseshoe, MultiplicativeGamma, NormalWishart, PerGroup
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
        "prior_w must be a Prior, for instance HalfT(), or a mapping from group to prior; got 'half_t'",
    ),
    ({"prior_v": 0.1}, TypeError, "or a mapping from group to prior; got 0.1"),
    ({"prior_v": HalfT}, TypeError, "group to prior; got <class 'bayesfm.priors.half_t.HalfT'>"),
    ({"prior_w": False}, TypeError, "prior_w must be a Prior"),
    ({"prior_w": {}}, ValueError, "prior_w must name one group or more, got an empty mapping"),
    ({"prior_v": {0: HalfT()}}, TypeError, "prior_v must name groups by strings, got 0"),
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


MIXED = {"item": HalfT(scale=0.5), "user": Fixed(precision=4.0)}


@pytest.mark.usefixtures("no_sampling")
def test_a_prior_per_group(tmp_path: Path) -> None:
    """In any order; groups without one keep the default, and the file knows it."""
    rows, y = ratings()
    default = default_spec(y, 2)
    model = quick(prior_w={"item": W}, prior_v=MIXED).fit(rows, y)
    assert model.spec_.prior_w == PerGroup(("user", "item"), (default.prior_w, W))
    assert model.spec_.prior_v == PerGroup(("user", "item"), (MIXED["user"], MIXED["item"]))
    assert clone(model).fit(rows, y).spec_ == model.spec_
    model.save(tmp_path / "model.nc")
    again = FMRegressor.load(tmp_path / "model.nc")
    assert again.get_params()["prior_v"] == MIXED
    assert again.spec_ == model.spec_
    given = quick(rank=None, spec=replace(default, prior_w=PerGroup.of(MIXED))).fit(rows, y)
    assert given.spec_.prior_w == model.spec_.prior_v
    with pytest.raises(ValueError, match=r"prior_w must map groups of the features \('user', 'item'\)"):
        quick(prior_w={"film": W}).fit(rows, y)
    with pytest.raises(ValueError, match="Columns of numbers are one group, 'numeric'"):
        quick(prior_w={"age": W}).fit(rows.assign(age=0.5), y)
    with pytest.raises(ValueError, match="prior_w cannot be a mapping where a group of X has a slash"):
        quick(prior_w={"user": W}).fit(rows.rename(columns={"item": "a/b"}), y)


@pytest.mark.parametrize(
    "inference",
    [
        "gibbs",
        pytest.param("nuts", marks=pytest.mark.slow),
        "map",
        "laplace",
        "cavi",
        pytest.param("stochastic_map", marks=pytest.mark.slow),
        pytest.param("svi", marks=pytest.mark.slow),
    ],
)
def test_every_engine_takes_a_prior_per_group(inference: str) -> None:
    """Users held by a prior of precision 1e6, items free: what is learned is about items."""
    rows, y = ratings()
    tight = {"user": Fixed(precision=1e6), "item": Horseshoe()}
    options = QUICK if inference in ("gibbs", "nuts") else {"random_state": 0}
    model = FMRegressor(
        2, prior_w=tight, prior_v={"user": Fixed(precision=1e8)}, inference=inference, **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, y)
    w = model.posterior_["posterior"]["w"].mean(("chain", "draw"))
    user = np.char.startswith(w["feature"].to_numpy().astype(str), "user")
    assert np.abs(w.to_numpy()[user]).max() < 0.02
    assert np.ptp(w.to_numpy()[~user]) > 0.3
    names = {name for name in sites(model) if name.endswith(("_w", "_v"))}
    scales = {"local_scale_item_w", "global_scale_item_w", "slab_scale_item_w"}
    assert names == {*scales, "mu_item_v", "lambda_item_v"}
    new = rows[:2].assign(user=["new", "ann"], item=[10, 99])
    assert np.all(np.isfinite(model.predict(new)))
