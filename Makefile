# Two commands matter on a fresh machine: `make demo` and `make test`. Paths are relative, so that a checkout whose own
# path has spaces works.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help setup demo demo-stop demo-maintenance serve test chaos fuzz mutants bench bench-full bench-plan lint audit format golden docs requirements-check lock clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-20s %s\n' "$$name" "$$text"; done

setup: ## Make .venv and node_modules from the lock files; ends at once when they are up to date
	@scripts/setup

demo: setup ## Patch a sample fleet on this machine and write .local/demo/report.json
	@.venv/bin/patchwave demo

demo-stop: setup ## The same with a bad update in one region: an error budget stops the run
	@.venv/bin/patchwave demo-stop

demo-maintenance: setup ## Schedules of Update Manager: one run with Patchwave around it, then the doctor before and after
	@.venv/bin/patchwave demo-maintenance

serve: setup ## Keep the local stack running: simulator, storage and the function app on port 7071
	@.venv/bin/patchwave serve $(ARGS)

# Three at a time on two processors: much of a test is waiting for clocks.
test: setup ## Run every test that is not marked chaos, bench or fuzz
	@.venv/bin/python -m pytest -n 3 --dist worksteal -m "not chaos and not bench and not fuzz" $(ARGS)

# As above.
chaos: setup ## Kill workers at every external effect, and run random schedules of faults; SEED=17 replays one
	@.venv/bin/python -m pytest -n 3 --dist worksteal -m chaos $(if $(SEED),--seed=$(SEED) tests/resilience/chaos/test_schedules.py -k seed-$(SEED)) $(ARGS)

fuzz: SEED ?= 20261110
fuzz: setup ## Send the whole product ten thousand requests by its API's document, and fuzz every parser; SEED=17 for others
	@PATCHWAVE_FUZZ_EXAMPLES=$(or $(EXAMPLES),500) .venv/bin/python -m pytest -n 2 --dist worksteal tests/fuzz \
		--hypothesis-seed=$(SEED) --seed=$(SEED) $(ARGS)

mutants: setup ## Put small faults into the safety core, sampled by a seed, and see whether the tests notice them (10 minutes, and as many for the trace)
	@.venv/bin/python -m tests.mutation.run $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: setup ## Measure the product up to 4,000 machines, and the usual ways beside it (14 minutes); fails when a bar is missed
	@.venv/bin/python -m benchmarks.run $(ARGS)

bench-full: setup ## The same with 10,000 machines too (32 minutes)
	@.venv/bin/python -m benchmarks.run --full $(ARGS)

bench-plan: setup ## Measure the planner: its slope up to 100,000 machines and its makespans, as JSON; fails when a bar is missed
	@.venv/bin/python -m benchmarks.plan

lint: setup ## Check style, formatting, types, imports, requirements, words, generated pages and the tests that pages name
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/node node_modules/pyright/index.js --warnings
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/python scripts/check_requirements.py
	@.venv/bin/python scripts/check_words.py
	@.venv/bin/python scripts/policy_docs.py --check
	@.venv/bin/python scripts/rollout_docs.py --check
	@.venv/bin/python scripts/cli_docs.py --check
	@.venv/bin/python scripts/api_docs.py --check
	@.venv/bin/python scripts/check_microsoft_documents.py
	@.venv/bin/python -m benchmarks.report --check

format: setup ## Format the code and mend what ruff can mend
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

audit: setup ## Fail when a locked package has a known vulnerability that scripts/excused.toml does not excuse
	@.venv/bin/python scripts/audit.py $(ARGS)

golden: setup ## Record the histories of the current version of the orchestrations; ARGS=--again while it is not released
	@.venv/bin/python -m tests.orchestrators.replay_compatibility.record $(ARGS)

docs: setup ## Write what is generated in docs/: the keys of policies, the drawn example of a plan, the command, the API
	@.venv/bin/python scripts/policy_docs.py
	@.venv/bin/python scripts/rollout_docs.py
	@.venv/bin/python scripts/cli_docs.py
	@.venv/bin/python scripts/api_docs.py
	@.venv/bin/python -m benchmarks.report

requirements-check: setup ## Fail when requirements.txt does not hold exactly what the deployed app needs
	@.venv/bin/python scripts/check_requirements.py

lock: setup ## Compile the lock files; UPGRADE=1 takes newer versions
	@scripts/lock

clean: ## Remove everything that set-up and the tools made
	rm -rf .venv node_modules .local .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
