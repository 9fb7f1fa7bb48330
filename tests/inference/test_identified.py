"""Which scalars of a draw are identified, as arrays; that labels say the same is shown in test_diagnostics.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesfm.inference.identified import NUM_PROBES, Identified, quantities
from bayesfm.likelihoods import Categorical, GroupwiseGaussian
from bayesfm.model import ModelSpec, site_dims
from bayesfm.predictors import FM
from bayesfm.priors import NormalWishart

SIZES = {"feature": 5, "factor": 3, "factor_other": 3, "group": 2, "probe": 7, "class": 2, "noise_group": 250}


def draws_of(spec: ModelSpec, chains: int = 2, draws: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    dims = {**site_dims(spec), "eta": (*spec.likelihood.output_dims, "probe"), "lp": ()}
    return {
        name: rng.normal(size=(chains, draws, *(SIZES[d] for d in own))).astype(np.float32)
        for name, own in dims.items()
    }


def scalars(law: Identified, draws: dict[str, np.ndarray]) -> np.ndarray:
    return law({name: draws[name] for name in law.sources(draws)})


def test_scalars_of_a_draw() -> None:
    spec = ModelSpec(predictor=FM(3))
    draws = draws_of(spec)
    law = Identified(spec, centre=10.0)
    assert "v" not in law.sources(draws)
    assert "w" not in law.sources(draws)
    wanted = [
        draws["w0"].astype(float)[..., None] + 10.0,
        draws["alpha"][..., None],
        draws["mu_w"],
        draws["lambda_w"],
        np.sqrt((draws["mu_v"].astype(float) ** 2).mean(-1)),
        draws["lambda_v"].astype(float).mean(-1),
        draws["lp"][..., None],
        draws["eta"].astype(float) + 10.0,
    ]
    np.testing.assert_allclose(scalars(law, draws), np.concatenate(wanted, axis=2), rtol=1e-12)


def test_turned_factors_are_the_same() -> None:
    """Order and signs of normal-gamma factors; any rotation where the precision is a matrix."""
    spec = ModelSpec(predictor=FM(3))
    draws = draws_of(spec)
    turned = dict(draws)
    for name in ("mu_v", "lambda_v"):
        turned[name] = draws[name][..., [2, 0, 1]]
    turned["mu_v"] = turned["mu_v"] * np.array([-1, 1, -1], np.float32)
    law = Identified(spec)
    np.testing.assert_allclose(scalars(law, turned), scalars(law, draws), rtol=1e-12)
    spec = replace(spec, prior_v=NormalWishart())
    draws, law = draws_of(spec), Identified(spec)
    name = next(n for n, own in site_dims(spec).items() if "factor_other" in own)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = {**draws, name: turn @ draws[name] @ turn.T, "mu_v": draws["mu_v"] @ turn.T}
    np.testing.assert_allclose(scalars(law, turned), scalars(law, draws), rtol=1e-5, atol=1e-6)
    assert scalars(law, draws).shape[2] == scalars(Identified(ModelSpec()), draws_of(ModelSpec())).shape[2]


def test_of_many_groups_a_hundred_are_looked_at() -> None:
    spec = ModelSpec(likelihood=GroupwiseGaussian(250))
    draws = draws_of(spec)
    quantity = next(q for q in quantities(spec, draws) if q.some and "noise_group" in q.dims)
    values = quantity.values(draws[quantity.source])
    assert values.shape == (2, 4, NUM_PROBES)
    np.testing.assert_array_equal(values[..., [0, -1]], draws[quantity.source][..., [0, -1]])


def test_classes_have_an_eta_each() -> None:
    spec = ModelSpec(likelihood=Categorical(3))
    draws = draws_of(spec)
    eta = quantities(spec, draws)[-1]
    assert eta.dims == ("class", "probe")
    assert scalars(Identified(spec, 1.0), draws)[..., -1] == pytest.approx(draws["eta"][..., -1, -1] + 1.0)


def test_only_what_is_there() -> None:
    spec = ModelSpec()
    draws = {name: x for name, x in draws_of(spec).items() if name in ("w", "lambda_w", "lp")}
    assert Identified(spec).sources(draws) == ("lambda_w", "lp")
    without = {**draws, "mu_v": np.zeros((2, 4, 2, 0))}  # rank 0
    assert Identified(spec).sources(without) == ("lambda_w", "lp")
