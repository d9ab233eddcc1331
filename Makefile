# `make fit` trains the first model, `make test` proves the package: both set everything up on a bare machine.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAIN := PIP_CONSTRAINT=constraints.txt

.PHONY: fit reproduce test test-slow test-cluster notebooks lint chromium clean

fit: .venv/.runtime
	$(BIN)/python -m sleep_lightning fit --config conf/rule110.yaml

# Hours on 2 cores; killed, the same command goes on. RESULTS.md is written from the runs.
reproduce: .venv/.runtime
	$(BIN)/python -m sleep_lightning reproduce

# Two files at a time, one thread each; files stay whole, as their tests share what was trained once.
test: .venv/.dev lint chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/cluster

# Sweeps on a SLURM, a PostgreSQL (installed here, as root on Debian) and a Ray that the tests start and stop.
test-cluster: .venv/.dev
	sh tests/install_cluster.sh
	$(CONSTRAIN) $(BIN)/python -m pip install --quiet --editable '.[ray]'
	$(BIN)/python -m pytest -m 'slow or not slow' tests/cluster

# Run from top to bottom and saved with their outputs.
notebooks: .venv/.dev
	$(BIN)/python -m tests.notebooks notebooks/*.ipynb

# Debian's browser, for the tests of pages; they are skipped where it cannot be installed.
chromium:
	sh tests/install_chromium.sh

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first: a requirement of another package must not pull in a CUDA build of several GB.
.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/python
	$(CONSTRAIN) $(BIN)/python -m pip install --quiet torch
	$(CONSTRAIN) $(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/.runtime
	$(CONSTRAIN) $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
