# make                 the program, for the GPU if nvcc and a GPU are found, else for the CPU
# make CPU=1           for the CPU, whatever is found
# make gpu             for the GPU (sm_80 and sm_90 unless ARCH says otherwise), whatever is found
# make test            builds and runs every test; ends with "N passed, N failed, N skipped". test/parts.cu and test/whole.cu hold
#                      them; one file of tests by itself: make CPU=1 build/cpu-BF16/test_gptq
# make test SANITIZE=1 the same under AddressSanitizer and UndefinedBehaviorSanitizer (CPU)
# make test EMULATE=1  the GPU's side of the sources, built with g++ and run on a GPU in software (test/emulate), by the tests that
#                      launch kernels; EMULATE_SEED=N chooses in which order its threads run, EMULATE_ALL=1 takes the slow
#                      ones too; SANITIZE=1 works here as well
# make bench           a table: what is achieved, what the machine can do, the ratio; JSON=FILE writes it too
# make fuzz            every reader of files under libFuzzer (clang), FUZZ_SECONDS=60 each
# PRECISION=FP32       float instead of bf16 weights and activations, for exact comparison
# NATIVE=0             no -march=native (portable C++ kernels)
# WERROR=0             warnings, of a compiler newer than those that were tried, don't end the build

CXX       ?= g++
NVCC      := $(shell command -v nvcc 2>/dev/null || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
HAVE_GPU  := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -c '^GPU')
PRECISION ?= BF16
NATIVE    ?= 1
WERROR    ?= 1
FUZZ_CXX  ?= clang++
FUZZ_SECONDS ?= 60

# GPU=1 decides every rule below. It is found out here, or said by `make gpu` (GPU=1) and `make CPU=1`.
ifneq ($(CPU)$(EMULATE),)
  GPU := 0
else ifndef GPU
  GPU := $(if $(and $(NVCC),$(filter-out 0,$(HAVE_GPU))),1,0)
endif

ifeq ($(filter $(PRECISION),BF16 FP32),)
  $(error PRECISION is BF16 or FP32, not '$(PRECISION)')
endif

# Only these characters: a tag may have quotes and dollar signs, which a recipe's shell would take for its own.
COMMIT   := $(or $(shell git describe --always --dirty --abbrev=12 2>/dev/null | LC_ALL=C tr -cd 'A-Za-z0-9._/+-'),unknown)
COMMA    := ,
# Flags that one compiler has and another has not are given to those that do: `accepts FLAG, what it is taken for`.
accepts   = $(shell $(CXX) -Werror $1 -x c++ -c /dev/null -o /dev/null 2>/dev/null && echo $2)
ERRORS   := $(if $(filter 0,$(WERROR)),,-Werror)
# -Wdangling-reference (g++ 13) takes a reference into a function's one argument for one into its other, temporary one.
# -Wpass-failed (clang) is about loops that `omp simd` wishes in lanes: g++ can, clang can't, and both are right.
WARN     := -Wall -Wextra $(ERRORS) $(call accepts,-Wdangling-reference,-Wno-dangling-reference) \
            $(call accepts,-Wpass-failed,-Wno-pass-failed)
# Sums may be reassociated, so that they vectorize; never -ffast-math, which assumes that NaN and Inf do not happen.
FASTER   := -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math
ifeq ($(PRECISION),FP32)
  DEFINES  := -DPRECISION_FP32
endif
ifeq ($(NATIVE),1)
  MARCH := -march=native
endif

ifeq ($(GPU),1)
  ARCH     ?= $(if $(filter-out 0,$(HAVE_GPU)),native,80 90)
  ifeq ($(ARCH),native)
    GENCODE := -arch=native
  else
    GENCODE := $(foreach a,$(ARCH),-gencode arch=compute_$(a),code=sm_$(a)) \
               $(foreach a,$(lastword $(ARCH)),-gencode arch=compute_$(a),code=compute_$(a))  # PTX, for what is newer
  endif
  OUT      := build/gpu-$(PRECISION)
  COMPILE   = $(NVCC) -std=c++17 -O3 -t0 $(GENCODE) $(ERRORS:%=% all-warnings) -Xcompiler -Wall,-Wextra,$(ERRORS:%=%$(COMMA))-Wno-dangling-reference,-fopenmp -lineinfo $(DEFINES) -MMD -MP
  LINK     := -lcublas -lgomp
