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
PYTHON_PARTS = fastloop tests benchmarks docs tools .ci setup.py
OWN_TESTS = $(wildcard $(addprefix tests/,unit behaviour isolated fault))

.PHONY: help bench race test build unit sanitize fuzz mutants edges lint \
	format docs wheels conformance ci gate clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 18

bench: ## race fastloop against asyncio and uvloop, in five minutes
	@$(SETUP) build bench
	@mkdir -p $(BENCH_OUT)
	$(PY) benchmarks/run.py --quick --loops asyncio,uvloop,fastloop \
		--json $(BENCH_OUT)/results.json --chart $(BENCH_OUT)/results $(ARGS)

race: ## race it against all peers, in an hour and a quarter
	@BENCH_OUT=$(BENCH_OUT) tools/race $(ARGS)

test: ## run the suite
	@$(SETUP) build test interop
	$(PY) -m pytest --ignore=tests/lint $(WORKERS) $(ARGS)

build: ## build the extension in place, in .venv
	@$(SETUP) build

unit: ## the suite without the real programs, the quick part
	@$(SETUP) build test
	$(PY) -m pytest $(OWN_TESTS) $(WORKERS) $(ARGS)

sanitize: ## unit, behaviour, part of fault under ASan and UBSan
	.ci/run --only asan

fuzz: ## the fuzzers of tests/fuzz, two minutes each
	@CC=clang FASTLOOP_SANITIZE=fuzzer-no-link,address,undefined \
		VENV=.venv-fuzz tools/setup-env build fuzz
	.venv-fuzz/bin/python tests/fuzz/run.py $(ARGS)

mutants: ## change the C in places: which changes no test notices
	@$(SETUP) build test
	$(PY) tests/mutants/mutants.py $(ARGS)

edges: ## what a deletion of tests loses (ARGS=map before it)
	@$(SETUP) build test lint
	$(PY) tests/mutants/mutants.py $(or $(ARGS),lost)

lint: ## check style, layers, sizes, stubs, clang-tidy
	@$(SETUP) build test lint
	$(PY) -m ruff check -q $(PYTHON_PARTS)
	$(PY) -m ruff format -q --check $(PYTHON_PARTS)
	find src tests benchmarks -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
	for version in 3.11 3.12 3.13 3.14 3.15; do \
		$(PY) -m mypy --strict --python-version $$version fastloop || exit; \
	done
	$(PY) -m mypy.stubtest --concise --mypy-config-file \
		pyproject.toml fastloop._core
	FASTLOOP_LINT_STRICT=1 $(PY) -m pytest tests/lint $(ARGS)

format: ## format C and Python as lint wants them
	@$(SETUP) build lint
	find src tests benchmarks -name '*.[ch]' -exec clang-format -i {} +
	$(PY) -m ruff check -q --fix $(PYTHON_PARTS)
	$(PY) -m ruff format -q $(PYTHON_PARTS)

docs: ## the documentation as a site, in build/site, and its links
	@$(SETUP) build docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean

wheels: ## for Linux and Windows (ARGS=--try: and tests on each)
	@$(SETUP) build
	python3 tools/wheels $(ARGS)

# What a version found is in build/conformance; the table tells who is missing.
conformance: ## CPython's own tests of asyncio, on each version
	rm -rf build/conformance
	-.ci/run --only conf conf-all
	python3 tests/conformance/table.py

ci: ## what every change must pass (.ci/run)
	.ci/run

gate: ## all other checks, in hours (.ci/run --gate)
	.ci/run --gate

clean: ## remove what builds leave
	rm -rf build dist wheelhouse *.egg-info compile_commands.json
	rm -f fastloop/_core.*.so
