# Every command a developer needs; `make` lists them. What is made lies in .venv and var, and `make clean` removes it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= serve
PYTEST ?=
AUDIT ?=
COMPOSE ?= $(shell command -v docker-compose 2>/dev/null || echo docker compose)
SQUIRE_SEED ?= 1
SQUIRE_ITEMS ?= 1500000
SQUIRE_CONFIG ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
SERVICES := $(PYTHON) scripts/services.py run
# Tests keep away from the demo's data.
TEST_ENVIRONMENT := TILTYARD_DATA_DIR=$(CURDIR)/var/test

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing, for developing: Debian packages and .venv
	@PYTHON=$(PYTHON) scripts/setup.sh test

.PHONY: demo
demo: export TILTYARD_DEMO_STARTED_AT := $(shell date +%s)
demo: ## Run everything with the demo competition until interrupted; DEMO=once stops when the baselines are scored
	@PYTHON=$(PYTHON) scripts/setup.sh demo
	@$(SERVICES) --redis --docker -- $(BIN)/python -m tiltyard.demo $(if $(filter once,$(DEMO)),--once)

.PHONY: images
images: ## Make the base images tiltyard/python, tiltyard/runtime and tiltyard/evaluator where they are missing or old
	@PYTHON=$(PYTHON) scripts/setup.sh demo
	@$(SERVICES) --docker -- $(BIN)/python scripts/base_images.py

.PHONY: build-proxy
build-proxy: ## Make the image through which builds reach a track's build_hosts
	@PYTHON=$(PYTHON) scripts/setup.sh demo
	@$(SERVICES) --docker -- $(BIN)/python scripts/base_images.py --build-proxy

.PHONY: test
test: setup ## Run all tests beside real services; PYTEST="tests/sandbox -k limits" narrows them
	@$(TEST_ENVIRONMENT) $(SERVICES) --redis --docker --postgres -- scripts/run_tests.sh $(PYTEST)

.PHONY: lint
lint: setup ## Check style, import rules and templates
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/djlint platform --check --lint

.PHONY: types
types: setup ## Check types strictly
	$(BIN)/mypy

.PHONY: audit
audit: setup ## Ask the advisory database (api.osv.dev) about every pinned dependency; AUDIT=--offline-ok lets no network pass
	$(BIN)/python scripts/audit.py $(AUDIT)

.PHONY: format
format: setup ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djlint platform --reformat --quiet

.PHONY: squire
squire: setup ## Train the base model again, on a GPU if there is one
	mkdir -p var/squire
	$(BIN)/python -m tiltyard_eval generate --mix competitions/demo/data/pretrain-mix.yaml \
		--exclude competitions/demo/suites/open --seed $(SQUIRE_SEED) --count $(SQUIRE_ITEMS) --out var/squire/items.jsonl
	$(BIN)/python -m tiltyard_baselines.pretrain --data var/squire/items.jsonl --out baselines/squire \
		--config $(SQUIRE_CONFIG) --seed $(SQUIRE_SEED) $(if $(filter gpu,$(SQUIRE_CONFIG)),--compile)

.PHONY: compose-up
compose-up: ## Start the whole system with Docker Compose; reads .env (see deploy/env.example)
	$(COMPOSE) up --detach --build

.PHONY: compose-down
compose-down: ## Stop it; its data stays
	$(COMPOSE) down

.PHONY: clean
clean: ## Remove .venv, var and caches: the demo's database, uploads and logs too
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
