# Every target sets up what it needs in .venv from pyproject.toml and constraints.txt alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPRESS := $(VENV)/.compress
SPARK := $(VENV)/.spark

.PHONY: help demo browser test test-compress check docs format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sandbox,distill,plots]'
	touch $(READY)

# torch and what runs on it are 1.3 GB: only the tests of the extra `compress` need them.
$(COMPRESS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compress]'
	touch $(COMPRESS)

# pyspark is half a gigabyte, and needs Java 17: only the tests of the extra `spark` need it, and they fail without Java.
$(SPARK): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[spark]'
	touch $(SPARK)

demo: $(READY)  ## plan, submit, collect and report the example conversations against the local sandbox
	$(BIN)/python examples/demo.py

browser:  ## a Chromium for the tests of report pages, where it can be installed
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null \
		|| echo "no Chromium could be installed: tests of report pages are left out"; \
	else echo "no Chromium: tests of report pages are left out; install your system's package of it"; fi

test: $(COMPRESS) $(SPARK) browser  ## unit, conformance and acceptance tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-compress: $(COMPRESS)  ## the tests that run llmlingua itself
	$(BIN)/python -m pytest tests/unit/test_llmlingua2.py

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
