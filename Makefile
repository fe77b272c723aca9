# Every target makes .venv and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Whatever the environment says, modules are compiled once: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test lint typecheck docs benchmark install

# Train darts_v2 on the embedded data set; a run folder of its own each time. Watch it with
# `.venv/bin/tensorboard --logdir tb_logs`.
quickstart: $(VENV)/.runs
	$(BIN)/nas-lightning fit --config configs/quickstart.yaml --run darts_v2-$$(date +%Y%m%d-%H%M%S)

# One process for each core, each test with one thread: faster than several threads one test after the other.
# Files go to processes as a whole, in the order of tests/conftest.py.
test: $(VENV)/.tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The site's generator is checked too, against its libraries.
typecheck: $(VENV)/.docs
	$(BIN)/mypy

# The site, into site/; a broken link is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Ratios against plain implementations; prints them and writes benchmarks/results/*.json.
benchmark: $(VENV)/.tests
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.instruction_sets
	$(BIN)/python -m benchmarks.landscape
	$(BIN)/python -m benchmarks.rewrites
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m benchmarks.residence
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.audit_null --figure docs/audit_null.png
	$(BIN)/python -m benchmarks.performance_figures
	$(BIN)/python -m benchmarks.table

# All of it by one call of pip; each takes ten seconds to find that nothing is missing.
install: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $(VENV)/.runs $(VENV)/.tests $(VENV)/.dev $(VENV)/.docs

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch and torchvision in one call, so that pip chooses a matching pair.
$(VENV)/.runs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.runs
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
