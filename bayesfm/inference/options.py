"""How a run of chains is to go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesfm._checks import check_choice, check_count, check_positive
from bayesfm.inference.convergence import MIN_DRAWS, wanted_ess

if TYPE_CHECKING:
    from bayesfm.inference.chains import Progress

__all__ = ["AUTO", "ChainOptions"]

AUTO = "auto"
CHAIN_METHODS = ("auto", "sequential", "vectorized", "parallel")
USUAL_DRAWS = 1000
OF_AUTO = ("target_ess", "max_sweeps", "max_seconds", "max_draws")
"""Options that say when a run is done that finds out for itself."""


@dataclass(frozen=True)
class ChainOptions:
    """How many sweeps, and how they are run.

    Parameters
    ----------
    num_warmup, num_samples, thin, num_chains : int
        Sweeps thrown away; draws kept per chain; sweeps per draw; chains. With ``num_samples="auto"`` a run goes on
        until it is done, and then ``num_warmup`` is the least that is thrown away: the chains begin anew, which is to
        say that all sweeps so far are warm-up, each time the number of sweeps has doubled and R-hat of any identified
        quantity is above 1.05.
    chain_method : {"auto", "sequential", "vectorized", "parallel"}
        One after the other; batched by vmap; spread over the devices that JAX sees. "auto" takes parallel where there
        are as many devices as chains, else sequential on a CPU and vectorized elsewhere. Draws are bit-identical for
        the same method, device and versions.
    progress : bool
        Show a bar.
    callback : callable, optional
        Called with a :class:`~bayesfm.inference.chains.Progress` after every piece; a true answer stops the run,
        keeping the draws so far.
    checkpoint : path, optional
        Folder for the state and, as a Zarr group, the draws; written after every piece.
    resume : bool
        Go on from ``checkpoint`` as if never interrupted.
    draws_on_disk : bool
        Leave draws in the checkpoint's Zarr group instead of in memory.
    target_ess : float
        For ``num_samples="auto"``: done is a run in which every identified quantity has R-hat up to 1.01, and bulk and
        tail effective sample sizes of so many over all chains, and of 100 per chain at least.
    max_sweeps : int
        For ``num_samples="auto"``: sweeps per chain, warm-up included, at which the run ends even so.
    max_seconds : float, optional
        For ``num_samples="auto"``: time after which it ends even so, at the next look of the host at which there are 8
        draws per chain. Counted anew when a run is resumed.
    max_draws : int, optional
        For ``num_samples="auto"``: draws kept per chain, at most. Whenever there are more, every other is dropped, and
        from then on half as many are kept. By default 1000, or four for every effective draw that is asked for.

    Raises
    ------
    ValueError, TypeError
        Naming the option, what was expected and what came.

    Examples
    --------
    >>> from bayesfm import ChainOptions
    >>> ChainOptions(num_samples="auto", target_ess=1000, max_seconds=600).auto
    True
    """

    num_warmup: int = 200
    num_samples: int | str = 500
    thin: int = 1
    num_chains: int = 2
    chain_method: str = "auto"
    progress: bool = True
    callback: Callable[[Progress], Any] | None = None
    checkpoint: str | Path | None = None
    resume: bool = False
    draws_on_disk: bool = False
    target_ess: float = 400
    max_sweeps: int = 20_000
    max_seconds: float | None = None
    max_draws: int | None = None

    def __post_init__(self) -> None:
        check_count("num_warmup", self.num_warmup)
        if isinstance(self.num_samples, str):
            if self.num_samples != AUTO:
                raise ValueError(f"num_samples must be an integer >= 1 or 'auto', got {self.num_samples!r}")
        else:
            check_count("num_samples", self.num_samples, minimum=1)
        for name in ("thin", "num_chains"):
            check_count(name, getattr(self, name), minimum=1)
        check_choice("chain_method", self.chain_method, CHAIN_METHODS)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {self.callback!r}")
        for name in ("resume", "draws_on_disk"):
            if getattr(self, name) and self.checkpoint is None:
                raise ValueError(f"{name}=True needs checkpoint=, the folder that holds the run")
        self._check_auto()

    def _check_auto(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        given = [name for name in OF_AUTO if getattr(self, name) != defaults[name]]
        if not self.auto and given:
            raise ValueError(
                f"{given[0]}={getattr(self, given[0])!r} is for num_samples='auto', a run that goes on until it is "
                f"done; got num_samples={self.num_samples!r}"
            )
        check_positive("target_ess", self.target_ess)
        if self.max_seconds is not None:
            check_positive("max_seconds", self.max_seconds)
        check_count("max_sweeps", self.max_sweeps, minimum=1)
        if self.max_draws is not None:
            check_count("max_draws", self.max_draws, minimum=2)
        if not self.auto:
            return
        least = self.num_warmup + MIN_DRAWS * self.thin
        if self.max_sweeps < least:
            raise ValueError(
                f"max_sweeps must leave {MIN_DRAWS} draws after num_warmup={self.num_warmup}, {least} sweeps at "
                f"thin={self.thin}; got {self.max_sweeps}"
            )
        few = 2 * math.ceil(
            self.wanted_ess / self.num_chains
        )  # half of them are left once every other was dropped
        if self.capacity < few:
            raise ValueError(
                f"max_draws={self.max_draws} is too few for {self.wanted_ess:g} effective draws in {self.num_chains} "
                f"chain(s): at least {few}, and better twice as many"
            )

    @property
    def auto(self) -> bool:
        """Whether the run finds out for itself when it is done."""
        return self.num_samples == AUTO

    @property
    def num_sweeps(self) -> int:
        """Sweeps per chain, warm-up included; the most there may be, if the run finds out for itself."""
        if isinstance(self.num_samples, str):
            return self.max_sweeps
        return self.num_warmup + self.num_samples * self.thin

    @property
    def wanted_ess(self) -> float:
        """Effective draws over all chains that a run has to have which finds out for itself when it is done."""
        return wanted_ess(self.num_chains, self.target_ess)

    @property
    def capacity(self) -> int:
        """Draws per chain that there has to be room for; an even number, where every other may be dropped."""
        if not isinstance(self.num_samples, str):
            return self.num_samples
        most = self.max_draws or max(USUAL_DRAWS, math.ceil(4 * self.wanted_ess / self.num_chains))
        return most - most % 2

    def identity(self, method: str) -> dict[str, Any]:
        """What must not differ between a run and its resumption. A limit in seconds leaves no trace but the end."""
        names = ["num_warmup", "num_samples", "thin", "num_chains"]
        names += ["target_ess", "max_sweeps", "capacity"] if self.auto else []
        return {**{name: getattr(self, name) for name in names}, "chain_method": method}
