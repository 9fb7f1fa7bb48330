#!/bin/sh
# Create a virtual environment with the first interpreter that really runs and is new enough.
#
# usage: make_venv.sh DIRECTORY [INTERPRETER]
#
# Interpreters are tested by running them: a pyenv shim named python3.12 is on PATH even while
# that version is not selected, and then only says so when called.
set -eu

venv=$1
chosen=${2:-}
oldest="3.12"

runs_and_is_new_enough() {
    "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

has_uv() {
    uv --version >/dev/null 2>&1
}

pyenv_python() {
    if pyenv --version >/dev/null 2>&1; then
        pyenv which python3 2>/dev/null || true
    elif [ -x "${PYENV_ROOT:-$HOME/.pyenv}/bin/pyenv" ]; then
        "${PYENV_ROOT:-$HOME/.pyenv}/bin/pyenv" which python3 2>/dev/null || true
    fi
}

create_with() {
    echo "creating $venv with $1 ($("$1" --version 2>&1))"
    if has_uv; then
        uv venv --quiet --seed --clear --python "$1" "$venv"
    elif ! "$1" -m venv --clear "$venv"; then
        echo "error: '$1 -m venv' failed. On Debian and Ubuntu the venv module is a package of its" >&2
        echo "own, named like the interpreter: for example 'apt install python3-venv'." >&2
        exit 1
    fi
}

if [ -n "$chosen" ]; then
    if ! runs_and_is_new_enough "$chosen"; then
        echo "error: PYTHON=$chosen does not run or is older than Python $oldest." >&2
        exit 1
    fi
    create_with "$chosen"
    exit 0
fi

if has_uv && uv venv --quiet --seed --clear --python "$oldest" "$venv"; then
    echo "created $venv with uv ($("$venv/bin/python" --version))"
    exit 0
fi

for candidate in "$(pyenv_python)" python3.14 python3.13 python3.12 python3; do
    if [ -n "$candidate" ] && runs_and_is_new_enough "$candidate"; then
        create_with "$candidate"
        exit 0
    fi
done

cat >&2 <<MESSAGE
error: no Python $oldest or newer was found.
Tried uv, the version that pyenv selects here, python3.14, python3.13, python3.12 and python3.
Install one of them (https://www.python.org/downloads/, your system's packages, 'pyenv install $oldest',
or uv, which brings its own), or name an interpreter: make PYTHON=/path/to/python3 ...
MESSAGE
exit 1
