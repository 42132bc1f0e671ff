# Everything starts here; `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

UV ?= uv

.DEFAULT_GOAL := help
.PHONY: help install install-locked lock train test test-all check format tensorboard docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

install: $(READY) ## make the environment in .venv

install-locked: ## the same with checked hashes, torch as the public index has it
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@touch $(READY)

lock: ## pin everything that requirements.txt pulls in, with hashes (needs uv)
	$(UV) pip compile requirements.txt --generate-hashes --universal --python-version 3.11 \
		--no-header --no-emit-index-url --no-emit-find-links --quiet -o requirements.lock

train: install ## train the tiny model on generated data, both phases (minutes on 2 cores)
	$(BIN)/python train.py

test: install ## the tests that take seconds
	$(BIN)/python -m pytest $(PARALLEL)

test-all: install ## all tests, also those that train for minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

check: install ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tensorboard: install ## watch the runs at http://localhost:6006
	$(BIN)/tensorboard --logdir logs --host localhost

docs: ## build the documentation into site/, in an environment of its own
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet -r docs/requirements.txt
	$(PYTHON) -m tools.stage_docs .cache/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

clean: ## remove caches, generated data and prepared tables (runs and .venv stay)
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
