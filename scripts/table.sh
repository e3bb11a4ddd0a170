#!/usr/bin/env bash
# Every method at every bit width of the paper on one model, as a Markdown table: what the methods do to it. A cell has the perplexities on
# wikitext2 and on c4, and where the report has it (-- --kl) the divergences from full precision. On the bundled model, which is the
# default and takes minutes, they are those of a toy (see README) and say nothing about Qwen3.
#   usage: scripts/table.sh [-m MODEL] [--data DIR] [--group N] [--limit N] [-n N] [--results DIR] [-- ARGUMENT...]
#   -m MODEL         as ./qwen3 takes it (data/tiny); --data follows it unless it is given ($QWEN3_DATA, else data)
#   --group N        columns that share a grid in the rows with groups (128)
#   --limit N        the first N windows of each set, 0: all (128: all of the bundled wikitext2 and half of its c4)
#   -n N             calibration samples, of 2048 tokens, awq's of 512 (the methods' own: 128 samples, awq's documents)
#   --results DIR    a cell whose report is there is not computed again (results/table-MODEL); refused if it is of another model or data
#   -- ARGUMENT...   further arguments for every run but full precision's, as in -- --kl
# Folders are seen from the project's.
# Environment: QWEN3   the program (./qwen3)
set -u
export LC_ALL=C
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
wrong_usage() { echo "table.sh: $*. HINT: scripts/table.sh -h" >&2; exit 2; }
model=data/tiny data="" group=128 limit=128 samples="" results="" extra=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/table.sh && exit ;;
    --) shift && extra=("$@") && break ;;
    -m | --data | --group | --limit | -n | --results)
        [ -n "${2-}" ] || wrong_usage "$1: expected a value" ;;&
    -m) model=$2 ;;
    --data) data=$2 ;;
    --group) group=$2 ;;
    --limit) limit=$2 ;;
    -n) samples=$2 ;;
    --results) results=$2 ;;
    *) wrong_usage "$1: there is no such option" ;;
    esac
    shift 2
done
for argument in "${extra[@]}"; do
    case $argument in -m | --data | -q | -b | -a | -e | -g | --limit | --json) wrong_usage "$argument: the table has it already" ;; esac
done
model=${model%/}
[[ $group,$limit,${samples:-1} =~ ^[0-9]{1,9},[0-9]{1,9},[0-9]{1,9}$ ]] || wrong_usage "--group $group --limit $limit -n $samples: expected numbers"
qwen3=${QWEN3:-./qwen3}
results=${results:-results/table-$(basename "$model")}
if [ -z "$data" ]; then
    data=${QWEN3_DATA:-data}
    [ "$(readlink -m "$model")" != "$(readlink -m data/tiny)" ] || data=data/tiny
fi
reports=() failed=0
[ -x "$qwen3" ] || { echo "table.sh: $qwen3 is not there. HINT: make" >&2; exit 1; }
mkdir -p "$results" || exit 1
# The cells' names say all but these two; the program's build and machine stand below the table.
whose="model $(readlink -m "$model"), data $(readlink -m "$data")"
[ -e "$results/whose" ] || echo "$whose" >"$results/whose" || exit 1
[ "$(cat "$results/whose")" = "$whose" ] ||
    { echo "table.sh: $results: expected cells of $whose, found $(cat "$results/whose"). HINT: --results ANOTHER_FOLDER" >&2; exit 1; }

value() { grep "\"$2\": {\"metric\"" "$1" | grep -oE '"value": [^,]*' | cut -d' ' -f2 | xargs -r printf '%.4g'; }      # REPORT SET
divergence() { grep '"kl": {"' "$1" | grep -oE "\"$2\": \{\"mean\": [^,]*" | cut -d' ' -f3 | xargs -r printf '%.3g'; }  # REPORT SET

# cell ARGUMENT...: runs the program unless it has; $text is then the cell.
cell() {
    local name json settings=("$@" "${extra[@]}") kl
    case $2 in
    fp16) settings=("$@") ;;  # its divergence is 0
    rtn) ;;
    *) [ -z "$samples" ] || settings+=(-n "$samples") ;;&
    awq) [ -z "$samples" ] || settings+=(-l 512) ;;
    esac
    name=$(printf "%s" "${settings[*]#-q}-limit$limit" | tr -d " " | tr / _)
    json=$results/$name.json
    if [ ! -e "$json" ]; then
        echo "$qwen3 -m $model ${settings[*]}" >&2
        if ! "$qwen3" -m "$model" --data "$data" -e ppl --limit "$limit" --json "$json" "${settings[@]}" >/dev/null 2>"$results/$name.log"
        then
            tail -n 1 "$results/$name.log" >&2
            text=failed failed=1
            return
        fi
    fi
    reports+=("$json")
    text="$(value "$json" wikitext2) / $(value "$json" c4)"
    kl=$(divergence "$json" wikitext2)
    [ -z "$kl" ] || text+=" ($kl / $(divergence "$json" c4))"
}

# row NAME ARGUMENTS...: a line of the table; of empty arguments the cell stays empty.
row() {
    local line="| $1 |" arguments text
    shift
    for arguments in "$@"; do
        text=
        # shellcheck disable=SC2086  # several arguments in one word
        [ -z "$arguments" ] || cell $arguments
        line+=" $text |"
    done
    echo "$line"
}

# per_bits NAME ARGUMENTS: the row of a method at 8, 4, 3 and 2 bits.
per_bits() { row "$1" "" "$2 -b 8" "$2 -b 4" "$2 -b 3" "$2 -b 2" ""; }

echo "| wikitext2 / c4 | 16 bits | 8 bits | 4 bits | 3 bits | 2 bits | 1 bit |"
echo "|---|---|---|---|---|---|---|"
row "full precision" "-q fp16" "" "" "" "" ""
per_bits "rtn" "-q rtn -g -1"
per_bits "gptq" "-q gptq -g -1"
per_bits "awq" "-q awq -g -1"
row "rtn, group $group" "" "-q rtn -g $group -b 8" "-q rtn -g $group -b 4" "-q rtn -g $group -b 3" "-q rtn -g $group -b 2" \
    "-q rtn -g $group -b 1"
per_bits "gptq, group $group" "-q gptq -g $group"
per_bits "gptaq, group $group" "-q gptaq -g $group"
per_bits "foem, group $group" "-q foem -g $group"
per_bits "awq, group $group" "-q awq -g $group"
row "smoothquant, 8-bit activations" "" "-q smoothquant -b 8 -a 8" "-q smoothquant -b 4 -a 8" "" "" ""
row "smoothquant, 4-bit activations" "" "" "-q smoothquant -b 4 -a 4" "" "" ""
row "billm" "" "" "" "" "" "-q billm"

[ ${#reports[@]} -eq 0 ] && exit 1
echo
echo "$(basename "$model") on $data, $([ "$limit" -eq 0 ] && echo all windows || echo "the first $limit windows of each set"); perplexities, in parentheses" \
    "mean KL divergence from full precision in nats, if it was measured"
grep -ohE '"total": [0-9.]+' "${reports[@]}" | awk -v cells=${#reports[@]} '{ s += $2 } END { printf "%d cells, %.0f s in all; ", cells, s }'
of_all() { grep -ohE "\"$1\": \"[^\"]*\"" "${reports[@]}" | cut -d'"' -f4 | sort -u | paste -sd';' | sed 's/;/; /g'; }  # KEY
echo "$(of_all precision), commit $(of_all commit); $(of_all device)"
exit $failed
