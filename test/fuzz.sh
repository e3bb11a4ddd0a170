#!/usr/bin/env bash
# Runs the fuzzer on its readers (test/fuzz.cu), some at a time, and closes with "N passed, N failed, N skipped".
#   test/fuzz.sh PROGRAM [READER...]       every reader, or those named, for FUZZ_SECONDS (60) each
# What is found stays beside the program: READER-crash-SHA1 and the like, with the report in READER.log. The inputs of one run are
# where the next begins.
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
program=$1
shift
work=$(dirname "$program")
[ $# -gt 0 ] || read -r -d '' -a readers < <("$program" readers)
[ $# -gt 0 ] && readers=("$@")
[ ${#readers[@]} -gt 0 ] || { echo "$program: it names no readers" >&2; exit 1; }

TMPDIR=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/qwen3-fuzz-XXXXXX") || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export ASAN_OPTIONS=quarantine_size_mb=16
"$program" seeds "$work/inputs" || exit 1

one() {  # one READER: its line of the report, and a verdict by exit status
    local reader=$1 log=$work/$1.log words=$work/inputs/$1.words dictionary=() status
    [ -s "$words" ] && dictionary=("-dict=$words")
    "$program" "$reader" "$work/inputs/$reader" "${dictionary[@]}" -max_total_time="${FUZZ_SECONDS:-60}" \
        -artifact_prefix="$work/$reader-" >"$log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        printf 'ok       %-12s %s\n' "$reader" "$(sed -n 's/^#\([0-9]*\).*DONE *cov: \([0-9]*\).*corp: \([0-9]*\).*/\1 inputs, \2 edges, \3 kept/p' "$log")"
    else
        printf 'FAILED   %-12s %s\n' "$reader" "$(grep -m 1 -E 'FINDING|ERROR|runtime error' "$log")"
        grep -E 'Test unit written' "$log"
        echo "         HINT: $program $reader FILE runs it again; the report is $log"
    fi
    return $status
}

# As many at a time as there are processors.
failed=0 running=0 most=$(nproc)
for reader in "${readers[@]}"; do
    [ "$running" -lt "$most" ] || { wait -n || failed=$((failed + 1)); running=$((running - 1)); }
    one "$reader" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
echo "$((${#readers[@]} - failed)) passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
