#!/usr/bin/env bash
# Everything that only a real GPU can show, in one go and within nine minutes: the build for the GPU found, README's main command, every
# file of tests in a process of its own (after an illegal address a process is lost), the benchmark, and with what time is left the command
# line's tests, compute-sanitizer's memcheck and racecheck of the kernels' tests, and memcheck of the bundled model. Tests and the
# sanitizer's runs share the GPU, several at a time; what is timed runs alone. Where the CPU has AMX, the tests that use it run too.
# The screen ends with the benchmark's table, a row for each step, and what those that failed said. Exit status 1: something failed, or
# a test took too long; a run of the sanitizer that time cut off is no failure.
#   usage: [SECONDS_IN_ALL=540] scripts/gpu_check.sh [FOLDER]    logs: build/gpu_check, and FOLDER/gpu_check.tgz, FOLDER/gpu_check.txt
# FOLDER is seen from the project's.
# `make test GPU=1` has all tests, with those of scripts and downloads, which take a minute and no GPU.
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
case ${1-} in -h | --help) sed -n '2,/^# `make/s/^# *//p' scripts/gpu_check.sh && exit ;; esac
case ${1-} in -*) echo "gpu_check.sh: $1: there is no such option. HINT: scripts/gpu_check.sh -h" >&2 && exit 2 ;; esac
logs=build/gpu_check
export PATH=$PATH:/usr/local/cuda/bin OMP_WAIT_POLICY=passive  # steps share the cores, but those that are timed
deadline=${SECONDS_IN_ALL:-540}
until=$deadline  # of the phase: what hangs may not take the time of what comes after it
# The tests that launch kernels of our own, and the program that has them; the shortest first.
kernel_tests="whole:kernels parts:hadamard parts:flow_grid parts:linalg parts:gemm parts:attention whole:smoothquant whole:rptq_golden whole:gptq
    whole:billm whole:awq whole:moe whole:rotation whole:rptq parts:learn_rotation"

step() {  # step NAME SECONDS COMMAND...: a row of the table, with the last line that the command printed
    local name=$1 limit=$2 start=$SECONDS status verdict=ok
    shift 2
    [ "$limit" -gt $((until - start)) ] && limit=$((until - start))
    if [ "$limit" -lt 1 ]; then
        status=124 && : >"$logs/$name.log"
    else
        timeout -k 5 "$limit" "$@" >"$logs/$name.log" 2>&1
        status=$?
    fi
    [ $status -ne 0 ] && verdict=FAILED
    if [ $status -eq 124 ] || { [ $status -eq 137 ] && [ $((SECONDS - start)) -ge "$limit" ]; }; then
        case $name in *check_*) verdict="cut off" ;; *) verdict="too long" ;; esac
    fi
    printf '%-26s %-8s %4d s  %s\n' "$name" "$verdict" $((SECONDS - start)) \
        "$(grep -v '^$' "$logs/$name.log" | tail -n 1 | cut -c1-110)" | tee "$logs/$name.row"
}
at_most() { while [ "$(jobs -rp | wc -l)" -ge "$1" ]; do wait -n; done; }  # N: waits until fewer than N steps run

