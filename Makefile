PYTHON ?= python3
VENV := .venv
RUNTIME := .venv-runtime
SITE = $(RUNTIME)/lib/python3*/site-packages
DIST := .venv-dist
MATRIX := .venv-matrix
DOCS := .venv-docs
PIP := bin/python -m pip --disable-pip-version-check --quiet

# processes that tests run in, each with one thread
WORKERS ?= 2
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

unexport PYTHONDONTWRITEBYTECODE  # tests start many interpreters, which find what one compiled

.PHONY: demo test check fmt bench dist docs matrix clean

demo: $(VENV)/ready  ## decide at full size; train small, export, check parity, decide without torch
	rm -rf hrm-demo
	$(VENV)/bin/hrm demo --out hrm-demo

# what needs more than production has runs beside what trains and exports; the rest, as installed
test: check $(RUNTIME)/ready  ## everything CI runs
	rm -rf build .coverage  # what an old build holds would be installed too
	mkdir .coverage
	$(VENV)/bin/slipcover --format json --out .coverage/source.json -m pytest $(PARALLEL) \
		tests/train tests/cli tests/export $$(grep -rl --include='*.py' importorskip tests/runtime)
	$(RUNTIME)/$(PIP) install --no-deps --force-reinstall .
	cd tests && ../$(RUNTIME)/bin/slipcover --source ../$(SITE)/hrm_runtime \
		--format json --out ../.coverage/installed.json -m pytest $(PARALLEL) runtime
	sed 's|"[^"]*/site-packages/|"|g' .coverage/installed.json > .coverage/runtime.json
	$(VENV)/bin/slipcover --fail-under 95 --out .coverage/all.json \
		--merge .coverage/source.json .coverage/runtime.json

check: $(VENV)/ready  ## formatting, lint, types, architecture
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

fmt: $(VENV)/ready  ## format and fix what can be fixed
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

bench: $(VENV)/ready  ## footprint of a production install, cost of a row and of a decision
	$(VENV)/bin/python benchmarks/footprint.py

dist: $(DIST)/ready  ## sdist, and from it the wheel: looked into, installed, and made to decide
	rm -rf build dist *.egg-info  # what old ones hold would be in the new ones too
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PIP_CONSTRAINT=$(CURDIR)/constraints.txt \
		$(DIST)/bin/python -m build
	$(DIST)/bin/twine check --strict dist/*
	$(DIST)/bin/python tests/support/distribution.py

matrix: $(MATRIX)/ready  ## every Python here, and the lowest versions; far longer than `make test`
	$(MATRIX)/bin/nox -- $(PARALLEL)

docs: $(DOCS)/ready  ## the documents and the API as a site, in site/: no dead link, nothing from elsewhere
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) $(RUNTIME) $(DIST) $(DOCS) $(MATRIX) .coverage hrm-demo build dist site *.egg-info

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

$(RUNTIME)/ready: pyproject.toml constraints.txt  # what production has, and what tests it
	$(PYTHON) -m venv --clear $(RUNTIME)
	$(RUNTIME)/$(PIP) install --constraint constraints.txt . pytest pytest-xdist hypothesis slipcover
	touch $@

$(DIST)/ready: constraints.txt
	$(PYTHON) -m venv --clear $(DIST)
	$(DIST)/$(PIP) install --constraint constraints.txt build twine
	touch $@

$(MATRIX)/ready: constraints.txt  # what makes an environment for each Python
	$(PYTHON) -m venv --clear $(MATRIX)
	$(MATRIX)/$(PIP) install --constraint constraints.txt nox
	touch $@

$(DOCS)/ready: constraints.txt  # reads the packages' source, and needs nothing of what they need
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/$(PIP) install --constraint constraints.txt mkdocs-material 'mkdocstrings[python]' ruff
	touch $@
