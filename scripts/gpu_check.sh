#!/usr/bin/env bash
# Everything that only a real GPU can show, in one go and within nine minutes: the build for the GPU found, all tests on it,
# compute-sanitizer's memcheck and racecheck on the kernels' tests and memcheck on the bundled model, and the benchmark. The
# sanitizer's runs share the GPU, several at a time; what is timed runs alone. Ends with one table: the benchmark's, and what passed.
#   usage: scripts/gpu_check.sh [LOG_FOLDER]    the folder is build/gpu_check unless it is named
set -u
cd "$(dirname "$0")/.." || exit 1
case ${1-} in -h | --help) sed -n '2,/^#   usage/s/^# *//p' scripts/gpu_check.sh && exit ;; esac
logs=${1:-build/gpu_check}
mkdir -p "$logs" && rm -f "$logs"/*.log "$logs"/*.row
export PATH=$PATH:/usr/local/cuda/bin
deadline=540
# The tests that launch kernels of our own, and the program that has them.
kernel_tests="parts:gemm parts:linalg parts:attention whole:kernels whole:gptq whole:awq whole:billm whole:smoothquant"

step() {  # step NAME SECONDS COMMAND...: a row of the table, with the last line that the command printed
    local name=$1 limit=$2 start=$SECONDS status verdict=ok
    shift 2
    [ "$limit" -gt $((deadline - start)) ] && limit=$((deadline - start))
    if [ "$limit" -lt 1 ]; then
        status=124 && : >"$logs/$name.log"
    else
        timeout "$limit" "$@" >"$logs/$name.log" 2>&1
        status=$?
    fi
    [ $status -eq 124 ] && verdict="too long"
    [ $status -ne 0 ] && [ $status -ne 124 ] && verdict=FAILED
    printf '%-24s %-8s %4d s  %s\n' "$name" "$verdict" $((SECONDS - start)) \
        "$(grep -v '^$' "$logs/$name.log" | tail -n 1 | cut -c1-110)" | tee "$logs/$name.row"
    [ $status -eq 0 ] || grep -E 'FAILED|error|Error|=========' "$logs/$name.log" | head -n 20
}

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then echo "no GPU was found: nothing to check"; exit 1; fi
if ! command -v nvcc >/dev/null; then echo "nvcc was not found. HINT: install the CUDA Toolkit"; exit 1; fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
out=$(make -s GPU=1 print-out)

step build 200 make -j8 GPU=1 all tests "$out/bench"
step tests 150 make GPU=1 test
if command -v compute-sanitizer >/dev/null; then
    for test in $kernel_tests; do
        for tool in racecheck memcheck; do
            while [ "$(jobs -rp | wc -l)" -ge 8 ]; do wait -n; done
            step "${tool}_${test#*:}" 180 compute-sanitizer --tool $tool --error-exitcode 9 "$out/${test%:*}" "test_${test#*:}" &
        done
    done
    step memcheck_bundled_model 180 compute-sanitizer --error-exitcode 9 "$out/qwen3" -m data/tiny --data data/tiny -q gptq -b 3 \
        -n 4 --limit 2 -e wikitext2 &
    wait
else
    printf '%-24s %-8s\n' compute-sanitizer missing | tee "$logs/sanitizer.row"
fi
step main_command 60 ./qwen3 -q gptq -b 3 -g 128 -e wikitext2
step bench 180 make -s GPU=1 bench JSON="$logs/bench.json"

echo
cat "$logs/bench.log"
echo
nvidia-smi --query-gpu=name --format=csv,noheader
find "$logs" -name "*.row" -printf "%T@ %p\n" | sort -n | cut -d" " -f2- | xargs -d "\n" cat
echo "$SECONDS s in all; logs in $logs"
! grep -qhE 'FAILED|too long' "$logs"/*.row
