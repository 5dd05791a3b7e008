# The two commands a newcomer needs are `make bench` and `make test`: each sets
# up all it needs itself.  The rest is for work on fastloop.

VENV ?= .venv
PY = $(VENV)/bin/python
SETUP = VENV=$(VENV) tools/setup-env
BENCH_OUT ?= bench-results
# More words for pytest or benchmarks/run.py: make test ARGS="-k timer"
ARGS ?=
# Two processes of tests; pdb needs one: make unit WORKERS= ARGS=--pdb
WORKERS = -n 2
PYTHON_PARTS = fastloop tests benchmarks tools .ci noxfile.py setup.py
OWN_TESTS = $(wildcard $(addprefix tests/,unit behaviour isolated fault))

.PHONY: help bench race soak fuzz mutants edges test build debug sanitize lint format unit gate ci wheels \
	conformance sdist docs clean

help:
	@echo "make bench     race fastloop against asyncio and uvloop"
	@echo "make race      race it against all peers, in an hour and a quarter"
	@echo "make test      run the suite"
	@echo "make build     build the extension in place, in $(VENV)"
	@echo "make unit      the suite without the real programs, the quick part"
	@echo "make conformance  CPython's own tests of asyncio, on each version"
	@echo "make debug     build with asserts and -O0 -g3, then unit and behaviour"
	@echo "make sanitize  unit, behaviour, part of fault under ASan and UBSan;"
	@echo "               what is in Python: .ci/run --only asan-rest"
	@echo "make soak      10,000 connections on one loop for half an hour"
	@echo "make fuzz      the fuzzers of tests/fuzz, two minutes each"
	@echo "make mutants   change the C in places: which changes no test notices"
	@echo "make edges     what a deletion of tests loses (ARGS=map before it)"
	@echo "make lint      check style, layers, sizes, stubs"
	@echo "make format    format C and Python as lint wants them"
	@echo "make docs      the documentation as a site, in build/site"
	@echo "make wheels    for Linux and Windows (ARGS=--try: and tests on each)"
	@echo "make ci        what every change must pass (.ci/run)"
	@echo "make gate      all other checks, in hours (.ci/run --gate)"

bench:
	@$(SETUP) build bench
	@mkdir -p $(BENCH_OUT)
	$(PY) benchmarks/run.py --quick --json $(BENCH_OUT)/results.json \
		--chart $(BENCH_OUT)/results $(ARGS)

race:
	@BENCH_OUT=$(BENCH_OUT) tools/race $(ARGS)

test:
	@$(SETUP) build test interop
	$(PY) -m pytest --ignore=tests/lint $(WORKERS) $(ARGS)

build:
	@$(SETUP) build

unit:
	@$(SETUP) build test
	$(PY) -m pytest $(OWN_TESTS) $(WORKERS) $(ARGS)

debug:
	@FASTLOOP_DEBUG=1 $(SETUP) build test
	$(PY) -X dev -m pytest tests/unit tests/behaviour $(ARGS)

sanitize:
	.ci/run --only asan

soak:
	@$(SETUP) build
	$(PY) tests/load/soak.py $(ARGS)

fuzz:
	@CC=clang FASTLOOP_SANITIZE=fuzzer-no-link,address,undefined \
		VENV=.venv-fuzz tools/setup-env build fuzz
	.venv-fuzz/bin/python tests/fuzz/run.py $(ARGS)

mutants:
	@$(SETUP) build test
	$(PY) tests/mutants/mutants.py $(ARGS)

edges:
	@$(SETUP) build test lint
	$(PY) tests/mutants/mutants.py $(or $(ARGS),lost)

lint:
	@$(SETUP) build test lint
	$(PY) -m ruff check -q $(PYTHON_PARTS)
	$(PY) -m ruff format -q --check $(PYTHON_PARTS)
	find src \( -name '*.c' -o -name '*.h' \) \
		-exec clang-format --dry-run -Werror {} +
	for version in 3.11 3.12 3.13 3.14 3.15; do \
		$(PY) -m mypy --strict --python-version $$version fastloop || exit; \
	done
	$(PY) -m mypy.stubtest --concise --mypy-config-file \
		pyproject.toml fastloop._core
	FASTLOOP_LINT_STRICT=1 $(PY) -m pytest tests/lint $(ARGS)

format:
	@$(SETUP) build lint
	find src tests benchmarks \( -name '*.c' -o -name '*.h' \) \
		-exec clang-format -i {} +
	$(PY) -m ruff check -q --fix $(PYTHON_PARTS)
	$(PY) -m ruff format -q $(PYTHON_PARTS)

docs:
	@$(SETUP) build docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean

sdist:
	@$(SETUP) build publish
	$(PY) -m build -s .

wheels:
	@$(SETUP) build
	python3 tools/wheels $(ARGS)

# What a version found is in build/conformance; the table tells who is missing.
conformance:
	rm -rf build/conformance
	-.ci/run --only conf conf-all
	python3 tests/conformance/table.py

ci:
	.ci/run

gate:
	.ci/run --gate

clean:
	rm -rf build dist wheelhouse *.egg-info compile_commands.json
	rm -f fastloop/_core.*.so
