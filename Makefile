# Every target makes its own environment first; nothing else is needed but Python 3.11+.

PYTHON ?= python3
BIN := .venv/bin
# Python compiles what it imports; to compile all of an environment would take as long as the rest.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
# Spinning OpenMP threads on shared cores cost a factor of ten.
export OMP_WAIT_POLICY := PASSIVE
# Once, before two processes ask for them. Kernels of another numba in the same folder would have to
# be compiled again by whoever comes next.
COMPILE := -c 'import tsm2.kernels; tsm2.kernels.warm_up()'
KERNELS_oldest := NUMBA_CACHE_DIR='$(CURDIR)/.venvs/oldest/kernels'
# Half of the tests each, in their order, so that what the tests of a file share is made once; who is
# through takes over from the other.
TWO := -n 2 --dist worksteal

# Some minutes on two cores: no peers, no training of any length, and no processes that are killed at
# any moment, which say nothing of other versions.
QUICK := tests/tables tests/prepared tests/networks tests/datasets tests/test_forecaster.py \
	tests/test_saving.py tests/test_choices.py tests/test_metrics.py tests/test_package.py \
	tests/kernels/test_kernel_contract.py tests/kernels/test_kernel_reference.py \
	tests/benchmark/test_protocol.py tests/benchmark/test_results.py tsm2 \
	--deselect=tests/test_saving.py::test_a_stop_at_any_line_leaves_a_whole_model \
	--deselect=tests/test_saving.py::test_savers_that_meet_lose_nothing_and_readers_see_whole_models

# What else the extras of the oldest environment are for, and what the oldest torch compiles.
EXPORTS := onnxruntime_says_what_python_says gaps_are_in_the_graph \
	classical_forecasts_of_whole_histories_are_in_the_file[raise]
EXTRAS := $(EXPORTS:%='tests/fitted/test_exporting.py::test_%') \
	tests/test_plotting.py tests/training/test_tensorboard.py \
	tests/kernels/test_cross_scan.py \
	tests/kernels/test_fused.py::test_a_network_compiles_to_one_graph \
	tests/vision/test_vim2.py::test_compiling_breaks_no_graph_forward_or_backward

# Peer libraries pin versions that exclude ours or each other's, so that each has an environment of
# its own, and so have the oldest versions that pyproject.toml promises: the extras that
# constraints/update.py names, at the versions in constraints/, kept until one of these changes.
PEERS := darts neuralforecast sktime engines vision
tests_of = tests/adapters/test_$1.py tests/adapters/test_pages.py::test_$1 \
	tests/benchmark/test_peers.py
TESTS_darts := $(call tests_of,darts)
TESTS_neuralforecast := $(call tests_of,neuralforecast)
TESTS_sktime := $(call tests_of,sktime)
TESTS_engines := tests/engines tests/test_engines.py tests/benchmark/test_comparison.py tests/test_plotting.py
TESTS_vision := tests/vision tsm2/vision
# One of the two starts each cluster, once.
HOW_engines := -n 2 --dist loadfile

.PHONY: demo quick test test-slow test-gpu test-oldest test-newest test-peers $(PEERS:%=test-%) lint \
	docs dist bench gpu-tiny constraints clean

demo: .venv/made
	$(BIN)/tsm2 demo

quick: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) $(QUICK)

test: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO)

test-slow: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# Skipped, in words, where there is no CUDA, MPS or XPU device.
test-gpu: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu tests

test-oldest: .venvs/oldest/made
	OMP_NUM_THREADS=1 $(KERNELS_oldest) .venvs/oldest/bin/python -m pytest $(TWO) $(QUICK) $(EXTRAS)

# Another Python than the machine's, on Debian; skipped, in words, where it cannot be had.
test-newest: .venvs/newest/made
	test ! -e $< || OMP_NUM_THREADS=1 .venvs/newest/bin/python -m pytest $(TWO) $(QUICK)

test-peers: $(PEERS:%=test-%)

$(PEERS:%=test-%): test-%: .venvs/%/made
	OMP_NUM_THREADS=1 .venvs/$*/bin/python -m pytest $(or $(HOW_$*),$(TWO)) $(TESTS_$*)

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

# The examples and notebooks run for it; the page on Darts needs its environment.
docs: .venv/made .venvs/darts/made
	$(BIN)/python examples/render.py
	$(BIN)/zensical build --strict --clean

# What a release would upload.
dist: .venv/made
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/twine check --strict dist/*

bench: .venv/made
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/vision.py
	$(BIN)/python benchmarks/image_mixers.py
	$(BIN)/tsm2 benchmark ETTh1 --horizons 96 --models RepeatLast,SeasonalNaive,RLinear,TSM2 \
		--out benchmarks/results/long_horizon.csv

# The benchmarks for a GPU at tiny sizes, so that they cannot fail for a typing mistake on the day.
gpu-tiny: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gpu.py --device cpu --tiny
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gpu_profile.py --tiny --rounds 1

.venv/made: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) -c constraints.txt torch
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev,docs]'
	$(BIN)/python $(COMPILE)
	touch $@

constraints: .venv/made
	$(BIN)/python constraints/update.py

.venvs/%/made: pyproject.toml constraints/%.txt
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python $(INSTALL) -c constraints/$*.txt torch
	.venvs/$*/bin/python $(INSTALL) -c constraints/$*.txt -e ".[$$($(PYTHON) constraints/update.py --extras $*)]"
	$(KERNELS_$*) .venvs/$*/bin/python $(COMPILE)
	touch $@

.venvs/newest/made: pyproject.toml constraints.txt constraints/newest.py
	$(PYTHON) constraints/newest.py .venvs/newest
	test ! -d .venvs/newest || .venvs/newest/bin/python $(COMPILE)
	test ! -d .venvs/newest || touch $@

clean:
	rm -rf .venv .venvs build dist site demo docs/made .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
