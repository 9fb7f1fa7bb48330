"""Models that are calibrated: every likelihood with a Gibbs sweep, every family of priors, every kind of design."""

from __future__ import annotations

from typing import Any, NamedTuple

from bayesfm import native
from bayesfm.likelihoods import Categorical
from bayesfm.priors import Fixed, NormalWishart
from tests.inference.gibbs import joint
from tests.inference.gibbs import test_likelihood_invariance as likelihoods
from tests.inference.gibbs.test_prior_invariance import (
    COLUMNS,
    HALF_NORMAL,
    HALF_T,
    HORSESHOE,
    MIXED_V,
    MIXED_W,
    SOME_V,
    SOME_W,
)


class Case(NamedTuple):
    """A problem, and how many sweeps it needs until draws are nearly independent."""

    arguments: dict[str, Any]
    thin: int = 10
    warmup: int = 150

    @property
    def problem(self) -> joint.Problem:
        """See ``joint.problem``."""
        return joint.problem(**self.arguments)


LIKELIHOODS = {name: Case({"kind": "fields", **own}) for name, own in likelihoods.CASES.items()}
PRIORS = {
    "half-normal w, half-t v": Case({"kind": "fields", "prior_w": HALF_NORMAL, "prior_v": HALF_T}, 60, 400),
    "half-t w, fixed v": Case(
        {"kind": "rows", "prior_w": HALF_T, "prior_v": Fixed(mean=0.2, precision=2.0)}, 60, 400
    ),
    "fixed w, normal-Wishart v": Case(
        {
            "kind": "fields",
            "prior_w": Fixed(mean=0.3, precision=1.5),
            "prior_v": NormalWishart(a0=5.0, b0=3.0, beta0=1.5),
        },
        40,
    ),
    "horseshoe w, multiplicative gamma v": Case(
        {"kind": "rows", "prior_w": HORSESHOE, "prior_v": COLUMNS}, 25, 300
    ),
    "per group: half-normal, normal-gamma, half-t": Case(
        {"kind": "fields", "prior_w": MIXED_W, "prior_v": MIXED_V}, 60, 400
    ),
    "per group: horseshoe, multiplicative gamma, fixed": Case(
        {"kind": "rows", "prior_w": SOME_W, "prior_v": SOME_V}, 60, 400
    ),
}
CASES: dict[str, Case] = {
    "Gaussian, two fields": Case({"kind": "fields"}),
    "Gaussian, relation block, weighted": Case({"kind": "table", "weighted": True}, thin=20),
    **LIKELIHOODS,
    "categorical": Case({"kind": "fields", "likelihood": Categorical(3), "weighted": True}),
    **PRIORS,
}
if native.available():
    CASES["kernels: Gaussian, relation block, weighted"] = Case(
        {"kind": "table", "weighted": True, "native": True}, thin=20
    )
