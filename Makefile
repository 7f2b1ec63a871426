# What people type. Everything else is `mesaform --help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup up down test test-fast check bench

FILE ?= cluster.yaml
RUN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
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

test: ## set-up for tests, check, then every test
	@scripts/setup --tests
	@$(MAKE) --no-print-directory check
	$(RUN)/python -m pytest

test-fast: setup ## the tests that need no service, browser or Terraform; no checks
	$(RUN)/python -m pytest \
	  -m "not slow and not terraform and not browser and not endtoend and not zookeeper"

bench: setup ## measure what the limits are about
	$(RUN)/python -m benchmarks.packing
	$(RUN)/python -m benchmarks.passes
	$(RUN)/python -m benchmarks.traces
	$(RUN)/python -m benchmarks.road
