# voxpool: `make demo` and `make test` do all the set-up; `make help` lists the rest.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
# Two at a time, a file's tests in order by one of them: most tests use one core.
PYTEST_ARGS ?= -n 2 --dist loadfile --durations=30 --durations-min=5
# Two processes with two threads each, on two processors, wait for each other five times as long as they compute.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test setup system lint docs pytest audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## install, then cross-validate on the sample data and say where the report is
	@$(BIN)/voxpool demo

test: lint docs audit pytest ## install, then run every check and every test (what CI runs)

setup: $(VENV)/.installed-dev system ## make .venv with all that the tests need

lint: $(VENV)/.installed-dev ## style, types and the import rules
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== import-linter"
	@$(BIN)/lint-imports

docs: $(VENV)/.installed-dev ## build the documentation into site/, warnings are errors
	@echo "== mkdocs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pytest: $(VENV)/.installed-dev system ## the tests alone; PYTEST_ARGS="tests/io -k affine" chooses some
	@echo "== pytest"
	@env $(ONE_THREAD) QT_API=pyqt6 PYTEST_QT_API=pyqt6 $(BIN)/python -m pytest $(PYTEST_ARGS)

audit: $(VENV)/.installed-dev ## compare the installed packages with known weaknesses; a report, never a failure
	@echo "== pip-audit"
	@timeout 120 $(BIN)/pip-audit --skip-editable --progress-spinner off --timeout 20 2>&1 | grep -v "could not be audited" || echo "pip-audit found something, or no list of weaknesses could be reached"

system:
	@.ci/system-packages

$(BIN)/python:
	@.ci/check-python "$(PYTHON)"
	@echo "== making $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing voxpool (minutes, the first time)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing voxpool, the viewer and the test tools (minutes, the first time)"
	@$(PIP_INSTALL) -e ".[napari,dicom,scale,export,dev]"
	@touch $(VENV)/.installed $@

clean: ## remove .venv and everything that tools leave behind; your runs stay
	@rm -rf $(VENV) build dist site *.egg-info .coverage .hypothesis
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
