# The same targets run by hand, in pre-commit and in CI. PYTHON is the environment's interpreter.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
BIN := $(dir $(PYTHON))

.PHONY: check lint types imports test slow regression build format
check: lint types imports

lint:                       ## style and docstrings (ruff's D rules, Google form)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

imports:                    ## who may import whom
	PYTHONPATH=.:envs:client $(BIN)lint-imports

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -m slow

regression:                 ## retrains a small cell; fails if its interval lies wholly below the stored one: 2-3 minutes
	[ ! -d runs/regression/cells ] || rm -rf runs/regression  # a finished one is run again, an interrupted one goes on
	$(PYTHON) -m diffusion_policy.cli.benchmark suite=regression out=runs/regression against=benchmarks/results/regression

build:                      ## wheel and sdist into dist/
	$(PYTHON) -m build

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
