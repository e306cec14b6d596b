# Every target works in .venv, which tools/setup_env.py makes, completes and, where nothing is missing, leaves alone.
# `make TARGET PYTHON=/path/to/python` works in that environment instead and installs nothing.

find_python = $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 .venv/bin/python; do \
	$$p tools/setup_env.py --probe 2>/dev/null && echo $$p && break; done)
PYTHON_BOOTSTRAP ?= $(or $(find_python),python3)
JOBS ?= 2
ARGS ?=

ifdef PYTHON
ready = @$(PYTHON) tools/setup_env.py --check $@
python = $(PYTHON)
export PYTHONPATH := $(CURDIR):$(PYTHONPATH)
else
ready = @$(PYTHON_BOOTSTRAP) tools/setup_env.py
python = .venv/bin/python
endif

.PHONY: help demo test test-sanitizers lint cuda-check doctor clean

help:
	@echo 'make demo        train and evaluate a small detector and a small segmentor here; ARGS=--dino adds a DINO'
	@echo 'make test        the tests; RUN_SLOW=1 adds the slow ones, JOBS=2 processes, ARGS for pytest'
	@echo 'make test-sanitizers  the tests of the operator under memory and thread sanitizers; ARGS as for the tool'
	@echo 'make lint        ruff, mypy, clang-format'
	@echo 'make cuda-check  compile the CUDA kernels with nvcc; needs no GPU'
	@echo 'make doctor      what is installed and whether it fits this machine; ARGS=--json'
	@echo 'make clean       delete what was compiled and cached, but not .venv'

demo:
	$(ready)
	$(python) tools/demo/run.py $(ARGS)

test:
	$(ready)
	$(python) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# It needs what the tests need.
test-sanitizers:
	$(ready:-sanitizers=)
	$(python) tools/sanitizers.py $(ARGS)

lint:
	$(ready)
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -c 'import clang_format; clang_format.clang_format()' --dry-run -Werror \
		$$(find ops_dcnv3/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

cuda-check:
	$(ready)
	$(python) tools/cuda_check.py

doctor:
	$(ready)
	@$(python) mmcv_custom/doctor.py $(ARGS)

clean:
	rm -rf build dist *.egg-info ops_dcnv3/*.so .pytest_cache .mypy_cache .ruff_cache
	find ops_dcnv3 *_custom tests tools -name __pycache__ -exec rm -rf {} +
