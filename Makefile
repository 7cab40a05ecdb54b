# `make demo` and `make test` work on a fresh machine: Linux, Python >= 3.11, git, make. No GPU and no model hub needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test fast newest lint

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"fluxkit needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	@echo "Setting up fluxkit's own environment in $(VENV) (the first time takes a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e '.[sample]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/fluxkit demo --keep .demo

# Everything, the real trainer included. A file's tests stay together: they share what took long to make.
test: $(STAMP) lint
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow" --durations=15

# What to run while working: under two minutes.
fast: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile

# The fast ones on the newest Python that pyproject.toml names, in an environment of its own; skipped where there is none.
NEWEST := 3.13
newest: $(STAMP)
	@found=$$($(BIN)/python scripts/find_python.py $(NEWEST)) || exit 0; $(MAKE) fast VENV=.venv-$(NEWEST) PYTHON="$$found"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
