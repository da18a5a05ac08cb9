# Every target sets up what it needs. Only Python >= 3.11 and make must be there beforehand.
PYTHON ?= python3
LOCK ?= requirements.lock
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(notdir $(LOCK))

.PHONY: help setup setup-gpu demo test lint light heavy docs lock bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv from the lock (nothing is installed twice)

$(STAMP): $(LOCK) setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup-gpu:  ## create .venv with TensorFlow for NVIDIA GPUs instead
	rm -rf $(VENV)
	$(MAKE) setup LOCK=requirements-gpu.lock

demo: setup  ## search, track and score the embedded handwritten digits (under 4 minutes on 2 cores)
	@PATH="$(abspath $(BIN)):$$PATH" sh benchmarks/demo.sh

test: lint light heavy  ## everything that must pass before a change lands

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/cog --check docs/reference.md

light: setup  ## tests without TensorFlow, in seconds
	$(BIN)/pytest -m "not heavy"

heavy: setup  ## tests with real training, real processes and a real MLflow server
	$(BIN)/pytest -m heavy --cov --cov-append --cov-report=term

docs: setup  ## regenerate docs/reference.md from --help
	$(BIN)/cog -r docs/reference.md

lock: setup  ## renew both locks from setup.cfg
	$(BIN)/uv pip compile setup.cfg --extra cpu --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile setup.cfg --extra gpu --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade --output-file requirements-gpu.lock

bench: setup  ## the benchmarks (minutes to hours; see benchmarks/README.md)
	$(BIN)/python benchmarks/help_time.py

clean:  ## remove what make made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
