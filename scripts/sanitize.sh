#!/bin/sh
# Build the kernels with the address and undefined-behaviour sanitizers, apart from the installed ones, and run their tests.
#
# usage: sanitize.sh [ARGUMENTS OF PYTEST]    CXX names the compiler; cmake, ninja and python come from PATH
#
# The runtimes are loaded before everything else, so that they watch the memory that JAX and NumPy get from malloc and lend
# to the kernels. Neither JAX nor Python is built for this: reports about leaks at exit would be theirs.
set -eu
cd "$(dirname "$0")/.."

build=build/sanitize
cxx=${CXX:-g++}

give_up() {
    echo "error: $1" >&2
    echo "The sanitizers need GCC with its runtimes (Debian: g++; Fedora: gcc-c++ libasan libubsan); CXX=... names it." >&2
    exit 1
}

# Prints where a runtime is. A compiler that does not have it repeats the bare name.
runtime() {
    path=$("$cxx" -print-file-name="lib$1.so") || return 1
    case $path in
    /*) [ -f "$path" ] && echo "$path" ;;
    *) return 1 ;;
    esac
}

"$cxx" --version >/dev/null 2>&1 || give_up "the compiler '$cxx' does not run."
asan=$(runtime asan) || give_up "'$cxx' has no libasan."
ubsan=$(runtime ubsan) || give_up "'$cxx' has no libubsan."

mkdir -p build
cmake -S . -B "$build" -G Ninja -DBAYESFM_SANITIZE=ON -DCMAKE_CXX_COMPILER="$cxx" \
    -DPython_EXECUTABLE="$(command -v python)" >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build"

export BAYESFM_KERNELS="$PWD/$build/libbayesfm_kernels.so" BAYESFM_TYPECHECK=0 JAX_PLATFORMS=cpu
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1

watched() {
    LD_PRELOAD="$asan $ubsan" "$@"
}

# Both checks fail here rather than pass in silence later.
watched python - <<'PROGRAM' || give_up "the runtimes are loaded, but do not watch the kernels."
import ctypes, os
from bayesfm import native

process = ctypes.CDLL(None)
process.malloc.restype = ctypes.c_void_p
eight = ctypes.c_void_p(process.malloc(ctypes.c_size_t(8)))
process.__asan_region_is_poisoned.restype = ctypes.c_void_p
assert process.__asan_region_is_poisoned(eight, ctypes.c_size_t(8)) is None
assert process.__asan_region_is_poisoned(eight, ctypes.c_size_t(9)) == eight.value + 8
assert native.library.load()._name == os.environ["BAYESFM_KERNELS"]
PROGRAM

# Cases of the second file that run on XLA, too or alone, are left out, and so is what starts processes of its own. A report
# goes to the worker's own standard error: what pytest captures of it is lost with the worker.
watched python -m pytest -n 2 --dist worksteal --capture=sys \
    -k "(test_native and not threads) or on_kernels or (beside_xla and not random)" \
    tests/test_native.py tests/test_native_beliefs.py tests/test_native_tables.py tests/random/test_native_draws.py \
    tests/likelihoods/test_native_sums.py tests/inference/gibbs/test_units.py \
    tests/inference/gibbs/test_kernels_beside_xla.py tests/priors/test_rotation.py "$@"
