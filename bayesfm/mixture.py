"""A fitted model as a mixture over posterior draws, evaluated in pieces of draws and of rows.

Draws are read a few at a time, rows are taken a few thousand at a time; no (draws, n, k) array is ever
built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from numpyro.distributions import Distribution

from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.likelihoods import Likelihood
from bayesfm.likelihoods.base import RowData, check_row_data
from bayesfm.model import ModelSpec, site_dims
from bayesfm.pieces import Piece, compact_rows, padded

__all__ = [
    "MAX_ROWS",
    "Components",
    "DrawArrays",
    "FittedModel",
    "Mixture",
    "Window",
    "average",
    "per_draw",
]

UNSEEN_SEED = 2013
"""Seed of the parameters of unseen levels: a constant, so that predictions repeat."""
MAX_ROWS = 1 << 15
MAX_DRAWS = 64
LANES = 8
"""Draws computed side by side where every block is a field; sums over table entries are faster one by one."""
PIECE_BYTES = 1 << 26
"""Aim for the parameters of one piece of draws."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """What prediction needs: the model, the prior group of every feature, and the draws.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    groups : array of shape (p,)
        Number of each feature's prior group.
    sites : mapping of str to array-like of shape (chain, draw, ...)
        Draws by site name (``model.site_dims``): NumPy arrays, or anything that is sliced like them, such as
        Zarr arrays, which are read a few draws at a time.
    point : bool
        The draws are one point estimate: levels that training never saw are then at the mean of their group instead of
        being drawn from it, which a single draw would say nothing about.

    Raises
    ------
    ValueError
        If a site has another shape than the model says.
    """

    spec: ModelSpec
    groups: Int[np.ndarray, " p"]
    sites: Mapping[str, Any]
    point: bool = False

    def __post_init__(self) -> None:
        leads = {name: tuple(x.shape[:2]) for name, x in self.sites.items()}
        if len(set(leads.values())) != 1 or len(min(leads.values())) != 2 or 0 in min(leads.values()):
            raise ValueError(
                f"sites must have shape (chain, draw, ...), the same for all and not empty; got {leads}"
            )
        sizes = {"feature": len(self.groups), "factor": self.spec.predictor.rank}
        sizes |= self.spec.likelihood.sizes
        for name, dims in site_dims(self.spec).items():
            if name in self.sites:
                _check_shape(name, tuple(self.sites[name].shape[2:]), dims, sizes)

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(next(iter(self.sites.values())).shape[0])

    @property
    def draws_per_chain(self) -> int:
        """Draws of each chain."""
        return int(next(iter(self.sites.values())).shape[1])

    @property
    def num_draws(self) -> int:
        """Draws of all chains together."""
        return self.num_chains * self.draws_per_chain

    def require(self, names: Sequence[str]) -> None:
        """Raise ValueError unless these sites were kept."""
        missing = [name for name in names if name not in self.sites]
        if missing:
            raise ValueError(
                f"this prediction needs the site(s) {', '.join(missing)}, which were not kept: fit with "
                "keep='all'; where w and v would take too much memory, name the rows to be predicted before "
                "fitting, in predict_rows= of an estimator or streams= of gibbs"
            )


def _check_shape(name: str, shape: tuple[int, ...], dims: tuple[str, ...], sizes: dict[str, int]) -> None:
    wanted = [sizes.get(d) for d in dims]
    if len(shape) != len(dims) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True)):
        words = ", ".join(d if w is None else f"{d}={w}" for d, w in zip(dims, wanted, strict=True))
        raise ValueError(f"site {name!r} must have shape ({words}) behind (chain, draw), got {shape}")


class DrawArrays(NamedTuple):
    """Some draws on the device; ``share`` sums to one, and is zero for draws that only fill the piece up."""

    number: Int[Array, " D"]
    share: Float[Array, " D"]
    w0: Float[Array, "D *L"]
    w: Float[Array, "D *L q"]
    v: Float[Array, "D *L q k"]
    params: dict[str, Array]
    hyper_w: dict[str, Array]
    hyper_v: dict[str, Array]


class Window(NamedTuple):
    """Draws and rows that a result belongs to; ``share`` of all draws."""

    chain: int
    draws: slice
    rows: slice
    num_draws: int
    num_rows: int
    share: float


Summary = Callable[[Likelihood, Float[Array, "D *L R"], DrawArrays, dict[str, Array]], Any]
"""What is computed per piece, from eta and from arrays given per row."""


def per_draw[T](
    f: Callable[[Distribution], T],
    likelihood: Likelihood,
    eta: Float[Array, "D *L R"],
    params: dict[str, Array],
    rows: RowData,
) -> T:
    """A function of the distribution of y, for every draw; ``rows`` may hold more than the likelihood asks for."""
    own = {name: rows[name] for name in likelihood.row_data}
    return jax.vmap(lambda e, theta: f(likelihood.distribution(e, theta, own)))(eta, params)


class Components(NamedTuple):
    """The distributions that are mixed, with their weights."""

    eta: Float[Array, "*C D R"]
    params: dict[str, Array]
    share: Float[Array, "*C D"]
    rows: dict[str, Array]


def average(share: Float[Array, " D"], x: Float[Array, "D R"]) -> Float[Array, " R"]:
    """Weighted mean over draws."""
    return jnp.matmul(share, x, precision=lax.Precision.HIGHEST)


class Mixture:
    """Evaluates a fitted model at the rows of a design.

    On the device w0 and y are taken relative to ``shift``, which is zero where the likelihood allows no such
    thing: in float32 a response of 1e6 +- 1 would lose its digits.
    """

    def __init__(
        self,
        model: FittedModel,
        design: Design,
        row_data: Mapping[str, Any] | None = None,
        max_rows: int = MAX_ROWS,
    ) -> None:
        _check_design(model, design)
        spec, n = model.spec, design.num_rows
        outputs = math.prod(spec.likelihood.outputs)
        max_rows = max(1, max_rows // outputs)
        size = -(-n // -(-n // max_rows))
        self.model = model
        self.dtype = np.dtype(jnp.zeros(()).dtype)
        self.row_data = check_row_data(spec.likelihood, row_data, n)
        self._rows = {name: x.astype(self.dtype) for name, x in self.row_data.items()}
        self.pieces = [compact_rows(design, slice(i, min(i + size, n))) for i in range(0, n, size)]
        priors = {"w": spec.prior_w, "v": spec.prior_v} if spec.predictor.rank else {"w": spec.prior_w}
        unseen = any(len(piece.unseen["hash"]) for piece in self.pieces)
        self._hyper = {
            x: tuple(name for name in prior.hyper_names() if unseen and name not in prior.local_names)
            for x, prior in priors.items()
        }
        hyper = [f"{name}_{x}" for x, names in self._hyper.items() for name in names]
        intercept = () if spec.intercept is None else ("w0",)
        self._names = [*intercept, *spec.likelihood.dims, *hyper, *priors]
        model.require(self._names)
        self.shift = 0.0
        if intercept:
            self.shift = spec.likelihood.centre(np.asarray(model.sites["w0"], np.float64).ravel(), None)
        widest = max(piece.design.num_features for piece in self.pieces) * spec.predictor.width * outputs
        most = int(np.clip(PIECE_BYTES // (widest * self.dtype.itemsize), 1, MAX_DRAWS))
        count = -(-model.draws_per_chain // most)
        per_piece = -(-model.draws_per_chain // count)
        self._size = -(-per_piece // LANES) * LANES if per_piece > LANES else per_piece

    def run(
        self,
        summary: Summary,
        rows: Mapping[str, np.ndarray] | None = None,
        pieces: Sequence[Piece] | None = None,
        shared: Mapping[str, np.ndarray] | None = None,
    ) -> Iterator[tuple[Window, Any]]:
        """The summary of every piece of draws and rows; every draw is read once.

        ``rows`` holds arrays of one entry per row, ``shared`` what is the same for all of them; arrays
        of the result still have the padding of the piece.
        """
        rows = {**self._rows, **(rows or {})}
        for chain in range(self.model.num_chains):
            for first in range(0, self.model.draws_per_chain, self._size):
                draws = slice(first, min(first + self._size, self.model.draws_per_chain))
                sites = {name: np.asarray(self.model.sites[name][chain, draws]) for name in self._names}
                count = draws.stop - draws.start
                for piece in pieces or self.pieces:
                    own = {
                        name: padded(x[piece.rows], piece.design.num_rows, name in self._rows)
                        for name, x in rows.items()
                    }
                    own |= shared or {}
                    arrays = self._arrays(chain, draws, sites, piece.features)
                    out = _evaluate(
                        summary,
                        self.model.spec,
                        piece.design,
                        piece.unseen,
                        arrays,
                        own,
                        point=self.model.point,
                    )
                    share = count / self.model.num_draws
                    yield Window(chain, draws, piece.rows, count, piece.num_rows, share), out

    def collect(
        self, summary: Summary, dtype: Any, rows: Mapping[str, np.ndarray] | None = None
    ) -> Float[np.ndarray, "chain draw n"]:
        """All values of a summary that has one value per draw and row."""
        n = self.pieces[-1].rows.stop
        out = np.empty((self.model.num_chains, self.model.draws_per_chain, n), dtype)
        for at, values in self.run(summary, rows):
            out[at.chain, at.draws, at.rows] = np.asarray(values)[: at.num_draws, : at.num_rows]
        return out

    def _arrays(
        self, chain: int, draws: slice, sites: dict[str, np.ndarray], features: np.ndarray | None
    ) -> DrawArrays:
        """Draws of the kept features, the last one repeated to fill the piece up."""
        count = draws.stop - draws.start
        filled = np.minimum(np.arange(self._size), count - 1)

        def take(name: str) -> Array:
            x = sites[name]
            if name in ("w", "v") and features is not None:
                x = np.take(x, features, axis={"w": -1, "v": -2}[name])
            x = x if count == self._size else x[filled]
            return jnp.asarray(x - self.shift if name == "w0" else x, self.dtype)

        hyper = {x: {name: take(f"{name}_{x}") for name in names} for x, names in self._hyper.items()}
        w = take("w")
        return DrawArrays(
            number=jnp.asarray(chain * self.model.draws_per_chain + draws.start + filled, jnp.uint32),
            share=jnp.asarray((np.arange(self._size) < count) / count, self.dtype),
            w0=take("w0") if "w0" in sites else jnp.zeros(w.shape[:-1], self.dtype),
            w=w,
            v=take("v") if "v" in sites else jnp.zeros((*w.shape, 0), self.dtype),
            params={name: take(name) for name in self.model.spec.likelihood.dims},
            hyper_w=hyper["w"],
            hyper_v=hyper.get("v", {}),
        )


@partial(jax.jit, static_argnames=("summary", "point"))
def _evaluate(
    summary: Summary,
    spec: ModelSpec,
    design: DesignArrays,
    unseen: dict[str, Array],
    draws: DrawArrays,
    rows: dict[str, Array],
    *,
    point: bool,
) -> Any:
    of_unseen = _mean_theta if point else _unseen_theta

    def eta(draw: DrawArrays, *output: Int[Array, ""]) -> Float[Array, " R"]:
        theta = spec.predictor.join(draw.w, draw.v)
        if unseen["hash"].shape[0]:
            theta = jnp.concatenate([theta, of_unseen(spec, unseen, draw, *output)], axis=1)
        return draw.w0 + design.row_effect(spec.predictor, theta)

    lanes = LANES if all(block.table is None for block in design.blocks) else None
    if not spec.likelihood.outputs:
        return summary(spec.likelihood, lax.map(eta, draws, batch_size=lanes), draws, rows)
    one_by_one = lax.map(
        lambda own: eta(*own), _side_by_side(draws, *spec.likelihood.outputs), batch_size=lanes
    )
    etas = one_by_one.reshape(*draws.w0.shape, -1)
    return summary(spec.likelihood, etas, draws, rows)


def _side_by_side(draws: DrawArrays, outputs: int) -> tuple[DrawArrays, Int[Array, " DL"]]:
    """Linear predictors of all draws as if they were so many draws more, and which of a draw's each of them is."""
    size = draws.number.shape[0]
    w0, w, v, hyper_w, hyper_v = jax.tree.map(
        lambda x: x.reshape(size * outputs, *x.shape[2:]),
        (draws.w0, draws.w, draws.v, draws.hyper_w, draws.hyper_v),
    )
    number, share = jnp.repeat(draws.number, outputs), jnp.repeat(draws.share, outputs)
    return DrawArrays(number, share, w0, w, v, {}, hyper_w, hyper_v), jnp.tile(jnp.arange(outputs), size)


