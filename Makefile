# What a developer and CI run. Another Python: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
SOURCES := benchmarks configs densevit docs/conf.py docs/_ext docs/pictures examples tasks tests tools setup.py
# Models under test are small: a process per core finishes sooner than threads do.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q --timeout 300 -n logical --maxprocesses 8 --dist worksteal

CONFIG := configs/demo/segformer_b0_shapes.py
DATA := data/demo
DEMO := work_dirs/demo

.PHONY: install demo test test-slow test-wheel test-all docs faults lint types bench clean

install: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet -e ".[test,dev]"
	touch $@

# Make data, train on them, test, predict: a few minutes on two CPU cores.
demo: install
	$(RUN) tools/make_demo_data.py segmentation --root $(DATA)
	rm -rf $(DEMO)
	$(RUN) tools/train.py $(CONFIG) --work-dir $(DEMO)
	$(RUN) tools/test.py $(CONFIG) $$(ls -t $(DEMO)/iter_*.pth | head -n 1) --work-dir $(DEMO)
	$(RUN) tools/predict.py $(CONFIG) $$(ls -t $(DEMO)/iter_*.pth | head -n 1) --out $(DEMO)/predicted \
		$$(ls $(DATA)/segmentation/images/validation/* | head -n 4)
	@echo
	@echo "report:          $(DEMO)/report.html"
	@echo "truth compared:  $(DEMO)/predictions/"
	@echo "predicted files: $(DEMO)/predicted/overlays/"

test: lint types
	$(PYTEST) -m "not slow"

# What `make test` leaves out: every variant, faults, whole runs.
test-slow: install
	$(PYTEST) -m slow --timeout 900

# The wheel alone, in an environment of its own and outside of the checkout.
test-wheel:
	tests/try_wheel.sh $(PYTHON)

test-all: test test-slow test-wheel docs

# The site, of docs/ and of the code's own docstrings, into docs/_build/html. A warning is an error.
docs: install
	OMP_NUM_THREADS=1 $(RUN) -m sphinx -b html -q -W -n --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Kill runs, fill disks, damage files, and put the table of what happened into docs/reliability.md.
faults: install
	$(PYTEST) tests/faults --fault-table docs/reliability.md

lint: install
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)

types: install
	$(RUN) -m mypy

bench: install
	for script in benchmarks/*.py; do $(RUN) $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist docs/_build docs/project docs/reference/*.rst *.egg-info .pytest_cache .mypy_cache .ruff_cache
