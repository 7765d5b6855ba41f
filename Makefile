# streamlearn: everything a person or CI does with a checkout.
#
#   make demo     see the whole loop work (sets the environment up first)
#   make test     all tests, doctests included; those with a broker start their own. JOBS=0: one by one
#   make check    format, lint, types, import contracts
#   make bench    throughput and latency, as ratios to a raw consumer
#   make bench-learning  accuracy, cost and memory beside other people's learners (ARGS=--quick:
#                   minutes, --full: hours, --write: docs/benchmarks.md anew from out/)
#   make bench-gpu  adaptations a second of the inner loop: one by one, batched, CUDA graph
#   make bench-streams   memory and speed with 10 to 100,000 streams in one worker
#   make bench-startup   a subscriber's start and a worker's restore with 1,000 streams
#   make chaos    kill workers and broker for MINUTES=30 while events flow; the verdict
#   make fuzz     every codec under changed messages for MINUTES=10, and how many there were
#   make soak     constant load for MINUTES=20: memory, handles, lag, latency and their slopes
#   make setup    only the environment, in .venv
#   make peers    the same, with the learners that benchmarks compare with
#   make lock     the pins in requirements/ after pyproject.toml changed (ARGS=--upgrade: newest)
#   make clean    remove what was built
#
# Needs Python 3.11 or newer, and for a broker Java 17 with Maven, or Docker, or
# STREAMLEARN_BOOTSTRAP=host:9092. Choose another Python with: make setup PYTHON=python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup peers demo test check bench bench-learning bench-gpu bench-streams bench-startup \
	chaos fuzz soak lock clean
MINUTES ?=

NEW_ENOUGH := import sys; raise SystemExit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$name"; break; }; done)

BIN := .venv/bin
READY := .venv/ready
PEERS := .venv/peers

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(READY)

# again only when the pins or the package's own metadata change
$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(NEW_ENOUGH)'; then \
		echo "streamlearn needs Python 3.11 or newer: install one, or name it: make setup PYTHON=python3.12" >&2; \
		exit 1; fi
	@[ -x $(BIN)/python ] && $(BIN)/python -c '$(NEW_ENOUGH)' || "$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

peers: $(PEERS)

$(PEERS): $(READY) requirements/benchmarks.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/benchmarks.txt
	@touch $@

demo: setup
	@$(BIN)/streamlearn demo $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict streamlearn
	$(BIN)/lint-imports

# Modules go to JOBS processes side by side, on one broker. What compiles at its first run is compiled
# before, once, not in each process that a test starts; Python's own bytecode, too, though the
# environment may say that none is to be written.
JOBS ?= 2
test: setup
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m tests.warm
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup
	$(BIN)/python benchmarks/throughput.py $(ARGS)

bench-learning: peers
	nice -n 10 $(BIN)/python -m benchmarks.learning $(ARGS)

bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-streams: setup
	$(BIN)/python benchmarks/streams.py $(ARGS)

bench-startup: setup
	$(BIN)/python benchmarks/startup.py $(ARGS)

chaos: setup
	$(BIN)/python -m tests.crash.chaos --minutes $(or $(MINUTES),30) $(ARGS)

fuzz: setup
	$(BIN)/python -m tests.wire.fuzz --minutes $(or $(MINUTES),10) $(ARGS)

soak: setup
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),20) $(ARGS)

lock: setup
	echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url $(ARGS) -o requirements/uv.txt -
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(ARGS) \
		--extra dev -o requirements/dev.txt pyproject.toml
	echo river | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url $(ARGS) \
		--constraint requirements/dev.txt -o requirements/benchmarks.txt -

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
