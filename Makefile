# A newcomer's two commands: `make demo` and `make test`. Both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast lint setup setup-dev ui clean

demo: setup
	$(BIN)/agent-specializer quickstart

# Tiny models gain nothing from threads, so their tests run side by side; those of the real model one after another.
test: test-fast
	$(BIN)/python -m pytest -m "embedded or browser"

test-fast: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not embedded and not browser" -n auto --dist loadfile

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: setup-dev
	$(BIN)/agent-specializer ui

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
