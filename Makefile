# make demo    animates a photo with the shipped weights, evaluates them, trains for a few minutes
# make test    runs the tests             (make test ARGS="-m 'not slow' tests/data")
#              in two processes; WORKERS=4 in four, WORKERS=0 in none of their own, for a debugger
# make venv    only creates .venv and installs everything; the others do it by themselves
# make lint    checks style               (make format mends it)
# make pins    resolves the newest packages and rewrites constraints/ for the Python of .venv
# make clean   removes what the other targets made
#
# PYTHON=/path/to/python3.12 chooses the interpreter, VENV=folder the environment.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?=
ARGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The stamp carries a checksum of what decides what is installed: a change reinstalls, and nothing
# else does (a fresh clone's file times say nothing).
KEY := $(shell cat constraints/*.txt setup.py | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(KEY)

.PHONY: help venv demo test lint format pins clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

venv: $(STAMP)

# Large arrays on huge pages: a training step on a CPU takes a quarter less (docs/training.md).
demo: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
demo: $(STAMP)
	$(BIN)/python -m instant_gs.demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(STAMP):
	@PYTHON="$(PYTHON)" bash constraints/install.sh "$(VENV)" "$(STAMP)"

pins: $(STAMP)
	@bash constraints/resolve.sh "$(BIN)/python"

clean:
	rm -rf $(VENV) build dist out/demo out/demo-* instant_gs.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
