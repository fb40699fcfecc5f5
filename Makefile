# Each target does all of its own set-up: on a bare machine `make pretrain` or `make test` is the first and only command.
#   PYTHON=python3.12   the interpreter that .venv is made from (3.11, 3.12 or 3.13)
#   OUT=runs/second     where `make pretrain` writes
#   OPTIONS=--steps=90  options for its training
#   JOBS=4              tests at a time, one thread each; auto = one per core

PYTHON ?= python3
OUT ?= runs/first
OPTIONS ?=
JOBS ?= auto
BIN := .venv/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)
STAMP := .venv/.installed-with-dev

.PHONY: pretrain test test-slow lint types format install clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

pretrain: $(STAMP) ## pretrain a tiny retina encoder, measure it, write its report; an interrupted run goes on
	$(BIN)/python -m domains.retina.pretrain tiny --out $(OUT) $(OPTIONS) $(if $(wildcard $(OUT)/config.yaml),--resume)
	$(BIN)/python -m domains.retina.evaluate --encoder $(OUT) --kind photograph --overwrite
	@echo "Open $(OUT)/report.html"

test: $(STAMP) ## the default tests
	$(PYTEST)

test-slow: $(STAMP) ## the tests that take longer than 2 s each
	$(PYTEST) -m "slow and not gpu"

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict on core and datasets
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP) ## make .venv with everything pinned

# The stamp is touched last, so an interrupted install is done again; it is renewed when a requirement changes.
# Python compiles the few modules that are used when it first imports them: to compile all takes a quarter of the install.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "expected Python 3.11, 3.12 or 3.13, got %d.%d: name one, as in make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean: ## remove .venv and the tools' caches; runs stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
