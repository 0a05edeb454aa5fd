# `make demo` and `make test` need nothing but Python >= 3.10: each makes .venv itself.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format lint types wheel examples clean

help:
	@echo "make demo    see it work on real features, some minutes"
	@echo "make test    the test suite"
	@echo "make check   format, lint, types, tests, wheel: before every commit"
	@echo "make examples  the two example hosts, with pseudo videos"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/vad-pseudoaug demo --output demo

test: .venv/installed
	$(BIN)/python -m pytest

check: format lint types test wheel

format: .venv/installed
	$(BIN)/ruff format --check .

lint: .venv/installed
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

wheel: .venv/installed
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/check-wheel-contents dist

examples: .venv/installed
	$(BIN)/python examples/rtfm_style.py --pseudo
	$(BIN)/python examples/mil_style.py --pseudo

clean:
	rm -rf .venv build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