def _unseen_theta(
    spec: ModelSpec, unseen: dict[str, Array], draw: DrawArrays, *output: Int[Array, ""]
) -> Float[Array, "K u"]:
    """Theta of levels without a feature, from the prior of their group.

    The key of a level depends on its block, its hash, the number of the draw and, of several linear predictors, which
    one it is: all requests agree.
    """
    base = jax.random.key(UNSEEN_SEED, impl="threefry2x32")

    def one(block: Array, group: Array, level: Array) -> Float[Array, " K"]:
        key = base
        for number in (block, draw.number, level, *output):
            key = jax.random.fold_in(key, number)
        own_w = spec.prior_w.of_groups(draw.hyper_w, group, ())
        w = spec.prior_w.sample_new(jax.random.fold_in(key, 0), own_w, ())
        if not (k := spec.predictor.rank):
            return w[None]
        own_v = spec.prior_v.of_groups(draw.hyper_v, group, (k,))
        v = spec.prior_v.sample_new(jax.random.fold_in(key, 1), own_v, (k,))
        return jnp.concatenate([w[None], v])

    return jax.vmap(one, out_axes=1)(unseen["block"], unseen["group"], unseen["hash"])


def _mean_theta(
    spec: ModelSpec, unseen: dict[str, Array], draw: DrawArrays, *output: Int[Array, ""]
) -> Float[Array, "K u"]:
    """Theta of levels without a feature, at the mean of their group."""
    group, k = unseen["group"], spec.predictor.rank
    w = spec.prior_w.mean_new(spec.prior_w.of_groups(draw.hyper_w, group, ()), group.shape)
    if not k:
        return spec.predictor.join(w, w[:, None][:, :0])
    own_v = spec.prior_v.of_groups(draw.hyper_v, group, (k,))
    return spec.predictor.join(w, spec.prior_v.mean_new(own_v, (*group.shape, k)))


def _check_design(model: FittedModel, design: Design) -> None:
    if not isinstance(design, Design):
        raise TypeError(f"design must be a Design, got {type(design).__name__}: encode the table first")
    if design.num_features != len(model.groups):
        raise ValueError(
            f"the design has {design.num_features} features, the fitted model {len(model.groups)}: encode "
            "the rows with the encoder of the fit"
        )
    if not np.array_equal(design.groups, model.groups):
        raise ValueError("the prior groups of the design's features are not those of the fitted model")