else
  OUT      := build/$(if $(EMULATE),emulated,cpu)-$(PRECISION)$(if $(SANITIZE),-sanitize)$(if $(filter 0,$(NATIVE)),-portable)
  # A compiler may come with an assembler that is older and knows no AMX (binutils before 2.36).
  TILES    := $(shell echo tilerelease | $(CXX) -x assembler -c - -o /dev/null 2>/dev/null || echo -DNO_TILES)
  CHECKS   := $(if $(SANITIZE),-O1 -fsanitize=address$(COMMA)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer,-O3)
  # -g1 gives functions and lines, and the compiler a third less to do than -g.
  # Pragmas are nvcc's. No thread_local variable has a constructor; -rdynamic: an error names the kernel.
  EMULATED := $(if $(EMULATE),-D__CUDACC__ -DEMULATED -Itest/emulate -Wno-unknown-pragmas $(call accepts,-fno-extern-tls-init,-fno-extern-tls-init) -rdynamic)
  COMPILE   = $(CXX) -std=c++17 $(CHECKS) -g1 $(MARCH) $(FASTER) -fopenmp $(WARN) $(EMULATED) $(DEFINES) $(TILES) -MMD -MP -x c++
  LINK     :=
endif

# The larger one first: with -j2 the other is built beside it.
TESTS   := whole parts
SCRIPTS := $(if $(EMULATE),,$(wildcard test/test_*.sh))

.PHONY: all gpu test tests bench fuzz print-out clean
all: $(if $(EMULATE),tests,qwen3)

gpu:
	@test -n "$(NVCC)" || { echo "make gpu: nvcc was not found. HINT: install the CUDA Toolkit, or build with make CPU=1"; exit 1; }
	$(MAKE) GPU=1 all

# What it is compiled for, where that is a choice: with another ARCH the programs are others.
$(OUT)/arch: FORCE
	@mkdir -p $(OUT)
	@echo '$(ARCH)' | cmp -s - $@ || echo '$(ARCH)' > $@

# The commit is part of the report: its file changes, and with it the program, only when the commit does.
$(OUT)/commit.h: FORCE
	@mkdir -p $(OUT)
	@echo '#define COMMIT "$(COMMIT)"' | cmp -s - $@ || echo '#define COMMIT "$(COMMIT)"' > $@
FORCE:
.PHONY: FORCE

$(OUT)/qwen3: qwen3.cu $(OUT)/commit.h $(OUT)/arch Makefile
	$(COMPILE) -include $(OUT)/commit.h qwen3.cu -o $@ $(LINK)

# A benchmark's table names the commit too.
$(OUT)/bench: test/bench.cu $(OUT)/commit.h $(OUT)/arch Makefile
	$(COMPILE) -include $(OUT)/commit.h -DTESTING $< -o $@ $(LINK) $(if $(filter 0,$(GPU)),-ldl)

# The last configuration that was built is the one that ./qwen3 is, whichever file is newer.
qwen3: $(OUT)/qwen3 FORCE
	@cmp -s $< $@ || cp -f $< $@

# Tests and benchmarks include the program's own source, so what is tested is what ships.
$(OUT)/%: test/%.cu $(OUT)/arch Makefile
	@mkdir -p $(OUT)
	$(COMPILE) -DTESTING $< -o $@ $(LINK)

test: $(if $(SCRIPTS),$(OUT)/qwen3) $(TESTS:%=$(OUT)/%)
	@QWEN3=$(OUT)/qwen3 test/run_tests.sh $(TESTS:%=$(OUT)/%) $(SCRIPTS)

tests: $(TESTS:%=$(OUT)/%)

# Where the binaries of this configuration go, for scripts.
print-out:
	@echo $(OUT)

bench: $(OUT)/bench $(OUT)/qwen3
	@QWEN3=$(OUT)/qwen3 $(OUT)/bench $(if $(JSON),--json "$(JSON)")

# All readers of files, FUZZ_SECONDS each; READERS="json csv": only those.
build/fuzz/fuzz: test/fuzz.cu Makefile
	@mkdir -p build/fuzz
	@$(FUZZ_CXX) -fsanitize=fuzzer -fopenmp -x c++ -c /dev/null -o /dev/null || { echo "make fuzz: $(FUZZ_CXX) with libFuzzer was not found. HINT: apt-get install clang libomp-dev, or FUZZ_CXX=..."; exit 1; }
	$(FUZZ_CXX) -std=c++17 -O1 -g1 -fsanitize=fuzzer,address,undefined,float-cast-overflow -fno-sanitize-recover=all -fopenmp -Wall -Wextra $(ERRORS) -DTESTING -MMD -MP -x c++ $< -o $@

fuzz: build/fuzz/fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) test/fuzz.sh build/fuzz/fuzz $(READERS)

clean:
	rm -rf build qwen3

-include $(wildcard $(OUT)/*.d build/fuzz/*.d)
