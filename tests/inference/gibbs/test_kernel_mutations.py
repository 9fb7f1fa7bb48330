"""Bugs planted in the compiled kernels, each of which the joint-distribution test has to find.

The sources are changed in a copy, compiled for one instruction set, and used by a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from bayesfm import native

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "bayesfm" / "native" / "src"
PARTS = sorted(path.stem for path in SOURCES.glob("*.cc"))
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-O1", "-std=c++20", "-fPIC", "-Wno-psabi", "-ffp-contract=fast", "-fno-math-errno"]

pytestmark = pytest.mark.skipif(
    not native.available() or shutil.which(COMPILER) is None, reason="needs the kernels and a C++ compiler"
)

MORE = 6
"""Rank with which columns of the joint problem have fewer rows than parameters."""


class Mutant(NamedTuple):
    """What is replaced by what in which file, and the problem that shows it.

    ``parts`` are those that get the change, by default all that read the file.
    """

    kind: str
    file: str
    old: str
    new: str
    num_chains: int = 10_000
    parts: tuple[str, ...] | None = None
    rank: int = 2


MUTANTS = {
    "sums: weights ignored": Mutant(
        "fields",
        "gram.h",
        "T weight(int32_t p) const { return omega[row[p]]; }",
        "T weight(int32_t) const { return T(1); }",
    ),
    "sums: last entry of a feature ignored": Mutant(
        "fields",
        "gram.h",
        "for (; p + P <= rows.last; p += P) add(p, P);",
        "for (; p + P < rows.last; p += P) add(p, P);\n  p = rows.last;",
    ),
    "field: residual not moved": Mutant(
        "fields", "gram.h", "r[rows.row[first + l]] -= moved[l];", "(void)r;"
    ),
    "draw: prior mean ignored": Mutant(
        "fields",
        "lanes.h",
        "prior_[i] = splat<T>(precision[group[0]] * mean[group[0]]);",
        "prior_[i] = V<T>{};",
    ),
    "draw: own contribution not put back": Mutant(
        "fields", "field.cc", "sum += entry(i, j) * turned_[j];", ""
    ),
    "field: w and the last factor as if independent": Mutant(
        "fields", "field.cc", "corner[1] = left(k, k - 1);", "corner[1] = V<T>{};"
    ),
    "field: one normal for w and the last factor": Mutant("fields", "lanes.h", "noise_[f + 1]", "noise_[0]"),
    "field, few rows: the last factor forgotten": Mutant(
        "three fields", "few_rows.h", "t[p] += h(p, f + 1) * v_f;", "t[p] += T(0) * v_f;", rank=9
    ),
    "draw: variance for standard deviation": Mutant(
        "fields", "solve.h", "S s = b[j] + noise[j];", "S s = b[j] + noise[j] * A[at(j, j)];"
    ),
    "normals: the key ignored": Mutant(
        "fields",
        "counter.h",
        "const uint32_t keys[3] = {key.first, key.second, key.first ^ key.second ^ 0x1BD11BDAu};",
        "const uint32_t keys[3] = {1, 2, 3 + 0 * (key.first + key.second)};",
        parts=("normal",),  # rejection from the same bits over and over would not end
    ),
    "moments: scatter around zero": Mutant(
        "fields", "moments.cc", "return (x - centre) * (x - centre);", "return x * x + 0 * centre;"
    ),
    "eta: half of every product": Mutant(
        "fields", "rows.cc", "sum += before * next;", "sum += T(0.5) * before * next;"
    ),
    "columns: own term left in h": Mutant(
        "rows", "columns.cc", " - splat<T, N>(f.value[p]) * load<T, N>(old + c)", ""
    ),
    "columns: factors of the rows stale": Mutant(
        "rows", "columns.cc", "load<T, w>(Q + c) + splat<T, w>(x) * d", "load<T, w>(Q + c)"
    ),
    "columns: residual stale": Mutant(
        "rows", "columns.cc", "f.r[f.row[p]] -= x *", "f.r[f.row[p]] -= T(0) * x *"
    ),
    "columns: value for its square": Mutant(
        "rows", "columns.cc", "f.omega[f.row[p]] * f.value[p] * f.value[p]", "f.omega[f.row[p]] * f.value[p]"
    ),
    "columns: features that share rows in one run": Mutant(
        "rows", "columns.cc", "{W<T>, hi - first, *ends - first}", "{W<T>, hi - first}"
    ),
    "few rows: own contribution not put back": Mutant(
        "rows",
        "few_rows.h",
        "e[p] = weighted_r[p] + weight[p] * own;",
        "e[p] = weighted_r[p] + T(0) * own;",
        rank=MORE,
    ),
    "few rows: nothing eliminated": Mutant(
        "rows", "few_rows.h", "M[p][q] -= c * g[q];", "M[p][q] -= T(0) * c;", rank=MORE
    ),
    "few rows: prior mean ignored": Mutant(
        "rows", "few_rows.h", "b = prior_[j],", "b = T(0) * prior_[j],", rank=MORE
    ),
    "few rows: variance for standard deviation": Mutant(
        "rows",
        "few_rows.h",
        "(mean_[j] + noise_[j]) * inverse_[j]",
        "(mean_[j] + noise_[j] * inverse_[j]) * inverse_[j]",
        rank=MORE,
    ),
    "summaries: squares left in": Mutant(
        "rows", "columns.cc", "pairs += Q * Q - squares;", "pairs += Q * Q - T(0.5) * squares;"
    ),
    "table: own term left in u": Mutant(
        "table", "table.cc", "u[k] = q[k] + s[k] - value * old[k];", "u[k] = q[k] + s[k];"
    ),
    "table: movement of the rows forgotten": Mutant("table", "table.cc", "s[k] += dQ;", "(void)dQ;"),
    "table: residual not moved": Mutant("table", "gram.h", "r[rows.row[first + l]] -= moved[l];", "(void)r;"),
}


def compiled(source: Path, into: Path) -> Path:
    """Object file of one source."""
    out = into / f"{source.stem}.o"
    options = ["-DISA=baseline", "-DVECTOR_BYTES=16"] if not source.stem.startswith("ffi") else []
    include = ["-isystem", jax.ffi.include_dir()]
    subprocess.run([COMPILER, *FLAGS, *options, *include, "-c", str(source), "-o", str(out)], check=True)
    return out


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sources as they are, compiled."""
    into = tmp_path_factory.mktemp("objects")
    with ThreadPoolExecutor(2) as pool:
        return dict(
            zip(PARTS, pool.map(lambda part: compiled(SOURCES / f"{part}.cc", into), PARTS), strict=True)
        )


