# What one does every day. Each target makes the environment it needs; `make` alone tells what there is.

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-oldest browser screenshots coverage lint format docs package changelog ci clean
BIN := .venv/bin
# Tests start thousands of processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Arguments for pytest: make test ARGS="tests/unit -k retry --databases sqlite"
ARGS ?=
# Many tests wait for other processes: four at once keep two cores busy. AT_ONCE= runs them one by one.
AT_ONCE ?= --numprocesses=4 --dist=worksteal

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: .venv ## Run the example project once, with every kind of task, and look at the results
	@$(BIN)/python example_project/demo.py $(ARGS)

serve: .venv ## Run the tour of the example project: web server, worker and beat, until Ctrl-C
	@$(BIN)/python example_project/demo.py --serve $(ARGS)

test: .venv ## Run the tests on the newest Python found here, with the newest Django
	$(BIN)/python -m pytest $(AT_ONCE) $(ARGS)

test-oldest: .venv-oldest ## Run the tests on the oldest Python found here, with the oldest Django and libraries
	.venv-oldest/bin/python -m pytest $(AT_ONCE) $(ARGS)

browser: ## Install Chromium for the tests of the pages, with apt as root
	@.ci/browser

screenshots: .venv ## Take the pictures of the documentation anew, with Chromium
	$(BIN)/python -m tests.browser.screenshots

coverage: .venv ## Run the tests and show the lines and branches that no test reaches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: .venv ## Check style, format, types, layers and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.manage makemigrations --check --dry-run

format: .venv ## Mend what can be mended by a program
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

package: .venv ## Build sdist and wheel, look into them, use the wheel in a clean environment
	.ci/package

changelog: .venv ## Show the changelog of the next release
	$(BIN)/towncrier build --draft --version next

ci: ## Run everything that must hold before a change goes in
	.ci/run

clean: ## Remove all that the targets made
	rm -rf .venv .venv-oldest .cache .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		build dist docs/_build htmlcov

# Not files whose age counts: the script knows by itself whether there is something to do.
.PHONY: .venv .venv-oldest
.venv:
	@.ci/environment newest $@

.venv-oldest:
	@.ci/environment oldest $@
