"""Whether draws will fit into memory: asked before the first of them is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["check_room"]

MEMINFO = Path("/proc/meminfo")


def check_room(lead: Sequence[int], sites: Mapping[str, tuple[Sequence[int], np.dtype]]) -> None:
    """Raise MemoryError if draws of these shapes need more memory than is free; where that is not known, do nothing.

    Parameters
    ----------
    lead : sequence of int
        Chains and draws of each.
    sites : mapping of (shape, dtype)
        Of one draw of every site.

    Examples
    --------
    >>> check_room((1, 500), {"w": ((1000,), np.dtype("float32"))})
    """
    free = _free_bytes()
    needed = {
        name: np.prod([*lead, *shape], dtype=float) * dtype.itemsize for name, (shape, dtype) in sites.items()
    }
    total = sum(needed.values())
    if free is None or total <= free:
        return
    largest = max(needed, key=lambda name: needed[name])
    draws, most = " x ".join(map(str, lead)), needed[largest]
    raise MemoryError(
        f"{draws} draws take {total / 1e9:.1f} GB ({largest!r} alone {most / 1e9:.1f} GB), and {free / 1e9:.1f} GB are "
        "free: lower num_samples, let keep= name fewer sites (keep='hyper' leaves out single features), or, for "
        "chains, raise thin (lower max_draws, where num_samples is 'auto') or let draws stay in a folder "
        "(checkpoint=..., draws_on_disk=True)"
    )


def _free_bytes() -> float | None:
    """What can be taken without swapping, as Linux says; None elsewhere."""
    if not MEMINFO.exists():
        return None
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    return None
