#!/usr/bin/env bash
# Everything that only a real GPU can show, in one go: the build for the GPU found, all tests on it, compute-sanitizer on the kernels'
# tests and on the bundled model, and the benchmarks. Ends with a table of what passed. Takes about nine minutes.
#   scripts/gpu_check.sh [LOG_FOLDER]
set -u
cd "$(dirname "$0")/.." || exit 1
logs=${1:-build/gpu_check}
mkdir -p "$logs"
table=()
export PATH=$PATH:/usr/local/cuda/bin

step() {  # step NAME SECONDS COMMAND...: the command's last line goes into the table
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    timeout "$limit" "$@" >"$logs/$name.log" 2>&1
    status=$?
    local verdict=ok
    [ $status -eq 124 ] && verdict="too long"
    [ $status -ne 0 ] && [ $status -ne 124 ] && verdict=FAILED
    table+=("$(printf '%-28s %-8s %4d s  %s' "$name" "$verdict" $((SECONDS - start)) "$(grep -v '^$' "$logs/$name.log" | tail -n 1 | cut -c1-110)")")
    echo "${table[-1]}"
    [ $status -eq 0 ] || grep -E 'FAILED|error|Error|=========' "$logs/$name.log" | head -n 20
}

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then echo "no GPU was found: nothing to check"; exit 1; fi
if ! command -v nvcc >/dev/null; then echo "nvcc was not found. HINT: install the CUDA Toolkit"; exit 1; fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader

step build 200 make -j8 GPU=1 all tests benches
step tests 200 make GPU=1 test
if command -v compute-sanitizer >/dev/null; then
    out=$(make -s GPU=1 print-out)
    for test in gemm linalg attention; do
        step "memcheck_$test" 120 compute-sanitizer --error-exitcode 9 "$out/test_$test"
        step "racecheck_$test" 120 compute-sanitizer --tool racecheck --error-exitcode 9 "$out/test_$test"
    done
    step memcheck_bundled_model 120 compute-sanitizer --error-exitcode 9 ./qwen3 -q gptq -b 3 -n 4 --limit 2 -e wikitext2
else
    table+=("compute-sanitizer            missing: memory and race checks were not made") && echo "${table[-1]}"
fi
step main_command 60 ./qwen3 -q gptq -b 3 -g 128 -e wikitext2
step bench 180 make GPU=1 bench

echo
nvidia-smi --query-gpu=name --format=csv,noheader
printf '%s\n' "${table[@]}"
! printf '%s\n' "${table[@]}" | grep -qE 'FAILED|too long'
