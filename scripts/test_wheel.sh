#!/bin/sh
# Build the wheel from the source distribution, install it in an environment of its own, and run the kernels' tests there.
# Then once more as on a machine without a compiler.
#
# usage: test_wheel.sh PYTHON [ARGUMENTS OF PYTEST]    a Python with `build`; its packages are not seen by the tests
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "error: $1" >&2
    exit 1
}

install() {
    if uv --version >/dev/null 2>&1; then
        uv venv --quiet --python "$python" "$1"
        uv pip install --quiet --python "$1/bin/python" "$2"
    else
        "$python" -m venv "$1"
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
    fi
}

"$python" -m build --outdir "$work/dist" "$root"
wheel=$(ls "$work"/dist/*.whl)
case $wheel in
*py3-none-any.whl) fail "$(basename "$wheel") has no kernels: did the compiler fail?" ;;
esac

# The tests without the sources beside them: what is imported is what was installed.
mkdir "$work/there"
cp -R "$root/tests" "$work/there"
sed -n '/^\[tool\.pytest/,/^\[tool\.[^p]/p' "$root/pyproject.toml" | sed '$d' >"$work/there/pyproject.toml"
cd "$work/there"

install "$work/with" "$wheel[test]"
"$work/with/bin/python" - "$work" <<'PROGRAM'
import sys
import bayesfm
from bayesfm import native

assert bayesfm.__file__.startswith(sys.argv[1]), bayesfm.__file__
assert native.available()
print("installed", bayesfm.__version__, "with kernels for", native.isa())
PROGRAM
"$work/with/bin/python" -m pytest -q -n 2 tests/test_native.py tests/test_native_beliefs.py tests/test_native_tables.py \
    tests/inference/gibbs/test_kernels_beside_xla.py "$@"

CXX=false "$python" -m build --wheel --outdir "$work/without" "$root"
wheel=$(ls "$work"/without/*.whl)
case $wheel in
*py3-none-any.whl) ;;
*) fail "$(basename "$wheel") was built without a compiler and does not say so" ;;
esac
install "$work/plain" "$wheel"
"$work/plain/bin/python" - <<'PROGRAM'
import numpy as np
import bayesfm
from bayesfm import FMRegressor, native

assert not native.available()
bayesfm.show_versions()
rng = np.random.default_rng(0)
X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
model = FMRegressor(rank=1, num_warmup=5, num_samples=5, num_chains=1, random_state=0, progress=False).fit(X, y)
assert np.isfinite(model.predict(X)).all()
PROGRAM
echo "the wheel with kernels and the one without both work"
