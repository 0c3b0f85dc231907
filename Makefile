# make help lists the targets. They need Python 3.11 or newer, and bring the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# What tests/prepare.sh found out about this machine, if it was run.
FOUND := if [ -f .venv/test.env ]; then . .venv/test.env; fi;

.DEFAULT_GOAL := help
.PHONY: help demo test ci prepare lint types sql pytest engine oldest package front pages pg15 bench bench-peers bench-growth bench-page docs build clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Run the editorial demo on an embedded server (ARGS=--help)
	$(BIN)/python -m examples.editorial.demo $(ARGS)

test: prepare ci ## Make this machine ready for all tests, then run the whole gate

ci: $(READY) ## The whole gate: everything but demo and bench
	$(MAKE) -j2 --output-sync=target package engine front oldest pages lint types sql
	$(MAKE) build

prepare: $(READY)
	tests/prepare.sh

lint: $(READY) ## Check style, format and the one way of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY) ## Check the types
	$(BIN)/mypy

sql: $(READY) ## Check the migrations (squawk), the style of sql/ and every function (plpgsql_check)
	$(BIN)/squawk migrations/*.sql
	@$(FOUND) $(BIN)/python -m pytest -q tests/sql/test_style.py tests/sql/test_plpgsql_check.py

pytest: $(READY) ## Run the tests on the embedded server (ARGS="-k lease")
	@$(FOUND) $(BIN)/python -m pytest -q $(ARGS)

ENGINE := tests/sql tests/race tests/migrate tests/model
FRONT := tests/cli
PAGES := tests/docs tests/bench tests/typing

# The gate tries the SQL in used databases on the newest PostgreSQL and, by every eighth test, in fresh ones on the
# oldest, if it is there; `make pg15` takes all of them.
engine: $(READY) ## Run the tests of the SQL, on the newest PostgreSQL
	@$(FOUND) PGFLOW_TEST_PLACES="$${PGFLOW_PG15_BIN:+used}" $(BIN)/python -m pytest -q $(ENGINE)

oldest: $(READY) ## Run every eighth test of the SQL on the oldest PostgreSQL
	@$(FOUND) PGFLOW_TEST_PLACES=fresh PGFLOW_TEST_EVERY=8 $(BIN)/python tests/with_pg15.py $(BIN)/python -m pytest -q $(ENGINE)

package: $(READY) ## Run all tests but those of engine, front and pages
	@$(FOUND) $(BIN)/python -m pytest -q tests $(addprefix --ignore=,$(ENGINE) $(FRONT) $(PAGES))

front: $(READY) ## Run the tests of the command
	@$(FOUND) $(BIN)/python -m pytest -q $(FRONT)

pages: $(READY) ## Run the tests of the docs, the benchmarks and the types
	@$(FOUND) $(BIN)/python -m pytest -q $(PAGES)

pg15: $(READY) ## Run all tests of the SQL on the oldest PostgreSQL
	@$(FOUND) $(BIN)/python tests/with_pg15.py $(BIN)/python -m pytest -q $(ENGINE) $(ARGS)

bench: $(READY) ## Measure pgflow alone (ARGS=--help)
	$(BIN)/python -m bench alone $(ARGS)

bench-peers: $(READY) ## Measure pgflow beside its peers (ARGS="--quick")
	$(BIN)/python -m bench peers $(ARGS)

bench-growth: $(READY) ## Measure pgflow as it grows, and idle (ARGS="--scale 0.01")
	$(BIN)/python -m bench growth $(ARGS)

bench-page: $(READY) ## Make the tables and charts of docs/benchmarks.md from bench/results
	$(BIN)/python -m bench page $(ARGS)

docs: $(READY) ## Make those pages of the docs that come from the database and the code
	$(BIN)/python docs/generate.py $(ARGS)

build: $(READY) ## Build sdist and wheel into dist/, install the wheel elsewhere and use it
	rm -rf build dist
	$(BIN)/python -m build --no-isolation -q
	$(BIN)/python tests/check_wheel.py dist/*.whl

clean: ## Remove the virtual environment and whatever was built
	tests/prepare.sh stop
	rm -rf .venv .bench build dist *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgflow needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@