report() {  # what has run, the most telling last: a screen may be kept by its end only
    echo
    cat "$logs/bench.log" 2>/dev/null
    echo
    nvidia-smi --query-gpu=name --format=csv,noheader
    local rows row log
    rows=$(find "$logs" -name "*.row" -printf "%T@ %p\n" | sort -n | cut -d" " -f2-)
    for row in $rows; do cat "$row"; done
    for row in $rows; do
        grep -qE '^[^ ]+ +(FAILED|too long) ' "$row" || continue
        log=${row%.row}.log
        echo "--- $(basename "$log")"
        if grep -qE 'FAILED|error|Error|=========' "$log"; then grep -E 'FAILED|error|Error|=========' "$log" | head -n 12; else tail -n 12 "$log"; fi | cut -c1-200
    done
    echo "$(grep -c 'warning[ :]' "$logs/build.log") warnings of the build; $(cat "$logs"/*check_*.row 2>/dev/null | grep -cE '^[^ ]+ +ok ') of" \
        "$(find "$logs" -name '*check_*.row' | wc -l) runs of the sanitizer went through"
    echo "$SECONDS s in all; logs in $logs"
    [ -s "$logs/build.row" ] && ! grep -qE '^[^ ]+ +(FAILED|too long) ' "$logs"/*.row
}

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then echo "no GPU was found: nothing to check"; exit 1; fi
for tool in nvcc make g++ flock; do
    command -v $tool >/dev/null || { echo "$tool was not found. HINT: install the CUDA Toolkit, make, g++ and util-linux"; exit 1; }
done
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$toolkit/lib64
mkdir -p "$logs" || exit 1
if [ "${1-}" ]; then
    mkdir -p "$1" || exit 1
    bash scripts/gpu_check.sh 2>&1 | tee "$1/gpu_check.txt"
    status=${PIPESTATUS[0]}
    tar czf "$1/gpu_check.tgz" -C build gpu_check
    exit "$status"
fi
exec 9>"$logs/lock"  # the steps have it too: those of a run that was stopped would write into this one's logs
if ! flock -n 9; then echo "$logs: another run is at work there, or the steps of one that was stopped. HINT: wait for them"; exit 1; fi
rm -f "$logs"/*.log "$logs"/*.row "$logs"/bench.json
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
echo "$(nvcc --version | tail -n 1), $(g++ -dumpfullversion), $(nproc) cores, $(awk '/MemAvailable/ { printf "%d GB", $2 / 1e6 }' /proc/meminfo) of memory," \
    "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)$(grep -m1 -oE 'amx_bf16|avx512_fp16' /proc/cpuinfo | sed 's/^/, /' | tr -d '\n')"
for file in "$toolkit/include/cublas_v2.h" "$toolkit/lib64/libcublas.so"; do [ -e "$file" ] || echo "$file is missing: is cuBLAS installed?"; done
out=$(make -s GPU=1 print-out)
programs="$out/whole $out/parts"
slow="test_tiny test_methods test_together test_rotation"  # of whole: these begin first, so that none of them is the last at work

# -k: one program that isn't compiled leaves the others. A warning of a compiler that was never here is shown below, and is no error: there is
# no time to build twice.
step build 300 make -k -j8 GPU=1 WERROR=0 all tests "$out/bench"
if [ ! -x "$out/parts" ] && [ ! -x "$out/whole" ] && [ ! -x "$out/qwen3" ]; then report; exit 1; fi
until=$((deadline - deadline / 4))  # the benchmark has two minutes at least, of which half is timed work
[ $((SECONDS + 200)) -ge "$until" ] || until=$((SECONDS + 200))
step main_command 60 env -u OMP_WAIT_POLICY "$out/qwen3" -m data/tiny --data data/tiny -q gptq -b 3 -g 128 -e wikitext2
if grep -q amx_bf16 /proc/cpuinfo; then
    for file in test_gemm test_attention; do
        step amx_$file 150 bash -c "make -s CPU=1 PRECISION=BF16 WERROR=0 build/cpu-BF16/$file && build/cpu-BF16/$file" &
    done
fi
files_of() { sed -n '/tile_trap/d; s/^#include "\(test_.*\)\.cu"$/\1/p' "test/$(basename "$1").cu"; }  # PROGRAM
for program in $programs; do
    for file in $(files_of "$program" | grep -xF "${slow// /$'\n'}") $(files_of "$program" | grep -vxF "${slow// /$'\n'}"); do
        at_most 8
        step "$file" 200 "$program" "$file" &
    done
done
wait
until=$deadline
step bench 180 env -u OMP_WAIT_POLICY QWEN3="$out/qwen3" "$out/bench" --json "$logs/bench.json"
step test_cli 200 env QWEN3="$out/qwen3" bash test/test_cli.sh &  # a hundred runs, most of which start CUDA up first
if command -v compute-sanitizer >/dev/null; then
    step memcheck_bundled_model 120 compute-sanitizer --report-api-errors no --error-exitcode 9 "$out/qwen3" -m data/tiny --data data/tiny \
        -q gptq -b 3 -n 4 --limit 2 -e wikitext2 &
    # Kernels are meant. The program checks its own calls; what a test frees after CUDA has shut down is no fault.
    for tool in memcheck racecheck; do
        api=""
        if [ $tool = memcheck ]; then api="--report-api-errors no"; fi
        for test in $kernel_tests; do
            at_most 8
            step "${tool}_${test#*:}" 120 compute-sanitizer --tool $tool $api --error-exitcode 9 "$out/${test%:*}" "test_${test#*:}" &
        done
    done
    wait
else
    wait
    printf '%-26s %-8s\n' compute-sanitizer missing | tee "$logs/sanitizer.row"
fi
report
