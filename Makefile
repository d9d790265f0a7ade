# Every target makes the virtual environment it needs from pyproject.toml.
# Needs: GNU make, and Python 3.11 or newer (PYTHON=/path/to/python to choose one).

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SEEDS ?= 2000
# Tests on all cores at a time; those that start servers and clusters for themselves on a few, file by file.
PARALLEL := -n logical --dist worksteal
FEW := -n logical --maxprocesses 2 --dist loadscope --no-loadscope-reorder
OUT ?= out/demo

define SHOW_LARGEST
import json, pathlib, sys
largest = {}
for part in pathlib.Path(sys.argv[1]).iterdir():
    if part.is_file() and not part.name.startswith("."):
        for path, hits in map(json.loads, part.open(encoding="utf-8")):
            largest[path] = max(hits, largest.get(path, 0))
print(f"{sum(largest.values()):,} requests to {len(largest):,} paths, the most frequent:")
for path, hits in sorted(largest.items(), key=lambda item: -item[1])[:10]:
    print(f"{hits:10}  {path}")
endef
export SHOW_LARGEST

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: demo
demo: $(INSTALLED) ## count the hits of an access log with two slots on Ray, and show the largest counts
	rm -rf $(OUT) $(OUT)-checkpoints
	$(BIN)/raystream run -p 2 -D execution.checkpointing.interval=1s \
	    -D execution.checkpointing.dir=$(OUT)-checkpoints jobs/access_log_count.py --out $(OUT)
	@$(BIN)/python -c "$$SHOW_LARGEST" $(OUT)

.PHONY: test
test: lint ## lint, type check and the whole test suite
	$(BIN)/python -m pytest $(PARALLEL) tests/unit
	$(BIN)/python -m pytest $(PARALLEL) tests/test_*.py
	$(BIN)/python -m pytest $(PARALLEL) tests/e2e
	$(BIN)/python -m pytest $(PARALLEL) tests/simulation
	$(BIN)/python -m tests.simulation --seeds=2000 --minutes=4
	$(BIN)/python -m pytest $(FEW) tests/services
	$(BIN)/python -m pytest $(FEW) tests/ray
	@$(MAKE) --no-print-directory coverage

.PHONY: coverage
coverage: $(INSTALLED) ## the share of runtime/ and protocol/ lines that a few simulated seeds alone cover
	$(BIN)/coverage run --source=raystream/runtime,raystream/protocol -m pytest -q -m simulation \
	    --seeds=20 tests/simulation/test_exactly_once.py
	@$(BIN)/coverage report | tail -n 3

.PHONY: lint
lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check raystream tests jobs benchmarks
	$(BIN)/mypy

.PHONY: simulate
simulate: $(INSTALLED) ## every topology, mode and fault in a simulated cluster, on all cores (SEEDS=2000)
	$(BIN)/python -m tests.simulation --seeds=$(SEEDS)

.PHONY: bench
bench: $(INSTALLED) ## every benchmark; nothing else should run on the machine
	for script in benchmarks/*.py; do $(BIN)/python "$$script" || exit 1; done

.PHONY: wheel
wheel: $(INSTALLED) ## build dist/raystream-*.whl
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

.PHONY: clean
clean: ## remove everything that was generated, but the virtual environment
	rm -rf build dist out .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find raystream jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## clean, and remove the virtual environment
	rm -rf $(VENV)

# Installed anew only when pyproject.toml has changed; the package itself is installed editable.
$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || { \
	    for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	        if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            echo "creating $(VENV) with $$python"; \
	            exec "$$python" -m venv $(VENV); \
	        fi; \
	    done; \
	    echo "raystream needs Python 3.11 or newer, and none was found" >&2; \
	    echo "hint: install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	}
	@echo "installing raystream, Ray and the development tools into $(VENV); the first time takes a minute or two"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
