# What people type. Everything else is `mesaform --help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Compiled modules are kept: otherwise each of the many processes compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup up down check test test-machines test-fast coverage mutants fuzz differential faults checkov examples bench

FILE ?= cluster.yaml
RUN := .venv/bin
# Tests wait for processes most of the time, so there are twice as many workers as cores.
WORKERS ?= 4
# The quick tests wait little, and each worker imports all of them.
QUICK_WORKERS ?= 3
# Generated calls of `make differential`, besides the hand-written ones.
COUNT ?= 2000
SEED := $(or $(SEED),$(shell echo $$RANDOM))
PYTEST := --no-loadscope-reorder --durations=10 --hypothesis-seed=$(SEED)
QUICK := not slow and not terraform and not browser and not endtoend and not zookeeper

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  FILE=$(FILE) names the cluster file"

setup: ## bring everything that is needed; quick when nothing is missing
	@scripts/setup

up: setup ## raise the cluster of cluster.yaml; writes one for this machine if there is none
	@test -e $(FILE) || $(RUN)/mesaform init --file $(FILE)
	@$(RUN)/mesaform up --file $(FILE)

down: setup ## tear it down, prove that nothing is left, print the receipt (on aws it asks)
	@$(RUN)/mesaform down --yes --file $(FILE)

check: setup ## style, types and who imports whom
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test: ## set-up for tests, check, then every test; SEED=… repeats a run of property tests
	@scripts/setup --tests
	@echo "property tests: seed $(SEED); repeat with: make test SEED=$(SEED)"
	@{ checks=$$($(MAKE) --no-print-directory check 2>&1); code=$$?; echo "$$checks"; exit $$code; } & \
	  $(RUN)/python -m pytest -n $(WORKERS) $(PYTEST); tests=$$?; \
	  wait $$!; checks=$$?; \
	  if [ $$checks -ne 0 ]; then echo "make check failed: see its output above"; fi; \
	  exit $$((tests ? tests : checks))

test-machines: ## machines as containers: as root, with systemd-nspawn and a base image
	@scripts/setup --tests
	@test -x .venv/ansible/bin/ansible-lint || $(RUN)/python -m venv .venv/ansible
	@.venv/ansible/bin/python -m pip install -q --disable-pip-version-check \
	  --require-hashes --no-deps -r tests/ansible/requirements.lock
	PATH="$$PWD/.venv/ansible/bin:$$PATH" ansible-lint --offline --profile production \
	  images/site.yml images/roles
	MESAFORM_TEST_MACHINES=1 $(RUN)/python -m pytest tests/integration/machines

test-fast: setup ## the tests that need no service, browser or Terraform; no checks
	@echo "property tests: seed $(SEED)"
	$(RUN)/python -m pytest -n $(QUICK_WORKERS) $(PYTEST) -m "$(QUICK)"

coverage: setup ## the quick tests with a report of what they run: coverage.xml, htmlcov/
	$(RUN)/python -m pytest -n $(QUICK_WORKERS) $(PYTEST) -m "$(QUICK)" \
	  --cov --cov-report=term:skip-covered --cov-report=xml --cov-report=html

mutants: ## apply each fault of tests/mutants.toml: the tests it names must fail; about 10 min
	@scripts/setup --tests
	@scripts/mutants

fuzz: ## an hour of generated inputs for every port, record and link; FUZZ_SECONDS, FUZZ_SEED
	@scripts/setup --tests
	-$(RUN)/python -m pip install -q --require-hashes --no-deps -r tests/fuzz/requirements.lock
	$(RUN)/python -m tests.fuzz

differential: ## the same calls to a real Apache Mesos and to the embedded engine; COUNT, SEED
	@scripts/setup --tests
	$(RUN)/python -m tests.differential $(COUNT) $(SEED)

faults: ## kill, stop, fill, cut and interrupt a cluster; FAULTS='--only killed --engine mesos'
	@scripts/setup --tests
	$(RUN)/python -m benchmarks.faults $(FAULTS)

checkov: ## Checkov on the Terraform JSON of every example; tests/checkov/exceptions.toml
	@scripts/setup --tests
	@test -x .venv/checkov/bin/checkov || $(RUN)/python -m venv .venv/checkov
	@.venv/checkov/bin/python -m pip install -q --disable-pip-version-check \
	  --require-hashes --no-deps -r tests/checkov/requirements.lock
	$(RUN)/python -m tests.checkov

examples: ## up, a task, an empty second plan and down of each example, locally; ONLY='minimal'
	@scripts/setup --tests
	$(RUN)/python -m tests.examples $(ONLY)

bench: setup ## measure what the limits are about
	$(RUN)/python -m benchmarks.packing
	$(RUN)/python -m benchmarks.passes
	$(RUN)/python -m benchmarks.running_cost
	$(RUN)/python -m benchmarks.traces
	$(RUN)/python -m benchmarks.boundary
	$(RUN)/python -m benchmarks.road
	$(RUN)/python -m benchmarks.engines
