# Every target sets up what it needs. Only Python >= 3.11 and make must be there beforehand.
PYTHON ?= python3
VENV ?= .venv
# The lock that .venv was made from, so that a GPU environment stays one.
LOCK ?= $(if $(wildcard $(VENV)/.installed-requirements-gpu.lock),requirements-gpu.lock,requirements.lock)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(notdir $(LOCK))
# Two tests at once, for two cores; a module stays in one process, so that its fixtures are made once.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
# A study waits for the disk at each commit, the light tests 10,000 times: their 60 MB lie in memory where it has room.
IN_MEMORY := $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'END {if ($$4 > 2000000) print "TMPDIR=/dev/shm"}')
# Containers often forbid byte code; the hundreds of processes that tests start would each compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: help setup setup-gpu demo test lint light heavy test-faults coverage docs lock audit bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv from the lock (nothing is installed twice)

$(STAMP): $(LOCK) setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$(PYTHON) is not Python 3.11 to 3.13; name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "$(PYTHON) cannot make virtual environments; install that part, such as: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup-gpu:  ## create .venv with TensorFlow for NVIDIA GPUs instead
	rm -rf $(VENV)
	$(MAKE) setup LOCK=requirements-gpu.lock

demo: setup  ## search, track and score the embedded handwritten digits (under 4 minutes on 2 cores)
	$(BIN)/pipeline search digits --budget 3m
	rm -rf scores-digits
	$(BIN)/pipeline score champion data/digits/test -o scores-digits
	$(BIN)/pipeline runs
	@echo "The commands are in $(BIN); to type them as shown: source $(BIN)/activate"

test: lint light heavy  ## everything that must pass before a change lands

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/cog --check docs/reference.md

light: setup  ## tests without TensorFlow and child processes (about 10 seconds on 2 cores)
	$(IN_MEMORY) $(PYTEST) -m "not heavy and not faults"

heavy: setup  ## the other tests: real trainings, processes, signals, MLflow server
	$(PYTEST) -m "heavy and not faults"

test-faults: setup  ## the long set of fault tests: thousands of kills and damaged files (about 10 minutes)
	$(PYTEST) -m faults

coverage: setup  ## every test once more, traced: which lines and branches they reach
	$(PYTEST) --cov --cov-report=term

docs: setup  ## regenerate docs/reference.md from --help
	$(BIN)/cog -r docs/reference.md

lock: setup  ## renew both locks from setup.cfg
	$(BIN)/uv pip compile setup.cfg --extra cpu --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile setup.cfg --extra gpu --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade --output-file requirements-gpu.lock

audit: setup  ## check every pinned version against the advisory database (needs a network)
	$(BIN)/uvx pip-audit --strict --no-deps --disable-pip -r requirements.lock
	$(BIN)/uvx pip-audit --strict --no-deps --disable-pip -r requirements-gpu.lock

bench: setup  ## the benchmarks (about 50 minutes; see benchmarks/README.md)
	$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/search_overhead.py
	$(BIN)/python benchmarks/accuracy.py digits --budget 3m
	$(BIN)/python benchmarks/accuracy.py fashion-mnist --budget 10m
	$(BIN)/python benchmarks/data.py photos
	$(BIN)/python benchmarks/data.py scan
	$(BIN)/python benchmarks/data.py memory

clean:  ## remove what make made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
