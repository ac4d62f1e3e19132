# `make fit` and `make test` are all that a fresh machine needs: Python 3.10 or later with venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
NAME ?=

ifdef UV
create = $(UV) venv --quiet --python $(PYTHON) $(VENV)
install = $(UV) pip install --quiet --python $(BIN)/python
else
create = $(PYTHON) -m venv $(VENV)
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: fit test lint bench clean help

help:           ## List the targets.
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

fit: $(VENV)/.installed  ## Train on the embedded digits (ARGS="--trainer.max_epochs 3" are handed on).
	$(BIN)/lightning-recipes fit --config configs/digits.yaml $(ARGS)

test: $(VENV)/.installed-dev  ## Run the whole suite, doctests included.
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.installed-dev  ## Check style, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## Run the benchmarks, or one of them (NAME=startup).
	for script in $(if $(NAME),benchmarks/$(NAME).py,$(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))); do \
		$(BIN)/python $$script || exit 1; \
	done

clean:          ## Remove the environment and what the tools left behind; runs stay.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(create)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch is several GB, one to two minutes."
	$(install) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(install) -c constraints.txt -e '.[dev]'
	touch $@
