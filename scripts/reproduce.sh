#!/usr/bin/env bash
# Runs rows of the paper's tables (data/paper/tables.csv) with ./qwen3, one after another or as a Slurm job array, and
# goes on where it was stopped. scripts/reproduce.sh -h says how.
#
# In the results folder a row NAME has two files. NAME is what the command line says: Qwen3-8B-Base_gptq_w4a16_g128.
#   NAME.json   the report. qwen3 writes it whole or not at all, so a row is finished exactly when this file is there.
#   NAME.log    the arguments in its first line, then all that qwen3 printed. It is also the row's lock: who runs the
#               row holds flock on it, the qwen3 process too, and the kernel frees it when they end, however they end,
#               so no lock can go stale. A file system that nodes share has to be mounted so that flock works across them.
#
# Environment: QWEN3   the program (./qwen3)
set -u -o pipefail
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1

paper=data/paper/tables.csv others=(data/paper/foem.csv)  # others: later papers in the study's protocol
qwen3=${QWEN3:-./qwen3}

usage() {
    cat <<'TEXT'
usage: scripts/reproduce.sh [OPTION]... [-- ARGUMENT...]

Runs rows of the paper's tables with ./qwen3. A finished row is never run again, a row that fails does not stop the
others, and two calls at once share the work. Without a selection all rows are meant. Every selection takes one or more
values, as in --model Qwen3-8B,Qwen3-14B, and may be repeated; rows that meet all of them are run.

  --table N        1 to 4; foem:3 of FOEM's paper (data/paper/foem.csv), whose rows are meant only if named, so or by --row
  --model NAME     Qwen3-0.6B-Base, ...
  --method NAME    fp16, rtn, gptq, awq, smoothquant, billm, gptaq, foem
  --bits N         bits of a weight; billm has 1, fp16 has 16
  --group N        columns that share a grid, -1: per channel
  --row NAME       as --list prints it
  --tasks LIST     what to evaluate, as qwen3 -e takes it (all)
  --limit N        only the first N windows or documents, for a trial (0: all)
  --results DIR    where reports and logs go (results); seen from the project's folder
  --list           print the selected rows and their states, run nothing
  --dry-run        print the commands of the rows that are not finished, run nothing
  --slurm          submit the unfinished rows as a Slurm job array, a task a row
  --sbatch-args S  further arguments of sbatch, as in "--gres=gpu:1 --time=12:00:00"
  -h               this text
  -- ARGUMENT...   further arguments for qwen3; folders are seen from the project's

Exit status: 0 all rows are finished or being run, 1 a row failed or is there with other settings, 2 wrong usage.
TEXT
}

die() { echo "reproduce.sh: $*" >&2; exit 1; }
wrong_usage() { echo "reproduce.sh: $*. HINT: scripts/reproduce.sh -h" >&2; exit 2; }

# ---- the command line ----

declare -A wanted=()  # selection -> its values, each between blanks
tasks=all limit=0 results=results action=run sbatch_args="" extra=()
while [ $# -gt 0 ]; do
    case $1 in
    --table | --model | --method | --bits | --group | --row | --tasks | --limit | --results | --sbatch-args)
        [ $# -ge 2 ] || wrong_usage "$1: expected a value, found the end of the line"
        case $1 in
        --tasks) tasks=$2 ;;
        --limit) limit=$2 ;;
        --results) results=${2%/} ;;
        --sbatch-args) sbatch_args=$2 ;;
        *) wanted[${1#--}]="${wanted[${1#--}]:-} ${2//,/ } " ;;
        esac
        shift ;;
    --list | --dry-run | --slurm) action=${1#--} ;;
    -h | --help) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    *) wrong_usage "$1: there is no such option. Arguments for qwen3 follow after --" ;;
    esac
    shift
done
[[ $limit =~ ^[0-9]{1,9}$ ]] || wrong_usage "--limit $limit: expected 0 or a positive number"
[ -n "$results" ] || wrong_usage "--results: expected a folder"
for argument in "${extra[@]}"; do
    case $argument in
    --json) wrong_usage "--json after --: the reports are named by this script" ;;
    -q | -b | -a | -g | --preset) wrong_usage "$argument after --: the rows have it already. HINT: --method, --bits, --group" ;;
    -e | --limit) wrong_usage "$argument after --: it is this script's own. HINT: --tasks, --limit before --" ;;
    esac
done
[ -z "${QWEN3_DATA-}" ] || case " ${extra[*]-} " in *" --data "*) ;; *) extra+=(--data "$QWEN3_DATA") ;; esac  # it is a setting, too
settings=(-e "$tasks")
[ "$limit" -eq 0 ] || settings+=(--limit "$limit")
settings+=("${extra[@]}")

# ---- the rows: names[i], and flags[i] with the arguments of the paper's setting ----

