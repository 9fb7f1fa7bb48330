from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from bayesfm.likelihoods import Gaussian, GroupwiseGaussian
from bayesfm.model import ModelSpec, site_dims
from bayesfm.predictors import FM
from bayesfm.prior_predictive import prior_predictive
from bayesfm.priors import Fixed, Horseshoe, Intercept, NormalWishart
from tests import designs
from tests.statistics import assert_no_alarm, ks_exact

DESIGN = designs.make("everything")


def test_sites_are_labelled_and_rows_have_their_distribution() -> None:
    """With all scales fixed y is a mixture over alpha alone; eta of a row is that of the sites."""
    spec = ModelSpec(FM(0), Gaussian(a0=8.0, b0=4.0), Fixed(precision=2.0), intercept=Intercept(1.0, 4.0))
    tree = prior_predictive(jax.random.key(0), spec, DESIGN, 5000)
    X = DESIGN.to_csr().toarray()
    prior, y = tree["prior"].dataset, tree["prior_predictive"]["y"].values[0]
    eta = prior["w0"].values[0][:, None] + prior["w"].values[0] @ X.T
    np.testing.assert_allclose(prior["eta"].values[0], eta, atol=1e-5)
    sd = np.sqrt(1 / 4 + (X**2).sum(1) / 2)
    p_values = {f"eta [{i}]": ks_exact(eta[:, i], stats.norm(1, sd[i])) for i in range(3)}
    noise = (y - eta) * np.sqrt(prior["alpha"].values[0][:, None])
    p_values |= {f"noise [{i}]": ks_exact(noise[:, i], stats.norm) for i in range(3)}
    p_values["alpha"] = ks_exact(prior["alpha"].values[0], stats.gamma(4, scale=0.5))
    assert_no_alarm(p_values)


def test_every_site_has_its_dimensions() -> None:
    spec = ModelSpec(FM(3), prior_w=Horseshoe(), prior_v=NormalWishart())
    tree = prior_predictive(jax.random.key(0), spec, DESIGN, 7)
    dims = {str(name): x.dims[2:] for name, x in tree["prior"].data_vars.items()}
    assert dims == {**site_dims(spec), "eta": ("row",)}
    assert tree["prior"]["local_scale_w"].sizes["feature"] == DESIGN.num_features
    assert list(tree["prior"]["feature"].values) == list(DESIGN.feature_names)


def test_rows_have_the_noise_of_their_group() -> None:
    group = np.resize([0, 1, 0], DESIGN.num_rows)
    spec = ModelSpec(FM(0), GroupwiseGaussian(2, a0=8.0, b0=4.0))
    tree = prior_predictive(jax.random.key(0), spec, DESIGN, 5000, row_data={"noise_group": group})
    prior, y = tree["prior"].dataset, tree["prior_predictive"]["y"].values[0]
    tau, df = (prior[name].values[0].astype(float) for name in ("tau", "df"))
    noise = (y - prior["eta"].values[0]) * np.sqrt(prior["alpha"].values[0][:, None] * tau[:, group])
    p_values = {f"noise [{i}]": ks_exact(noise[:, i], stats.norm) for i in range(3)}
    u = stats.gamma.cdf(tau, df[:, None] / 2, scale=2 / df[:, None])
    assert_no_alarm(p_values | {f"tau [{g}]": ks_exact(u[:, g], stats.uniform) for g in (0, 1)})
    with pytest.raises(ValueError, match="GroupwiseGaussian needs 'noise_group' for every row"):
        prior_predictive(jax.random.key(0), spec, DESIGN, 5)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="num_draws must be >= 1"):
        prior_predictive(jax.random.key(0), ModelSpec(), DESIGN, 0)
