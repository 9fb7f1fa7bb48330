"""The progress bar of a run."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np
from tqdm.auto import tqdm

from bayesfm.inference.convergence import Judgement

__all__ = ["ProgressBar"]


class ProgressBar:
    """A tqdm bar over sweeps (or what else is done), with sweeps per second and the training error of the last."""

    def __init__(self, show: bool, num_sweeps: int, done: int, unit: str = "sweep") -> None:
        self._bar = tqdm(total=num_sweeps, initial=done, disable=not show, unit=unit, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(
        self,
        done: int,
        warming_up: bool,
        rate: float,
        stats: dict[str, np.ndarray],
        judged: Judgement | None = None,
    ) -> None:
        """Show the state after ``done`` sweeps, and how far from the end a run finds itself that looks at its draws."""
        shown = {"sweeps/s": f"{rate:.0f}"}
        if "train_rmse" in stats:
            shown["train rmse"] = f"{float(np.mean(stats['train_rmse'])):.4f}"
        if judged is not None:
            shown |= {"worst R-hat": f"{judged.worst_rhat:.3f}", "smallest ESS": f"{judged.smallest_ess:.0f}"}
        self.show(done, "warm-up" if warming_up else "sampling", shown)

    def show(self, done: int, description: str, shown: Mapping[str, str]) -> None:
        """Show a state in words and numbers."""
        self._bar.set_description(description, refresh=False)
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
