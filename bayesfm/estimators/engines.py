"""What ``inference=`` of an estimator may name, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float, Key

from bayesfm.design import Design
from bayesfm.inference.ascent import AscentOptions
from bayesfm.inference.chains import ChainOptions
from bayesfm.inference.draws import Draws
from bayesfm.inference.engines import nuts
from bayesfm.inference.gibbs.run import gibbs
from bayesfm.inference.modes import find_map, laplace
from bayesfm.inference.vi.run import cavi
from bayesfm.model import ModelSpec

if TYPE_CHECKING:
    from bayesfm.estimators.base import FactorizationMachine

__all__ = ["ENGINES", "check_engine"]

ASCENT = ("max_iterations", "tolerance", "patience")
MODE = (*ASCENT, "optimiser", "scales", "shrinkage", "start", "validation")
ENGINE_OPTIONS: dict[str, tuple[str, ...]] = {
    "gibbs": (),
    "nuts": ("start", "warm_sweeps", "parametrization", "target_accept", "max_tree_depth"),
    "map": MODE,
    "laplace": (*MODE, "sample_scales"),
    "cavi": (*ASCENT, "scales", "validation"),
}
"""What ``engine_options`` may name."""

CHAINS = ("num_warmup", "num_chains", "thin", "chain_method", "checkpoint", "resume", "draws_on_disk")
SWEEPS = ("factor_block", "kernels")
NOT_FOR: dict[str, tuple[str, ...]] = {
    "gibbs": (),
    "nuts": SWEEPS,
    "map": ("num_samples", *CHAINS, *SWEEPS),
    "laplace": (*CHAINS, *SWEEPS),
    "cavi": (*CHAINS, *SWEEPS),
}
"""Parameters of the estimator that mean nothing to an engine, and have to stay at their defaults."""


def check_engine(estimator: FactorizationMachine, defaults: Mapping[str, Any]) -> None:
    """Raise for an engine, or options of one, that do not exist, and for parameters that it has no use for."""
    name, options = estimator.inference, estimator.engine_options
    if not isinstance(options, Mapping | None):
        raise TypeError(f"engine_options must map names to values or be None, got {options!r}")
    known = ENGINE_OPTIONS[name]
    unknown = sorted(set(options or ()) - set(known))
    if unknown:
        raise ValueError(
            f"engine_options names unknown option(s) {', '.join(unknown)} of inference={name!r}; known: "
            f"{', '.join(known) or 'none'}"
        )
    for parameter in NOT_FOR[name]:
        given, default = getattr(estimator, parameter), defaults[parameter]
        if given is not default and given != default:
            what = "Gibbs sweeps" if parameter in SWEEPS else "chains"
            raise ValueError(
                f"{parameter}={given!r} is an option of {what}, which inference={name!r} does not have: leave it "
                f"at {default!r}"
            )


def _gibbs(
    estimator: FactorizationMachine,
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    **data: Any,
) -> Draws:
    names = ("factor_block", "kernels", "keep")
    return gibbs(key, spec, design, y, **{name: getattr(estimator, name) for name in names}, **data)


def _nuts(
    estimator: FactorizationMachine,
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    **data: Any,
) -> Draws:
    return nuts(key, spec, design, y, keep=estimator.keep, **(estimator.engine_options or {}), **data)


def _climber(engine: Callable[..., Draws]) -> Callable[..., Draws]:
    """An engine without chains: its options, and held-out rows if it is to have any."""

    def run(
        estimator: FactorizationMachine,
        key: Key[Array, ""],
        spec: ModelSpec,
        design: Design,
        y: Float[np.ndarray, " n"],
        options: ChainOptions,
        held_out: tuple[Any, ...] | None = None,
        **data: Any,
    ) -> Draws:
        settings: dict[str, Any] = dict(estimator.engine_options or {})
        of_ascent: dict[str, Any] = {name: settings.pop(name) for name in ASCENT if name in settings}
        of_ascent |= {"progress": options.progress, "callback": options.callback}
        ascent = AscentOptions(**of_ascent)
        if engine is not find_map:
            settings["num_samples"] = estimator.num_samples
        settings["validation"] = held_out
        return engine(key, spec, design, y, keep=estimator.keep, options=ascent, **settings, **data)

    return run


ENGINES: dict[str, Callable[..., Draws]] = {
    "gibbs": _gibbs,
    "nuts": _nuts,
    "map": _climber(find_map),
    "laplace": _climber(laplace),
    "cavi": _climber(cavi),
}
"""Functions of (estimator, key, spec, design, y) and the keywords weight, row_data, options, streams and
stream_row_data."""
