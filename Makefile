# Each target does its own set-up; the second call finds it done.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed

export PATH := $(BIN):$(PATH)

.PHONY: setup demo test check bench clean

setup: $(STAMP)  ## A virtual environment with the pinned versions

$(STAMP): pyproject.toml constraints.txt scripts/setup
	scripts/setup $(PYTHON) $(VENV)
	touch $@

demo: setup  ## Make sample clips and dub them: look into demo/
	dreamhead demo --output demo

test: setup  ## Every test
	scripts/test

check: setup  ## Format, lint, types, layers
	scripts/check

bench: setup  ## The benchmarks that need no GPU
	scripts/bench

clean:  ## Everything that the targets made
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
