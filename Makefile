# make train   trains a model on the real data:  make train MODEL=5L EPOCHS=3
# make test    lint, types, tests
# make test-long   the tests that make test leaves out because each takes seconds and shows a variation
# make test-all   all tests, also the slow ones: a browser, the site, the notebook, killed sweeps; an hour and more
# make board   TensorBoard on tb_logs, served to this machine alone, and a link to the charts that one looks at first
# make notebook   opens a copy of the notebook docs/tour.ipynb, tour.ipynb, in a browser
# make docs    the documentation as a site, in build/docs
# make results trains every row of the table of scores, for hours; after an interruption it continues
# make check-results MODEL=4D_drop03 SEED=0   trains one row of the table again and compares the scores
# make report  the page of docs/report: the assignment report's experiments with five seeds, hours of training
# make campaign HOURS=1 SEED=0 PARTS=   crashes and kills by the thousand
# Each target first sets up .venv if it is missing, or if setup.cfg, pyproject.toml or constraints.txt have changed.

SHELL := /bin/sh
MODEL ?= 4D_drop03
EPOCHS ?=
FLAGS ?=
SEED ?= 0
HOURS ?= 1
PARTS ?=
FIT := import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c "$(FIT)" 2>/dev/null && { echo $$p; exit; }; done; echo python3)
RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest -n logical --maxprocesses=4 --dist=worksteal -q
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: train test test-long test-all pytest board notebook docs results check-results report campaign lint types clean

train: .venv/run.stamp
	@$(RUN) -m trainers.train --model=$(MODEL) $(if $(EPOCHS),--epochs=$(EPOCHS)) $(FLAGS)

test: .venv/dev.stamp
	@$(MAKE) --no-print-directory -j3 lint types pytest

pytest: .venv/dev.stamp
	@$(PYTEST)

test-long: .venv/dev.stamp
	@$(PYTEST) -m "long and not slow"

test-all: .venv/dev.stamp .venv/docs.stamp lint types
	@$(PYTEST) -m ""

lint: .venv/dev.stamp
	@$(RUN) -m flake8
	@$(RUN) -m isort --check-only --quiet .

types: .venv/dev.stamp
	@$(RUN) -m mypy

board: .venv/run.stamp
	@$(RUN) -m trainers.board.serve --logdir=tb_logs $(FLAGS)

notebook: .venv/notebook.stamp
	@test -e tour.ipynb || cp docs/tour.ipynb tour.ipynb
	@$(RUN) -m notebook tour.ipynb $(FLAGS)

# Material's note on MkDocs 2 is answered in CONTRIBUTING.md.
docs: .venv/docs.stamp
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs --quiet build --strict
	@echo "written: build/docs/index.html"

results: .venv/run.stamp
	@$(RUN) -m trainers.results $(FLAGS)

check-results: .venv/run.stamp
	@$(RUN) -m trainers.results --check --models=$(MODEL) --seeds=$(SEED), $(FLAGS)

report: .venv/run.stamp
	@$(RUN) -m trainers.report --seeds=5 --out=docs/report $(FLAGS)

campaign: .venv/dev.stamp
	@$(RUN) -m tests.campaign --hours=$(HOURS) --seed=$(SEED) $(PARTS) $(FLAGS)

.venv/python.stamp:
	@$(PYTHON) -c "$(FIT)" 2>/dev/null || { echo "fmnist_zoo needs Python 3.11, 3.12 or 3.13, and found:" \
		"$$($(PYTHON) --version 2>&1 || true); name another with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up .venv (once; 2 GB and a minute or two)"
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
		rm -rf .venv; exit 1; }
	@touch $@

.venv/run.stamp: .venv/python.stamp $(SOURCES)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/dev.stamp: .venv/python.stamp $(SOURCES)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,distributed,export]"
	@touch .venv/run.stamp $@

.venv/docs.stamp: .venv/run.stamp
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

.venv/notebook.stamp: .venv/run.stamp
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebook]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache
