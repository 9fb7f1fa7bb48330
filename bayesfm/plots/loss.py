"""How an ascent went: the loss, and how held-out rows were predicted meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesfm.plots.style import COLOURS, GREY, draw_on, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_loss"]

LOSSES = {"objective": "minus log posterior density", "elbo": "minus evidence lower bound"}
STEEP = 20.0
"""Early losses are cut off where the later ones take less than one part in so many of the axis."""


def plot_loss(model: Any, *, ax: Axes | None = None) -> Figure:
    """Loss by iteration or epoch, and minus the mean log density of held-out rows if there are any.

    The circle is where held-out rows were predicted best. A first few losses far above the others are cut off.

    Parameters
    ----------
    model : estimator
        Fitted with ``inference`` "map", "laplace", "cavi", "stochastic_map" or "svi".
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure. Held-out rows have their own scale on the right.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If it is no fitted estimator.
    ValueError
        If its engine draws from the posterior, which has no loss, or did not record one.
    """
    loss = _history(model)
    return draw_on(ax, (5.6, 3.4), lambda ax: _draw(ax, model.fit_info_, loss))


def _history(model: Any) -> np.ndarray:
    info = getattr(model, "fit_info_", None)
    if not isinstance(info, dict):
        raise TypeError(f"model must be a fitted estimator, which has fit_info_; got {type(model).__name__}")
    engine = info.get("engine", "this engine")
    if engine in ("gibbs", "nuts"):
        raise ValueError(
            f"{engine} draws from the posterior and has no loss: use plot_trace(model.posterior_)"
        )
    loss = getattr(model, "loss_history_", None)
    if loss is None or len(loss) == 0:
        raise ValueError(
            f"no loss was recorded by {engine}: there is no loss_history_ (chunks of partial_fit have none)"
        )
    return np.asarray(loss, np.float64)


def _draw(ax: Axes, info: dict[str, Any], loss: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = info.get("history", {}).get("epoch")
    steps = np.arange(len(loss)) if epochs is None else np.asarray(epochs)
    name = next((text for key, text in LOSSES.items() if key in info), "loss")
    ax.plot(steps, loss, color=COLOURS[0], lw=1.4, marker="." if len(loss) < 30 else None)
    ax.set(xlabel="iteration" if epochs is None else "epoch")
    ax.set_ylabel(name, color=COLOURS[0])
    ax.set_title(f"Loss of {info.get('engine', 'the ascent')!r}", loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.ticklabel_format(axis="y", useOffset=False)
    first = _first_shown(loss)
    if first:
        _cut(ax, loss[first:])
        remark(ax, f"cut off: the first {first}, up to {np.max(loss[:first]):,.4g}")
    at, score = _held_out(info, steps)
    if len(at):
        _second_scale(ax, at, -score)


def _first_shown(loss: np.ndarray) -> int:
    """The first loss that is nearly at the bottom, if it comes early: with those before it, the others were a line."""
    first = int(np.argmax(loss - loss.min() <= np.ptp(loss) / STEEP))
    return first if first <= len(loss) // 4 else 0


def _cut(ax: Axes, shown: np.ndarray) -> None:
    room = 0.08 * np.ptp(shown)
    ax.set_ylim(shown.min() - room, shown.max() + 3 * room)


def _held_out(info: dict[str, Any], steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where held-out rows were looked at, and their mean log density."""
    by_epoch = info.get("history", {}).get("held_out_log_density")
    if by_epoch:
        return steps[: len(by_epoch)], np.asarray(by_epoch, np.float64)
    looks = {int(step): score for step, score in (info.get("validation") or {}).items()}
    at = np.array(sorted(looks), dtype=np.int64)
    return at, np.array([looks[i] for i in at.tolist()], np.float64)


def _second_scale(ax: Axes, at: np.ndarray, score: np.ndarray) -> None:
    right = ax.twinx()
    right.plot(at, score, color=COLOURS[1], lw=1.2, marker=".", ms=4)
    best = int(np.nanargmin(score))
    right.plot(at[best], score[best], "o", mfc="none", mec=COLOURS[1], ms=9)
    right.set_ylabel("held out: minus mean log density", color=COLOURS[1])
    right.ticklabel_format(axis="y", useOffset=False)
    right.spines["right"].set(visible=True, edgecolor=GREY)
