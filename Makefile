# Everything runs in $(VENV), made on first use; only Python >= 3.12 (or uv) and make are needed.
SHELL := /bin/sh
VENV ?= .venv
PYTHON ?=
ARGS ?=

PY := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
INSTALL = $(if $(shell uv --version 2>/dev/null),uv pip install --quiet --python $(PY),$(PY) -m pip install --quiet --disable-pip-version-check)

# What each task needs beyond the package itself: the extras of pyproject.toml.
EXTRAS_demo := demo
EXTRAS_test := test
EXTRAS_lint := test,dev
EXTRAS_bench := bench
EXTRAS_notebooks := test,bench,demo
EXTRAS_wheel := dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow sbc sanitize wheel lint format notebooks bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Options: ARGS='...' goes to the program, PYTHON=... picks the interpreter, VENV=... the directory."

demo: $(STAMPS)/demo  ## install and run the demonstration
	$(PY) -m bayesfm.cli demo $(ARGS)

test: $(STAMPS)/test  ## install and run the tests, two workers; ARGS="tests/design -n0 -k blocks"
	BAYESFM_TYPECHECK=$${BAYESFM_TYPECHECK-1} $(PY) -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(STAMPS)/test  ## the long statistical tests that 'make test' leaves out
	BAYESFM_TYPECHECK=$${BAYESFM_TYPECHECK-1} $(PY) -m pytest -n 2 --dist worksteal -m slow $(ARGS)

sbc: $(STAMPS)/test  ## every sampler calibrated on 10,000 data sets, then all sweeps at full size; hours
	JAX_PLATFORMS=$${JAX_PLATFORMS-cpu} $(PY) -m tests.inference.gibbs.sbc $(ARGS)
	$(PY) -m pytest -n 2 --dist worksteal -m slow -k full_size -rP tests/inference/gibbs tests/priors

sanitize: $(STAMPS)/test  ## the kernels' tests on a build with address and undefined-behaviour checks; CXX=g++
	PATH="$(abspath $(VENV))/bin:$$PATH" sh scripts/sanitize.sh $(ARGS)

wheel: $(STAMPS)/wheel  ## build the wheel, install it in an environment of its own, and run the kernels' tests there
	PATH="$(abspath $(VENV))/bin:$$PATH" sh scripts/test_wheel.sh $(abspath $(PY)) $(ARGS)

lint: $(STAMPS)/lint  ## ruff, mypy and the import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy bayesfm
	$(VENV)/bin/lint-imports

format: $(STAMPS)/lint  ## apply ruff's safe fixes and its formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(STAMPS)/notebooks  ## run the notebooks in full and store what they show; ARGS="01_ratings"
	$(PY) scripts/run_notebooks.py $(ARGS)

bench: $(STAMPS)/bench  ## install and run the benchmarks
	$(PY) -m benchmarks $(ARGS)

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@sh scripts/make_venv.sh "$(VENV)" "$(PYTHON)"
	@mkdir -p $(STAMPS) && touch $@

# Built in this environment, not in one of its own: jaxlib comes once, and what is compiled is kept.
$(STAMPS)/tools: $(STAMPS)/venv
	$(INSTALL) "scikit-build-core>=0.11" "cmake>=3.21" ninja "jaxlib>=0.9"
	@touch $@

$(STAMPS)/%: $(STAMPS)/tools pyproject.toml CMakeLists.txt $(wildcard bayesfm/native/src/*)
	PATH="$(abspath $(VENV))/bin:$$PATH" $(INSTALL) --no-build-isolation -e ".[$(EXTRAS_$*)]"
	@touch $@
