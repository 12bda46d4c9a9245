# `make demo` and `make test` need nothing but Python 3.11 or later: they make .venv, install into it and run.
# Paths are relative throughout, so the checkout may lie in a folder whose name has spaces.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help demo test test-dtypes test-release fuzz faults check audit docs package interop quirks format clean

help:
	@echo "make demo    run the demo on an example image, results in grounded-seg-out/demo"
	@echo "make test    run the tests"
	@echo "make test-dtypes  run those that leave the dtype to the processor, with each one; after make test"
	@echo "make test-release  run the long tests: a wheel, two processes, the longest commands of the docs"
	@echo "make fuzz MINUTES=60  give every reader of files some 10,000 broken ones, and print what escaped"
	@echo "make faults  every command with every fault of disk, memory, streams and signals, at 12 steps"
	@echo "make check   lint, formatting and types"
	@echo "make audit   compare the installed packages with the lists of known holes"
	@echo "make docs    build the pages of docs/ as a site, in site/"
	@echo "make package build the wheel and the sdist in dist/, and check both"
	@echo "make interop read every export back with the label tools' own readers, each installed in .cache/interop,"
	@echo "             and have their own clients ask a server"
	@echo "make quirks  give the COCO readers of tools and trainers every fault that validate names"
	@echo "make format  format the code and mend what the linter can"
	@echo "make clean   remove .venv, results and caches"

# Installed again when the dependencies change. The stamp is written last, so a broken install is tried again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "error: $(PYTHON) can't make .venv; on Debian: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@echo "Installing into .venv; the first time takes some minutes."
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@$(BIN)/python -c 'import cv2' || \
		{ echo "error: OpenCV can't be imported; on Debian: apt-get install libgl1 libglib2.0-0" >&2; exit 1; }
	@touch $@

demo: $(INSTALLED)
	$(BIN)/grounded-seg run "red car" examples/scene-1.jpg --preset demo -o grounded-seg-out/demo --overwrite

# Two processes of one thread each take little more than half the time of one with two.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST) -m "not release"

test-release: $(INSTALLED)
	$(PYTEST) -m release

# What `--dtype auto` may stand for on a processor. The tests that come to that choice are noted by `make test`.
test-dtypes: $(INSTALLED)
	GROUNDED_SEG_TEST_DTYPE=float32 $(PYTEST)
	GROUNDED_SEG_TEST_DTYPE=bfloat16 $(PYTEST)

MINUTES ?= 60
fuzz: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/fuzz_run.py --minutes $(MINUTES)

faults: $(INSTALLED)
	GROUNDED_SEG_FAULT_STEPS=12 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(INSTALLED)
	$(BIN)/python .ci/audit.py

# Strict: a link to a page or heading that isn't there is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html is the first page."

package: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

interop: $(INSTALLED)
	$(BIN)/python tests/interop/read_back.py
	$(BIN)/python tests/interop/ask_server.py

quirks: $(INSTALLED)
	PYTHONPATH=tests:tests/interop $(BIN)/python tests/interop/try_quirks.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .nox grounded-seg-out .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
