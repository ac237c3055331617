# Everything runs in .venv, which is created by the first target that needs it.
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu    installs PyTorch's CPU build (Linux without a GPU)
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test slow lint bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed  ## Create the environment .venv, with all extras

demo: .venv/installed  ## Train on a packaged corpus, export, prove, and reply to ten prompts (minutes)
	$(BIN)/python examples/demo.py

test: .venv/installed  ## Run the tests in parallel
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow: .venv/installed  ## Run the slow tests; tests on real data need EDGECHAT_DATA
	$(BIN)/python -m pytest -m slow

lint: .venv/installed build/types  ## Check style, types and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=build/types $(BIN)/lint-imports

bench: .venv/installed  ## Measure speed compared with PyTorch eager, and the start of a process
	$(BIN)/python bench/decode.py
	$(BIN)/python bench/startup.py demo

clean:  ## Remove the environment, and what make demo created
	rm -rf .venv build dist *.egg-info runs/demo bundles/demo*

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("edgechat needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(INSTALL) --no-deps --index-url $(TORCH_INDEX) torch)
	$(INSTALL) --editable '.[all]'
	@touch $@

# Type checkers and import-linter cannot follow the import hook of an editable installation, so build/types holds links
# to the sources for them.
build/types: Makefile
	rm -rf $@ && mkdir -p $@/edgechat
	for package in cli export models runtime train tui; do ln -s ../../../$$package $@/edgechat/$$package; done
	for file in __init__.py __main__.py py.typed; do ln -s ../../../src/edgechat/$$file $@/edgechat/$$file; done
	@touch $@
