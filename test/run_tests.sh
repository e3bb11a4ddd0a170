#!/usr/bin/env bash
# Runs the given test programs and scripts one after another, from the root of the project, and closes with the sum of what they
# count: "N passed, N failed, N skipped". A program that dies without its closing line counts as one failure.
#   test/run_tests.sh PROGRAM...
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
# On a machine that is busy with other things, threads that spin at a barrier keep the one they wait for from running.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
passed=0 failed=0 skipped=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
for program in "$@"; do
    echo "== $(basename "$program")"
    case "$program" in
        *.sh) bash "$program" 2>&1 | tee "$output" ;;  # at once, so that what hangs is seen
        *) "$program" 2>&1 | tee "$output" ;;
    esac
    status=${PIPESTATUS[0]}
    closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$output" | tail -n 1)
    if [ -z "$closing" ]; then
        echo "FAILED   $program ended with status $status and without a closing line"
        failed=$((failed + 1))
        continue
    fi
    read -r p _ f _ s _ <<<"$closing"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        echo "FAILED   $program ended with status $status"
        failed=$((failed + 1))
    fi
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
