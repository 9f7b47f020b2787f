# Every target sets up .venv by itself, from nothing but make and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := .[dev,models]

.PHONY: demo check lint types fast-tests test models bench docs clean
.DELETE_ON_ERROR:

demo: $(READY) ## compile, test, run and measure a small model on MNIST
	$(BIN)/python examples/demo.py

check: $(READY) ## what to run before a commit: style, types, fast tests, side by side
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint types fast-tests

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/pyright

fast-tests: $(READY)
	$(BIN)/pytest -m "not slow"

test: $(READY) ## every test, with a cross-section of the model table
	$(BIN)/pytest -m "not models" --durations=5

models: $(READY) ## every row of the model table against eager, then measured: docs/models.md
	$(BIN)/pytest tests/models --durations=5
	$(BIN)/python -m tools.model_table

bench: $(READY) ## steps beside PyTorch; BENCH="--cases networks --threads 2" to choose
	$(BIN)/python benchmarks/bench.py $(BENCH)
	$(BIN)/python benchmarks/cost.py

docs: $(READY) ## write the pages that are generated: docs/options.md, docs/flags.md
	$(BIN)/python tools/write_docs.py

clean:
	rm -rf $(VENV) build out

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Batucada needs Python 3.11 or newer, and $(PYTHON) is not: try make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '$(PACKAGES)'
	@touch $(READY)