def read_by(file: str) -> set[str]:
    """Parts that have to be compiled again when a source or a header has changed."""
    found = {file}
    for _ in range(len(list(SOURCES.iterdir()))):
        found |= {
            path.name
            for path in SOURCES.iterdir()
            if any(f'#include "{name}"' in path.read_text() for name in found)
        }
    return {Path(name).stem for name in found if name.endswith(".cc")}


def test_headers_lead_to_all_their_readers() -> None:
    assert read_by("table.cc") == {"table"}
    assert {"columns", "field"} <= read_by("lanes.h") <= read_by("gram.h") <= read_by("vector.h")


def alarms_with(library_parts: list[Path], into: Path, kind: str, num_chains: int, rank: int = 2) -> int:
    """How many quantities of the joint-distribution test raise an alarm, with a library of these objects."""
    library = into / "libbayesfm_kernels.so"
    subprocess.run([COMPILER, "-shared", "-o", str(library), *map(str, library_parts)], check=True)
    program = f"""
from tests.inference.gibbs import joint
from tests.statistics import alarms
problem = joint.problem({kind!r}, rank={rank}, factor_block={rank}, native=True, weighted={kind == "fields"})
print("alarms:", len(alarms(joint.p_values(problem, {num_chains}, 10))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "BAYESFM_KERNELS": str(library), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return int(done.stdout.rsplit("alarms:", 1)[1])


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_still_applies(name: str) -> None:
    """So that one that no longer applies shows before the slow tests are run."""
    mutant = MUTANTS[name]
    assert mutant.old in (SOURCES / mutant.file).read_text()
    assert mutant.new != mutant.old


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str, objects: dict[str, Path], tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    changed = tmp_path / "src"
    shutil.copytree(SOURCES, changed)
    text = (changed / mutant.file).read_text()
    assert mutant.old in text
    (changed / mutant.file).write_text(text.replace(mutant.old, mutant.new))
    parts = objects | {
        part: compiled(changed / f"{part}.cc", tmp_path)
        for part in mutant.parts or sorted(read_by(mutant.file))
    }
    assert alarms_with(list(parts.values()), tmp_path, mutant.kind, mutant.num_chains, mutant.rank) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rank"), [("fields", 2), ("rows", 2), ("rows", MORE), ("table", 2)])
def test_without_a_mutant_there_is_no_alarm(
    kind: str, rank: int, objects: dict[str, Path], tmp_path: Path
) -> None:
    assert alarms_with(list(objects.values()), tmp_path, kind, 10_000, rank) == 0
