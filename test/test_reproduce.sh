#!/usr/bin/env bash
# Tests scripts/reproduce.sh and table.sh: with $QWEN3 (./qwen3) that every row of the paper's tables is a command it accepts, with a
# stand-in for it everything else, on a Slurm of one node too where Slurm is installed. And runs scripts/plot.py's own
# check. Ends like the C++ tests with "N passed, N failed, N skipped".
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
program=${QWEN3:-./qwen3}
paper=data/paper/tables.csv
tmp=$(mktemp -d) || exit 1
trap 'test/slurm_single_node.sh stop "$tmp/slurm"; rm -rf "$tmp"' EXIT
out=$tmp/out

# The stand-in writes a line "start NAME" into $STUB/calls, takes as long as $STUB/seconds says and waits while
# $STUB/hold-NAME is there, fails for names in $STUB/fail, and writes its report as qwen3 does.
export STUB=$tmp/stub QWEN3=$tmp/qwen3
unset QWEN3_DATA
cat >"$tmp/qwen3" <<'STUB'
#!/usr/bin/env bash
while [ $# -gt 0 ]; do [ "$1" = --json ] && json=$2; shift; done
name=$(basename "$json" .json)
echo "start $name" >>"$STUB/calls"
echo "$BASHPID" >"$STUB/pid"
echo "half a repor" >"$json.tmp-$$"
sleep "$(cat "$STUB/seconds")" 9>&-
while [ -e "$STUB/hold-$name" ]; do sleep 0.1 9>&-; done
if grep -qx "$name" "$STUB/fail"; then echo "qwen3: $name does not work today. HINT: none" >&2; exit 1; fi
printf '%s\n' "model    method  W  A  group  wikitext2 ppl" "$name  12.34"
echo "{\"name\": \"$name\"}" >"$json.tmp-$$"
mv "$json.tmp-$$" "$json"
echo "end $name" >>"$STUB/calls"
STUB
chmod +x "$tmp/qwen3"

# ---- the framework ----

passed=0 failed=0 skipped=0
problem() { problems="$problems${problems:+; }$*"; }
check() { "$@" || problem "not so: $*"; }
reproduce() { # STATUS ARGUMENT...: runs the script, which must exit with STATUS
    local expected=$1 status=0
    shift
    scripts/reproduce.sh --results "$tmp/results" "$@" >"$out" 2>&1 || status=$?
    [ $status -eq "$expected" ] || problem "exit status $status instead of $expected: $(tail -n 3 "$out")"
}
says() { grep -qF -- "$1" "$out" || problem "expected \"$1\", found: $(tail -n 3 "$out")"; }
starts() { grep -c "^start $1" "$STUB/calls"; }
reports() { find "$tmp/results" -name '*.json' 2>/dev/null | wc -l; }
wait_for() { # COMMAND...: until it succeeds, 20 s at most
    for _ in $(seq 200); do "$@" 2>/dev/null && return; sleep 0.1; done
    problem "waited in vain for: $*"
}
run() { # NAME
    problems=""
    rm -rf "$tmp/results" "$STUB"
    mkdir -p "$STUB"
    echo 0 >"$STUB/seconds"
    touch "$STUB/calls" "$STUB/fail"
    "$1"
    if [ -z "$problems" ]; then
        echo "ok       $1"
        passed=$((passed + 1))
    else
        echo "FAILED   $1  $problems"
        failed=$((failed + 1))
    fi
}
skip() { echo "skipped  $1  $2"; skipped=$((skipped + 1)); }

two=(--model Qwen3-0.6B --table 4 --bits 4)  # two rows, awq and gptq
awq=Qwen3-0.6B_awq_w4a16_g128 gptq=Qwen3-0.6B_gptq_w4a16_g128

# ---- which rows, and as which commands ----

# Every row of the tables is among the commands, and each is one that qwen3's parser accepts: a model that is not there is
# the only thing it finds wrong. The last -m counts.
every_row_is_a_command() {
    local line rows status
    rows=$(awk -F, 'NR > 1 { n += !seen[$2 " " $3 ($3 == "fp16" || $3 == "billm" ? "" : " " $4 " " $5 " " $6)]++ }
        END { print n }' $paper)
    QWEN3=$program reproduce 0 --dry-run --table foem:3 -- -m "$tmp/none"
    cp "$out" "$tmp/others"
    check [ "$(wc -l <"$tmp/others")" -eq 5 ]
    QWEN3=$program reproduce 0 --dry-run -- -m "$tmp/none"
    check [ "$(sort -u "$out" | wc -l)" -eq "$rows" ]
    check [ "$rows" -ge 237 ]
    cat "$tmp/others" >>"$out"
    mkdir -p "$tmp/results"
    while read -r line; do
        status=0
        eval "$line" >/dev/null 2>"$tmp/err" || status=$?
        if [ $status -ne 1 ] || ! grep -q "expected a checkpoint folder" "$tmp/err"; then
            problem "$line: status $status, $(tail -n 1 "$tmp/err")"
            return
        fi
    done <"$out"
}

known_commands() {
    reproduce 0 --dry-run
    for known in \
        "-m Qwen3-0.6B-Base -q fp16 -e all --json $tmp/results/Qwen3-0.6B-Base_fp16.json" \
        "-m Qwen3-8B-Base -q gptq -b 4 -a 16 -g -1 -e all --json $tmp/results/Qwen3-8B-Base_gptq_w4a16_g-1.json" \
        "-m Qwen3-8B -q awq -b 3 -a 16 -g 128 -e all --json $tmp/results/Qwen3-8B_awq_w3a16_g128.json" \
        "-m Qwen3-1.7B -q rtn -b 2 -a 16 -g -1 -e all --json $tmp/results/Qwen3-1.7B_rtn_w2a16_g-1.json" \
        "-m Qwen3-14B-Base -q smoothquant -b 4 -a 8 -e all --json $tmp/results/Qwen3-14B-Base_smoothquant_w4a8.json" \
        "-m Qwen3-32B -q billm -e all --json $tmp/results/Qwen3-32B_billm.json"; do
        check grep -qxF -- "$QWEN3 $known" "$out"
    done
}

selection() {
    count() {
        local n=$1
        shift
        reproduce 0 --list "$@"
        [ "$(wc -l <"$out")" -eq "$n" ] || problem "$*: $(wc -l <"$out") rows instead of $n"
    }
    count 9 --table 3 --model Qwen3-8B-Base
    count 22 --table 1 --table 3 --model Qwen3-8B-Base  # full precision once, though it is in both
    count 22 --table 1,3 --model Qwen3-8B-Base
    count 2 "${two[@]}"
    count 11 --method fp16
    count 11 --bits 1 --method billm
    count 11 --bits 16
    count 5 --table foem:3
    count 1 --table foem:3 --method foem
    count 13 --table 3,foem:3 --model Qwen3-8B-Base  # full precision is in both
    reproduce 2 --method foem --list  # its rows are meant only where their table is
    says 'no row of data/paper/tables.csv, or of data/paper/foem.csv with its --table, meets all of these selections'
    count 4 --method gptq --bits 4 --group 128,-1 --model Qwen3-4B,Qwen3-4B-Base
    count 1 --row $awq
    count 1 --row Qwen3-8B-Base_foem_w3a16_g128  # as --list prints it
    reproduce 0 --dry-run "${two[@]}" --tasks c4,mmlu --limit 7 -- --damp 0.02 --data "a folder"
    says "-g 128 -e c4\\,mmlu --limit 7 --damp 0.02 --data a\\ folder --json $tmp/results/$gptq.json"
    check [ ! -e "$tmp/results" ]  # --list and --dry-run write nothing
}

wrong_usage() {
    for wrong in "--table 5" "--model Qwen3-9B" "--method gptk" "--bits 5" "--group 64" "--row x" "--tables 1" "--model" \
        "--limit x" "--bits 3 --method fp16" "-- --json x" "--bits *" "--row $awq -- -b 3" "--row $awq -- -q rtn" "--row $awq -- --limit 2" \
        "--row $awq -- -e c4" "--row $awq --row $gptq -- --save x" "--model Qwen3-4B -- --questions x"; do
        # shellcheck disable=SC2086
        reproduce 2 $wrong
        says "HINT: "
    done
    reproduce 0 --row $awq --dry-run -- --save x --questions y  # one row has them to itself
    says "--save x --questions y --json"
    reproduce 0 -h
    for option in table model method bits group row tasks limit results list dry-run slurm sbatch-args; do says "--$option"; done
    QWEN3=$tmp/none reproduce 1 "${two[@]}"
    says "$tmp/none is not there. HINT: make"
}

# A table that someone sends is data: a cell that bash would run, expand or take for a path is refused, and where it stands.
hostile_table() {
    local cells root=$tmp/root
    mkdir -p "$root/scripts" "$root/data/paper"
    cp scripts/reproduce.sh "$root/scripts/"
    cp data/paper/foem.csv "$root/data/paper/"
    while read -r cells; do
        { head -n 1 $paper; echo "$cells"; } >"$root/$paper"
        for action in --list --dry-run --table=run; do
            local status=0
            rm -f "$root/ran"
            (cd "$root" && QWEN3=$tmp/qwen3 scripts/reproduce.sh ${action#--table=run} >"$out" 2>&1) || status=$?
            check [ $status -eq 1 ]
            check [ ! -e "$root/ran" ]
            says "reproduce.sh: data/paper/tables.csv: line 2: expected table,model,method,wbits,abits,group, found "
        done
    done <<'TABLE'
1,Qwen3-a[$(touch ran)]B,gptq,4,16,128,
1,Qwen3-a[`touch ran`]B-Base,fp16,16,16,,
1,Qwen3-1B,gptq,a[$(touch ran)],16,128,
1,Qwen3-1B,gptq,4,a[$(touch ran)],128,
1,Qwen3-1B,gptq,4,16,a[$(touch ran)],
a[$(touch ran)],Qwen3-1B,gptq,4,16,128,
1,Qwen3-1B,gptq;touch ran,4,16,128,
1,../../Qwen3-1B,gptq,4,16,128,
1,-m,gptq,4,16,128,
1,Qwen3-*,gptq,4,16,128,
1,Qwen3 -q fp16,gptq,4,16,128,
1,Qwen3-1B
TABLE
    { head -n 1 $paper; echo "1,Other,gptq,4,16,128,"; echo "1,Qwen3-09.5B,rtn,4,16,128,"; } >"$root/$paper"
    (cd "$root" && scripts/reproduce.sh >"$out" 2>&1) || problem "names without a size: $(tail -n 1 "$out")"
    says "2 of 2 rows finished"
}

odd_names() { # blanks in the folder's name, and in what goes to qwen3
    local folder="$tmp/results/a b"
    reproduce 0 --row $awq --results "$folder" -- --data "c  d"
    check [ -e "$folder/$awq.json" ]
    reproduce 0 --row $awq --results "$folder/" -- --data "c  d"
    says "1 rows selected, 1 finished before"
    reproduce 1 --row $awq --results "$folder" -- --data "c d"
    says "HINT: --results OTHER_FOLDER"
}

missing_model() {
    QWEN3=$program reproduce 1 --row $awq --row $gptq -- -m "$tmp/none"
    says "failed: $awq: qwen3: $tmp/none: expected a checkpoint folder"
    says "HINT: scripts/download.sh"
    check [ "$(grep -c '^failed: ' "$out")" -eq 2 ]
}

bundled_model() {
    QWEN3=$program reproduce 0 --row Qwen3-0.6B_rtn_w4a16_g-1 --tasks wikitext2 --limit 1 -- -m data/tiny --data data/tiny
    says "1 of 1 rows finished, 0 failed"
    check grep -q '"wbits": 4' "$tmp/results/Qwen3-0.6B_rtn_w4a16_g-1.json"
    check grep -qE '^ +tiny.* rtn +4 ' "$out"  # qwen3's row
}

# ---- going on where it stopped ----

resume() {
    reproduce 0 "${two[@]}" --method awq
    says "row 1/1  $awq"
    says "    $awq  12.34"
    reproduce 0 "${two[@]}"
    says "2 rows selected, 1 finished before"
    says "row 1/1  $gptq"
    reproduce 0 "${two[@]}"
    says "2 rows selected, 2 finished before"
    check [ "$(cat "$STUB/calls")" = "$(printf '%s\n' "start $awq" "end $awq" "start $gptq" "end $gptq")" ]
    reproduce 0 --dry-run "${two[@]}"
    check [ ! -s "$out" ]
    reproduce 0 --list "${two[@]}"
    check [ "$(grep -c '^finished' "$out")" -eq 2 ]
    check [ "$(find "$tmp/results" -type f | wc -l)" -eq 4 ]
}

failures_do_not_stop_the_rest() {
    echo $awq >"$STUB/fail"
    reproduce 1 "${two[@]}"
    says "1 of 2 rows finished, 1 failed"
    says "failed: $awq: qwen3: $awq does not work today. HINT: none"
    says "$tmp/results/$awq.log"
    check [ -e "$tmp/results/$gptq.json" ]
    check [ ! -e "$tmp/results/$awq.json" ]
    reproduce 0 --list "${two[@]}"
    says "stopped   $awq"
    : >"$STUB/fail"
    reproduce 0 "${two[@]}"
    check [ "$(starts $awq) $(starts $gptq)" = "2 1" ]
}

other_settings() {
    reproduce 0 "${two[@]}"
    for changed in "--tasks c4" "--limit 3" "-- --damp 0.02"; do
        # shellcheck disable=SC2086
        reproduce 1 "${two[@]}" $changed
        says "2 of 2 rows are finished, but with other settings, for one $awq"
        says "HINT: --results OTHER_FOLDER"
    done
    QWEN3_DATA=$tmp/data reproduce 1 "${two[@]}"  # other texts
    says "--data $tmp/data"
    QWEN3_DATA=$tmp/data reproduce 1 "${two[@]}" -- --data "$tmp/others"  # the flag counts
    says "is  -m Qwen3-0.6B -q awq -b 4 -a 16 -g 128 -e all --data $tmp/others"
    reproduce 0 --list "${two[@]}" --tasks c4
    check [ "$(grep -c '^other' "$out")" -eq 2 ]
    rm "$tmp/results/$awq.log"  # without it nobody knows
    reproduce 1 "${two[@]}"
    says "for one $awq"
    rm "$tmp/results/$awq.json"
    reproduce 0 "${two[@]}"
    check [ "$(starts $awq) $(starts $gptq)" = "2 1" ]
}

stopped_by() { # SIGNAL STATUS
    local pid status=0
    echo 10 >"$STUB/seconds"
    # env undoes that the shell starts what is in the background with SIGINT ignored
    env --default-signal=INT scripts/reproduce.sh --results "$tmp/results" "${two[@]}" >"$out" 2>&1 &
    pid=$!
    wait_for test -s "$STUB/pid"
    kill -s "$1" $pid
    { wait $pid || status=$?; } 2>/dev/null
    check [ $status -eq "$2" ]
    [ "$1" = KILL ] && kill -s KILL "$(cat "$STUB/pid")"
    wait_for test ! -e "/proc/$(cat "$STUB/pid")"
    check [ "$(reports)" -eq 0 ]
    echo 0 >"$STUB/seconds"
    reproduce 0 "${two[@]}"
    says "row 1/2  $awq"
    says "2 of 2 rows finished"
    check [ "$(starts $awq) $(starts $gptq)" = "2 1" ]
    check [ "$(find "$tmp/results" -type f | wc -l)" -eq 4 ]  # no half-written report is left
}
stopped_by_sigint() { stopped_by INT 130; }
stopped_by_sigterm() { stopped_by TERM 143; }
stopped_by_sigkill() { stopped_by KILL 137; }

# Only the script is killed: qwen3 goes on, and its row with it.
script_killed_program_goes_on() {
    local pid
    touch "$STUB/hold-$awq"
    scripts/reproduce.sh --results "$tmp/results" "${two[@]}" >/dev/null 2>&1 &
    pid=$!
    wait_for test -s "$STUB/pid"
    kill -s KILL $pid
    { wait $pid; } 2>/dev/null
    reproduce 0 --list "${two[@]}"
    says "running   $awq"
    reproduce 0 "${two[@]}"
    says "is being run by another process"
    says "1 of 2 rows finished, 0 failed, 1 left to other processes"
    rm "$STUB/hold-$awq"
    wait_for test -e "$tmp/results/$awq.json"
    reproduce 0 "${two[@]}"
    says "2 rows selected, 2 finished before"
    check [ "$(starts $awq) $(starts $gptq)" = "1 1" ]
}

two_at_once() {
    local i
    echo 0.2 >"$STUB/seconds"
    for i in 1 2 3; do scripts/reproduce.sh --results "$tmp/results" --table 4 --model Qwen3-0.6B >"$tmp/out$i" 2>&1 & done
    wait
    check [ "$(reports)" -eq 9 ]
    check [ "$(starts '')" -eq 9 ]
}

# A file system that locks nothing isn't taken for one where everything is being run.
no_locks() {
    mkdir -p "$tmp/bin" && printf '#!/bin/sh\nexit 65\n' >"$tmp/bin/flock" && chmod +x "$tmp/bin/flock"
    PATH=$tmp/bin:$PATH reproduce 1 "${two[@]}"
    says "$awq.log: it can't be locked. HINT: --results FOLDER on a file system with flock(2)"
    PATH=$tmp/bin:$PATH reproduce 0 --list "${two[@]}"
    check [ "$(grep -c '^running' "$out") $(starts '')" = "0 0" ]
}

# While this call waits for a row, another one finishes it with other settings.
made_otherwise_meanwhile() {
    touch "$STUB/hold-$awq"
    scripts/reproduce.sh --results "$tmp/results" --limit 8 --row $awq >/dev/null 2>&1 &
    wait_for test -s "$STUB/pid"
    mkdir -p "$tmp/bin"
    printf '#!/bin/sh\n[ "$1" = -n ] || { rm "%s"; while [ ! -e "%s" ]; do sleep 0.05; done; }\nexec %s "$@"\n' \
        "$STUB/hold-$awq" "$tmp/results/$awq.json" "$(command -v flock)" >"$tmp/bin/flock" && chmod +x "$tmp/bin/flock"
    PATH=$tmp/bin:$PATH reproduce 1 --row $awq
    wait
    says "$awq.json: another process made it meanwhile, with other settings: "
    says "--limit 8"
    check [ "$(starts $awq)" -eq 1 ]
}

# scripts/table.sh: every cell of the report's numbers, once; what fails is said and run again.
table_of_methods() {
    local run=(scripts/table.sh -m some/model --data "$tmp" --group 64 --limit 3 -n 7 --results "$tmp/results" -- --kl)
    cat >"$tmp/reporter" <<'STUB'
#!/usr/bin/env bash
echo "$*" >>"$STUB/calls"
case "$*" in *"-b 3"*) if [ -s "$STUB/fail" ]; then echo "qwen3: no luck. HINT: none" >&2; exit 1; fi ;; esac
kl='"kl": {}' q=fp16 b=0 a=16 g=0  # of each setting its own: a digit for the method, the bits, the activations' and the group
all=$*
for flag in q b a g; do case $all in *" -$flag "*) read -r "$flag" _ <<<"${all#* -$flag }" ;; esac; done
value=$(printf '%s\n' fp16 rtn gptq awq gptaq foem smoothquant billm | grep -nx "$q" | cut -d: -f1)$b$((a % 9))$([ "$g" = 64 ] && echo 2 || echo "${g#-}")
case "$*" in *--kl*) kl='"kl": {"wikitext2": {"mean": 0.012345, "stderr": 1}, "c4": {"mean": 2e-05, "stderr": 1}}' ;; esac
while [ $# -gt 0 ]; do [ "$1" = --json ] && json=$2; shift; done
cat >"$json" <<JSON
  "results": {
    "wikitext2": {"metric": "ppl", "value": $value, "stderr": 1},
    "c4": {"metric": "ppl", "value": ${value}0.4, "stderr": 1}
  },
  $kl,
  "seconds": {"total": 1.5},
  "precision": "bf16",
  "device": "a machine",
  "commit": "abc"
JSON
STUB
    chmod +x "$tmp/reporter"
    echo yes >"$STUB/fail"
    QWEN3=$tmp/reporter "${run[@]}" >"$out" 2>&1 && problem "a failed cell is no failure"
    says "qwen3: no luck. HINT: none"
    says "| rtn |  | 2871 / 2.871e+04 (0.0123 / 2e-05) | 2471 / 2.471e+04 (0.0123 / 2e-05) | failed |"
    : >"$STUB/fail"
    : >"$STUB/calls"
    QWEN3=$tmp/reporter "${run[@]}" >"$out" 2>&1 || problem "status $?"
    check [ "$(grep -c -- '-b 3' "$STUB/calls")" -eq 8 ]
    check [ "$(wc -l <"$STUB/calls")" -eq 8 ]
    check [ "$(grep -c -- '-q rtn.* -n ' "$STUB/calls")" -eq 0 ]
    check [ "$(grep -c -- '-q [gf].* -n 7$' "$STUB/calls")" -eq 4 ]
    check [ "$(grep -c -- '-q awq.* -n 7 -l 512$' "$STUB/calls")" -eq 2 ]
    sed -nE '/^\| wikitext2/d; s, / [^|(]*(\([^)]*\) )?\|, |,g; /^\| [a-z]/p' "$out" >"$tmp/values"
    diff - "$tmp/values" >>"$out" <<'VALUES' || problem "a cell has another setting's number: $(tail -n 4 "$out" | tr '\n' ' ')"
| full precision | 1070 |  |  |  |  |  |
| rtn |  | 2871 | 2471 | 2371 | 2271 |  |
| gptq |  | 3871 | 3471 | 3371 | 3271 |  |
| awq |  | 4871 | 4471 | 4371 | 4271 |  |
| rtn, group 64 |  | 2872 | 2472 | 2372 | 2272 | 2172 |
| gptq, group 64 |  | 3872 | 3472 | 3372 | 3272 |  |
| gptaq, group 64 |  | 5872 | 5472 | 5372 | 5272 |  |
| foem, group 64 |  | 6872 | 6472 | 6372 | 6272 |  |
| awq, group 64 |  | 4872 | 4472 | 4372 | 4272 |  |
| smoothquant, 8-bit activations |  | 7880 | 7480 |  |  |  |
| smoothquant, 4-bit activations |  |  | 7440 |  |  |  |
| billm |  |  |  |  |  | 8070 |
VALUES
    says "38 cells, 57 s in all; bf16, commit abc; a machine"
    sed -i 's/"bf16"/"float32"/' "$(find "$tmp/results" -name '*.json' | head -n 1)"  # a cell of another build is seen
    QWEN3=$tmp/reporter "${run[@]}" >"$out" 2>&1 || problem "status $?"
    says "38 cells, 57 s in all; bf16; float32, commit abc; a machine"
    for other in "-m other/model --data $tmp" "-m some/model --data $tmp/other"; do
        # shellcheck disable=SC2086
        QWEN3=$tmp/reporter scripts/table.sh $other --results "$tmp/results" >"$out" 2>&1 && problem "$other: cells of some/model are taken for its"
        says "HINT: --results ANOTHER_FOLDER"
    done
    for wrong in "-x" "--group" "--limit x" "-n x" "-- --kl -e wikitext2"; do
        # shellcheck disable=SC2086
        scripts/table.sh $wrong >"$out" 2>&1 && problem "$wrong is taken"
        says "HINT: scripts/table.sh -h"
    done
}

program_writes_nothing() {
    QWEN3=/bin/true reproduce 1 --row $awq
    says "failed: $awq: qwen3 ended without writing"
}

# ---- Slurm ----

queue_is_empty() { [ -z "$(squeue --noheader)" ]; }

slurm() {
    export SLURM_CONF=$cluster
    local rows=(--table 4 --model Qwen3-0.6B --method "awq,gptq,billm")
    reproduce 0 --table foem:3 --method foem --slurm
    wait_for queue_is_empty
    check [ "$(reports)" -eq 1 ]
    rm -r "$tmp/results"
    reproduce 0 "${rows[@]}" --row $awq
    echo Qwen3-0.6B_billm >"$STUB/fail"
    reproduce 0 "${rows[@]}" --slurm --sbatch-args "--comment=tables --time=5"
    says "Submitted batch job"
    check [ "$(scontrol show job | grep -c 'Comment=tables')" -gt 0 ]
    reproduce 0 "${rows[@]}" --slurm  # the same again: no row may run twice at once, nor after it is finished
    wait_for queue_is_empty
    check [ "$(reports)" -eq 7 ]
    check [ "$(grep '^end ' "$STUB/calls" | sort | uniq -d | wc -l)" -eq 0 ]
    check grep -q "failed: Qwen3-0.6B_billm: qwen3: Qwen3-0.6B_billm does not work today" "$tmp"/results/slurm-*.out
    : >"$STUB/fail"
    reproduce 0 "${rows[@]}" --slurm
    wait_for queue_is_empty
    check [ "$(reports)" -eq 8 ]
    check [ "$(cat "$(find "$tmp/results" -name 'slurm-*.rows' | sort | tail -n 1)")" = Qwen3-0.6B_billm ]
    reproduce 0 "${rows[@]}" --slurm
    says "8 rows selected, 8 finished before"
    unset SLURM_CONF
}

for name in every_row_is_a_command known_commands selection wrong_usage hostile_table odd_names missing_model bundled_model resume \
    failures_do_not_stop_the_rest other_settings stopped_by_sigint stopped_by_sigterm stopped_by_sigkill \
    script_killed_program_goes_on two_at_once no_locks made_otherwise_meanwhile program_writes_nothing table_of_methods; do
    run $name
done
if cluster=$(test/slurm_single_node.sh start "$tmp/slurm"); then run slurm; else skip slurm "$cluster"; fi
if python3 -c 'import matplotlib' 2>/dev/null; then
    plot() { python3 scripts/plot.py --check >"$out" 2>&1 || problem "$(tail -n 3 "$out")"; }
    run plot
else
    skip plot "python3 has no matplotlib"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