names=() flags=()
declare -A met=() exists=()  # rows by name; "model Qwen3-8B" and the like for every value in the tables
select_row() {               # TABLE MODEL METHOD W A G
    local -A value=([table]=$1 [model]=$2 [method]=$3 [bits]=${4%.*} [group]=${6:--1})
    local flag="-m $2 -q $3" name=$2_$3 key
    case $3 in
    fp16 | billm) ;;
    smoothquant) flag+=" -b $4 -a $5" name+=_w$4a$5 ;;
    *) flag+=" -b $4 -a $5 -g ${6:--1}" name+=_w$4a$5_g${6:--1} ;;
    esac
    value[row]=$name
    for key in "${!value[@]}"; do exists["$key ${value[$key]}"]=1; done
    [[ $1 != *:* || -n ${wanted[table]-}${wanted[row]-} ]] || return
    for key in "${!wanted[@]}"; do [[ ${wanted[$key]} == *" ${value[$key]} "* ]] || return; done
    [ -z "${met[$name]-}" ] || return  # full precision is in two tables
    met[$name]=1 names+=("$name") flags+=("$flag")
}
while IFS=, read -r file line table model method w a g _; do
    # Cells become words of commands, names of files and numbers; bash runs what stands in the number a[$(COMMAND)].
    [[ "$table,$method,$w,$a,$g" =~ ^([a-z]+:)?[0-9]+,[a-z0-9_]+,[0-9]+(\.[0-9]+)?,[0-9]+,(-1|[0-9]+)?$ && $model =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
        die "$file: line $line: expected table,model,method,wbits,abits,group, found $(printf %q "$table,$model,$method,$w,$a,$g")"
    select_row "$table" "$model" "$method" "$w" "$a" "$g"
done < <(awk 'FNR > 1 { print FILENAME "," FNR "," $0 }' "$paper" "${others[@]}")
for key in "${!wanted[@]}"; do
    read -ra values <<<"${wanted[$key]}"
    for value in "${values[@]}"; do
        [ -n "${exists["$key $value"]-}" ] || wrong_usage "--$key $value: no row of $paper or ${others[*]} has it"
    done
done
[ ${#names[@]} -gt 0 ] || wrong_usage "no row of $paper, or of ${others[*]} with its --table, meets all of these selections"
for argument in "${extra[@]}"; do
    case $argument in --save | --questions)
        [ ${#names[@]} -eq 1 ] || wrong_usage "$argument after --: ${#names[@]} rows would write to one place. HINT: --row NAME" ;;
    esac
done

# ---- a row ----

# shellcheck disable=SC2086
arguments_of() { printf '%q ' ${flags[$1]} "${settings[@]}"; }  # I: all but --json, quoted for a shell

is_locked() { # FILE: by another process; flock's other failures say nothing of that
    [ -e "$1" ] || return 1
    (exec 9>>"$1" || exit 3; flock -n 9) 2>/dev/null
    [ $? -eq 1 ]
}

made_with() { sed -n '1s/^arguments: //p' "$results/${names[$1]}.log" 2>/dev/null; }  # I

state_of() { # I: finished, other (finished, with other settings), running, stopped (without a report) or open
    local file=$results/${names[$1]}
    if [ -e "$file.json" ]; then
        if [ "$(made_with "$1")" = "$(arguments_of "$1")" ]; then echo finished; else echo other; fi
    elif is_locked "$file.log"; then echo running
    elif [ -s "$file.log" ]; then echo stopped
    else echo open; fi
}

duration() { # SECONDS
    if [ "$1" -ge 3600 ]; then echo "$(($1 / 3600)) h $(($1 / 60 % 60)) min"
    elif [ "$1" -ge 60 ]; then echo "$(($1 / 60)) min $(($1 % 60)) s"
    else echo "$1 s"; fi
}

weight_of() { # NAME: the model's size in tenths of 1e9 parameters, which a row's time is about proportional to
    [[ $1 =~ -([0-9]{1,4})(\.([0-9]))?B ]] || { echo 10; return; }
    echo $((10#${BASH_REMATCH[1]}${BASH_REMATCH[3]:-0}))
}

child=""
stop() { # SIGNAL STATUS
    trap '' INT TERM
    [ -z "$child" ] || { kill "$child" 2>/dev/null; wait "$child" 2>/dev/null; }
    echo "reproduce.sh: stopped by $1. HINT: the same command goes on with the row that was running" >&2
    exit "$2"
}

# Returns 0: it is finished, 1: it failed, 2: someone else runs it.
run_row() { # I
    local file=$results/${names[$1]} status=0
    exec 9>>"$file.log" || die "$file.log: the file can't be written"
    flock -w 0.5 9 || status=$?  # not -n: is_locked, called by someone else, holds the lock for an instant
    [ $status -ne 1 ] || return 2
    [ $status -eq 0 ] || die "$file.log: it can't be locked. HINT: --results FOLDER on a file system with flock(2)"
    if [ -e "$file.json" ]; then  # by someone else, since we looked
        [ "$(made_with "$1")" != "$(arguments_of "$1")" ] || return 0
        die "$file.json: another process made it meanwhile, with other settings: $(made_with "$1"). HINT: --results OTHER_FOLDER keeps both"
    fi
    rm -f "$file.json".tmp-*  # what a run left that was killed while it wrote
    echo "arguments: $(arguments_of "$1")" >"$file.log"
    # shellcheck disable=SC2086
    "$qwen3" ${flags[$1]} "${settings[@]}" --json "$file.json" >>"$file.log" 2>&1 </dev/null &
    child=$!
    wait "$child" || status=$?
    child=""
    [ $status -eq 0 ] && [ -e "$file.json" ] && return 0
    [ $status -le 128 ] || echo "qwen3 was ended by signal $((status - 128))" >>"$file.log"
    [ $status -ne 0 ] || echo "qwen3 ended without writing $file.json" >>"$file.log"
    return 1
}

run_rows() { # I...
    local i n=0 status start weight eta sum=0 remaining=0 seconds=0 failed=() elsewhere=0
    [ -x "$qwen3" ] || die "$qwen3 is not there. HINT: make"
    trap 'stop SIGINT 130' INT
    trap 'stop SIGTERM 143' TERM
    for i in "$@"; do remaining=$((remaining + $(weight_of "${names[$i]}"))); done
    for i in "$@"; do
        n=$((n + 1)) start=$SECONDS weight=$(weight_of "${names[$i]}") eta=""
        [ $sum -eq 0 ] || eta="  ETA $(duration $((seconds * remaining / sum)))"
        echo "row $n/$#  ${names[$i]}$eta"
        status=0
        run_row "$i" || status=$?
        remaining=$((remaining - weight))
        case $status in
        0)
            seconds=$((seconds + SECONDS - start)) sum=$((sum + weight))
            sed -nE '/^model +method +W/,$p' "$results/${names[$i]}.log" | sed 's/^/    /'  # qwen3's row
            echo "    finished in $(duration $((SECONDS - start)))" ;;
        1)
            failed+=("$i")
            echo "    failed: $(tail -n 1 "$results/${names[$i]}.log")" ;;
        2)
            elsewhere=$((elsewhere + 1))
            echo "    is being run by another process" ;;
        esac
    done
    exec 9>&-
    echo "$(($# - ${#failed[@]} - elsewhere)) of $# rows finished, ${#failed[@]} failed, $elsewhere left to other processes"
    for i in "${failed[@]}"; do
        echo "failed: ${names[$i]}: $(tail -n 1 "$results/${names[$i]}.log")"
        echo "        $results/${names[$i]}.log"
    done
    [ ${#failed[@]} -eq 0 ]
}

submit_rows() { # I...
    local i list
    command -v sbatch >/dev/null || die "sbatch was not found. HINT: --slurm is for a machine that submits to Slurm"
    list=$(CDPATH="" cd -- "$results" && pwd)/slurm-$(date +%Y%m%d-%H%M%S)-$$.rows
    for i in "$@"; do echo "${names[$i]}"; done >"$list" || die "$list: the list of rows can't be written"
    # shellcheck disable=SC2086
    sbatch --job-name=qwen3-tables --array=1-$# --output="${list%.rows}-%a.out" $sbatch_args <<JOB
#!/usr/bin/env bash
cd $(printf %q "$PWD") || exit 1
exec scripts/reproduce.sh --row "\$(sed -n "\${SLURM_ARRAY_TASK_ID}p" $(printf %q "$list"))" \\
    $(printf '%q ' --results "$results" --tasks "$tasks" --limit "$limit" -- "${extra[@]}")
JOB
}

# ---- what was asked for ----

command -v flock >/dev/null || die "flock was not found. HINT: install util-linux"
unfinished=() other=()
for i in "${!names[@]}"; do
    state=$(state_of "$i")
    [ "$action" != list ] || printf '%-9s %s\n' "$state" "${names[$i]}"
    case $state in
    finished) ;;
    other) other+=("$i") ;;
    *) unfinished+=("$i") ;;
    esac
done
[ "$action" != list ] || exit 0
if [ ${#other[@]} -gt 0 ]; then
    i=${other[0]}
    echo "reproduce.sh: $results: ${#other[@]} of ${#names[@]} rows are finished, but with other settings, for one ${names[$i]}" >&2
    echo "  it was made with  $(made_with "$i" || echo "(its log is gone)")" >&2
    echo "  now asked for is  $(arguments_of "$i")" >&2
    die "HINT: --results OTHER_FOLDER keeps both; removing the .json files (--list calls them other) runs these rows anew"
fi
if [ "$action" = dry-run ]; then
    for i in "${unfinished[@]}"; do
        printf '%q %s--json %q\n' "$qwen3" "$(arguments_of "$i")" "$results/${names[$i]}.json"
    done
    exit 0
fi
echo "${#names[@]} rows selected, $((${#names[@]} - ${#unfinished[@]})) finished before"
[ ${#unfinished[@]} -gt 0 ] || exit 0
mkdir -p "$results" || die "$results: the folder can't be created"
if [ "$action" = slurm ]; then submit_rows "${unfinished[@]}"; else run_rows "${unfinished[@]}"; fi
