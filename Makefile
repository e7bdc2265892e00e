# Two commands do everything on a machine with python3 (3.11 or newer) and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench fuzz clean

demo: $(VENV)/installed
	$(BIN)/maskfast demo --out demo

test: $(VENV)/installed-tests lint
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed-tests
	$(BIN)/python benchmarks/scoring.py

fuzz: $(VENV)/installed-tests
	$(BIN)/python tests/faults/fuzz_pickles.py

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "maskfast needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-tests: $(BIN)/python setup.cfg constraints.txt
	$(INSTALL) -e '.[dev,nasnet,video,ray,distributed,notebooks,track]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo build
