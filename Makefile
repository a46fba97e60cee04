# `make demo` and `make test` are all a newcomer needs: each makes the virtual environment it runs in.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: help setup demo test test-all lint format bench clean

help:
	@echo "make demo      depth of a real photograph, with a report (sets everything up)"
	@echo "make test      the quick tests (sets everything up)"
	@echo "make test-all  also the slow ones: full-size checkpoints, training"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff format the code"
	@echo "make bench     measure what we claim, on this machine"
	@echo "make bench-acceleration   one of benchmarks/*.py, here acceleration.py; ARGS='--small' passes options"

# Done again whenever the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "priorscope needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/priorscope depth demo

test: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not slow'

test-all: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not slow'
	$(BIN)/python -m pytest -q -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-%: setup
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
