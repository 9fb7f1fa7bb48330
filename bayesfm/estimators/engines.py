"""What ``inference=`` of an estimator may name, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
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
from bayesfm.inference.options import OF_AUTO
from bayesfm.inference.problem import kept_sites
from bayesfm.inference.stochastic import Learner, MinibatchOptions
from bayesfm.inference.stochastic.run import learn
from bayesfm.inference.vi.run import cavi
from bayesfm.model import ModelSpec

if TYPE_CHECKING:
    from bayesfm.estimators.base import FactorizationMachine
    from bayesfm.estimators.inputs import Rows

__all__ = ["ENGINES", "POINTS", "STOCHASTIC", "check_engine", "independent_draws", "new_learner"]

ASCENT = ("max_iterations", "tolerance", "patience")
MODE = (*ASCENT, "optimiser", "scales", "scale_iterations", "shrinkage", "start", "validation")
EPOCHS = tuple(f.name for f in fields(MinibatchOptions) if f.name not in ("progress", "callback"))
ENGINE_OPTIONS: dict[str, tuple[str, ...]] = {
    "gibbs": (),
    "nuts": ("start", "warm_sweeps", "parametrization", "target_accept", "max_tree_depth"),
    "map": MODE,
    "laplace": (*MODE, "sample_scales"),
    "cavi": (*ASCENT, "scales", "start", "validation"),
    "stochastic_map": (*EPOCHS, "scales", "scale_epochs", "start", "validation"),
    "svi": (*EPOCHS, "scales", "update_scales", "expectation", "statistics", "start", "validation"),
}
"""What ``engine_options`` may name."""

STOCHASTIC = {"stochastic_map": "point", "svi": "auto"}
"""Engines that learn in steps, and what they take for the expected log-likelihood."""

POINTS = ("map", "laplace", "cavi", *STOCHASTIC)
"""Engines that start at one point."""

CHAINS = (
    "num_warmup",
    "num_chains",
    "thin",
    "chain_method",
    "checkpoint",
    "resume",
    "draws_on_disk",
    *OF_AUTO,
)
SWEEPS = ("factor_block", "kernels")
INDEPENDENT_DRAWS = 500
NOT_FOR: dict[str, tuple[str, ...]] = {
    "gibbs": (),
    "nuts": SWEEPS,
    "map": ("num_samples", *CHAINS, *SWEEPS),
    "laplace": (*CHAINS, *SWEEPS),
    "cavi": (*CHAINS, *SWEEPS),
    "stochastic_map": ("num_samples", *CHAINS, *SWEEPS, "predict_rows"),
    "svi": (*CHAINS, *SWEEPS, "predict_rows"),
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
            if parameter == "predict_rows":
                raise ValueError(
                    f"predict_rows is for engines that gather moments on their way, which inference={name!r} does not: "
                    "leave it out, and predict after the fit"
                )
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
    return nuts(key, spec, design, y, keep=estimator.keep, **{**data, **(estimator.engine_options or {})})


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
        settings: dict[str, Any] = {**data, **(estimator.engine_options or {})}
        of_ascent: dict[str, Any] = {name: settings.pop(name) for name in ASCENT if name in settings}
        of_ascent |= {"progress": options.progress, "callback": options.callback}
        ascent = AscentOptions(**of_ascent)
        if engine is not find_map:
            settings["num_samples"] = independent_draws(estimator.num_samples)
        settings["validation"] = held_out
        return engine(key, spec, design, y, keep=estimator.keep, options=ascent, **settings)

    return run


def independent_draws(num_samples: int | str) -> int:
    """Draws from an approximation: independent, so that there is nothing for "auto" to find out."""
    return INDEPENDENT_DRAWS if isinstance(num_samples, str) else num_samples


STATISTICS_ROWS = 1 << 24
"""Rows times draws up to which ``svi`` looks at the training rows again for every draw, unless told to."""


def _minibatches(
    estimator: FactorizationMachine,
    key: Key[Array, ""],
    spec: ModelSpec,
    design: Design,
    y: Float[np.ndarray, " n"],
    options: ChainOptions,
    held_out: tuple[Any, ...] | None = None,
    streams: Mapping[str, Design] | None = None,
    stream_row_data: Mapping[str, Any] | None = None,
    **data: Any,
) -> Draws:
    """An engine of steps; its learner stays with the estimator, to go on."""
    assert not streams
    settings: dict[str, Any] = {**data, **(estimator.engine_options or {}), "validation": None}
    kept, num_samples = kept_sites(estimator.keep, spec), independent_draws(estimator.num_samples)
    point = estimator.inference == "stochastic_map"
    if point:
        num_samples = 1
    else:
        settings.setdefault("update_scales", True)
    statistics = settings.pop("statistics", len(y) * num_samples <= STATISTICS_ROWS)
    learned = learn(key, spec, design, y, **_learner_options(estimator, settings), held_out=held_out)
    draws = learned.draws(num_samples, kept, statistics)
    estimator._learner = learned.learner
    return draws


def _learner_options(estimator: FactorizationMachine, settings: dict[str, Any]) -> dict[str, Any]:
    """Engine options sorted into those of epochs and the rest."""
    of_epochs: dict[str, Any] = {name: settings.pop(name) for name in EPOCHS if name in settings}
    options = MinibatchOptions(**of_epochs, progress=estimator.progress, callback=estimator.callback)  # type: ignore[arg-type]
    settings.pop("validation", None)
    expectation = settings.pop("expectation", STOCHASTIC[estimator.inference])
    return {**settings, "options": options, "expectation": expectation}


def new_learner(
    estimator: FactorizationMachine,
    key: Key[Array, ""],
    spec: ModelSpec,
    rows: Rows,
    start: Mapping[str, Any] | None,
) -> Learner:
    """A learner that has seen nothing, for rows that come in chunks."""
    settings = {"start": start, **(estimator.engine_options or {})}
    if settings.get("scales") == "prior":
        settings["scales"] = None
    wrong = [
        name
        for name in ("validation", "update_scales", "statistics", "scale_epochs")
        if settings.pop(name, None)
    ]
    wrong += ["scales='estimate'"] if isinstance(settings.get("scales"), str) else []
    if wrong:
        raise ValueError(
            f"engine_options {', '.join(wrong)} are for fit, which sees all rows; partial_fit has no use for them"
        )
    design, y, weight, row_data = rows
    own = _learner_options(estimator, settings)
    return Learner(key, spec, design, y, weight=weight, row_data=row_data, **own)


ENGINES: dict[str, Callable[..., Draws]] = {
    "gibbs": _gibbs,
    "nuts": _nuts,
    "map": _climber(find_map),
    "laplace": _climber(laplace),
    "cavi": _climber(cavi),
    "stochastic_map": _minibatches,
    "svi": _minibatches,
}
"""Functions of (estimator, key, spec, design, y) and the keywords weight, row_data, options, streams and
stream_row_data."""
