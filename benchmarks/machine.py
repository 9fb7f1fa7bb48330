"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

__all__ = ["describe", "peak_memory_gb", "table"]


def describe(*packages: str) -> str:
    """Processor, cores, operating system, versions: one line for a table's caption."""
    import jax

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":", 1)[1].strip() if lines else cpu
        vector = "AVX-512" if "avx512f" in info.read_text() else "no AVX-512"
        cpu = f"{cpu} ({vector})"
    versions = ", ".join(f"{p} {version(p)}" for p in ("jax", "jaxlib", *packages))
    device = jax.devices()[0].device_kind
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{cpu}, {os.cpu_count()} cores, device {device}, {system}, {versions}"


def peak_memory_gb() -> float:
    """Largest resident set of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""

    def cell(x: object) -> str:
        return f"{x:.4g}" if isinstance(x, float) else str(x)

    lines = [header, ["---"] * len(header), *[[cell(x) for x in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
