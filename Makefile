.DEFAULT_GOAL := help
.PHONY: help install test test-long lint format types check docs bench ci lock audit clean

LOCK := .ci/requirements.txt
EXTRAS := dev eval inspect joblib optuna ray slurm trackio

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Install dlmlab and its development tools into this environment, with the commit hook
	pip install -e '.[dev]'
	pre-commit install

test: ## Run the tests, but for those that start programs and whole runs
	pytest

test-long: ## Run all tests, on all cores, as CI does
	pytest -m '' -n auto --dist loadfile

lint: ## Find mistakes
	ruff check

format: ## Format the code and mend what can be mended
	ruff format
	ruff check --fix

types: ## Check the types
	mypy

check: lint types ## All that a commit must pass, short of the tests
	ruff format --check

docs: ## Write the tables of docs/decoders.md and docs/caches.md, then build the site; a broken link or reference fails
	python -m docs.decoder_table
	python -m docs.cache_table
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

bench: ## Time the decoders: tiny model against the baseline, on this machine
	python run.py

ci: ## Do what CI does, in an environment of its own
	.ci/run

lock: ## Choose CI's packages anew, within pyproject.toml's bounds, and write down their hashes (pip install uv)
	echo "torch; python_version < '3'" | uv pip compile pyproject.toml .ci/requirements.in $(EXTRAS:%=--extra %) \
		--universal --python-version 3.11 --generate-hashes --no-annotate --no-header --override /dev/stdin \
		--upgrade --quiet --output-file $(LOCK)

audit: ## Ask PyPI's advisories about CI's packages; needs the network (pip install pip-audit)
	@pip-audit --version > /dev/null || (echo "audit: pip install pip-audit" >&2; exit 2)
	pip-audit --requirement $(LOCK) --require-hashes --disable-pip --strict --progress-spinner off

clean: ## Remove caches and environments, not outputs
	rm -rf .venv-ci .*_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
