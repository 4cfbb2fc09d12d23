# Two commands are all the set-up there is: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS ?= never
export DO_NOT_TRACK := 1

.PHONY: help demo test check bench-evidence bench-attributions up clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# uv lives in the project's own environment; nothing outside this folder is touched.
$(BIN)/.installed: pyproject.toml uv.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'; }
	$(BIN)/uv sync --quiet --locked --extra all --inexact
	@touch $@

# What only the tests need is large: Spark, and PyTorch, which pip may have a build without CUDA for and uv may not.
$(BIN)/.installed-tests: $(BIN)/.installed tests/neural.txt
	$(BIN)/uv sync --quiet --locked --extra all --extra spark --inexact
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement tests/neural.txt
	@touch $@

# In the order of the folders, whose last are short: by default a file of few tests comes last, however long these take.
PARALLEL := -q -n 2 --dist loadfile --no-loadscope-reorder

check: $(BIN)/.installed-tests .tools/promtool ## Format, lint, types, import contracts, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/pytest $(PARALLEL) -m "not slow"

demo: $(BIN)/.installed ## The whole mission on a year of real flights: baseline, backfill, Airflow, gate (about 5 minutes)
	$(BIN)/python demo/run.py

test: $(BIN)/.installed-tests .tools/promtool ## Everything that CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/pytest $(PARALLEL)

# Prometheus and promtool of the machine's, or of Debian's package, unpacked into this folder.
.tools/promtool:
	@mkdir -p .tools
	@if command -v promtool >/dev/null && command -v prometheus >/dev/null; then \
	  ln -sf "$$(command -v promtool)" "$$(command -v prometheus)" .tools/; \
	elif command -v apt-get >/dev/null; then \
	  sh -c 'apt-get update -qq || true' >/dev/null 2>&1; \
	  cd .tools && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb deb && rm prometheus_*.deb && \
	  ln -sf deb/usr/bin/promtool deb/usr/bin/prometheus . ; \
	else \
	  echo "The tests need promtool and prometheus: install Prometheus so that both are on the PATH." >&2; exit 1; \
	fi

# What the evidence is compared with fights with nobody but itself: an environment of its own.
PEERS := benchmarks/.venv-peers
$(PEERS)/.installed: benchmarks/peers.txt $(BIN)/.installed
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --requirements benchmarks/peers.txt
	@touch $@

EVIDENCE := OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python benchmarks/evidence
FLIGHTS := --work .cache/flights_year
bench-evidence: $(BIN)/.installed $(PEERS)/.installed ## The studies of benchmarks/README.md: a day of one core; killed, it goes on
	$(EVIDENCE)/null.py
	$(EVIDENCE)/delay.py
	$(EVIDENCE)/sensitivity.py
	$(EVIDENCE)/peers.py
	$(EVIDENCE)/causes.py
	$(EVIDENCE)/flights_year.py $(FLIGHTS)
	for part in rows rules evidently; do $(EVIDENCE)/flights_peers.py $$part $(FLIGHTS) || exit 1; done
	OMP_NUM_THREADS=1 nice -n 19 $(PEERS)/bin/python benchmarks/evidence/flights_peers.py nannyml $(FLIGHTS)
	$(EVIDENCE)/tables.py

# What explaining is compared with must not meet the project's own environment. Bytecode is made now, as pip does: where
# PYTHONDONTWRITEBYTECODE is set, every process would compile numba anew, within what is measured.
ATTRIBUTIONS := benchmarks/.venv-attributions
$(ATTRIBUTIONS)/.installed: benchmarks/attributions/peers.txt $(BIN)/.installed
	UV_PROJECT_ENVIRONMENT=$(ATTRIBUTIONS) $(BIN)/uv sync --quiet --locked --compile-bytecode --extra all --extra spark
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(ATTRIBUTIONS)/bin/python --requirements benchmarks/attributions/peers.txt
	@touch $@

MEASURE := $(ATTRIBUTIONS)/bin/python benchmarks/attributions
bench-attributions: $(ATTRIBUTIONS)/.installed $(PEERS)/.installed ## What explaining, summarising and whole windows take: hours of an idle machine
	for study in families whole growth summarise spark tables; do $(MEASURE)/$$study.py || exit 1; done

up: $(BIN)/.installed ## Serve the demo's metrics and reports on http://127.0.0.1:9464
	$(BIN)/whydrift serve --config configs/flights.yaml

clean: ## Remove the demo's data, caches and builds; the environment stays
	rm -rf .demo .tools dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find monitors pipelines dags demo tests -name __pycache__ -prune -exec rm -rf {} +
