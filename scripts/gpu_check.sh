#!/usr/bin/env bash
# Everything that only a real GPU can show, in one go and within nine minutes: the build for the GPU found, README's main command, every
# file of tests that reaches the GPU in a process of its own (after an illegal address a process is lost), the benchmark, and with what
# time is left compute-sanitizer's memcheck and racecheck of the kernels' tests, and memcheck of the bundled model. Tests and the
# sanitizer's runs share the GPU, several at a time; what is timed runs alone. Ends with one table: the benchmark's, and what passed.
#   usage: scripts/gpu_check.sh [FOLDER]    logs go to FOLDER/gpu_check (build/gpu_check)
# `make test GPU=1` has all tests, with those of scripts and downloads, which take a minute and no GPU.
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
case ${1-} in -h | --help) sed -n '2,/^# `make/s/^# *//p' scripts/gpu_check.sh && exit ;; esac
case ${1-} in -*) echo "gpu_check.sh: $1: there is no such option. HINT: scripts/gpu_check.sh -h" >&2 && exit 2 ;; esac
logs=${1:-build}/gpu_check
export PATH=$PATH:/usr/local/cuda/bin
deadline=540
# The tests that launch kernels of our own, and the program that has them; the shortest first.
kernel_tests="whole:kernels parts:hadamard parts:flow_grid parts:linalg parts:gemm parts:attention whole:smoothquant whole:rptq_golden whole:gptq
    whole:billm whole:awq whole:moe whole:rotation whole:rptq parts:learn_rotation"

step() {  # step NAME SECONDS COMMAND...: a row of the table, with the last line that the command printed
    local name=$1 limit=$2 start=$SECONDS status verdict=ok
    shift 2
    [ "$limit" -gt $((deadline - start)) ] && limit=$((deadline - start))
    if [ "$limit" -lt 1 ]; then
        status=124 && : >"$logs/$name.log"
    else
        timeout -k 5 "$limit" "$@" >"$logs/$name.log" 2>&1
        status=$?
    fi
    [ $status -eq 124 ] || [ $status -eq 137 ] && verdict="too long"
    [ $status -ne 0 ] && [ "$verdict" = ok ] && verdict=FAILED
    printf '%-26s %-8s %4d s  %s\n' "$name" "$verdict" $((SECONDS - start)) \
        "$(grep -v '^$' "$logs/$name.log" | tail -n 1 | cut -c1-110)" | tee "$logs/$name.row"
    [ $status -eq 0 ] || grep -E 'FAILED|error|Error|=========' "$logs/$name.log" | head -n 20
}
at_most() { while [ "$(jobs -rp | wc -l)" -ge "$1" ]; do wait -n; done; }  # N: waits until fewer than N steps run

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then echo "no GPU was found: nothing to check"; exit 1; fi
if ! command -v nvcc >/dev/null; then echo "nvcc was not found. HINT: install the CUDA Toolkit"; exit 1; fi
mkdir -p "$logs" && rm -f "$logs"/*.log "$logs"/*.row || exit 1
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
out=$(make -s GPU=1 print-out)

step build 240 make -j8 GPU=1 all tests "$out/bench"
step main_command 60 ./qwen3 -m data/tiny --data data/tiny -q gptq -b 3 -g 128 -e wikitext2
for program in parts whole; do
    for file in $(sed -n '/tile_trap/d; s/^#include "\(test_.*\)\.cu"$/\1/p' test/$program.cu); do
        at_most 4
        step "$file" 90 "$out/$program" "$file" &
    done
done
wait
step test_cli 90 env QWEN3=./qwen3 bash test/test_cli.sh
step bench 180 make -s GPU=1 bench JSON="$logs/bench.json"
if command -v compute-sanitizer >/dev/null; then
    step memcheck_bundled_model 120 compute-sanitizer --error-exitcode 9 "$out/qwen3" -m data/tiny --data data/tiny -q gptq -b 3 \
        -n 4 --limit 2 -e wikitext2 &
    for test in $kernel_tests; do
        for tool in racecheck memcheck; do
            at_most 8
            step "${tool}_${test#*:}" 120 compute-sanitizer --tool $tool --error-exitcode 9 "$out/${test%:*}" "test_${test#*:}" &
        done
    done
    wait
else
    printf '%-26s %-8s\n' compute-sanitizer missing | tee "$logs/sanitizer.row"
fi

echo
cat "$logs/bench.log"
echo
nvidia-smi --query-gpu=name --format=csv,noheader
find "$logs" -name "*.row" -printf "%T@ %p\n" | sort -n | cut -d" " -f2- | xargs -d "\n" cat
echo "$SECONDS s in all; logs in $logs"
! grep -qhE 'FAILED|too long' "$logs"/*.row
