# Every target sets up what it needs in .venv from pyproject.toml and constraints.txt alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check docs format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sandbox]'
	touch $(READY)

demo: $(READY)  ## plan, submit, collect and report the example conversations against the local sandbox
	$(BIN)/python examples/demo.py

test: $(READY)  ## unit, conformance and acceptance tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(READY)  ## formatting, lint, types, import floors, shape
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_floors.py tests/unit/test_shape.py

docs: $(READY)  ## run what the documents show and write what was printed
	$(BIN)/python docs/generate.py

format: $(READY)  ## let ruff rewrite the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## forget the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo
