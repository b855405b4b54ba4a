# `make demo` and `make test` do everything on a Debian machine with Python >= 3.11, make and git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV ?= .venv
# 3.11 first: the pinned set is tested on it. Each candidate is run, as a pyenv shim may exist and fail.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
# The pip and setuptools that the environment starts with are replaced only as dependencies ask for it.
# Python compiles what it imports, a small part of what is installed: with --no-compile and WARM the install
# takes 66 s where pip's own compiling makes it 112 s (two idle cores).  Containers often forbid writing bytecode, and then
# every start of Python would pay 6 s again: so this make does not.
PIP_OPTIONS ?= --no-compile
export PYTHONDONTWRITEBYTECODE =
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input
INSTALL = $(PIP) install --prefer-binary --root-user-action=ignore --use-pep517 $(PIP_OPTIONS) --constraint constraints.txt
RUN = $(VENV)/bin/python -m
GROWPOINT = $(VENV)/bin/growpoint
WARM = $(VENV)/bin/python -c 'import datasets, matplotlib.pyplot, pandas, scipy.optimize, torch, transformers.modeling_utils'
FRAME = pyproject.toml constraints.txt
# In the order of collection, which begins with SLURM's files: xdist would begin with the many small tests of one file.
PYTEST = OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: setup
setup: $(VENV)/.runtime ## the command `growpoint` in .venv/bin

.PHONY: setup-dev
setup-dev: $(VENV)/.dev ## the same, with pytest, ruff, mypy and the rest

.PHONY: demo
demo: setup ## the main job in miniature: sweep, laws, recommendation, report
	$(GROWPOINT) launch demo --yes
	$(GROWPOINT) fit demo
	$(GROWPOINT) plot demo
	$(GROWPOINT) recommend demo
	$(GROWPOINT) report demo

# What fails fastest comes first.
.PHONY: test
test: setup-dev ## everything that must hold: lint, types, and every test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	$(PYTEST) tests/unit
	$(PYTEST) tests/integration tests/e2e

.PHONY: lint
lint: $(VENV)/.dev ## form, import contracts, spelling
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell
	$(RUN) yamllint --strict conf .yamllint.yaml .pre-commit-config.yaml

.PHONY: types
types: $(VENV)/.dev ## mypy, strict on sweeps and analysis
	$(RUN) mypy

.PHONY: clean
clean: ## remove the environment and what tools left; never a store
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find sweeps orchestrator analysis conf tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was made from, so a second run installs nothing.
$(VENV)/.runtime: $(FRAME) | $(VENV)/.created
	@echo "installing growpoint into $(VENV)"
	@$(INSTALL) --editable .
	@$(WARM)
	@touch $@

$(VENV)/.dev: $(FRAME) | $(VENV)/.created
	@echo "installing growpoint and its development tools into $(VENV)"
	@$(INSTALL) --editable '.[dev]'
	@$(WARM)
	@touch $(VENV)/.runtime $@

# The stamp comes after pip has answered: Debian without python3-venv leaves half an environment behind.
$(VENV)/.created:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or newer on PATH; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory venv-package
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --version >/dev/null
	@touch $@

.PHONY: venv-package
venv-package:
	@package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "error: $(PYTHON) cannot make environments; install its package: sudo apt-get install $$package" >&2; exit 1; fi; \
	echo "installing $$package"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -y -qq --no-install-recommends $$package >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $$package >/dev/null; }
