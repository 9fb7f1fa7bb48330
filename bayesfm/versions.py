"""Versions of everything that matters for a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["show_versions"]

PACKAGES = (
    "bayesfm-jax",
    "jax",
    "jaxlib",
    "numpyro",
    "arviz-base",
    "arviz-stats",
    "numpy",
    "scipy",
    "scikit-learn",
    "xarray",
    "narwhals",
)


def show_versions() -> None:
    """Print versions of Python, the packages in use and the devices that JAX sees.

    Examples
    --------
    >>> import bayesfm
    >>> bayesfm.show_versions()  # doctest: +SKIP
    """
    import jax

    from bayesfm import native

    print(f"python        {platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{name:13} {found}")
    try:
        kernels = native.isa() or "not built: the sampler runs on XLA"
    except ImportError as error:
        kernels = str(error)
    print(f"kernels       {kernels}")
    print(f"devices       {', '.join(str(d) for d in jax.devices())}")
