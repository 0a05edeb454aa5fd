# `make demo` and `make test` need nothing but Python >= 3.10: each makes .venv itself.
PYTHON ?= python3
BIN := .venv/bin

# Of the same commit, the same wheel, byte for byte.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
# Processes that share the tests, of one thread each.
TEST_PROCESSES ?= 2
# Executions of each fuzzing target.
FUZZ_RUNS ?= 200000
FUZZ_TARGETS := npy npz safetensors mat list config weights state \
    truth-npy truth-npz truth-mat truth-txt entry

.PHONY: help demo test check format lint types wheel reproducible lowest fuzz crashes
.PHONY: examples pictures docs clean

help:
	@echo "make demo    see it work on real features, some minutes"
	@echo "make test    the test suite"
	@echo "make check   format, lint, types, tests, wheel: before every commit"
	@echo "make examples  the two example hosts, with pseudo videos"
	@echo "make pictures  the pictures of pseudo videos, in README and docs, anew; some minutes"
	@echo "make docs    the documentation as a site, in site/, after tutorial and notebook were run"
	@echo "make fuzz    hostile files, FUZZ_RUNS=200000 of each kind"
	@echo "make crashes commands killed in the middle, 200 times; the same command must then finish"
	@echo "make reproducible  the wheel twice: are the bytes the same?"
	@echo "make lowest  the tests with the oldest packages that install here"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/vad-pseudoaug demo --output demo

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal

check: format lint types test wheel

format: .venv/installed
	$(BIN)/ruff format --check .

lint: .venv/installed
	$(BIN)/ruff check .

# As the oldest and as the newest Python that is supported.
types: .venv/installed
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13

wheel: .venv/installed
	rm -rf build dist
	umask 022 && $(BIN)/python -m build --quiet
	$(BIN)/check-wheel-contents dist

reproducible: .venv/installed
	$(BIN)/python .ci/reproducible.py

lowest:
	$(PYTHON) .ci/lowest.py

fuzz: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	for target in $(FUZZ_TARGETS); do \
	    $(BIN)/python fuzz/run.py $$target -runs=$(FUZZ_RUNS) -max_len=4096 || exit 1; \
	done

crashes: .venv/installed
	$(BIN)/python tests/crashes.py 200

examples: .venv/installed
	$(BIN)/python examples/rtfm_style.py --pseudo
	$(BIN)/python examples/mil_style.py --pseudo

pictures: .venv/installed
	$(BIN)/python docs/pictures.py

docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m pytest -m slow tests/test_tutorial.py tests/test_notebooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf .venv build dist demo site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
