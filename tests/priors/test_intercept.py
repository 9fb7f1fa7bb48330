from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesfm.priors import Intercept
from tests.implied import normal_mean_and_sd
from tests.statistics import assert_no_alarm, ks_exact


class TestIntercept:
    prior = Intercept(mean=0.5, precision=2.0)

    def update(self, key: jax.Array) -> jax.Array:
        return self.prior.update(key, jnp.asarray(3.0), jnp.asarray(-4.0))

    def test_update_is_the_product_of_prior_and_data(self) -> None:
        mean, sd = normal_mean_and_sd(lambda: self.update(jax.random.key(0)))
        np.testing.assert_allclose(mean, (2 * 0.5 - 4) / 5, rtol=1e-6)
        np.testing.assert_allclose(sd, 5**-0.5, rtol=1e-6)

    def test_random_draws(self) -> None:
        w0 = jax.vmap(self.update)(jax.random.split(jax.random.key(0), 20_000))
        assert_no_alarm({"w0": ks_exact(w0, stats.norm(-0.6, 5**-0.5))})

    def test_distribution(self) -> None:
        x = self.prior.distribution()
        np.testing.assert_allclose([x.mean, x.variance], [0.5, 0.5], rtol=1e-6)

    def test_bad_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="precision"):
            Intercept(precision=0.0)
        with pytest.raises(ValueError, match="mean"):
            Intercept(mean=float("nan"))
