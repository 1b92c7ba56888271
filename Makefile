# `make help` lists the targets. Everything here runs in the active Python environment.
BUILD := build/sanitized
CSRC := $(shell find csrc -name '*.h' -o -name '*.cpp')
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install Puna with the test extra, Python files linked to this checkout
	pip install --editable '.[test]'

.PHONY: check
check: lint types native races test ## all that .ci/run checks

.PHONY: lint
lint: ## format, style and spelling, Python and C++
	ruff format --check .
	ruff check .
	ruff check --preview --select D417,DOC102,DOC202,DOC403 src # docstrings name what there is
	codespell
	clang-format --dry-run -Werror $(CSRC)

.PHONY: format
format: ## bring Python and C++ files into the format that `lint` wants
	ruff format .
	ruff check --fix-only .
	clang-format -i $(CSRC)

.PHONY: types
types: ## mypy, strict
	mypy

.PHONY: test
test: ## all Python tests, on the installed package
	pytest

.PHONY: native
native: ## the C++ tests under the address and undefined-behaviour sanitizers
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Debug -DPUNA_NATIVE_TESTS=ON -DPUNA_SANITIZE=address,undefined
	cmake --build $(BUILD) --target puna_native_tests
	tests/native/check_symbols $(BUILD)
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(BUILD)/puna_native_tests

.PHONY: races
races: ## the C++ tests that use several threads under the thread sanitizer
	cmake -S . -B build/races -G Ninja -DCMAKE_BUILD_TYPE=Debug -DPUNA_NATIVE_TESTS=ON -DPUNA_SANITIZE=thread
	cmake --build build/races --target puna_native_tests
	TSAN_OPTIONS=halt_on_error=1 build/races/puna_native_tests pool forward

.PHONY: emulated arm plain
emulated: arm plain ## the C++ tests on other CPUs: Arm, and x86-64 without AVX (g++-aarch64-linux-gnu, qemu-user)

arm:
	cmake -S . -B build/arm -G Ninja -DPUNA_NATIVE_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	cmake --build build/arm --target puna_native_tests
	qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max build/arm/puna_native_tests

plain:
	cmake -S . -B build/plain -G Ninja -DPUNA_NATIVE_TESTS=ON
	cmake --build build/plain --target puna_native_tests
	qemu-x86_64 -cpu Nehalem build/plain/puna_native_tests

.PHONY: schemathesis
schemathesis: ## many made-up requests against the server's OpenAPI document
	PUNA_SCHEMA_EXAMPLES=100 pytest tests/unit/server/test_openapi.py

.PHONY: docs
docs: ## run every block of the README and the docs
	pytest tests/docs

.PHONY: snapshots
snapshots: ## write the files that pin the public names and the native library's types
	python -m tests.contracts.public
	python -m nanobind.stubgen --quiet -m puna._native -r -O src/puna

.PHONY: bench
bench: ## speed, size and memory of the default model on this machine
	puna bench

.PHONY: size
size: ## lines of code a package
	@for d in src/puna src/puna/*/ csrc csrc/*/ tests; do \
	  printf '%6d %s\n' "$$(find $$d -name '*.py' -o -name '*.h' -o -name '*.cpp' | xargs cat | wc -l)" "$$d"; done
