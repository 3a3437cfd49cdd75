# A newcomer's two commands: `make demo` and `make test`. Both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast lint setup setup-dev ui clean

demo: setup
	$(BIN)/agent-specializer quickstart

# Two processes of one thread get more done than one of two: so all tests run side by side, those of the real model and of a
# browser two at a time, for they need memory.
test: test-fast
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "embedded or browser" -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not embedded and not browser" -n auto --dist loadfile --no-loadscope-reorder

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
