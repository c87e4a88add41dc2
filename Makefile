# `make` alone prints this help. Everything runs from .venv, which `make setup` makes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON_IN := .venv/bin/python
# Two modules at once, in the order of tests/conftest.py: each worker has a Spark of its own.
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder
SHELL_FILES = $(shell git grep --untracked -lE '^\#!.*\b(ba)?sh$$' 2>/dev/null)

.PHONY: help setup demo test check bench nightly runtimes fmt lint types shell spell wheel-test build release-check wheelhouses clean

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with everything, bring Java and Delta; seconds when nothing changed
	@.ci/setup

demo: setup ## the main job on 336,776 real flights, on this machine
	@.venv/bin/dbx-aml demo $(ARGS)

test: setup ## all tests from the checkout; ARGS='-m "not slow"' for the fast ones
	@$(PYTHON_IN) -m pytest $(AT_ONCE) $(ARGS)

check: lint types shell spell wheel-test ## all linters, then the tests against the built wheel

bench: setup ## the benchmarks; results go to benchmarks/README.md
	@$(PYTHON_IN) -m benchmarks $(ARGS)

nightly: setup ## the long reliability tests: kills, races, full disks, other environments
	@$(PYTHON_IN) -m pytest -m nightly $(ARGS)

runtimes: build ## the flow on the packages of each runtime; writes docs/compatibility.md
	@$(PYTHON_IN) -m pytest -m runtime tests/runtimes
	@$(PYTHON_IN) -m tests.runtimes.compatibility

fmt: setup ## format the code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

lint: setup ## ruff: format and rules
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .

types: setup ## mypy, strict
	@.venv/bin/mypy

shell: setup ## shellcheck on every shell file
	@.venv/bin/shellcheck --severity=style $(SHELL_FILES)

spell: setup ## codespell
	@.venv/bin/codespell

wheel-test: build ## the fast tests against the built wheel, sources out of reach
	@.ci/wheel-test $(AT_ONCE) $(ARGS)

build: setup ## wheel, source distribution and their hashes, in dist/
	@.ci/build dist

release-check: build ## contents of dist/, same bytes twice, and the flow where only the wheel is
	@$(PYTHON_IN) -m zipfile --list dist/*.whl
	@tar --list --verbose --file dist/*.tar.gz
	@cat dist/SHA256SUMS
	@$(PYTHON_IN) -m pytest -m "slow or nightly" -k "release or wheel" \
		tests/test_release.py tests/testing/test_starter.py

wheelhouses: setup ## resolve what each runtime lacks; the lists are part of the package
	@$(PYTHON_IN) -m dbx_aml.cluster.resolve dbx_aml/cluster/runtimes

clean: ## remove what the targets above made, .venv included
	rm -rf .venv .dbx_aml build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
