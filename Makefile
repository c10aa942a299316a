# `make help` lists the targets. Everything runs in a virtual environment, .venv, made and kept up to date here.
# pip's own configuration (index, wheel folders, proxies) is taken from the environment as it is.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
SOURCES := pyproject.toml meson.build $(wildcard README.md LICENSE) \
  $(shell find sorep basis_sets qe_patches -not -name __pycache__ -not -name '*.pyc')
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary
ONE_THREAD := OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_NUM_THREADS=1
ROOT_WITH_APT := [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null
# Whether this is a build without CUDA, a fraction of the size, is up to pip's configuration.
TORCH ?= torch==2.13.0
PW_PACKAGES := gfortran gcc make patch libfftw3-dev libopenblas-dev
APT_INSTALL := export DEBIAN_FRONTEND=noninteractive; apt-get -qq update >/dev/null; apt-get -qq install -y

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint bench clean compiler pw

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 - \2/p' Makefile

demo: $(VENV)/installed ## install and run the demonstration; needs neither root nor a compiler
	$(BIN)/sorep featurize examples/structures --store demo-store
	$(BIN)/sorep list --store demo-store
	$(BIN)/sorep plot si ge nacl batio3_cubic zno cu --store demo-store --out demo-store/features.png
	@echo "Look at demo-store/features.png; load it all with sorep.FeatureStore('demo-store').matrix('kinetic')"

test: pw ## install and run the tests, with the compiled kernel and a real pw.x where that is possible
	@$(BIN)/python tests/stock_pw_x.py 2>/dev/null || echo "Comparisons with an unpatched pw.x will be skipped."
	$(ONE_THREAD) $(BIN)/pytest -n 2 tests

pw: compiler $(VENV)/installed-test ## build the patched pw.x (once; kept in ~/.cache/sorep) and install pseudopotentials
	@if $(ROOT_WITH_APT) && ! dpkg -s $(PW_PACKAGES) >/dev/null 2>&1; then \
	  echo "Installing $(PW_PACKAGES)"; $(APT_INSTALL) $(PW_PACKAGES) >/dev/null; fi; \
	echo "Building pw.x, if that has not been done: it takes minutes"; \
	{ $(BIN)/sorep pw build && $(BIN)/sorep pseudos install; } || { \
	  echo "The single shot cannot be set up, for the reason above: tests that run pw.x will be skipped."; \
	  echo "Once that is mended, run make test again."; }

lint: $(VENV)/installed-dev ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: pw ## run every benchmark in turn, on one thread
	@for script in benchmarks/[a-z]*.py; do \
	  echo "== $$script"; $(ONE_THREAD) $(BIN)/python $$script || exit 1; done

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build demo-store .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	@echo "Installing sorep into $(VENV); the first time this takes minutes"
	$(PIP_INSTALL) .
	@touch $@

# An install with extras is an install without them too.
$(VENV)/installed-test: $(SOURCES) | $(BIN)/python
	@echo "Installing sorep and what its tests need into $(VENV); the first time this takes minutes"
	$(PIP_INSTALL) '$(TORCH)' '.[test]'
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: $(SOURCES) | $(BIN)/python
	@echo "Installing sorep and what its development needs into $(VENV); the first time this takes minutes"
	$(PIP_INSTALL) '$(TORCH)' '.[dev]'
	@touch $(VENV)/installed $(VENV)/installed-test $@

# Debian and Ubuntu keep a part of the standard library that venv needs in a package of its own.
$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=..."; exit 1; }
	@package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
	  || { $(ROOT_WITH_APT) && { $(APT_INSTALL) $$package >/dev/null; } && $(PYTHON) -m venv --clear $(VENV); } \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } \
	     2>/dev/null \
	  || $(PYTHON) -m virtualenv --quiet --clear $(VENV) 2>/dev/null \
	  || { rm -rf $(VENV); \
	       echo "$(PYTHON) cannot make virtual environments; install $$package or virtualenv for it."; exit 1; }

# What the Fortran kernel is built with. Where it cannot be had, the NumPy route is installed and tested.
compiler: | $(BIN)/python
	@missing=""; \
	command -v gfortran >/dev/null && command -v gcc >/dev/null || missing="gfortran"; \
	$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()' \
	  2>/dev/null || missing="$$missing $$($(BIN)/python -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')"; \
	if [ -z "$$missing" ]; then exit; fi; \
	if $(ROOT_WITH_APT); then echo "Installing $$missing"; $(APT_INSTALL) $$missing >/dev/null \
	  && rm -f $(VENV)/installed* && exit; fi; \
	echo "The Fortran kernel is not built and its NumPy twin is tested instead, for want of: $$missing"; \
	echo "To build it, install that (as root: apt-get install $$missing), then run: make clean test"
