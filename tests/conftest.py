"""Settings that hold for every test. They come before JAX, NumPy and bayesfm are imported."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings


def _set_up_jax() -> None:
    """CPU unless the caller names another platform, and one thread per process.

    The workers of pytest-xdist are the parallelism, and how a sum is cut up then does not depend on the
    number of cores.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def _set_up_type_checks() -> None:
    """Check every annotation of bayesfm at run time, array shapes among them, if BAYESFM_TYPECHECK is 1."""
    choice = os.environ.get("BAYESFM_TYPECHECK", "0")
    if choice not in ("0", "1"):
        raise pytest.UsageError(f"BAYESFM_TYPECHECK must be 0 or 1, got {choice!r}")
    if choice == "1":
        from jaxtyping import install_import_hook

        import tests.typecheck  # noqa: F401  the hook looks the checker up by its name

        install_import_hook("bayesfm", "tests.typecheck.arrays")


_set_up_jax()
_set_up_type_checks()

import jax  # noqa: E402  after the settings

LITTLE_OPTIMISATION = "jax_disable_most_optimizations"
# Most programs of the tests run once, and compiling them is most of the work. Not by the environment variable, which
# would reach the processes that tests start; set it to 0 and all programs are optimised.
if LITTLE_OPTIMISATION.upper() not in os.environ:
    jax.config.update(LITTLE_OPTIMISATION, True)

# Compiling makes objects by the million that stay: without this, looking for cycles among them takes some percent.
gc.set_threshold(200_000, 20, 100)

# The same examples in every run, and no check that depends on the speed of the machine.
settings.register_profile(
    "bayesfm", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bayesfm")


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def bounded_memory_maps() -> Iterator[None]:
    """Forget compiled functions between modules once there are many.

    Each takes some memory maps, of which Linux allows a process 65,530; past that XLA dies without a word.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def data_home() -> Path:
    """Directory of the data files that may not be shipped; skips where there is none."""
    named = os.environ.get("BAYESFM_DATA_HOME")
    if named:
        if not Path(named).is_dir():
            pytest.fail(f"BAYESFM_DATA_HOME={named} is not a directory")
        return Path(named)
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not beside.is_dir():
        pytest.skip("no data files: set BAYESFM_DATA_HOME to the directory that holds them")
    return beside


@pytest.fixture(scope="session")
def data_file(data_home: Path) -> Callable[[str], Path]:
    """Path of one data file; skips if the data directory lacks it."""

    def find(name: str) -> Path:
        path = data_home / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {data_home}; BAYESFM_DATA_HOME can name another directory")
        return path

    return find


@pytest.fixture(params=("baseline", "avx2", "avx512"))
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels of every instruction set that the machine has, one after the other."""
    from bayesfm import native

    library = native.library.load()
    assert library is not None
    best = library.bayesfm_isa()
    if library.bayesfm_set_isa(native.ISAS.index(request.param)) < 0:
        pytest.skip(f"this machine has no {request.param}")
    assert native.isa() == request.param
    yield request.param
    library.bayesfm_set_isa(best)


@pytest.fixture(scope="module")
def full_optimisation() -> Iterator[None]:
    """Programs as users run them, for the modules that name this fixture; the others' run once, and compile faster.

    Compiled functions are forgotten before and after: they round differently, and JAX does not tell them apart.
    """
    before = jax.config.read(LITTLE_OPTIMISATION)
    jax.clear_caches()
    jax.config.update(LITTLE_OPTIMISATION, False)
    yield
    jax.config.update(LITTLE_OPTIMISATION, before)
    jax.clear_caches()
