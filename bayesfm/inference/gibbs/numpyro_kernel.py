"""The Gibbs sampler as a NumPyro ``MCMCKernel``, for those who drive their chains with ``numpyro.infer.MCMC``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.infer.mcmc import MCMCKernel

from bayesfm.design import Design
from bayesfm.inference.conjugate.state import ModelState, from_sites, to_sites
from bayesfm.inference.gibbs.run import gibbs_kernel
from bayesfm.model import ModelSpec, numpyro_model

__all__ = ["FMGibbs", "FMGibbsState"]


class FMGibbsState(NamedTuple):
    """State for NumPyro: ``z`` the named sites, the sampler's own state, the key."""

    z: dict[str, Array]
    inner: ModelState
    rng_key: Key[Array, ""]


class FMGibbs(MCMCKernel):
    """Gibbs sweeps of a factorization machine as a NumPyro kernel.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    design : Design
        n rows, p features.
    y : array of shape (n,)
        Response.
    weight : array of shape (n,), optional
        A row of weight c counts as c equal rows.
    factor_block : int, "joint" or "auto"
        Factors drawn jointly with w, as in :func:`bayesfm.gibbs`.
    kernels : {"auto", "native", "xla"}
        Compiled kernels or XLA, likewise.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from numpyro.infer import MCMC
    >>> from bayesfm.design import Block, Design
    >>> from bayesfm.inference.gibbs.numpyro_kernel import FMGibbs
    >>> from bayesfm.model import default_spec
    >>> design = Design((Block.field("user", np.array([0, 0, 1, 1]), np.array(["ann", "bob"])),))
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])
    >>> mcmc = MCMC(FMGibbs(default_spec(y, rank=2), design, y), num_warmup=5, num_samples=10, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> mcmc.get_samples()["v"].shape
    (10, 2, 2)
    """

    sample_field = "z"

    def __init__(
        self,
        spec: ModelSpec,
        design: Design,
        y: Float[np.ndarray, " n"],
        *,
        weight: Float[np.ndarray, " n"] | None = None,
        factor_block: int | str = "auto",
        kernels: str = "auto",
    ) -> None:
        self._kernel, self._centre = gibbs_kernel(
            spec, design, y, weight=weight, factor_block=factor_block, kernels=kernels
        )
        self.model = numpyro_model

    def _sites(self, state: ModelState) -> dict[str, Array]:
        sites = to_sites(state, self._kernel.data.layout)
        return {**sites, "w0": sites["w0"] + self._centre}

    def init(
        self,
        rng_key: Key[Array, "*chain"],
        num_warmup: int,
        init_params: Any,
        model_args: Any,
        model_kwargs: Any,
    ) -> FMGibbsState:
        """Start at ``init_params`` (all sites), or at a dispersed point of the sampler's choice."""
        if jnp.ndim(jax.random.key_data(rng_key) if _is_typed(rng_key) else rng_key) > 1:
            axes = None if init_params is None else 0
            return jax.vmap(self._init_one, in_axes=(0, axes))(rng_key, init_params)
        return self._init_one(rng_key, init_params)

    def _init_one(self, rng_key: Key[Array, ""], init_params: dict[str, Array] | None) -> FMGibbsState:
        key, rng_key = jax.random.split(rng_key)
        if init_params is None:
            inner = self._kernel.init(key)
        else:
            sites = {**init_params, "w0": init_params["w0"] - self._centre}
            inner = from_sites(sites, self._kernel.spec, self._kernel.data)
        return FMGibbsState(self._sites(inner), inner, rng_key)

    def sample(self, state: FMGibbsState, model_args: Any, model_kwargs: Any) -> FMGibbsState:
        """One sweep; of every chain, where NumPyro runs them batched."""
        if state.z["w0"].ndim > len(self._kernel.spec.likelihood.outputs):
            return jax.vmap(self._sample_one)(state)
        return self._sample_one(state)

    def _sample_one(self, state: FMGibbsState) -> FMGibbsState:
        key, rng_key = jax.random.split(state.rng_key)
        inner = self._kernel.sweep(key, state.inner)
        return FMGibbsState(self._sites(inner), inner, rng_key)


def _is_typed(key: Array) -> bool:
    return bool(jnp.issubdtype(key.dtype, jax.dtypes.prng_key))
