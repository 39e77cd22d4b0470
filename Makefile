# Darkroom: `make help` says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPOSE_FILE := docker/docker-compose.yml
# `docker compose` where the plugin is there, docker-compose otherwise.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
COMPOSE_UP = $(COMPOSE) -f $(COMPOSE_FILE) $(if $(wildcard .env),--env-file .env)
# A container engine is in reach when it answers and compose is there to drive it.
ENGINE = docker info >/dev/null 2>&1 && $(COMPOSE) version >/dev/null 2>&1

.DEFAULT_GOAL := help
.PHONY: help up down logs ps up-docker down-docker logs-docker ps-docker up-local down-local logs-local ps-local \
	run-redis run-worker run-api run-flower install install-dev test zoo chaos bench bench-peers bench-batching bench-memory bench-backlog check lint types floors format clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Start everything, with containers where an engine is in reach, else on this machine
	@if $(ENGINE); then $(MAKE) --no-print-directory up-docker; else $(MAKE) --no-print-directory up-local; fi

down: ## Stop everything; results and queued jobs are kept
	@if $(ENGINE); then $(MAKE) --no-print-directory down-docker; fi
	@if [ -d $(VENV) ]; then $(MAKE) --no-print-directory down-local; fi

logs: ## Follow the logs
	@if $(ENGINE) && [ -n "$$($(COMPOSE_UP) ps -q)" ]; then $(MAKE) --no-print-directory logs-docker; \
	else $(MAKE) --no-print-directory logs-local; fi

ps: ## Say what runs
	@if $(ENGINE) && [ -n "$$($(COMPOSE_UP) ps -q)" ]; then $(MAKE) --no-print-directory ps-docker; \
	else $(MAKE) --no-print-directory ps-local; fi

up-docker: ## Start everything with containers
	@$(COMPOSE_UP) up -d --build --wait
	@api=$$($(COMPOSE_UP) port api 8000 | sed 's/^0\.0\.0\.0/127.0.0.1/'); \
	flower=$$($(COMPOSE_UP) port flower 5555 | sed 's/^0\.0\.0\.0/127.0.0.1/'); \
	printf 'Ready.\n  API        http://%s/docs\n  dashboard  http://%s\n' "$$api" "$$flower"; \
	printf 'Try:\n  curl -F file=@tests/photos/dog.jpg http://%s/classify\n' "$$api"

down-docker:
	@$(COMPOSE_UP) down

logs-docker:
	@$(COMPOSE_UP) logs --tail 20 -f

ps-docker:
	@$(COMPOSE_UP) ps

up-local: install ## Start everything on this machine
	@$(BIN)/python -m app.local up

down-local logs-local ps-local: %-local: install
	@$(BIN)/python -m app.local $*

run-redis: install ## Run Redis alone, in the foreground
run-worker: install ## Run a worker alone, in the foreground
run-api: install ## Run the API alone, in the foreground
run-flower: install ## Run the dashboard alone, in the foreground
run-redis run-worker run-api run-flower: run-%:
	@exec $(BIN)/python -m app.local run $*

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make up PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt docker/requirements-api.txt docker/requirements-worker.txt | $(BIN)/python
	@echo "Installing; the first time takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Files in their order: by their numbers of tests, those that take longest would come last.
test: install-dev ## Run the tests, on a real Redis that they start
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

zoo: install-dev ## Read the odd images that Pillow is tested with, and count how they end
	@$(BIN)/python -m tests.zoo

chaos: install-dev ## Kill things under load, and see that nothing accepted is lost: make chaos JOBS=5000 SEED=7
	@$(BIN)/python -m tests.chaos --jobs $(or $(JOBS),500) --seed $(or $(SEED),1)

bench: install-dev ## Say what the service does on this machine, beside the bare loop: make bench ARGS=--quick
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-peers: install-dev ## The same beside LitServe and BentoML, in environments of their own below .cache
	@$(BIN)/python -m tests.benchmarks.peers $(ARGS)

bench-batching: install-dev ## Say what the networks gain by batches of 8 and 32
	@$(BIN)/python -m tests.benchmarks.batching $(ARGS)

bench-memory: install-dev ## Say what a further process of a worker takes
	@$(BIN)/python -m tests.benchmarks.memory

bench-backlog: install-dev ## Say what a long queue costs: make bench-backlog JOBS=100000
	@$(BIN)/python -m tests.benchmarks.backlog --jobs $(or $(JOBS),100000)

check: lint types floors test ## Lint, types, import floors and tests

lint: install-dev ## Lint and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install-dev ## Types
	@$(BIN)/mypy

floors: install-dev ## Imports go down only
	@$(BIN)/lint-imports

format: install-dev ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean: ## Remove the virtual environment and caches; data stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .cache
