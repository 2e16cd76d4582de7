# make demo           set up, then tune the embedded default and compare it with its original
# make demo-decoder   the same with a 135 M decoder read from GGUF
# make demo-chat      teach that decoder to answer questions, and compare its answers with the original's
# make test           lint, format, types, layers, pins, all tests
# make browser        Chromium for the tests that look at pages, installed where this can be done (Debian, as root)
# make benchmark      ours against the stock script; let the machine do nothing else meanwhile
# make gpu            numerics, kill-and-resume and speed on a CUDA device, in minutes; without one each is skipped by name
# make torture        kill 300 runs at random moments and resume them
# make reliability    run the tests of the numbered faults and note their results for docs/reliability.md
# make torture-server the server's tests in their long versions: 10,000 generated requests, 1,000 reloads, a minute's overload
# make architectures  tiny models of every architecture through the whole tool, for docs/architectures.md, some 15 minutes
# make methods        every tuner of PEFT through a whole run on three architectures, for docs/methods.md, some 20 minutes
# make docs           write what is generated in docs/
# make audit          every dependency with its licence and release date; fails on one that is not permissive
# make torture-inputs 10,000 broken recipes, data files, weights and names
# make lock           resolve the pinned versions anew
#
# Nothing is installed again until a pinned version changes. Set PYTHON to pick an interpreter (3.11 or later).

PYTHON   ?= python3
VENV     ?= .venv
BIN      := $(VENV)/bin
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python compiles what is imported, when it is; all that is installed would take a minute more.
export PIP_NO_COMPILE := 1

.PHONY: help demo demo-decoder demo-chat test check browser architectures methods docs lock benchmark gpu torture torture-inputs torture-server reliability audit clean
help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: $(VENV)/run.stamp
	$(BIN)/featherweight run recipes/demo.toml --resume

demo-decoder: $(VENV)/decoder.stamp
	$(BIN)/featherweight run recipes/demo-decoder.toml --resume

demo-chat: $(VENV)/decoder.stamp
	$(BIN)/featherweight run recipes/chat.toml --resume

check: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py
	$(BIN)/lint-imports
	$(BIN)/python tools/pins.py check

test: check $(VENV)/decoder.stamp
	$(BIN)/pytest $(PARALLEL) -m "not slow"
	$(BIN)/pytest $(PARALLEL) -m slow

browser:
	@if command -v chromedriver >/dev/null && command -v chromium chromium-browser google-chrome >/dev/null; then \
	  echo "browser: found"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	     DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; then \
	  echo "browser: chromium and chromedriver installed"; \
	else \
	  echo "browser: no chromium with chromedriver here, nor a way to install it; tests of pages are skipped"; \
	fi

torture-server: $(VENV)/dev.stamp
	FEATHERWEIGHT_TORTURE=1 $(BIN)/pytest tests/test_server.py tests/test_server_fuzz.py tests/test_serving.py

architectures: $(VENV)/dev.stamp
	$(BIN)/python tools/architectures.py
	$(BIN)/python tools/make_docs.py

methods: $(VENV)/dev.stamp
	$(BIN)/python tools/make_methods.py
	$(BIN)/ruff format src/featherweight/methods/peft/options.py
	$(BIN)/python tools/tuners.py
	$(BIN)/python tools/make_docs.py

docs: $(VENV)/dev.stamp
	$(BIN)/python tools/make_docs.py

benchmark: $(VENV)/decoder.stamp
	$(BIN)/python benchmarks/run.py

gpu: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/gpu.py

torture: $(VENV)/dev.stamp
	rm -f build/torture.jsonl
	mkdir -p build
	$(BIN)/python tests/torture.py --report build/torture.jsonl --summary benchmarks/torture.json

reliability: $(VENV)/decoder.stamp
	mkdir -p build
	$(BIN)/pytest $(PARALLEL) -k "test_row_ or test_rows_" --junitxml build/reliability.xml
	$(BIN)/python tools/reliability.py build/reliability.xml
	$(BIN)/python tools/make_docs.py

torture-inputs: $(VENV)/dev.stamp
	FEATHERWEIGHT_CASES=10000 $(BIN)/pytest tests/test_properties_inputs.py --override-ini timeout=0 --durations 0

audit: $(VENV)/dev.stamp
	$(BIN)/python tools/audit.py

lock: $(VENV)/dev.stamp
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/pins.py lock

clean:
	rm -rf $(VENV) runs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Featherweight needs Python 3.11 or later; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(VENV)/decoder.stamp: requirements-decoder.txt $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-decoder.txt
	@touch $@
